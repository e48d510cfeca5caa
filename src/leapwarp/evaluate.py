"""Adaptation to held-out tasks: the same code for every method."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from leapwarp.given import check_given
from leapwarp.inner import Adapted, Gradient, Stop, adapt, carried, first_bad, gradient
from leapwarp.learners.base import Learner, State
from leapwarp.optim import Optimizer
from leapwarp.problem import IGNORED, Problem, Task, held_out_batch, map_tasks
from leapwarp.trees import Params


def check_adapted(adapted: Adapted, final: Tensor, first: int) -> None:
    """Raise FloatingPointError if a training loss is not finite, or a loss after the last step, `final` [task].

    `first` is the number of the first task, for the message.
    """
    bad = first_bad(adapted.loss, adapted.steps)
    if bad:
        task, step = bad
        found = f"the training loss of held-out task number {first + task} is {float(adapted.loss[task, step])}"
        raise FloatingPointError(f"{found} at step {step}. Needed finite losses: lower the task learning rate.")
    if not final.isfinite().all():
        task = int(final.isfinite().int().argmin())
        found = f"the held-out loss of task number {first + task} is {float(final[task])} after the last step"
        raise FloatingPointError(f"{found}. Needed finite losses: lower the task learning rate.")


class Evaluation(NamedTuple):
    accuracy: Tensor
    """[task] on held-out data after the last step, with running batch-norm averages"""
    loss_curve: Tensor
    """[task, step] training loss before each step; nan after a task has stopped"""
    accuracy_curve: Tensor
    """[task, step] training-batch accuracy, likewise"""
    heldout_curve: Tensor
    """[task, point] held-out accuracy at `points`"""
    steps: Tensor
    """[task] steps taken"""


def points(steps: int, every: int) -> list[int]:
    """The steps at which held-out accuracy is measured: 0, every, 2 every, ..., and the last."""
    return sorted({*range(0, steps, every), steps})


@torch.no_grad()
def heldout(problem: Problem, params: Params, stats: Params, tasks: Task) -> Tensor:
    """Held-out accuracy [task], with the running averages in `stats`."""
    return problem.evaluate(params, stats, held_out_batch(tasks)).accuracy


@torch.no_grad()
def learnt(problem: Problem, params: Params, adapted: Adapted, tasks: Task, first: int) -> Tensor:
    """Held-out accuracy [task] after the last step, with all `params`. Raises FloatingPointError as `check_adapted`."""
    result = problem.evaluate(params, adapted.stats, held_out_batch(tasks))
    check_adapted(adapted, result.loss, first)
    return result.accuracy


@check_given
def evaluate(
    learner: Learner,
    state: State,
    problem: Problem,
    optimizer: Optimizer,
    tasks: Task,
    steps: int,
    size: int,
    every: int,
    stop: Stop | None = None,
    gradient: Gradient = gradient,
) -> Evaluation:
    """Adapt to `tasks` from the learner's initialisation, for `steps` updates or until `stop`, and measure curves.

    `optimizer` is the task optimizer, unless the learner has learnt one.
    """
    at = points(steps, every)
    optimizer = learner.optimizer(state) if learner.optimizer else optimizer

    def one(tasks: Task, part: slice) -> Evaluation:
        params, fixed = learner.start(state, tasks)
        curve: list[Tensor] = []

        def observe(step: int, params: Params, stats: Params) -> None:
            if step in at:
                curve.append(heldout(problem, {**params, **fixed}, stats, tasks))

        adapted = adapt(problem, optimizer, params, fixed, tasks, steps, stop=stop, observe=observe, gradient=gradient)
        accuracy = learnt(problem, {**adapted.params, **fixed}, adapted, tasks, part.start)
        curve += [accuracy] * (len(at) - len(curve))  # all tasks have stopped early and keep their accuracy
        return Evaluation(accuracy, adapted.loss, adapted.accuracy, torch.stack(curve, 1), adapted.steps)

    return map_tasks(one, tasks, size)


def area(curve: Tensor, at: Sequence[int] | None = None) -> Tensor:
    """Mean height of each curve, by the trapezium rule; a stopped task keeps its last value. [task, step] -> [task]

    Args:
        at: the step of each value, such as `points` gives; None if they are evenly spaced.
    """
    if curve.shape[1] == 1:
        return curve[:, 0]
    if at is None:
        return torch.trapezoid(carried(curve), dim=1) / (curve.shape[1] - 1)
    return torch.trapezoid(carried(curve), torch.tensor(at).to(curve), dim=1) / (at[-1] - at[0])


def error_below(problem: Problem, error: float, patience: int, every: int = 1) -> Stop:
    """Stop a task when its held-out error has been below `error` for `patience` consecutive steps (Leap appendix F)."""

    seen = False

    def is_learnt(params: Params, stats: Params, tasks: Task) -> Tensor:
        nonlocal seen
        accuracy = heldout(problem, params, stats, tasks)
        if not seen and accuracy.isnan().any():  # once, since a GPU would wait each time
            raise ValueError(
                "a task is to stop by its error, and the problem's loss has no accuracy; needed "
                "leapwarp.cross_entropy, or a loss of your own that returns loss and accuracy."
            )
        seen = True
        counted = (tasks.y_test != IGNORED).flatten(1).sum(1)
        # Whole numbers, as 1 - 0.98 is less than 0.02 in floating point.
        wrong = ((1 - accuracy) * counted).round()
        return wrong / counted < error

    return Stop(is_learnt, patience, every)
