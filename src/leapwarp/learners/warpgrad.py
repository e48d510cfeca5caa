"""WarpGrad: warp layers that precondition every step of adaptation, meta-learned at the points of adaptation's paths.

`warp_leap` stores points of the paths and replays them (offline, Algorithm 2). `warp_leap_online` uses each point once,
when it is reached (online, Algorithm 1). Both learn the initialisation by Leap. `warp_maml` is online, and learns the
initialisation by MAML.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from leapwarp.given import check_given
from leapwarp.host import captured
from leapwarp.inner import Fold, Step, adapt, fresh_stats, gradient
from leapwarp.learners.base import Info, Learner, State, check_streams, path_info
from leapwarp.learners.leap import leap_fold
from leapwarp.learners.maml import row_gradients
from leapwarp.modules import check_once_only, told
from leapwarp.optim import Optimizer, momentum_sgd, sgd
from leapwarp.problem import Batch, Problem, Task, held_out_batch, map_tasks
from leapwarp.trees import (
    Params,
    add_scaled,
    group_of,
    map_tree,
    mean_rows,
    n_runs,
    partition,
    per_task,
    spread,
    take,
    without_task_only,
    zeros_like,
)

Split = tuple[Params, Params]
"""(task parameters, warp parameters)"""


class Rates(NamedTuple):
    """A task learning rate and momentum that are learnt with the warps, a scalar each (WarpGrad appendix G)."""

    learning_rate: float
    """its initial value"""
    momentum: float = 0.0
    """its initial value"""
    outer_lr: float = 0.001
    clip: float = 0.001
    """bound on the absolute value of the meta-gradient of either"""


@told()
def warp_gradient(
    problem: Problem,
    inner: Optimizer,
    params: Params,
    warp: Params,
    task_batch: Batch,
    meta_batch: Batch,
    order: int = 2,
    rates: Params | None = None,
    velocity: Params | None = None,
    share: Callable[[Params, int], Params] = spread,
    stats: Params | None = None,
) -> tuple[Tensor, Params]:
    """The gradient of the warp objective at given task parameters (WarpGrad equation 3).

    Let phi be the warp parameters and theta a task's parameters, which are constant. The objective of a stack is

        L(phi) = sum_theta L_meta(theta - alpha grad_theta L_task(theta; phi); phi),

    It is differentiated through the warp layers in the outer loss and through the inner gradient, which takes one
    second-order product. The cost does not depend on the length of the path that theta comes from.

    Args:
        inner: the task optimizer whose first update is the step in the objective.
        params: task parameters [run x task, ...], run by run, as many for each run.
        warp: warp parameters [run, ...].
        task_batch, meta_batch: batches for L_task and L_meta.
        order: 2 for the gradient of the objective. 1 detaches the inner gradient: the paper's approximation (Sec. 2),
            which the released code computes for its full objective. 0 leaves out the step, L_meta(theta; phi), which
            the released code computes for its approximation.
        rates: `learning_rate` and `momentum`, [run] each, in place of `inner`. They have gradients too.
        velocity: with `rates`, the momentum buffer of the task at `params`.
        share: (warps [run, ...], number of tasks) -> the warps of each task, if the tasks are only a part of those of
            all runs.
        stats: initial running statistics [task, ...]; None for fresh ones.

    Returns:
        L_meta [task] after the step, and the gradient of its sum, shaped as `warp` (and `rates`).
    """
    n_tasks, device = len(task_batch.y), task_batch.y.device
    leaves = {name: leaf.detach().requires_grad_() for name, leaf in (warp | (rates or {})).items()}
    theta = {name: leaf.detach().requires_grad_() for name, leaf in params.items()}
    shared = share(leaves, n_tasks)
    fixed = {name: shared[name] for name in warp}
    stats = fresh_stats(problem, n_tasks, device) if stats is None else stats
    stepped = theta
    if order:
        _, grads = gradient(problem, theta, fixed, stats, task_batch, differentiable=order == 2)
        if order == 2:
            check_once_only(list(grads.values()))
        state: Any = inner.init(theta)
        if rates is not None:
            inner, state = momentum_sgd(shared["learning_rate"], shared["momentum"]), velocity or zeros_like(theta)
        stepped, _ = inner.update(theta, grads, state)
    meta = problem.loss({**stepped, **fixed}, stats, meta_batch)
    grads = torch.autograd.grad(meta.loss.sum(), list(leaves.values()))
    return meta.loss.detach(), dict(zip(leaves, grads, strict=True))


def _split(params: Params) -> Split:
    warp, theta = partition(params, "warp")
    return theta, warp


def _pull(outer: Optimizer, state: State, leap_grads: Params, scale: float) -> State:
    """The initialisation after a step along Leap's gradient. Task embeddings always start at their first values."""
    fixed = lambda name: group_of(name) == "embedding"  # noqa: E731
    grads = {name: torch.zeros_like(g) if fixed(name) else scale * g for name, g in leap_grads.items()}
    params, outer_state = outer.update(state["params"], without_task_only(grads), state["outer"])
    return {"params": params, "outer": outer_state}


def _start(state: State, tasks: Task) -> Split:
    n_tasks = len(tasks.index)
    return spread(state["params"], n_tasks), spread(state["warp"], n_tasks)


def share_of(part: slice, n_tasks: int) -> Callable[[Params, int], Params]:
    """A `share` for some tasks, `part`, of the `n_tasks` of all runs."""
    return lambda warp, n: take(spread(warp, n_tasks), part)


@check_given
def warp_leap(
    problem: Problem,
    inner: Optimizer,
    outer: Optimizer,
    steps: int,
    size: int = 5,
    eta: int = 1,
    points: int | None = None,
    scale: float = 1.0,
    order: int = 2,
    rates: Rates | None = None,
    path: Fold | None = None,
) -> Learner:
    """Warp-Leap (WarpGrad Algorithm 2): offline meta-training of warps, and a Leap initialisation (Eqs. 9 and 12).

    A meta-update adapts to every task of the meta-batch with the warps fixed, and stores every theta_k, k < steps, in
    a buffer. Then it goes through the buffer in random order. After each `eta` points, the warps take one step along
    the sum of their gradients at these points. Last, the initialisation takes one step along the Leap gradient of the
    paths. Each run has its own buffer and its own warps.

    The warps are the parameters named `warp.*`. Those named `embedding.*` are adapted with the others on each task,
    but always start at their first values.

    Args:
        problem, inner, outer: as in `leap`; `outer` updates both warps and initialisation, with a state for each.
        steps: gradient steps on each task, K.
        size: tasks adapted at a time.
        eta: points of the buffer for each update of the warps.
        points: how many points of the buffer to replay, drawn without replacement; None for all. If `eta` does not
            divide their number, the last update uses fewer points.
        scale: lambda, the weight of the Leap objective. It multiplies the gradient of the initialisation.
        order: see `warp_gradient`.
        rates: learn the task optimizer's learning rate and momentum too, in place of `inner`; the buffer then holds
            the momentum beside each theta_k. The learner's `optimizer` is what has been learnt.
        path: what gathers the gradient of the initialisation along the paths; `leap_fold` with its defaults where None.
    """
    if eta < 1 or (points is not None and points < 1):
        raise ValueError(f"the replay needs eta and points of at least 1, got {eta} and {points}.")
    if order not in (0, 1, 2) or (rates and not order):
        raise ValueError(f"order is {order}, needed 2, 1 or 0, and with learned rates 2 or 1.")
    fold = path or leap_fold(capture=problem.capture)
    rates_outer = sgd(rates.outer_lr) if rates else outer

    def init(params: Params) -> State:
        theta, warp = _split(params)
        state = {"params": theta, "warp": warp, "outer": outer.init(theta), "warp_outer": outer.init(warp)}
        if rates:
            like = next(iter(theta.values()))
            first = {"learning_rate": rates.learning_rate, "momentum": rates.momentum}
            state["rates"] = {name: like.new_full((len(like),), value) for name, value in first.items()}
        return state

    def collect(state: State, tasks: Task) -> tuple[Params, Params, Params, Info]:
        """Leap's gradient, and the buffers of parameters and momenta: preallocated tensors [task, step, ...]."""
        starts, warps = _start(state, tasks)
        buffer = map_tree(lambda leaf: leaf.new_empty(len(leaf), steps, *leaf.shape[1:]), starts)
        momenta = map_tree(torch.zeros_like, buffer) if rates else {}
        learnt = spread(state["rates"], len(tasks.index)) if rates else {}

        def one(tasks: Task, part: slice) -> tuple[Params, Info]:
            mine, velocity, rate = take(buffer, part), take(momenta, part), take(learnt, part)
            descend = momentum_sgd(**rate) if rates else inner

            def keep(total: Params, before: Step, after: Step) -> Params:
                k = before.number
                for name, leaf in before.params.items():
                    mine[name][:, k] = leaf
                    if rates and k + 1 < steps:
                        gathered = velocity[name][:, k]
                        velocity[name][:, k + 1] = per_task(rate["momentum"], gathered) * gathered + before.grads[name]
                return fold(total, before, after)

            start = take(starts, part)
            adapted = adapt(problem, descend, start, take(warps, part), tasks, steps, keep, zeros_like(start))
            return adapted.total, path_info(adapted)

        total, info = map_tasks(one, tasks, size)
        return mean_rows(total, n_runs(state["params"])), buffer, momenta, info

    def at_points(
        theta: Params,
        warp: Params,
        learnt: Params | None,
        velocity: Params | None,
        stats: Params,
        tasks: Task,
        who: Tensor,
        k: Tensor,
    ) -> tuple[Tensor, Params]:
        """`warp_gradient` at the points k of the tasks `who`, on the batches that belong to them."""
        task_batch = problem.draw(tasks, who, steps + 1 + 2 * k)
        meta_batch = (problem.draw_meta or problem.draw)(tasks, who, steps + 2 + 2 * k)
        return warp_gradient(problem, inner, theta, warp, task_batch, meta_batch, order, learnt, velocity, stats=stats)

    look = captured(at_points) if problem.capture else at_points

    def replay(state: State, buffer: Params, momenta: Params, tasks: Task, order_of: Tensor) -> tuple[State, Tensor]:
        """Update the warps on points of the buffer, `eta` of each run at a time.

        Args:
            order_of: [run, point] the points of each run's own tasks.

        Returns:
            the changed entries of the state, and the meta-losses [run x point].
        """
        warp, outer_state, learnt, losses = state["warp"], state["warp_outer"], state.get("rates"), []
        first = torch.arange(len(order_of), device=order_of.device)[:, None] * (len(tasks.index) // len(order_of))
        most = fresh_stats(problem, len(order_of) * min(eta, order_of.shape[1]), order_of.device)
        for chosen in order_of.split(eta, 1):
            who, k = (first + chosen // steps).flatten(), (chosen % steps).flatten()
            theta, velocity = ({name: leaf[who, k] for name, leaf in tree.items()} for tree in (buffer, momenta))
            stats = take(most, slice(len(who)))
            loss, grads = look(theta, warp, learnt, velocity if rates else None, stats, tasks, who, k)
            warp, outer_state = outer.update(warp, {name: grads[name] for name in warp}, outer_state)
            if rates and learnt:
                bounded = {name: grads[name].clamp(-rates.clip, rates.clip) for name in learnt}
                learnt, _ = rates_outer.update(learnt, bounded, rates_outer.init(learnt))
            losses.append(loss.view(chosen.shape))
        changed = {"warp": warp, "warp_outer": outer_state} | ({"rates": learnt} if learnt else {})
        return changed, torch.cat(losses, 1).flatten()

    def step(state: State, tasks: Task, generators: Sequence[torch.Generator]) -> tuple[State, Info]:
        check_streams(state["params"], generators)
        leap_grads, buffer, momenta, info = collect(state, tasks)
        everything = len(tasks.index) // len(generators) * steps
        orders = [torch.randperm(everything, generator=each)[: points or everything] for each in generators]
        changed, meta_loss = replay(state, buffer, momenta, tasks, torch.stack(orders).to(tasks.order.device))
        return changed | _pull(outer, state, leap_grads, scale), info | {"replay_loss": meta_loss}

    learnt = (lambda state: momentum_sgd(**state["rates"])) if rates else None
    return Learner(init, step, _start, draws=3 * steps + 1, optimizer=learnt)


@check_given
def warp_leap_online(
    problem: Problem,
    inner: Optimizer,
    outer: Optimizer,
    warp_outer: Optimizer,
    steps: int,
    size: int = 5,
    scale: float = 1.0,
    order: int = 2,
) -> Learner:
    """Warp-Leap with online meta-training (WarpGrad Algorithm 1): one update of a run's warps for its meta-batch.

    The gradient of the warp objective is computed at every theta_k, k < steps, of every task, and added to a sum, in
    constant memory. The warps then take one step along the sum, as the algorithm prints it. So a suitable rate of
    `warp_outer` depends on the number of tasks and steps. The initialisation is updated as in `warp_leap`.

    Args:
        warp_outer: the optimizer of the warps. The others: see `warp_leap`.
    """
    fold, draw_meta = leap_fold(capture=problem.capture), problem.draw_meta or problem.draw

    def init(params: Params) -> State:
        theta, warp = _split(params)
        return {"params": theta, "warp": warp, "outer": outer.init(theta), "warp_outer": warp_outer.init(warp)}

    def walk(state: State, everyone: Task) -> Callable[[Task, slice], tuple[Params, Params, Tensor, Info]]:
        starts, warps = _start(state, everyone)

        def one(tasks: Task, part: slice) -> tuple[Params, Params, Tensor, Info]:
            who, losses = torch.arange(len(tasks.index), device=tasks.order.device), []
            share = share_of(part, len(everyone.index))

            def both(total: tuple[Params, Params], before: Step, after: Step) -> tuple[Params, Params]:
                k = steps + 1 + 2 * torch.full_like(who, before.number)
                task_batch, meta_batch = problem.draw(tasks, who, k), draw_meta(tasks, who, k + 1)
                loss, grads = warp_gradient(
                    problem, inner, before.params, state["warp"], task_batch, meta_batch, order, share=share
                )
                losses.append(loss)
                return fold(total[0], before, after), add_scaled(total[1], 1.0, grads)

            start = take(starts, part)
            first = zeros_like(start), zeros_like(state["warp"])
            adapted = adapt(problem, inner, start, take(warps, part), tasks, steps, both, first)
            leap_total, warp_total = adapted.total
            one_row = {name: leaf[None] for name, leaf in warp_total.items()}  # the sum of these tasks
            return leap_total, one_row, torch.stack(losses, 1), path_info(adapted)

        return one

    def step(state: State, tasks: Task, generators: Sequence[torch.Generator]) -> tuple[State, Info]:
        check_streams(state["params"], generators)
        leap_total, warp_total, losses, info = map_tasks(walk(state, tasks), tasks, size)
        summed = {name: leaf.sum(0) for name, leaf in warp_total.items()}
        warp, warp_state = warp_outer.update(state["warp"], summed, state["warp_outer"])
        pulled = _pull(outer, state, mean_rows(leap_total, len(generators)), scale)
        return pulled | {"warp": warp, "warp_outer": warp_state}, info | {"replay_loss": losses.flatten()}

    return Learner(init, step, _start, draws=3 * steps + 1)


@check_given
def warp_maml(
    problem: Problem,
    inner: Optimizer,
    outer: Optimizer,
    warp_outer: Optimizer,
    steps: int,
    size: int = 5,
    scale: float = 1.0,
    order: int = 2,
) -> Learner:
    """Warp-MAML (WarpGrad equation 10) by Algorithm 1: warps by the warp objective, the initialisation by MAML.

        J = L(phi) + lambda C_MAML(theta_0)

    The gradient of the warp objective is summed over every theta_k, k < steps, of every task. Its task loss is that of
    the step's batch, and its meta-loss that of the task's held-out data. A run's warps take one step along the sum over
    its tasks. The initialisation takes one step along the gradient, through all steps, of the loss on the held-out
    data, with the warps constant. L needs constant memory. C is MAML's objective, whose memory grows with `steps`.

    Args:
        problem, inner, outer, steps, size: as in `leap`.
        warp_outer: the optimizer of the warps, the parameters named `warp.*`.
        scale: lambda.
        order: 2, or 1 to treat the task gradients as constants in both objectives; 0 also leaves out the step of the
            warp objective.
    """

    def init(params: Params) -> State:
        theta, warp = _split(params)
        return {"params": theta, "warp": warp, "outer": outer.init(theta), "warp_outer": warp_outer.init(warp)}

    def walk(state: State, everyone: Task) -> Callable[[Task, slice], tuple[Params, Params, Tensor, Info]]:
        starts, warps = _start(state, everyone)

        def one(tasks: Task, part: slice) -> tuple[Params, Params, Tensor, Info]:
            who = torch.arange(len(tasks.index), device=tasks.order.device)
            held_out = held_out_batch(tasks)
            share = share_of(part, len(everyone.index))
            fixed, losses, total = take(warps, part), [], zeros_like(state["warp"])

            def along(k: int, params: Params, stats: Params) -> None:
                nonlocal total
                if k == steps:
                    return
                batch = problem.draw(tasks, who, torch.full_like(who, k))
                loss, grads = warp_gradient(problem, inner, params, state["warp"], batch, held_out, order, share=share)
                losses.append(loss)
                total = add_scaled(total, 1.0, grads)

            grads, info = row_gradients(
                problem,
                lambda theta: (theta, fixed, inner),
                take(starts, part),
                tasks,
                steps,
                order=max(order, 1),
                observe=along,
            )
            one_row = {name: leaf[None] for name, leaf in total.items()}  # the sum of these tasks
            return grads, one_row, torch.stack(losses, 1), info

        return one

    def step(state: State, tasks: Task, generators: Sequence[torch.Generator]) -> tuple[State, Info]:
        check_streams(state["params"], generators)
        pulls, warp_total, losses, info = map_tasks(walk(state, tasks), tasks, size)
        warp_grads = {name: leaf.sum(0) for name, leaf in warp_total.items()}
        grads = {name: scale * leaf for name, leaf in mean_rows(pulls, len(generators)).items()}
        warp, warp_state = warp_outer.update(state["warp"], warp_grads, state["warp_outer"])
        params, outer_state = outer.update(state["params"], without_task_only(grads), state["outer"])
        moved = {"params": params, "outer": outer_state, "warp": warp, "warp_outer": warp_state}
        return moved, info | {"replay_loss": losses.flatten()}

    return Learner(init, step, _start, steps)
