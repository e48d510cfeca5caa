"""Online WarpGrad (Algorithm 1) for the warps only, with a given initialisation for each task."""

from collections.abc import Callable, Sequence

import torch

from leapwarp.inner import adapt
from leapwarp.learners.base import Info, Learner, State, path_info
from leapwarp.learners.warpgrad import warp_gradient
from leapwarp.optim import Optimizer
from leapwarp.problem import Problem, Task
from leapwarp.trees import Params, spread


def online_warp(
    problem: Problem,
    inner: Optimizer,
    outer: Optimizer,
    steps: int,
    begin: Callable[[Params, Task], Params],
) -> Learner:
    """WarpGrad Algorithm 1: one update of a run's warps for its meta-batch, along the sum of its gradients.

    The warps are constant while the meta-batch is learnt. The algorithm adds a gradient at each step. Here the
    gradients at all points of all paths are computed together when the paths are complete, and the sum is the same.

    Args:
        problem, inner, outer: the family of tasks, and the optimizers of the tasks and of the warps.
        steps: gradient steps on each task, K.
        begin: (warps as a stack, tasks) -> the tasks' initial parameters, a stack.
    """

    def init(params: Params) -> State:
        return {"warp": params, "outer": outer.init(params)}

    def start(state: State, tasks: Task) -> tuple[Params, Params]:
        warp = spread(state["warp"], len(tasks.index))
        return begin(warp, tasks), warp

    def step(state: State, tasks: Task, generators: Sequence[torch.Generator]) -> tuple[State, Info]:
        path: list[Params] = []
        theta, warp = start(state, tasks)
        adapted = adapt(problem, inner, theta, warp, tasks, steps, observe=lambda k, params, stats: path.append(params))
        points = {name: torch.stack([at[name] for at in path[:-1]], 1).flatten(0, 1) for name in theta}
        who = torch.arange(len(tasks.index), device=tasks.order.device).repeat_interleave(steps)
        k = torch.arange(steps, device=tasks.order.device).repeat(len(tasks.index))
        batch = problem.draw(tasks, who, k)
        loss, grads = warp_gradient(problem, inner, points, state["warp"], batch, batch)
        moved, outer_state = outer.update(state["warp"], grads, state["outer"])
        return {"warp": moved, "outer": outer_state}, path_info(adapted) | {"replay_loss": loss}

    return Learner(init, step, start, draws=steps)
