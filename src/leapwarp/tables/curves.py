"""Numbers read off the curves of meta-training: where a run ends, and how soon it gets there.

Each function makes one row a run of all rows, in the form of result rows without a step. Curves are smoothed by a
trailing mean over a tenth of their length, since a point of them is the mean over one meta-batch only.
"""

import numpy as np
import pandas as pd

from leapwarp import results

RUN = ["method", "n_tasks", "seed"]


def _smoothed(values: np.ndarray) -> np.ndarray:
    """Mean of each point and those before it, as many as a tenth of the curve."""
    width = max(1, len(values) // 10)
    return np.asarray(pd.Series(values).rolling(width, min_periods=1).mean())


def runs(frame: pd.DataFrame, metric: str) -> list[tuple[pd.DataFrame, np.ndarray]]:
    """(one row without a step, smoothed curve) of each run that has the metric."""
    rows = frame.loc[(frame["metric"] == metric) & frame["step"].notna()].sort_values("step")
    return [
        (mine.iloc[[0]].assign(step=pd.array([pd.NA], dtype="Int64")), _smoothed(mine["value"].to_numpy()))
        for _, mine in rows.groupby(RUN, sort=True)
    ]


def _joined(frame: pd.DataFrame, lines: list[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(lines, ignore_index=True) if lines else frame.iloc[:0]


def first_at(curve: np.ndarray, level: float) -> int:
    """Number of meta-steps until a curve is at `level` or below; the length of the curve where it never is."""
    below = np.nonzero(curve <= level)[0]
    return int(below[0]) + 1 if len(below) else len(curve)


def end(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The last value of each run's smoothed curve."""
    return _joined(frame, [line.assign(value=curve[-1]) for line, curve in runs(frame, metric)])


def half_way(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The share of meta-training after which a run's curve has fallen half as far as it ever does, 0 to 1."""
    return _joined(
        frame,
        [
            line.assign(value=first_at(curve, (curve[0] + curve.min()) / 2) / len(curve))
            for line, curve in runs(frame, metric)
        ],
    )


def median_end(frame: pd.DataFrame, metric: str) -> float:
    """The median over methods of the mean over seeds of where curves end."""
    means = results.summary(end(frame, metric), ["method", "n_tasks", "metric"])["mean"]
    return float(np.median(means.to_numpy()))


def to_median(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Meta-steps until a run is where the median method ends; all of its meta-steps where it never is.

    Reptile, which stands beside one of the configurations as its equal, has no part in the median.
    """
    found = runs(frame, metric)
    level = median_end(frame.loc[frame["method"] != "reptile"], metric) if found else 0.0
    return _joined(frame, [line.assign(value=first_at(curve, level)) for line, curve in found])


def where_descent_struggles(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The final rows of the third of the surfaces where gradient descent has the largest area of gaps, seed by seed.

    `_peaks` methods learn other surfaces, and gradient descent is chosen by there on its own.
    """
    final = frame.loc[frame["step"].isna()]
    parts = []
    for other in (False, True):
        rows = final.loc[final["method"].str.endswith("_peaks") == other]
        plain = rows.loc[(rows["method"] == ("gd_peaks" if other else "gd")) & (rows["metric"] == "gap_area")]
        rank = plain.groupby("seed")["value"].rank(ascending=False, method="first")
        size = plain.groupby("seed")["value"].transform("size")
        hard = plain.loc[rank <= size / 3, ["seed", "task"]]
        parts.append(rows.loc[rows["metric"] == metric].merge(hard, on=["seed", "task"]))
    return pd.concat(parts, ignore_index=True)


def height(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The mean of each run's curve: the area under it, divided by its length."""
    rows = frame.loc[(frame["metric"] == metric) & frame["step"].notna()]
    lines = [
        mine.iloc[[0]].assign(step=pd.array([pd.NA], dtype="Int64"), value=mine["value"].mean())
        for _, mine in rows.groupby(RUN, sort=True)
    ]
    return _joined(frame, lines)


def off_median(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """How far each run's `height` is from the median over the seeds of its method, where it has at least four.

    Of two seeds both are as far from their median, so that the spread would look as if it were known exactly.
    """
    found = height(frame, metric)
    of_method = found.groupby(["method", "n_tasks"])["value"]
    spread = found.assign(value=(found["value"] - of_method.transform("median")).abs())
    return spread.loc[np.asarray(of_method.transform("size")) >= 4]


def quartile_width(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The inter-quartile range over seeds, averaged over the curve: columns method, width."""
    rows = frame.loc[(frame["metric"] == metric) & frame["step"].notna()]
    quartiles = rows.groupby(["method", "step"])["value"].quantile([0.25, 0.75]).unstack()
    width = (quartiles[0.75] - quartiles[0.25]).groupby(level="method").mean()
    return width.rename("width").reset_index()
