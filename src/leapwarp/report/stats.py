"""Means over seeds and held-out tasks, intervals and power."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import chi2, norm, t

from leapwarp.report.rows import KEY

LEVEL = 0.95
SKEW = 0.8
"""By this share the error probability of an interval is reduced: an interval of 0.95 uses the quantile of t for 0.96.
For one value a seed with a skewness of 1 it then covers 0.94; Student's own interval covers 0.93
(benchmarks/coverage.py)."""


def summary(frame: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """Mean and spread of `value` over seeds: columns `by`, mean, std, n_seeds; sorted by `by`.

    Held-out tasks are averaged within a seed first. So `std` is the sample standard deviation (n - 1 in the
    denominator) over seeds of the mean of a seed. It is missing if there is one seed. Raises ValueError if a column
    that must not be averaged over (any of KEY except seed and task) varies within a group.
    """
    by = list(by)
    for column in sorted(set(KEY) - {"seed", "task"} - set(by)):
        if len(frame[[*by, column]].drop_duplicates()) > len(frame[by].drop_duplicates()):
            raise ValueError(f"summary by {by}: found several values of {column} in a group, needed one.")
    per_seed = frame.groupby([*by, "seed"], as_index=False).agg({"value": "mean"})
    return per_seed.groupby(by)["value"].agg(mean="mean", std="std", n_seeds="count").reset_index()


def curve(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean and std over seeds at each step of the points of one metric: columns method, step, mean, std.

    A run that stopped before the others of its method keeps its last value, so that the mean is over the same tasks
    and seeds at every step. Between two measurements of a run, values are interpolated linearly.
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


def quantile(level: float, n: int) -> float:
    """Half the width of an interval over `n` seeds, in standard errors: Student's t, widened by SKEW."""
    return float(t.isf(SKEW * (1 - level) / 2, n - 1))


def corrected(n_parts: int) -> float:
    """The level of the interval that contradicts a claim of k parts: 1 - (1 - LEVEL) / (k + 1).

    Without the correction, one of many true parts would often be contradicted by chance. The additional share allows
    for skewed values.
    """
    return 1 - (1 - LEVEL) / (n_parts + 1)


def interval(values: Sequence[np.ndarray], level: float) -> tuple[float, float, float]:
    """Effect and its interval: Student's t over seeds, each with the mean over its held-out tasks. nan with one seed.

    The spread between seeds includes the spread between tasks, since every seed has its own tasks.

    Args:
        values: an array [held-out task] for each seed.
    """
    means = np.array([value.mean() for value in values])
    effect = float(means.mean())
    if len(means) < 2:
        return effect, math.nan, math.nan
    half = quantile(level, len(means)) * float(means.std(ddof=1)) / math.sqrt(len(means))
    return effect, effect - half, effect + half


def power(effect: float, spread: float, n: int, n_parts: int, within: float = math.inf) -> float:
    """The probability that one part of a claim is decided, by the rule of `leapwarp.report.claims`.

    Args:
        effect: true mean of the contrast. It may have either sign, since a part can be decided both ways.
        spread: standard deviation over seeds of the mean over a seed's tasks.
        n: number of seeds.
        n_parts: number of parts of the claim.
        within: the margin of a claim that two things are equal; infinite for a claim that something is above zero.
    """
    if n < 2 or spread <= 0:  # equal trials give no estimate of the spread
        return 0.0
    # Quantiles of the estimated standard error; given the standard error, the mean is normal.
    shares = (np.arange(2000) + 0.5) / 2000
    estimated = np.sqrt(chi2.ppf(shares, n - 1) / (n - 1))
    true = spread / math.sqrt(n)
    near, far = (quantile(level, n) * true * estimated for level in (LEVEL, corrected(n_parts)))
    if math.isinf(within):
        found = norm.sf((near - effect) / true) + norm.cdf((-far - effect) / true)
    else:
        inside = norm.cdf((within - near - effect) / true) - norm.cdf((near - within - effect) / true)
        found = inside.clip(min=0) + norm.sf((within + far - effect) / true) + norm.cdf((-within - far - effect) / true)
    return float(found.mean())


def seeds_for(needed: float, effect: float, spread: float, n_parts: int, within: float = math.inf) -> int | None:
    """The smallest number of seeds with the power `needed`, or None if a hundred are not enough."""
    enough = (n for n in range(2, 101) if power(effect, spread, n, n_parts, within) >= needed)
    return next(enough, None)


def upper_spread(deviations: Sequence[float], n: Sequence[int], weights: Sequence[Mapping[Any, float]]) -> float:
    """An upper bound of a standard deviation: the true one is below it with a probability of 0.8.

    Few trial seeds estimate the spread badly. With this bound, four in five studies have at least the power stated, if
    the effect is as expected. Errors of the expected effect are not in it.

    Args:
        deviations: standard deviations of similar quantities.
        n: the number of seeds of each.
        weights: the weights of the values that each adds up. Quantities that share a value are not independent.
    """
    degrees = degrees_of_freedom(n, weights)
    pooled = math.sqrt(float(np.mean(np.square(deviations))))
    return pooled * math.sqrt(degrees / float(chi2.ppf(0.2, degrees)))


def degrees_of_freedom(n: Sequence[int], weights: Sequence[Mapping[Any, float]]) -> float:
    """Of the pooled variance of m quantities, after Satterthwaite: (sum of n - 1) m / sum of squared correlations.

    The correlations are those that the quantities have if the values they add up are independent, of one spread.
    """
    names = sorted({name for each in weights for name in each})
    rows = np.array([[each.get(name, 0.0) for name in names] for each in weights])
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return float(sum(count - 1 for count in n) * len(rows) / np.square(rows @ rows.T).sum())
