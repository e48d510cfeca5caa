"""Leap: an initialisation that shortens the gradient paths of all tasks."""

from collections.abc import Callable

import torch

from leapwarp.given import check_given
from leapwarp.host import captured
from leapwarp.inner import Fold, Step, Stop, adapt
from leapwarp.learners.base import Info, Learner, gradient_learner, path_info
from leapwarp.optim import Optimizer
from leapwarp.problem import Problem, Task, map_tasks
from leapwarp.trees import (
    Params,
    is_task_only,
    map_tree,
    mean_rows,
    n_runs,
    per_task,
    spread,
    squared_norm,
    subtract,
    take,
    zeros_like,
)


def leap_fold(length: bool = True, loss: bool = True, stabiliser: bool = True, capture: bool = False) -> Fold:
    """The fold that sums the meta-gradient of the path's length or energy, with identity Jacobians.

    Each segment theta_i -> theta_{i+1} adds (Leap equation 8, as a gradient to descend)

        -(d_theta + d_f grad f(theta_i)) / norm,   norm = sqrt(|d_theta|^2 + d_f^2)  for the length (p = 1),

    where d_theta and d_f are the changes of parameters and loss. For the energy (p = 2) norm is 1, and the constant
    factor 2 is left to the meta learning rate. A segment of length zero adds nothing. Parameters named `task_only.*`
    are not part of the path.

    Args:
        length: minimise the path's length (p = 1) rather than its energy (p = 2).
        loss: measure the path on the loss surface rather than in parameter space only (f_tau = 1).
        stabiliser: replace d_f by -|d_f|, so as never to follow a rise in the loss (mu = 1). It has no effect if `loss`
            is False.
        capture: run the fold as a CUDA graph, see `Problem`.
    """

    def fold(total: Params, before: Step, after: Step) -> Params:
        moved = {n: leaf for n, leaf in subtract(after.params, before.params).items() if not is_task_only(n)}
        kept = {name: leaf for name, leaf in total.items() if name not in moved}
        total, grads = ({name: tree[name] for name in moved} for tree in (total, before.grads))
        rise = after.loss - before.loss  # [task]
        if stabiliser:
            rise = -rise.abs()
        if not loss:
            rise = torch.zeros_like(rise)
        if length:
            norm = (squared_norm(moved) + rise.square()).sqrt()
            scale = torch.where(norm > 0, 1 / norm, 0.0)
        else:
            scale = torch.ones_like(rise)
        total = map_tree(lambda t, d: torch.addcmul(t, per_task(scale, d), d, value=-1), total, moved)
        if not loss:
            return kept | total
        slope = scale * rise
        return kept | map_tree(lambda t, g: torch.addcmul(t, per_task(slope, g), g, value=-1), total, grads)

    if not capture:
        return fold
    replayed = captured(fold)  # a number is part of a graph, and the gradient at the end is not needed
    return lambda total, before, after: replayed(total, before._replace(number=0), after._replace(number=0, grads={}))


def path_gradient(
    problem: Problem, inner: Optimizer, steps: int, fold: Fold, size: int, stop: Stop | None = None
) -> Callable[[Params, Task], tuple[Params, Info]]:
    """The meta-gradient that `fold` sums along the paths, averaged over the tasks of each run's meta-batch."""

    def meta_gradient(params: Params, tasks: Task) -> tuple[Params, Info]:
        starts = spread(params, len(tasks.index))

        def one(tasks: Task, part: slice) -> tuple[Params, Info]:
            start = take(starts, part)
            adapted = adapt(problem, inner, start, {}, tasks, steps, fold, zeros_like(start), stop)
            return adapted.total, path_info(adapted)

        total, info = map_tasks(one, tasks, size)
        return mean_rows(total, n_runs(params)), info

    return meta_gradient


@check_given
def leap(
    problem: Problem,
    inner: Optimizer,
    outer: Optimizer,
    steps: int,
    size: int = 5,
    stop: Stop | None = None,
    length: bool = True,
    loss: bool = True,
    stabiliser: bool = True,
) -> Learner:
    """Leap (Flennerhag et al., 2019, Algorithm 1 with the pull-forward objective and identity Jacobians).

    Args:
        problem, inner, outer: the family of tasks, and the optimizers of the tasks and of the initialisation.
        steps: gradient steps on each task, K.
        size: how many tasks to adapt at a time. It changes time and memory and, except for dropout, never the result.
        stop: early stopping of task training.
        length, loss, stabiliser: see `leap_fold`.
    """
    fold = leap_fold(length, loss, stabiliser, problem.capture)
    return gradient_learner(path_gradient(problem, inner, steps, fold, size, stop), outer, steps + 1)
