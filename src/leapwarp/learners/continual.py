"""WarpGrad for continual learning (section 3(c.2), appendices D and K): warps under which a learner does not forget."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from leapwarp.inner import adapt, fresh_stats, gradient
from leapwarp.learners.base import Info, Learner, State, path_info
from leapwarp.optim import Optimizer
from leapwarp.problem import Batch, Problem, Task, held_out_batch
from leapwarp.trees import Params, add_scaled, partition, spread, zeros_like

Losses = Callable[[Params, Params, Batch, Batch], Tensor]
"""(task parameters [point, ...], warps [run, ...], mini-batches [point, batch, *], held-out data
[point, subtask, n, *]) -> the meta-losses [point, subtask], differentiable in the warps"""


def weights(subtasks: int, steps: int, printed: bool = False) -> Tensor:
    """The weight of sub-task i's loss at a point of sub-task t, where each sub-task has `steps` = n points. -> [t, i]

    It is 1 / (n (T - i + 1)) for i <= t, with i from 1. Sub-task i counts at n (T - i + 1) points, so its weights sum
    to 1, as the text below equation 18 explains. With `printed`, i is replaced by t, as in the equation. The weights of
    the first sub-task then sum to 1 + 1/2 + ... + 1/T, and those of the last to 1.
    """
    remaining = subtasks - torch.arange(subtasks, dtype=torch.float64)
    table = (1 / (steps * remaining)).expand(subtasks, subtasks)
    return torch.tril(table.T if printed else table)


def after_step(problem: Problem, inner: Optimizer) -> Losses:
    """Meta-losses after one step from each point (equation 3), differentiable through the step."""

    def losses(theta: Params, warp: Params, batch: Batch, held_out: Batch) -> Tensor:
        theta = {name: leaf.detach().requires_grad_() for name, leaf in theta.items()}
        fixed, stats = spread(warp, len(batch.y)), fresh_stats(problem, len(batch.y), batch.y.device)
        _, grads = gradient(problem, theta, fixed, stats, batch, differentiable=True)
        stepped, _ = inner.update(theta, grads, inner.init(theta))
        return at_point(problem)(stepped, warp, batch, held_out)

    return losses


def at_point(problem: Problem) -> Losses:
    """Meta-losses at the points themselves, as equation 14 prints them."""

    def losses(theta: Params, warp: Params, batch: Batch, held_out: Batch) -> Tensor:
        n, subtasks = held_out.y.shape[:2]
        full, stats = {**theta, **spread(warp, n)}, fresh_stats(problem, n, batch.y.device)
        each = [Batch(held_out.x[:, i], held_out.y[:, i]) for i in range(subtasks)]
        return torch.stack([problem.loss(full, stats, one).loss for one in each], 1)

    return losses


def continual_warp(
    problem: Problem,
    inner: Optimizer,
    outer: Optimizer,
    subtasks: int,
    steps: int,
    losses: Losses,
    printed_weights: bool = False,
) -> Learner:
    """Meta-train warps for sequences of sub-tasks, with a fixed initialisation (WarpGrad equations 14 and 18).

    A task is a sequence of sub-tasks: mini-batch k belongs to sub-task number k // steps, and `x_test` and `y_test`
    have equally many points of each sub-task, in order. The path theta_0, ..., theta_K of gradient descent goes through
    all sub-tasks. At each of its points, the objective of the warps has the losses of the current and all earlier
    sub-tasks. A run's warps take one step for its meta-batch, along the gradient of the mean over tasks of

        sum_t sum_{k in t} sum_{i <= t} w_i L_i(theta_k),

    where L_i is computed after one step from theta_k on its own mini-batch, or at theta_k itself, depending on
    `losses`. All points of a sub-task, of all tasks, go through the network at once.

    Args:
        steps: gradient steps on each sub-task, n.
        losses: `after_step`, `at_point`, or a faster version of them for a model.
        printed_weights: see `weights`.
    """
    table, everything = weights(subtasks, steps, printed_weights), subtasks * steps

    def init(params: Params) -> State:
        warp, theta = partition(params, "warp")
        return {"params": theta, "warp": warp, "outer": outer.init(warp)}

    def start(state: State, tasks: Task) -> tuple[Params, Params]:
        n_tasks = len(tasks.index)
        return spread(state["params"], n_tasks), spread(state["warp"], n_tasks)

    def step(state: State, tasks: Task, generators: Sequence[torch.Generator]) -> tuple[State, Info]:
        if (rows := held_out_batch(tasks).rows) is not None:
            raise ValueError(
                f"the held-out sets have {sorted(set(rows.tolist()))} rows; needed the same number for all tasks, with "
                "equally many of each sub-task. Give held_out of equal sizes."
            )
        path: list[Params] = []
        begin, fixed = start(state, tasks)
        adapted = adapt(problem, inner, begin, fixed, tasks, everything, observe=lambda k, at, stats: path.append(at))
        runs, n_tasks, device = len(generators), len(tasks.index), tasks.x.device
        held_out = [part.unflatten(1, (subtasks, -1)) for part in (tasks.x_test, tasks.y_test)]
        warp = {name: leaf.detach().requires_grad_() for name, leaf in state["warp"].items()}
        total, seen = zeros_like(state["warp"]), []
        for t in range(subtasks):
            now = slice(t * steps, (t + 1) * steps)
            theta = {name: torch.stack([at[name] for at in path[now]], 1).flatten(0, 1) for name in begin}
            who = torch.arange(n_tasks, device=device).repeat_interleave(steps)
            k = torch.arange(now.start, now.stop, device=device).repeat(n_tasks)
            so_far = Batch(*(part[who, : t + 1] for part in held_out))
            value = losses(theta, warp, problem.draw(tasks, who, k), so_far)
            value = (value * table[t, : t + 1].to(value)).sum(1)
            grads = torch.autograd.grad(value.sum() * runs / n_tasks, list(warp.values()))
            total = add_scaled(total, 1.0, dict(zip(warp, grads, strict=True)))
            seen.append(value.detach().view(runs, -1))
        moved, outer_state = outer.update(state["warp"], total, state["outer"])
        after = {"params": state["params"], "warp": moved, "outer": outer_state}
        return after, path_info(adapted) | {"replay_loss": torch.cat(seen, 1).flatten()}

    return Learner(init, step, start, draws=everything)
