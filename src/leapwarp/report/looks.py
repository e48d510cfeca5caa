"""Names, colours and markers of methods and papers, for tables and figures. Imports no plotting library."""

from collections.abc import Iterable

import pandas as pd

from leapwarp import catalogue
from leapwarp.catalogue import Look

PAPERS = {"leap": "Leap paper", "warpgrad": "WarpGrad paper"}  # by file of paper/


def experiment(frame: pd.DataFrame) -> str:
    """The experiment that rows are of."""
    return str(frame["experiment"].iloc[0])


def look(method: str, experiment: str) -> Look:
    """The look of a method. One that the experiment does not have (a user's state) keeps its own name."""
    known = catalogue.find(experiment).methods
    return known[method].look if method in known else Look(method)


def ordered(methods: Iterable[str], experiment: str) -> list[str]:
    """Methods, each once, in the order of the experiment's file; then others in the order of their names."""
    order = list(catalogue.find(experiment).methods)
    return sorted(set(methods), key=lambda key: (order.index(key) if key in order else len(order), key))


def of(frame: pd.DataFrame, also: Iterable[str] = ()) -> dict[str, Look]:
    """The looks of the methods in the rows, and of `others`, in their order."""
    if frame.empty:
        return {}
    name = experiment(frame)
    return {method: look(method, name) for method in ordered([*frame["method"], *also], name)}


def names(frame: pd.DataFrame) -> dict[str, str]:
    """The names of the methods in the rows, in their order."""
    return {method: found.name for method, found in of(frame).items()}
