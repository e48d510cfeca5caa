"""What an experiment is for the commands `train` and `evaluate`: a value made of functions."""

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
    """Stands where data stand in an experiment whose tasks are made by its own code from the seed."""

    source: str = "simulated"
    checksum: str = "none"


SIMULATED = Simulated()


class Run(NamedTuple):
    """One seed of one method at one number of tasks, as an experiment's functions get it."""

    data: Any
    """what `load` gave"""
    method: Any
    """an entry of `methods`, with the settings of this run"""
    name: str
    """of the method"""
    n_tasks: int
    """pretraining tasks; 0 where they are not counted, or nothing is pretrained"""
    seed: int
    device: torch.device
    checkpoints: Path | None
    """folder to keep checkpoints in, or None to keep none"""
    identity: dict[str, Any]
    """whatever the result depends on, as JSON values: a checkpoint of another one is refused"""

    @property
    def title(self) -> str:
        """What messages call it."""
        return (
            f"{self.name}, {self.n_tasks} tasks, seed {self.seed}" if self.n_tasks else f"{self.name}, seed {self.seed}"
        )

    @property
    def member(self) -> Member:
        """What `fit` calls it."""
        return Member(self.seed, self.title, self.identity)

    def checkpoint(self, name: str) -> Path | None:
        """The file of a part of the run, `name`, that is kept by itself."""
        return self.checkpoints / f"seed{self.seed}-{name}.pt" if self.checkpoints else None


class Trained(NamedTuple):
    """One seed."""

    state: State
    """what was learnt: nested dictionaries of tensors, without the axis of runs"""
    records: list[Record]
    """the history of training"""
    seconds: float
    """those of interrupted processes included; where seeds train in one stack, its share"""
    error: str | None = None
    """why there is no state: what was no longer finite"""


def trained(fitted: Fitted, history: list[Record]) -> Trained:
    """What `fit` gives for one run, with the history as the experiment wants it."""
    counted: list[Record] = [("", None, "meta_steps", fitted.meta_steps), ("", None, "meta_seconds", fitted.seconds)]
    counted += [("", None, name, value) for name, value in fitted.moved.items()]
    return Trained(fitted.state, history + counted, fitted.seconds, fitted.error)


def in_turn(train: Callable[[Run], Trained]) -> Callable[[Sequence[Run]], list[Trained]]:
    """Train seeds one after another, where they share no stack.

    Raises:
        FloatingPointError: none of them stays finite; says so of the first.
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
    """for figures, where the experiment's yaml says that it leaves any"""


class Experiment(NamedTuple):
    """What a `run.py` calls EXPERIMENT."""

    published: Any
    """the published settings, a dataclass"""
    methods: Callable[[Any], dict[str, Any]]
    """settings -> methods by name, each with the `settings` that it departs to"""
    evaluate: Callable[[Run, State | None], Evaluated]
    """the run, with what it has learnt, without the axis of runs; None for a method that is not trained"""
    train: Callable[[Sequence[Run]], list[Trained]] | None = None
    """seeds of one method -> what each has learnt, or why it has not: side by side, or `in_turn`"""
    load: Callable[..., Any] | None = None
    """the data file, or None where the experiment reads none -> data with `source` and `checksum`"""
    evaluation: frozenset[str] = frozenset()
    """names of the settings that training does not read: changing one evaluates again and trains nothing"""
