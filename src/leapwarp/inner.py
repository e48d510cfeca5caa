"""The inner loop: adaptation to a stack of tasks, and folds over its steps."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from leapwarp.given import check_given
from leapwarp.host import captured
from leapwarp.modules import gradients, shortened, twice_differentiable
from leapwarp.optim import Optimizer
from leapwarp.problem import Batch, Loss, Problem, Task
from leapwarp.trees import Params, choose, repeat, to_device


class Step(NamedTuple):
    """One point of the path: the parameters, and the gradient and loss there."""

    number: int
    params: Params
    grads: Params
    loss: Tensor
    """[task]"""


Fold = Callable[[Any, Step, Step], Any]
"""(total, before, after) -> total: adds the contribution of two consecutive points of the path. `total` is a stack."""


Gradient = Callable[[Problem, Params, Params, Params, Batch, bool], tuple[Loss, Params]]
"""(problem, params, fixed, statistics, batch, differentiable) -> loss, direction of descent; as `gradient`"""


class Stop(NamedTuple):
    """Early stopping of task training: a task stops when it has been learnt for `patience` consecutive steps."""

    is_learnt: Callable[[Params, Params, Task], Tensor]
    """(all parameters, statistics, tasks) -> [task] bool"""
    patience: int
    every: int = 1
    """steps between two checks; the result of a check is assumed to hold until the next one"""


class Adapted(NamedTuple):
    params: Params
    """after the last step"""
    stats: Params
    total: Any
    """the final total of the fold"""
    loss: Tensor
    """[task, step] training loss on each step's batch, before the update; nan after a task has stopped"""
    accuracy: Tensor
    """[task, step] likewise"""
    steps: Tensor
    """[task] updates taken"""


def first_bad(loss: Tensor, steps: Tensor) -> tuple[int, int] | None:
    """(task, step) of the earliest loss that is not finite, among the steps that were taken, or None.

    Args:
        loss: [task, step], nan after a task has stopped.
        steps: [task] updates taken.
    """
    taken = torch.arange(loss.shape[1], device=loss.device) < steps[:, None]
    bad = (taken & ~loss.isfinite()).nonzero()
    if not len(bad):
        return None
    task, step = bad[bad[:, 1].argmin()].tolist()
    return task, step


def carried(curve: Tensor) -> Tensor:
    """Curves [task, step] in which a task that has stopped keeps its last value; before, its later values are nan.

    In a mean over the curves every task then has the same weight.
    """
    last = (~curve.isnan()).sum(1, keepdim=True).sub(1).clamp_min(0)
    return torch.where(curve.isnan(), curve.gather(1, last), curve)


def gradient(
    problem: Problem, params: Params, fixed: Params, stats: Params, batch: Batch, differentiable: bool = False
) -> tuple[Loss, Params]:
    """Each task's loss, and its gradient with respect to that task's `params` only.

    With `differentiable`, the gradient is itself a differentiable function of `params` and `fixed`.
    """
    if not differentiable:
        params = {name: leaf.detach().requires_grad_() for name, leaf in params.items()}
    with twice_differentiable() if differentiable else nullcontext():
        result = problem.loss({**params, **fixed}, stats, batch)
    if not result.loss.requires_grad:
        raise ValueError(
            "the loss depends on no parameter that learns. Needed outputs that were computed from them, without "
            "torch.no_grad() and without checkpoints."
        )
    leaves = list(params.values())
    grads = dict(zip(params, gradients(result.loss.sum(), leaves, differentiable), strict=True))
    if unused := [name for name, grad in grads.items() if grad is None]:
        raise ValueError(
            f"the loss does not depend on {shortened(unused)}; needed parameters that the model uses. Freeze "
            "those that it does not: requires_grad_(False) before lift."
        )
    if not differentiable:
        result = Loss(result.loss.detach(), result.accuracy, result.stats)
    return result, {name: grad for name, grad in grads.items() if grad is not None}


_plain = gradient


def _draw_and_gradient(
    problem: Problem, gradient: Gradient, differentiable: bool
) -> Callable[[Params, Params, Params, Task, Tensor, Tensor], tuple[Loss, Params]]:
    """(params, fixed, statistics, tasks, who, number) -> loss on the batch of that number, and its gradient"""

    def both(params: Params, fixed: Params, stats: Params, tasks: Task, who: Tensor, number: Tensor) -> Any:
        return gradient(problem, params, fixed, stats, problem.draw(tasks, who, number), differentiable)

    return both


@lru_cache(maxsize=8)
def _captured_gradient(problem: Problem) -> Callable[..., tuple[Loss, Params]]:
    """The same for plain gradients, as a CUDA graph that all calls of `adapt` share."""
    return captured(_draw_and_gradient(problem, gradient, False))


def fresh_stats(problem: Problem, n_tasks: int, device: torch.device) -> Params:
    return repeat(to_device(problem.stats(), device), n_tasks)


@check_given
def adapt(
    problem: Problem,
    optimizer: Optimizer,
    params: Params,
    fixed: Params,
    tasks: Task,
    steps: int,
    fold: Fold | None = None,
    total: Any = None,
    stop: Stop | None = None,
    observe: Callable[[int, Params, Params], None] | None = None,
    differentiable: bool = False,
    gradient: Gradient = gradient,
) -> Adapted:
    """Train a stack of `params` for `steps` updates, with `fixed` constant.

    A fold sees all segments of the path theta_0 -> ... -> theta_K. For the last segment it needs the loss at theta_K,
    which is computed on one more batch. Running statistics are reset for every task.

    Args:
        problem: draws mini-batches and computes losses.
        optimizer: the task optimizer, one of `leapwarp.optim`.
        params, fixed: stacks [task, ...] of the adapted and of the constant parameters.
        tasks: with at least `steps` draws each, or `steps + 1` with a fold.
        fold, total: a function that is called with each segment of the path, and its first total.
        stop: early stopping. A task that has stopped keeps its parameters, statistics and total.
        observe: called with (step, parameters, statistics) before the first update and after each update.
        differentiable: keep the graph through all updates (MAML).
        gradient: computes the direction for the optimizer; `leapwarp.kfac` has the natural gradient.

    Raises:
        TypeError: the problem, the optimizer, the tasks or the parameters are something else.
        ValueError: there are too few draws for the steps, or the parameters are not stacks of one row a task.

    Examples:
        >>> import torch, leapwarp
        >>> from leapwarp import optim, trees
        >>> rng, x = torch.Generator().manual_seed(0), torch.linspace(-1, 1, 20).view(20, 1)
        >>> model = leapwarp.lift(torch.nn.Linear(1, 1))
        >>> problem = leapwarp.supervised(model, leapwarp.mean_square)
        >>> tasks = leapwarp.stack_tasks([(x, x + 3), (x, 2 * x - 4)], draws=30, batch=20, generator=rng)
        >>> starts = trees.repeat(model.init(rng), 2)
        >>> adapted = leapwarp.adapt(problem, optim.sgd(0.5), starts, {}, tasks, steps=30)
        >>> bool((adapted.loss[:, -1] < adapted.loss[:, 0]).all())
        True
    """
    n_tasks, n_draws = tasks.order.shape[:2]
    if odd := sorted({len(leaf) if leaf.dim() else 0 for leaf in {**params, **fixed}.values()} - {n_tasks}):
        raise ValueError(
            f"the parameters have {odd} rows; needed stacks with one row for each of the {n_tasks} tasks, such as "
            "learner.start gives, or leapwarp.trees.repeat(params, n)."
        )
    points = steps + (fold is not None)
    if steps < 1 or n_draws < points:
        raise ValueError(f"{steps} steps need {points} draws a task (and one step at least); there are {n_draws}.")
    device = tasks.order.device
    who = torch.arange(n_tasks, device=device)
    stats = fresh_stats(problem, n_tasks, device)
    state = optimizer.init(params)
    active = torch.ones_like(who, dtype=torch.bool)
    moved = active  # whether the task made the update before this point
    taken = torch.zeros_like(who)
    streak = torch.zeros_like(who)  # consecutive steps for which a task has been learnt
    loss = accuracy = torch.empty(0, device=device)  # made at the first step, in the precision of its loss
    before = None
    plain = gradient is _plain and not differentiable and problem.capture
    look = _captured_gradient(problem) if plain else _draw_and_gradient(problem, gradient, differentiable)
    if observe:
        observe(0, params, stats)
    for k in range(points):
        result, grads = look(params, fixed, stats, tasks, who, torch.full_like(who, k))
        here = Step(k, params, grads, result.loss)
        if fold is not None and before is not None:
            extended = fold(total, before, here)
            total = extended if stop is None else choose(moved, extended, total)
        if k == steps or (stop is not None and k % stop.every == 0 and not active.any()):
            break
        if k == 0:
            precision = torch.promote_types(result.loss.dtype, torch.float32)
            loss = torch.full((n_tasks, steps), torch.nan, dtype=precision, device=device)
            accuracy = torch.full_like(loss, torch.nan)
        loss[:, k] = torch.where(active, result.loss.detach(), torch.nan)
        accuracy[:, k] = torch.where(active, result.accuracy, torch.nan)
        before = here
        updated, state = optimizer.update(params, grads, state)
        if stop is None:
            params, stats = updated, result.stats
        else:
            params, stats = choose(active, updated, params), choose(active, result.stats, stats)
            moved = active
            if (k + 1) % stop.every == 0:
                learnt = stop.is_learnt({**params, **fixed}, stats, tasks)
                streak = torch.where(learnt, streak + stop.every, 0)
                active = active & (streak < stop.patience)
        taken = taken + moved
        if observe:
            observe(k + 1, params, stats)
    return Adapted(params, stats, total, loss, accuracy, taken)
