"""Optimizers as pairs of functions, for the inner and the outer loop. Updates are differentiable in the gradients."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from leapwarp.trees import Params, add_scaled, map_tree, per_task, zeros_like


class Optimizer(NamedTuple):
    init: Callable[[Params], Any]
    """params -> state"""
    update: Callable[[Params, Params, Any], tuple[Params, Any]]
    """(params, grads, state) -> (params, state)"""


def root(square: Tensor) -> Tensor:
    """The square root, with slope 0 at 0.

    The slope of `sqrt` is infinite there. So the update of a parameter whose gradient is zero, as behind a ReLU that
    gives zeros, would have the derivative infinity times zero, which is nan.
    """
    zero = square == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, square).sqrt())


def sgd(learning_rate: float) -> Optimizer:
    """Gradient descent: p <- p - learning_rate * g."""

    def update(params: Params, grads: Params, state: Any) -> tuple[Params, Any]:
        return add_scaled(params, -learning_rate, grads), state

    return Optimizer(lambda params: {}, update)


def scaled_sgd(rates: Params) -> Optimizer:
    """Gradient descent with a learning rate for every parameter: p <- p - rates * g, differentiable in the rates."""

    def update(params: Params, grads: Params, state: Any) -> tuple[Params, Any]:
        return map_tree(lambda p, g, rate: p - rate * g, params, grads, rates), state

    return Optimizer(lambda params: {}, update)


def momentum_sgd(learning_rate: float | Tensor, momentum: float | Tensor) -> Optimizer:
    """Gradient descent with momentum: v <- momentum * v + g, p <- p - learning_rate * v; the state is v.

    Both numbers may be tensors, [task] or [1] for all tasks, and the update is differentiable in them.
    """

    def times(factor: float | Tensor, leaf: Tensor) -> Tensor:
        return (per_task(factor, leaf) if isinstance(factor, Tensor) else factor) * leaf

    def update(params: Params, grads: Params, state: Params) -> tuple[Params, Params]:
        velocity = map_tree(lambda v, g: times(momentum, v) + g, state, grads)
        return map_tree(lambda p, v: p - times(learning_rate, v), params, velocity), velocity

    return Optimizer(zeros_like, update)


def cosine_sgd(learning_rate: float, steps: int) -> Optimizer:
    """Gradient descent whose rate falls from `learning_rate` to 0 in `steps` steps along half a cosine.

    The rate of step k is learning_rate (1 + cos(pi k / steps)) / 2 (Loshchilov and Hutter, 2017, without restarts).
    """

    def update(params: Params, grads: Params, state: Any) -> tuple[Params, Any]:
        rate = 0.5 * learning_rate * (1 + math.cos(math.pi * min(state["count"], steps) / steps))
        return add_scaled(params, -rate, grads), {"count": state["count"] + 1}

    return Optimizer(lambda params: {"count": 0}, update)


def adam(learning_rate: float, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8) -> Optimizer:
    """Adam (Kingma and Ba, 2015, Algorithm 1)."""

    def init(params: Params) -> Any:
        return {"mean": zeros_like(params), "square": zeros_like(params), "count": 0}

    def update(params: Params, grads: Params, state: Any) -> tuple[Params, Any]:
        count = state["count"] + 1
        mean = map_tree(lambda m, g: beta1 * m + (1 - beta1) * g, state["mean"], grads)
        square = map_tree(lambda v, g: beta2 * v + (1 - beta2) * g * g, state["square"], grads)

        def move(p: torch.Tensor, m: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            scale = root(v / (1 - beta2**count)) + epsilon
            return p - learning_rate * (m / (1 - beta1**count)) / scale

        return map_tree(move, params, mean, square), {"mean": mean, "square": square, "count": count}

    return Optimizer(init, update)


def rmsprop(learning_rate: float, decay: float, epsilon: float) -> Optimizer:
    """RMSProp: v <- decay * v + (1 - decay) g^2, p <- p - learning_rate * g / (sqrt(v) + epsilon); the state is v."""

    def update(params: Params, grads: Params, state: Params) -> tuple[Params, Params]:
        square = map_tree(lambda v, g: decay * v + (1 - decay) * g * g, state, grads)
        return map_tree(lambda p, g, v: p - learning_rate * g / (root(v) + epsilon), params, grads, square), square

    return Optimizer(zeros_like, update)
