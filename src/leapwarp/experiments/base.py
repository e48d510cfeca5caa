"""What an experiment is for the commands `train` and `evaluate`: a value made of functions."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

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

    def checkpoint(self, name: str = "") -> Path | None:
        """The file of the run's checkpoint, or of a part of the run that is called `name`."""
        return self.checkpoints / f"seed{self.seed}{f'-{name}' if name else ''}.pt" if self.checkpoints else None


class Trained(NamedTuple):
    state: State
    """what was learnt: nested dictionaries of tensors"""
    records: list[Record]
    """the history of training"""
    seconds: float
    """those of interrupted processes included"""


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
    """the run, with what it has learnt, or None for a method that is not trained"""
    train: Callable[[Run], Trained] | None = None
    load: Callable[..., Any] | None = None
    """the data file, or None where the experiment reads none -> data with `source` and `checksum`"""
    evaluation: frozenset[str] = frozenset()
    """names of the settings that training does not read: changing one evaluates again and trains nothing"""
