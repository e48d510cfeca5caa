"""WarpGrad: warp layers that precondition every step of adaptation, learnt offline from a buffer of parameters."""

from typing import Any

import torch
from torch import Tensor

from leapwarp.inner import Step, adapt, fresh_stats, gradient
from leapwarp.learners.base import Info, Learner, State, path_info
from leapwarp.learners.leap import leap_fold
from leapwarp.optim import Optimizer
from leapwarp.problem import Batch, Problem, Task, map_tasks
from leapwarp.trees import Params, map_tree, mean_tasks, partition, repeat, take, zeros_like


def warp_gradient(
    problem: Problem,
    inner: Optimizer,
    params: Params,
    warp: Params,
    task_batch: Batch,
    meta_batch: Batch,
    exact: bool = True,
) -> tuple[Tensor, Params]:
    """The gradient of the warp objective at given task parameters (WarpGrad equation 3).

    With phi the warp parameters and theta a task's, held fixed, the objective of a stack is

        L(phi) = sum_theta L_meta(theta - alpha grad_theta L_task(theta; phi); phi),

    differentiated in full: through the warp layers of the outer loss and through the inner gradient, which takes one
    second-order product and does not depend on the length of the trajectory that theta comes from.

    Args:
        inner: the task optimizer whose first update is the step in the objective.
        params: stack of task parameters. warp: warp parameters of one task, shared by the stack.
        task_batch, meta_batch: batches for L_task and L_meta.
        exact: False detaches the inner gradient, which leaves the path through the outer loss alone: the paper's
            approximation (Sec. 2), and what the released code computes in either case.

    Returns:
        L_meta [task] after the step, and the gradient of their sum, shaped as `warp`.
    """
    n_tasks, device = len(task_batch.y), task_batch.y.device
    leaves = {name: leaf.detach().requires_grad_() for name, leaf in warp.items()}
    theta = {name: leaf.detach().requires_grad_() for name, leaf in params.items()}
    fixed, stats = repeat(leaves, n_tasks), fresh_stats(problem, n_tasks, device)
    _, grads = gradient(problem, theta, fixed, stats, task_batch, differentiable=exact)
    stepped, _ = inner.update(theta, grads, inner.init(theta))
    meta = problem.loss({**stepped, **fixed}, stats, meta_batch)
    warp_grads = torch.autograd.grad(meta.loss.sum(), list(leaves.values()))
    return meta.loss.detach(), dict(zip(leaves, warp_grads, strict=True))


def warp_leap(
    problem: Problem,
    inner: Optimizer,
    outer: Optimizer,
    steps: int,
    size: int = 5,
    eta: int = 1,
    points: int | None = None,
    scale: float = 1.0,
    exact: bool = True,
) -> Learner:
    """Warp-Leap (WarpGrad Algorithm 2): offline meta-training of warps, and a Leap initialisation (Eqs. 9 and 12).

    A meta-update adapts to every task of the meta-batch with the warps fixed, keeps every theta_k, k < steps, in a
    buffer, and then goes through the buffer in random order: after each `eta` points, the warps take one step along
    the sum of their exact gradients. Last, the initialisation takes one step along the Leap gradient of the paths.

    The warps are the parameters named `warp.*`.

    Args:
        problem, inner, outer: as in `leap`; `outer` moves both warps and initialisation, each with its own state.
        steps: gradient steps on each task, K.
        size: tasks adapted at a time.
        eta: points of the buffer for each update of the warps.
        points: how many points of the buffer to replay, drawn without replacement; all of them where None. What is
            left when `eta` does not divide them makes a smaller last step.
        scale: lambda, the weight of the Leap objective: it multiplies the gradient of the initialisation.
        exact: see `warp_gradient`.
    """
    if eta < 1 or (points is not None and points < 1):
        raise ValueError(f"the replay needs eta and points of at least 1, got {eta} and {points}.")
    fold = leap_fold()

    def init(params: Params) -> State:
        warp, theta = partition(params, "warp")
        return {"params": theta, "warp": warp, "outer": outer.init(theta), "warp_outer": outer.init(warp)}

    def collect(theta: Params, warp: Params, tasks: Task) -> tuple[Params, Params, Info]:
        """Leap's gradient, and the buffer: one preallocated tensor a parameter, [task, step, ...]."""
        n_tasks = len(tasks.index)
        buffer = map_tree(lambda leaf: leaf.new_empty(n_tasks, steps, *leaf.shape), theta)

        def one(tasks: Task, part: slice) -> tuple[Params, Info]:
            mine = take(buffer, part)

            def keep(total: Params, before: Step, after: Step) -> Params:
                for name, leaf in before.params.items():
                    mine[name][:, before.number] = leaf
                return fold(total, before, after)

            n = len(tasks.index)
            start = repeat(theta, n)
            adapted = adapt(problem, inner, start, repeat(warp, n), tasks, steps, keep, zeros_like(start))
            return adapted.total, path_info(adapted)

        total, info = map_tasks(one, tasks, size)
        return mean_tasks(total), buffer, info

    def replay(warp: Params, state: Any, buffer: Params, tasks: Task, order: Tensor) -> tuple[Params, Any, Tensor]:
        """Update the warps on points of the buffer, `eta` at a time. -> and the meta-losses [point]"""
        losses = []
        for chosen in order.split(eta):
            who, k = chosen // steps, chosen % steps
            theta = {name: leaf[who, k] for name, leaf in buffer.items()}
            task_batch = problem.draw(tasks, who, steps + 1 + 2 * k)
            meta_batch = problem.draw(tasks, who, steps + 2 + 2 * k)
            loss, grads = warp_gradient(problem, inner, theta, warp, task_batch, meta_batch, exact)
            warp, state = outer.update(warp, grads, state)
            losses.append(loss)
        return warp, state, torch.cat(losses)

    def step(state: State, tasks: Task, generator: torch.Generator) -> tuple[State, Info]:
        leap_grads, buffer, info = collect(state["params"], state["warp"], tasks)
        everything = len(tasks.index) * steps
        order = torch.randperm(everything, generator=generator)[: points or everything].to(tasks.x.device)
        warp, warp_outer, meta_loss = replay(state["warp"], state["warp_outer"], buffer, tasks, order)
        grads = map_tree(lambda leaf: scale * leaf, leap_grads)
        theta, outer_state = outer.update(state["params"], grads, state["outer"])
        state = {"params": theta, "warp": warp, "outer": outer_state, "warp_outer": warp_outer}
        return state, info | {"replay_loss": meta_loss}

    def start(state: State, tasks: Task) -> tuple[Params, Params]:
        n_tasks = len(tasks.index)
        return repeat(state["params"], n_tasks), repeat(state["warp"], n_tasks)

    return Learner(init, step, start, draws=3 * steps + 1)
