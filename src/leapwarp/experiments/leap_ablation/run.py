"""Leap's ablation of its own objective: Figure 5 of that paper (appendix E).

    snakemake leap_ablation

The experiment is that of `omniglot_leap`, with fewer steps and without early stopping of meta-training. There are six
configurations: the energy of the path (p = 2) or its length (p = 1), each in parameter space only, with the loss
(f = 1), or with the loss and the stabiliser (mu = 1). Reptile is run too, since the simplest configuration must equal
it exactly.

One run takes, on a core: smoke, seconds; quick, about 15 s. To expect: in the paper, the loss helps most, the
stabiliser speeds training up, and length does better than energy.
"""

from collections.abc import Callable
from dataclasses import replace

from leapwarp.data.alphabets import load
from leapwarp.experiments.base import Experiment
from leapwarp.experiments.omniglot import (
    EVALUATION,
    Method,
    Settings,
    judge,
    path_learner,
    scratch_learner,
    train,
    untrained,
)
from leapwarp.experiments.omniglot_leap import run as omniglot_leap
from leapwarp.learners import Learner, leap, reptile

PUBLISHED = replace(
    omniglot_leap.PUBLISHED,  # App. E: "all other hyper-parameters are the same"
    inner_steps=100,  # App. E
    meta_steps=500,  # App. E
    validate_every=0,  # App. E speaks of 500 updates, not of stopping
    patience=None,
)


def _leap(length: bool, loss: bool, stabiliser: bool) -> Callable[..., Learner]:
    def build(*arguments: object) -> Learner:
        return leap(*arguments, length=length, loss=loss, stabiliser=stabiliser)  # type: ignore[arg-type]

    return path_learner(build)


def methods(settings: Settings) -> dict[str, Method]:
    """The lines of Figure 5, with Reptile and no pretraining, and methods with a larger meta learning rate."""
    fast = replace(settings, outer_lr=5 * settings.outer_lr)  # App. C: "larger learning rates", without numbers
    return {
        "scratch": Method(untrained(settings), scratch_learner),
        "reptile": Method(settings, path_learner(reptile)),
        "leap_energy": Method(settings, _leap(False, False, False)),
        "leap_energy_loss": Method(settings, _leap(False, True, False)),
        "leap_energy_stabiliser": Method(settings, _leap(False, True, True)),
        "leap_length": Method(settings, _leap(True, False, False)),
        "leap_length_loss": Method(settings, _leap(True, True, False)),
        "leap_length_stabiliser": Method(settings, _leap(True, True, True)),
        "leap_length_loss_fast": Method(fast, _leap(True, True, False)),
        "leap_length_stabiliser_fast": Method(fast, _leap(True, True, True)),
    }


EXPERIMENT = Experiment(PUBLISHED, methods, judge, train, load, EVALUATION)
