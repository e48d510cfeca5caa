"""Hard attention to the task (Serrà et al., 2018), for a network of convolutional blocks, with tasks that come back.

Each task learns a gate for every filter of every block, a = sigmoid(s e), with its own embedding e. Weights between
filters that other tasks use are not changed.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from leapwarp import inner
from leapwarp.learners.base import State
from leapwarp.learners.visits import Sharing
from leapwarp.optim import Optimizer, cosine_sgd
from leapwarp.problem import Batch, Loss, Problem
from leapwarp.trees import Params, repeat

EMBEDDING, OTHERS, STEP, BATCHES = "embedding", "others", "anneal.step", "anneal.batches"
CLIP = 10_000.0  # norm of the gradient
BOUND = 50.0  # of s e in the compensation
LARGEST = 6.0  # absolute value of an embedding


class Attention(NamedTuple):
    blocks: int
    filters: int
    s_max: float = 400.0
    """steepest gate; HAT's code"""
    weight: float = 0.75
    """of the regulariser, lambda; HAT's code"""


def scale(stats: Params, params: Params, s_max: float) -> Tensor:
    """The steepness s at a step of an epoch of B batches: from 1 / s_max at the first to s_max at the last. [task]"""
    batches = params[BATCHES]
    share = torch.where(batches > 1, (stats[STEP] % batches) / (batches - 1).clamp_min(1), 1.0)
    return 1 / s_max + (s_max - 1 / s_max) * share


def gates(params: Params, s: Tensor, blocks: int) -> list[Tensor]:
    """The gates of each block, [task, filter]."""
    return [torch.sigmoid(s[:, None] * params[f"{EMBEDDING}.{block}"]) for block in range(blocks)]


def regulariser(own: list[Tensor], others: list[Tensor]) -> Tensor:
    """Of the filters that no other task uses, the share that this task uses. Lists of [task, filter] -> [task]

    If other tasks use every filter, the regulariser is 0.
    """
    used = torch.stack([(a * (1 - o)).sum(1) for a, o in zip(own, others, strict=True)]).sum(0)
    free = torch.stack([(1 - o).sum(1) for o in others]).sum(0)
    return torch.where(free > 0, used / free.clamp_min(1e-12), 0.0)


def gated(problem: Problem, about: Attention) -> Problem:
    """The problem with gates after each block, through the scales `warp.<block>.scale.*` of the network.

    Training anneals the gates over each epoch and adds the regulariser. Evaluation uses the largest steepness s_max.
    """

    def through(params: Params, own: list[Tensor]) -> Params:
        plain = {
            name: leaf
            for name, leaf in params.items()
            if name.split(".", 1)[0] not in (EMBEDDING, OTHERS) and name != BATCHES
        }
        for block, gate in enumerate(own):
            plain[f"warp.{block}.scale.weight"] = gate
            plain[f"warp.{block}.scale.bias"] = torch.zeros_like(gate)
        return plain

    def loss(params: Params, stats: Params, batch: Batch) -> Loss:
        rest = {name: leaf for name, leaf in stats.items() if name != STEP}
        own = gates(params, scale(stats, params, about.s_max), about.blocks)
        found = problem.loss(through(params, own), rest, batch)
        others = [params[f"{OTHERS}.{block}"] for block in range(about.blocks)]
        value = found.loss + about.weight * regulariser(own, others)
        return Loss(value, found.accuracy, found.stats | {STEP: stats[STEP] + 1})

    def evaluate(params: Params, stats: Params, batch: Batch) -> Loss:
        own = gates(params, torch.full_like(stats[STEP], about.s_max), about.blocks)
        return problem.evaluate(through(params, own), stats, batch)

    return Problem(problem.draw, loss, evaluate, lambda: problem.stats() | {STEP: torch.zeros(())})


def compensate(grad: Tensor, embedding: Tensor, s: Tensor, s_max: float) -> Tensor:
    """An embedding's gradient, corrected for the annealing of its gate. grad and embedding [task, filter], s [task]"""
    s = s[:, None]
    ratio = (torch.cosh((s * embedding).clamp(-BOUND, BOUND)) + 1) / (torch.cosh(embedding) + 1)
    return grad * s_max / s * ratio


def allowed(name: str, params: Params) -> Tensor | float:
    """The factor of a parameter's gradient: 1 - min(a_out, a_in), with the gates of other tasks.

    A convolution's weight connects two filters. Biases, batch norm's parameters and the weights of the first block
    belong to one filter, so their factor is 1 - a_out. Heads and embeddings belong to the task and have factor 1.
    """
    group, block, *rest = name.split(".")
    if group != "task":
        return 1.0
    out = params[f"{OTHERS}.{block}"]  # [task, filter]
    if rest != ["conv", "weight"]:
        return 1 - out
    out = out[:, :, None, None, None]  # [task, out, in, 3, 3]
    if block == "0":
        return 1 - out
    into = params[f"{OTHERS}.{int(block) - 1}"][:, None, :, None, None]
    return 1 - torch.minimum(out, into)


def masked_gradient(about: Attention) -> inner.Gradient:
    """The gradient, masked by the gates of other tasks; that of embeddings is corrected for the annealing."""

    def gradient(
        problem: Problem, params: Params, fixed: Params, stats: Params, batch: Batch, differentiable: bool = False
    ) -> tuple[Loss, Params]:
        everything = {**params, **fixed}
        s = scale(stats, everything, about.s_max)
        result, grads = inner.gradient(problem, params, fixed, stats, batch, differentiable)
        for name, grad in grads.items():
            if name.split(".", 1)[0] == EMBEDDING:
                grads[name] = compensate(grad, params[name], s, about.s_max)
            else:
                grads[name] = grad * allowed(name, everything)
        norm = torch.stack([grad.square().sum() for grad in grads.values()]).sum().sqrt()
        shrink = (CLIP / norm.clamp_min(1e-12)).clamp(max=1.0)
        return result, {name: grad * shrink for name, grad in grads.items()}

    return gradient


def bounded(learning_rate: float, steps: int) -> Optimizer:
    """Cosine descent that keeps embeddings within +-6."""
    plain = cosine_sgd(learning_rate, steps)

    def update(params: Params, grads: Params, state: dict) -> tuple[Params, dict]:
        params, state = plain.update(params, grads, state)
        return {
            name: leaf.clamp(-LARGEST, LARGEST) if name.split(".", 1)[0] == EMBEDDING else leaf
            for name, leaf in params.items()
        }, state

    return Optimizer(plain.init, update)


def used_by_others(state: State, number: int | None, about: Attention) -> Params:
    """The maximum, over all tasks met except `number`, of the gates at s_max. A task's own gates never mask it."""
    first = next(iter(state["own"].values()))
    found = {f"{OTHERS}.{block}": torch.zeros_like(first[f"{EMBEDDING}.{block}"]) for block in range(about.blocks)}
    for other, own in state["own"].items():
        if int(other) == number or not state["met"][int(other)]:
            continue
        for block in range(about.blocks):
            mask = torch.sigmoid(about.s_max * own[f"{EMBEDDING}.{block}"])
            found[f"{OTHERS}.{block}"] = torch.maximum(found[f"{OTHERS}.{block}"], mask)
    return found


def hat_sharing(new_head: Callable[[int, torch.Generator], Params], about: Attention) -> Sharing:
    """One encoder; each task owns a head and embeddings, drawn from N(0, 1).

    Args:
        new_head: (classes, stream) -> parameters of a head.
    """

    def new(classes: int, stream: torch.Generator) -> Params:
        head = new_head(classes, stream)  # first: it is then the same as that of other methods
        names = [f"{EMBEDDING}.{block}" for block in range(about.blocks)]
        return head | {name: torch.randn(about.filters, generator=stream) for name in names}

    def join(state: State, number: int | None, own: Params, batches: int) -> tuple[Params, Params]:
        others = used_by_others(state, number, about)
        like = next(iter(others.values()))
        fixed = repeat(others, 1) | {BATCHES: torch.full((1,), float(batches)).to(like)}
        return repeat(state["shared"] | own, 1), fixed

    def keep(state: State, number: int, params: Params) -> State:
        shared = {name: params[name] for name in state["shared"]}
        own = {name: leaf for name, leaf in params.items() if name not in shared}
        return state | {"shared": shared, "own": state["own"] | {str(number): own}}

    return Sharing(new, join, keep, masked_gradient(about), bounded)
