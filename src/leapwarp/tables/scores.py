"""Scores of games on a scale of their own: 0 is random play, 1 the best that any method reached on average.

Every game has its scale; metrics are named `score_<group of games>`, and tasks are games.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

RANDOM = "random_policy"
RUN = ["method", "n_tasks", "seed", "task"]


def normalised(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The curves of all methods that learn, with `value` on the scale of its game.

    Random play counts as what it scores at the end of its runs, over seeds. Where nothing is above random play, the
    largest distance from it is the unit.
    """
    rows = frame.loc[(frame["metric"] == metric) & frame["step"].notna()]
    plays_at_random = rows["method"] == RANDOM
    last = rows.loc[plays_at_random].sort_values("step").groupby(["task", "seed"])["value"].last()
    floor = last.groupby("task").mean()
    learnt = rows.loc[~plays_at_random]
    missing = sorted(set(learnt["task"]) - set(floor.index))
    if missing:
        raise ValueError(f"{metric}: found no random play of {', '.join(missing)}, needed it for the scale of scores.")
    top = learnt.groupby(["task", "method", "step"])["value"].mean().groupby("task").max()
    zero = floor.reindex(learnt["task"]).to_numpy(dtype=float)
    reach = top.reindex(learnt["task"]).to_numpy(dtype=float) - zero
    off = learnt["value"].to_numpy() - zero
    furthest = pd.Series(np.abs(off)).groupby(learnt["task"].to_numpy()).transform("max").to_numpy()
    unit = np.where(reach > 0, reach, np.where(furthest > 0, furthest, 1.0))
    return learnt.assign(value=off / unit)


def _each(curves: pd.DataFrame, measure: Callable[[np.ndarray], float]) -> pd.DataFrame:
    """One row without a step for each curve, with what `measure` says of its values."""
    lines = [
        mine.iloc[[0]].assign(step=pd.array([pd.NA], dtype="Int64"), value=measure(mine["value"].to_numpy()))
        for _, mine in curves.sort_values("step").groupby(RUN, sort=True)
    ]
    return pd.concat(lines, ignore_index=True) if lines else curves.iloc[:0]


def last_tenth(values: np.ndarray) -> float:
    return float(values[-max(1, len(values) // 10) :].mean())


def area(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The mean of each normalised curve: the area under it, divided by its length."""
    return _each(normalised(frame, metric), lambda values: float(values.mean()))


def end(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The mean over the last tenth of each normalised curve."""
    return _each(normalised(frame, metric), last_tenth)


def raw(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The same of the game's own scores, and of random play too."""
    return _each(frame.loc[(frame["metric"] == metric) & frame["step"].notna()], last_tenth)
