"""Adaptation to held-out tasks: the same code for every method."""

from typing import NamedTuple

import torch
from torch import Tensor

from leapwarp.given import check_given
from leapwarp.inner import Gradient, Stop, adapt, carried, first_bad, gradient
from leapwarp.learners.base import Learner, State
from leapwarp.optim import Optimizer
from leapwarp.problem import Batch, Problem, Task, map_tasks
from leapwarp.trees import Params


def check_adapted(loss: Tensor, steps: Tensor, first: int) -> None:
    """Raise FloatingPointError if a training loss, [task, step], is not finite.

    `first` is the number of the first task, for the message.
    """
    bad = first_bad(loss, steps)
    if bad:
        task, step = bad
        raise FloatingPointError(
            f"the training loss of held-out task number {first + task} is {float(loss[task, step])} at step {step}. "
            "Needed finite losses: lower the task learning rate."
        )


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
    return problem.evaluate(params, stats, Batch(tasks.x_test, tasks.y_test)).accuracy


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
        check_adapted(adapted.loss, adapted.steps, part.start)
        accuracy = heldout(problem, {**adapted.params, **fixed}, adapted.stats, tasks)
        curve += [accuracy] * (len(at) - len(curve))  # all tasks have stopped early and keep their accuracy
        return Evaluation(accuracy, adapted.loss, adapted.accuracy, torch.stack(curve, 1), adapted.steps)

    return map_tasks(one, tasks, size)


def area(curve: Tensor) -> Tensor:
    """Mean height of each curve, by the trapezium rule; a stopped task keeps its last value. [task, step] -> [task]"""
    if curve.shape[1] == 1:
        return curve[:, 0]
    return torch.trapezoid(carried(curve), dim=1) / (curve.shape[1] - 1)


def error_below(problem: Problem, error: float, patience: int, every: int = 1) -> Stop:
    """Stop a task when its held-out error has been below `error` for `patience` consecutive steps (Leap appendix F)."""
    return Stop(lambda params, stats, tasks: 1 - heldout(problem, params, stats, tasks) < error, patience, every)
