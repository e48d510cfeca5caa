"""What a meta-learner is: a value made of functions."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from leapwarp.inner import Adapted
from leapwarp.optim import Optimizer
from leapwarp.problem import Task
from leapwarp.trees import Params, repeat

State = dict[str, Any]
Info = dict[str, Any]


class Learner(NamedTuple):
    init: Callable[[Params], State]
    """parameters of one task -> state: the meta-parameters and the outer optimizer's own state"""
    step: Callable[[State, Task, torch.Generator], tuple[State, Info]]
    """One meta-update from one meta-batch. Info holds what `path_info` says and what the method adds."""
    start: Callable[[State, Task], tuple[Params, Params]]
    """Where adaptation to new tasks begins: stacks of adaptable and of fixed parameters."""
    draws: int = 1
    """Mini-batches that one meta-update needs of every task."""
    optimizer: Callable[[State], Optimizer] | None = None
    """The task optimizer that it has learnt; None where it learns none, and adaptation takes the one it was given."""


def path_info(adapted: Adapted) -> Info:
    """What every meta-update reports: [task, step] losses and accuracies (nan after a stop), and [task] steps."""
    return {"loss": adapted.loss, "accuracy": adapted.accuracy, "steps": adapted.steps}


def gradient_learner(
    meta_gradient: Callable[[Params, Task], tuple[Params, Info]], outer: Optimizer, draws: int
) -> Learner:
    """A learner of an initialisation alone, from its meta-gradient: the shape that most methods have."""

    def init(params: Params) -> State:
        return {"params": params, "outer": outer.init(params)}

    def step(state: State, tasks: Task, generator: torch.Generator) -> tuple[State, Info]:
        grads, info = meta_gradient(state["params"], tasks)
        params, outer_state = outer.update(state["params"], grads, state["outer"])
        return {"params": params, "outer": outer_state}, info

    def start(state: State, tasks: Task) -> tuple[Params, Params]:
        return repeat(state["params"], len(tasks.index)), {}

    return Learner(init, step, start, draws)
