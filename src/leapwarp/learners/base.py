"""What a meta-learner is: a value made of functions.

Every tensor of a state is a stack of runs, [run, ...]: seeds that train side by side, each from its own start, on its
own tasks and as if it were alone. The tasks of a meta-batch are [run x task, ...], run by run. One run is a stack of
one.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from leapwarp.inner import Adapted
from leapwarp.optim import Optimizer
from leapwarp.problem import Task
from leapwarp.trees import Params, alone, n_runs, pick, spread

State = dict[str, Any]
Info = dict[str, Any]


class Learner(NamedTuple):
    init: Callable[[Params], State]
    """parameters [run, ...] -> state: the meta-parameters and the outer optimizer's own state"""
    step: Callable[[State, Task, Sequence[torch.Generator]], tuple[State, Info]]
    """(state, tasks, a stream of random numbers for each run) -> state, info: one meta-update of each run, from its
    part of the meta-batch. Info holds what `path_info` says and what the method adds, run by run."""
    start: Callable[[State, Task], tuple[Params, Params]]
    """Where adaptation to new tasks begins: stacks of adaptable and of fixed parameters."""
    draws: int = 1
    """Mini-batches that one meta-update needs of every task."""
    optimizer: Callable[[State], Optimizer] | None = None
    """The task optimizer that one run has learnt; None where it learns none, and adaptation takes what it was given."""


def path_info(adapted: Adapted) -> Info:
    """What every meta-update reports: [run x task, step] losses and accuracies (nan after a stop), and steps."""
    return {"loss": adapted.loss, "accuracy": adapted.accuracy, "steps": adapted.steps}


def gradient_learner(
    meta_gradient: Callable[[Params, Task], tuple[Params, Info]], outer: Optimizer, draws: int
) -> Learner:
    """A learner of an initialisation alone, from its meta-gradient: the shape that most methods have.

    Args:
        meta_gradient: (parameters [run, ...], tasks) -> gradient [run, ...], info.
    """

    def init(params: Params) -> State:
        return {"params": params, "outer": outer.init(params)}

    def step(state: State, tasks: Task, generators: Sequence[torch.Generator]) -> tuple[State, Info]:
        grads, info = meta_gradient(state["params"], tasks)
        params, outer_state = outer.update(state["params"], grads, state["outer"])
        return {"params": params, "outer": outer_state}, info

    def start(state: State, tasks: Task) -> tuple[Params, Params]:
        return spread(state["params"], len(tasks.index)), {}

    return Learner(init, step, start, draws)


def one_run(learner: Learner) -> Learner:
    """A learner that is written for one run, without the axis, in the form that all have; it takes stacks of one.

    Raises:
        ValueError: it is given several runs.
    """

    def init(params: Params) -> State:
        if n_runs(params) != 1:
            raise ValueError(f"this learner trains one run at a time, got {n_runs(params)}; fit them in turn.")
        return alone(learner.init(pick(params, 0)))

    def step(state: State, tasks: Task, generators: Sequence[torch.Generator]) -> tuple[State, Info]:
        after, info = learner.step(pick(state, 0), tasks, generators)
        return alone(after), info

    return learner._replace(init=init, step=step, start=lambda state, tasks: learner.start(pick(state, 0), tasks))
