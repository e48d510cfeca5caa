"""The interface of an experiment for the commands `train` and `evaluate`: a tuple of functions."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from leapwarp.fit import Fitted, Member
from leapwarp.learners.base import State

Record = tuple[str, int | None, str, float]
"""(held-out task or "", step or None, metric, value)"""


class Simulated(NamedTuple):
    """The data of an experiment whose tasks are made by its own code from the seed."""

    source: str = "simulated"
    checksum: str = "none"


SIMULATED = Simulated()


class Run(NamedTuple):
    """One seed of one method at one number of pretraining tasks, as passed to an experiment's functions."""

    data: Any
    """the result of `load`"""
    method: Any
    """an entry of `methods`, with the settings of this run"""
    name: str
    """the name of the method"""
    n_tasks: int
    """pretraining tasks; 0 if they are not counted, or without pretraining"""
    seed: int
    device: torch.device
    checkpoints: Path | None
    """folder for checkpoints, or None for no checkpoints"""
    identity: dict[str, Any]
    """everything that the result depends on, as JSON values. A checkpoint with another identity is refused"""

    @property
    def title(self) -> str:
        """Its name in messages."""
        return (
            f"{self.name}, {self.n_tasks} tasks, seed {self.seed}" if self.n_tasks else f"{self.name}, seed {self.seed}"
        )

    @property
    def member(self) -> Member:
        """The run as `fit` takes it."""
        return Member(self.seed, self.title, self.identity, f"tasks{self.n_tasks}" if self.n_tasks else "")

    def checkpoint(self, name: str) -> Path | None:
        """The checkpoint file of a part of the run, `name`."""
        return self.checkpoints / f"seed{self.seed}-{name}.pt" if self.checkpoints else None


class Trained(NamedTuple):
    """One seed."""

    state: State
    """the learnt parameters: nested dictionaries of tensors, without the run axis"""
    records: list[Record]
    """the history of training"""
    seconds: float
    """training time by `host.clock`, including interrupted processes. Of a stack of runs it is this run's share"""
    error: str | None = None
    """None, or the reason why there is no state: a number that was not finite"""


def trained(fitted: Fitted, history: list[Record]) -> Trained:
    """The result of `fit` for one run, with the history in the experiment's form."""
    counted: list[Record] = [("", None, "meta_steps", fitted.meta_steps), ("", None, "meta_seconds", fitted.seconds)]
    counted += [("", None, name, value) for name, value in fitted.moved.items()]
    return Trained(fitted.state, history + counted, fitted.seconds, fitted.error)


def in_turn(train: Callable[[Run], Trained]) -> Callable[[Sequence[Run]], list[Trained]]:
    """Train seeds one after another, for experiments that do not train them in one stack.

    Raises:
        FloatingPointError: all of them diverge. The message is that of the first.
    """

    def all_of(runs: Sequence[Run]) -> list[Trained]:
        found = []
        for run in runs:
            try:
                found.append(train(run))
            except FloatingPointError as error:
                print(str(error), flush=True)
                found.append(Trained({}, [], 0.0, str(error)))
        if all(each.error for each in found):
            raise FloatingPointError(found[0].error)
        return found

    return all_of


class Evaluated(NamedTuple):
    records: list[Record]
    arrays: dict[str, Tensor] = {}  # noqa: RUF012
    """arrays for figures, if the experiment's yaml has `arrays: true`"""


class Experiment(NamedTuple):
    """The value EXPERIMENT in an experiment's `run.py`."""

    published: Any
    """the published settings, a dataclass"""
    methods: Callable[[Any], dict[str, Any]]
    """settings -> methods by name, each with its own `settings`"""
    evaluate: Callable[[Run, State | None], Evaluated]
    """(run, its learnt state without the run axis, or None for a method that is not trained) -> rows and arrays"""
    train: Callable[[Sequence[Run]], list[Trained]] | None = None
    """runs of one method, which differ in seed and perhaps in number of tasks -> the result of each: trained in one
    stack, or `in_turn`"""
    load: Callable[..., Any] | None = None
    """the data file, or None if the experiment reads none -> data with `source` and `checksum`"""
    evaluation: frozenset[str] = frozenset()
    """names of the settings that training does not use. Changing one repeats the evaluation, and no training"""
