"""Quantities of tables, figures and claims. A quantity is computed from rows: one number a run or held-out task."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from leapwarp import catalogue
from leapwarp.report import looks
from leapwarp.report.select import final


class Quantity(NamedTuple):
    metric: str
    """the metric of its rows"""
    title: str
    unit: str
    decimals: int
    """decimals that are shown"""
    lower: bool = False
    """whether lower is better"""
    convert: Callable[[np.ndarray], np.ndarray] = lambda value: value
    """converts the values of rows to the unit"""
    select: Callable[[pd.DataFrame, str], pd.DataFrame] = final
    """(all rows, metric) -> one row for each run, or for each held-out task of a run"""
    uses: Mapping[str, Sequence[str]] = {}
    """method -> other methods whose rows `select` also uses for it"""


def percent(value: np.ndarray) -> np.ndarray:
    return 100 * value


SHARED = {  # used by several experiments; those of one experiment are in its report.py
    "accuracy": Quantity("accuracy", "Held-out accuracy", "percent", 1, convert=percent),
    "error": Quantity("accuracy", "Held-out error", "percent", 1, True, lambda value: 100 * (1 - value)),
    "auc": Quantity("auc", "Area under the training-accuracy curve", "area, 0 to 1", 3),
    "adapt_seconds": Quantity("adapt_seconds", "Time to adapt", "seconds a task", 3, True),
}


def quantities(experiment: str) -> dict[str, Quantity]:
    """The quantities of an experiment by name, and those that all have."""
    return SHARED | catalogue.find(experiment).module("report").QUANTITIES


def quantity(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of a quantity in its unit, one for each run or for each held-out task of a run."""
    if frame.empty:
        return frame
    known = quantities(looks.experiment(frame))
    if name not in known:
        raise ValueError(f"there is no quantity {name!r}; report.py of the experiment has {', '.join(known)}.")
    about = known[name]
    chosen = about.select(frame, about.metric)
    return chosen.assign(metric=name, value=about.convert(chosen["value"].to_numpy()))
