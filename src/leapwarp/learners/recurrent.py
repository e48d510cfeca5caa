"""WarpGrad in a stream of tasks (Algorithm 3): task parameters and warps learn from the same batches."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from leapwarp.learners.base import Info, Learner, State
from leapwarp.optim import Optimizer
from leapwarp.trees import Params, add_scaled, map_tree, zeros_like

Gradient = Callable[[Params, Any], tuple[Tensor, Params, Tensor]]
"""(parameters [run, ...], random draws of a batch) -> losses [run, episode], gradient [run, ...], rewards [run,
episode]"""
Clip = Callable[[Params], Params]


class Block(NamedTuple):
    """Consecutive batches, which take the place of a `Task`."""

    index: Tensor
    """[run] number of the block"""
    batches: Sequence
    """the random draws of each batch, with the episodes of all runs, run by run"""


def stream(gradient: Gradient, outer: Optimizer, warp_outer: Optimizer, eta: int, clip: Clip) -> Learner:
    """Continual meta-training (WarpGrad Algorithm 3), or plain training if no parameter is named `warp.*`.

    With every batch the task parameters take one step along the gradient of the task loss C. The gradient of the
    meta-loss L with respect to the warps, at the same parameters, is added to a sum. After `eta` batches the warps take
    one step along the mean of these gradients, and the sum starts at zero again. Here L and C are the same loss, and L
    is evaluated at the task parameters themselves, without the step of equation 3 (equation 13). So one backward pass
    gives both gradients. With `eta` = 1 warps are trained as all other parameters are, except that the gradient of the
    warps and that of the task parameters are clipped separately.

    One step of the learner is one `Block` of batches. The learner's `start` returns the parameters unchanged, since it
    is the hidden state that adapts to a task.

    Args:
        gradient: see `Gradient`.
        outer, warp_outer: the optimizers of the task parameters and of the warps.
        eta: batches for each update of the warps.
        clip: applied to each of the two gradients, [run, ...], before its update.
    """
    if eta < 1:
        raise ValueError(f"eta, the number of batches for an update of the warps, is {eta}; needed at least 1.")

    def init(params: Params) -> State:
        warp = {name: leaf for name, leaf in params.items() if name.startswith("warp.")}
        theta = {name: leaf for name, leaf in params.items() if name not in warp}
        state = {"params": theta, "warp": warp, "outer": outer.init(theta), "warp_outer": warp_outer.init(warp)}
        return state | {"sum": zeros_like(warp), "count": 0}

    def update(state: State, draws: Any) -> tuple[State, Tensor, Tensor]:
        warp = state["warp"]
        loss, grads, reward = gradient({**state["params"], **warp}, draws)
        params, outer_state = outer.update(
            state["params"], clip({name: grads[name] for name in state["params"]}), state["outer"]
        )
        after = state | {"params": params, "outer": outer_state}
        if not warp:
            return after, loss, reward
        total, count = add_scaled(state["sum"], 1.0, {name: grads[name] for name in warp}), state["count"] + 1
        if count == eta:
            mean = clip(map_tree(lambda leaf: leaf / eta, total))
            after["warp"], after["warp_outer"] = warp_outer.update(warp, mean, state["warp_outer"])
            total, count = zeros_like(warp), 0
        return after | {"sum": total, "count": count}, loss, reward

    def step(state: State, tasks: Any, generators: Sequence[torch.Generator]) -> tuple[State, Info]:
        losses, rewards = [], []
        for draws in tasks.batches:
            state, loss, reward = update(state, draws)
            losses.append(loss.mean(1))
            rewards.append(reward.mean(1))
        loss = torch.stack(losses, 1)
        steps = torch.full(loss.shape[:1], loss.shape[1], device=loss.device)
        return state, {"loss": loss, "steps": steps, "return": torch.stack(rewards, 1)}

    def start(state: State, tasks: Any) -> tuple[Params, Params]:
        return state["params"], state["warp"]

    return Learner(init, step, start)
