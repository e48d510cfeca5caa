"""Numbers read off the curves of meta-training: where a run ends, and how soon it gets there.

Each function makes one row a run of all rows, in the form of result rows without a step. Curves are smoothed by a
trailing mean over a tenth of their length, since a point of them is the mean over one meta-batch only.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

RUN = ["method", "n_tasks", "seed"]


def smoothed(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows of each run's curve, in order, each value the mean of it and those before, as many as a tenth."""
    rows = frame.loc[(frame["metric"] == metric) & frame["step"].notna()].sort_values("step")
    mean = rows.groupby(RUN)["value"].transform(
        lambda values: values.rolling(max(1, len(values) // 10), min_periods=1).mean()
    )
    return rows.assign(value=mean)


def runs(frame: pd.DataFrame, metric: str) -> list[tuple[pd.DataFrame, np.ndarray]]:
    """(one row without a step, smoothed curve) of each run that has the metric."""
    return [
        (mine.iloc[[0]].assign(step=pd.array([pd.NA], dtype="Int64")), mine["value"].to_numpy())
        for _, mine in smoothed(frame, metric).groupby(RUN, sort=True)
    ]


def _joined(frame: pd.DataFrame, lines: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(lines, ignore_index=True) if lines else frame.iloc[:0]


def each(frame: pd.DataFrame, metric: str, number: Callable[[np.ndarray], float]) -> pd.DataFrame:
    """What `number` reads off each run's smoothed curve."""
    return _joined(frame, [line.assign(value=number(curve)) for line, curve in runs(frame, metric)])


def end(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The last value of each run's smoothed curve."""
    return each(frame, metric, lambda curve: curve[-1])
