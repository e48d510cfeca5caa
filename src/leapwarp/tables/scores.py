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

    Random play counts as what it scores on average over the second half of its runs (`floor`), over seeds. Where
    nothing is above random play, the largest distance from it is the unit.
    """
    rows = frame.loc[(frame["metric"] == metric) & frame["step"].notna()]
    plays_at_random = rows["method"] == RANDOM
    zeros = floor(rows)
    learnt = rows.loc[~plays_at_random]
    missing = sorted(set(learnt["task"]) - set(zeros.index))
    if missing:
        raise ValueError(f"{metric}: found no random play of {', '.join(missing)}, needed it for the scale of scores.")
    top = learnt.groupby(["task", "method", "step"])["value"].mean().groupby("task").max()
    zero = zeros.reindex(learnt["task"]).to_numpy(dtype=float)
    reach = top.reindex(learnt["task"]).to_numpy(dtype=float) - zero
    off = learnt["value"].to_numpy() - zero
    furthest = pd.Series(np.abs(off)).groupby(learnt["task"].to_numpy()).transform("max").to_numpy()
    unit = np.where(reach > 0, reach, np.where(furthest > 0, furthest, 1.0))
    return learnt.assign(value=off / unit)


def floor(rows: pd.DataFrame) -> pd.Series:
    """What random play scores in each game: a mean over the second half of its points, of seeds alike."""
    played = rows.loc[rows["method"] == RANDOM].sort_values("step")
    of_run = played.groupby(["task", "seed"])["value"].agg(lambda values: second_half(values.to_numpy()))
    return of_run.groupby("task").mean()


def second_half(values: np.ndarray) -> float:
    return float(values[len(values) // 2 :].mean())


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
    """The same of the game's own scores; of random play, which does not change, over the second half."""
    rows = frame.loc[(frame["metric"] == metric) & frame["step"].notna()]
    plays_at_random = rows["method"] == RANDOM
    parts = [_each(rows.loc[~plays_at_random], last_tenth), _each(rows.loc[plays_at_random], second_half)]
    return pd.concat([part for part in parts if len(part)], ignore_index=True)
