"""Means and intervals over seeds and held-out tasks."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from leapwarp.report.rows import KEY

LEVEL = 0.95
DRAWS = 10_000


def summary(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean and spread of `value` over seeds: columns `by`, mean, std, n_seeds; sorted by `by`.

    Held-out tasks are averaged within a seed first, so that `std` is the sample standard deviation (n - 1 in
    the denominator) over seeds of the per-seed mean; it is missing where there is one seed. Raises ValueError
    where a column that must not be averaged over (any of KEY but seed and task) varies within a group.
    """
    by = list(by)
    for column in sorted(set(KEY) - {"seed", "task"} - set(by)):
        if len(frame[[*by, column]].drop_duplicates()) > len(frame[by].drop_duplicates()):
            raise ValueError(f"summary by {by}: found several values of {column} in a group, needed one.")
    per_seed = frame.groupby([*by, "seed"], as_index=False).agg({"value": "mean"})
    return per_seed.groupby(by)["value"].agg(mean="mean", std="std", n_seeds="count").reset_index()


def curve(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean and std over seeds at each step of the points of one metric: columns method, step, mean, std.

    A run that stopped before the others of its method keeps its last value, so that the mean is over the same
    tasks and seeds at every step; between two measurements of a run the line is straight.
    """
    parts = [pd.DataFrame(columns=["method", "step", "mean", "std"])]
    for key, mine in rows.groupby("method"):
        mine = mine.astype({"step": "int64"})
        wide = mine.pivot(index="step", columns=["seed", "task"], values="value").sort_index()
        whole = wide.interpolate(method="index", limit_area="inside").ffill()
        per_seed = whole.T.groupby(level="seed").agg("mean").T
        lines = pd.DataFrame({"mean": per_seed.mean(axis=1), "std": per_seed.std(axis=1)})
        parts.append(lines.assign(method=key).rename_axis("step").reset_index())
    return pd.concat(parts[1:]) if parts[1:] else parts[0]


def interval(values: Sequence[np.ndarray], level: float) -> tuple[float, float, float]:
    """Effect and its interval: mean over seeds of the mean over tasks, and a bootstrap over seeds and, in each, tasks.

    Drawing n seeds from n has (n - 1) / n of the variance that n new seeds would have, which matters where n is two or
    three: the deviations are widened by the root of n / (n - 1). docs/claims.md has the coverage that this gives.

    Args:
        values: at least two arrays [held-out task].
    """
    stream = np.random.default_rng(0)  # the same rows give the same file
    n = len(values)
    means = np.array([value.mean() for value in values])
    drawn = np.empty((n, DRAWS, n))  # for each seed, means of its tasks drawn anew, for as often as it may be drawn
    for i, value in enumerate(values):
        picked = stream.integers(len(value), size=(DRAWS, n, len(value)), dtype=np.int32)
        drawn[i] = value[picked].mean(-1)
    seeds = stream.integers(n, size=(DRAWS, n))
    samples = drawn[seeds, np.arange(DRAWS)[:, None], np.arange(n)].mean(1)
    return _widened(means, samples, level)


def interval_of_many(values: Sequence[np.ndarray], level: float) -> tuple[float, float, float]:
    """As `interval`, for so many tasks a seed that their mean has a normal distribution; none (nan) with one seed."""
    means = np.array([value.mean() for value in values])
    n = len(means)
    if n < 2:
        return float(means.mean()), math.nan, math.nan
    errors = np.array([value.std(ddof=1) / len(value) ** 0.5 if len(value) > 1 else 0.0 for value in values])
    stream = np.random.default_rng(0)
    seeds = stream.integers(n, size=(DRAWS, n))
    samples = (means[seeds] + errors[seeds] * stream.standard_normal((DRAWS, n))).mean(1)
    return _widened(means, samples, level)


def _widened(means: np.ndarray, samples: np.ndarray, level: float) -> tuple[float, float, float]:
    effect, n = means.mean(), len(means)
    low, high = np.quantile(samples - effect, [(1 - level) / 2, (1 + level) / 2]) * math.sqrt(n / (n - 1))
    return float(effect), float(effect + low), float(effect + high)
