"""Selection of the rows of a quantity, and numbers from curves: one row for each run, or each held-out task of a run.

Each function takes all rows and a metric, and returns result rows without a step. The curves of meta-training are
smoothed first, by a trailing mean over a tenth of their length, since a point of them is the mean over one meta-batch.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

RUN = ["method", "n_tasks", "seed"]


def final(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows of a metric that are not points of a curve."""
    return frame.loc[(frame["metric"] == metric) & frame["step"].isna()]


def steps(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The rows of a metric that are points of a curve, in their order."""
    return frame.loc[(frame["metric"] == metric) & frame["step"].notna()].sort_values("step", kind="stable")


def trailing(frame: pd.DataFrame, metric: str, share: int) -> pd.DataFrame:
    """The rows of each run's curve, smoothed by a trailing mean over a `share`-th of the curve's length."""
    rows = steps(frame, metric)
    mean = rows.groupby(RUN)["value"].transform(
        lambda values: values.rolling(max(1, len(values) // share), min_periods=1).mean()
    )
    return rows.assign(value=mean)


def smoothed(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    return trailing(frame, metric, 10)


def each(rows: pd.DataFrame, number: Callable[[np.ndarray], float], by: list[str] = RUN) -> pd.DataFrame:
    """One row without a step for each curve among points, with `number` of the curve's values in their order."""
    rows = rows.sort_values("step", kind="stable")
    lines = [
        mine.iloc[[0]].assign(step=pd.array([pd.NA], dtype="Int64"), value=number(mine["value"].to_numpy()))
        for _, mine in rows.groupby(by, sort=True)
    ]
    return pd.concat(lines, ignore_index=True) if lines else rows.iloc[:0]


def end(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The last value of each run's smoothed curve."""
    return each(smoothed(frame, metric), lambda curve: curve[-1])


def height(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The mean of each run's curve: the area under it, divided by its length."""
    return each(steps(frame, metric), lambda curve: float(curve.mean()))


def of_most_tasks(frame: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The rows with the largest number of pretraining tasks or without pretraining, and that number."""
    count = int(frame["n_tasks"].to_numpy().max())
    return frame.loc[frame["n_tasks"].isin([0, count])], count
