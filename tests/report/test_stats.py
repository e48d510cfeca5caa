"""Intervals contain the true value as often as they state, and power agrees with simulations."""

import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from leapwarp.report import claims, stats

REPETITIONS = 4000


def seeds(n_seeds, n_tasks, spread=1.0, of_tasks=2.0):
    """Contrasts of many studies whose true effect is 0: [repetition, seed, task]."""
    stream = np.random.default_rng(3)
    effects = stream.normal(0, spread, (REPETITIONS, n_seeds, 1))
    return effects + stream.normal(0, of_tasks, (REPETITIONS, n_seeds, n_tasks)) * (n_tasks > 1)


@pytest.mark.parametrize("n_seeds", [2, 4, 10])
@pytest.mark.parametrize("n_tasks", [1, 10])
def test_the_interval_holds_the_truth_as_often_as_it_says(n_seeds, n_tasks):
    found = np.array([stats.interval(list(study), 0.95)[1:] for study in seeds(n_seeds, n_tasks)])
    held = ((found[:, 0] <= 0) & (found[:, 1] >= 0)).mean()
    assert 0.93 <= held <= 0.98


@pytest.mark.parametrize("n_seeds", [2, 4, 10])
def test_a_skewed_value_a_seed_is_held_too(n_seeds):
    """A gamma distribution of shape 4 has a skewness of 1."""
    stream = np.random.default_rng(4)
    studies = stream.gamma(4, 1, (REPETITIONS, n_seeds, 1)) - 4
    found = np.array([stats.interval(list(study), 0.95)[1:] for study in studies])
    assert ((found[:, 0] <= 0) & (found[:, 1] >= 0)).mean() >= 0.93


@pytest.mark.parametrize("n_seeds", [2, 4, 10])
def test_a_true_claim_of_many_parts_is_contradicted_in_at_most_a_twentieth(n_seeds):
    """In the worst case all of its six effects are zero, and its parts are independent."""
    parts = seeds(n_seeds, 1)[: REPETITIONS // 6 * 6].reshape(-1, 6, n_seeds, 1)
    verdicts = [[claims.of_interval(list(part), None, 6)[1] for part in claim] for claim in parts]
    assert np.mean(["contradicted" in claim for claim in verdicts]) <= 0.05


def test_the_interval_is_students_of_a_higher_level():
    values = [np.array([1.0, 2.0]), np.array([0.0, 0.5]), np.array([3.0, 4.5])]
    means = [value.mean() for value in values]
    theirs = ttest_1samp(means, 0).confidence_interval(0.96)
    assert stats.interval(values, 0.95) == pytest.approx((np.mean(means), *theirs))
    effect, low, high = stats.interval(values[:1], 0.95)
    assert effect == 1.5 and math.isnan(low) and math.isnan(high)


@pytest.mark.parametrize(
    ("effect", "n_seeds", "n_parts", "within"),
    [
        (1.5, 4, 1, math.inf),
        (-1.5, 4, 3, math.inf),
        (3.0, 3, 1, math.inf),
        (0.0, 6, 1, 2.0),
        (0.8, 6, 1, 2.0),
        (3.5, 5, 2, 1.0),
    ],
)
def test_power_is_the_share_of_studies_that_decide(effect, n_seeds, n_parts, within):
    margin = None if math.isinf(within) else within
    decided = [claims.of_interval(list(study + effect), margin, n_parts)[1] for study in seeds(n_seeds, 1)]
    found = np.mean([verdict != "undecided" for verdict in decided])
    assert stats.power(effect, 1.0, n_seeds, n_parts, within) == pytest.approx(found, abs=0.025)


def test_the_seeds_that_a_power_takes():
    enough = stats.seeds_for(0.8, 2.0, 1.0, 1)
    assert enough is not None
    assert stats.power(2.0, 1.0, enough, 1) >= 0.8 > stats.power(2.0, 1.0, enough - 1, 1)
    assert stats.seeds_for(0.8, 0.01, 1.0, 1) is None
    assert stats.power(2.0, 0.0, 5, 1) == 0.0  # trials without a spread state no power


def test_the_bound_of_a_spread_is_above_it_in_four_of_five_trials():
    stream = np.random.default_rng(5)
    trials = stream.normal(0, 2.0, (2000, 3, 4)).std(axis=2, ddof=1)  # three quantities with four seeds each
    apart = [{"a": 1.0}, {"b": 1.0}, {"c": 1.0}]
    above = np.mean([stats.upper_spread(list(stds), [4] * 3, apart) >= 2.0 for stds in trials])
    assert above == pytest.approx(0.8, abs=0.03)


def test_quantities_that_share_a_value_have_fewer_degrees_of_freedom():
    weights = [{"warp": 1.0, name: -1.0} for name in "abcde"]  # one method against five, correlated by a half
    assert stats.degrees_of_freedom([3] * 5, weights) == pytest.approx(10 * 5 / (5 + 20 * 0.25))
    assert stats.degrees_of_freedom([4, 4], [{"a": 1.0}, {"a": -2.0}]) == pytest.approx(3)  # the same quantity twice
    values = np.random.default_rng(6).normal(0, np.sqrt(2), (4000, 3, 6))  # [study, seed, method]
    stds = (values[..., :1] - values[..., 1:]).std(axis=1, ddof=1)
    above = np.mean([stats.upper_spread(list(each), [3] * 5, weights) >= 2.0 for each in stds])
    assert above == pytest.approx(0.8, abs=0.04)
