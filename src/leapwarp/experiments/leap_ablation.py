"""Leap's ablation of its own objective: Figure 5 of that paper (appendix E).

    python -m leapwarp.experiments.leap_ablation --profile quick --method leap_length_stabiliser --n-tasks 10 \\
        --seeds 0 1 --data results/data/alphabets.safetensors --out rows.csv

The set-up is that of `omniglot_leap`, with fewer steps and without early stopping of meta-training. There are six
configurations: the energy of the path (p = 2) or its length (p = 1), in parameter space alone or with the loss
(f = 1), and there with the stabiliser or without (mu = 1). Reptile runs beside them because the simplest of them must
be Reptile, to the digit.

One run takes, on a core: smoke, seconds; quick, about 15 s. To expect: in the paper, the loss helps most, the
stabiliser speeds training up, and length does better than energy.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from leapwarp.data.alphabets import load
from leapwarp.experiments import omniglot_leap
from leapwarp.experiments.command import main
from leapwarp.experiments.omniglot import Method, Settings, path_learner, run, scratch_learner
from leapwarp.learners import Learner, leap, reptile

PAPER = replace(
    omniglot_leap.PAPER,  # App. E: "all other hyper-parameters are the same"
    inner_steps=100,  # App. E
    meta_steps=500,  # App. E
    validate_every=0,  # App. E speaks of 500 updates, not of stopping
    patience=None,
)
QUICK = replace(PAPER, filters=8, meta_batch=3, meta_steps=60, inner_steps=50, eval_steps=100, stop_every=10)
SMOKE = replace(omniglot_leap.SMOKE, validate_every=0, patience=None)
PROFILES = {"smoke": SMOKE, "quick": QUICK, "paper": PAPER}


def _leap(length: bool, loss: bool, stabiliser: bool) -> Callable[..., Learner]:
    def build(*arguments: object) -> Learner:
        return leap(*arguments, length=length, loss=loss, stabiliser=stabiliser)  # type: ignore[arg-type]

    return path_learner(build)


def methods(settings: Settings) -> dict[str, Method]:
    """The lines of Figure 5, with Reptile and no pretraining beside them."""
    return {
        "scratch": Method(settings, scratch_learner, pretrains=False),
        "reptile": Method(settings, path_learner(reptile)),
        "leap_energy": Method(settings, _leap(False, False, False)),
        "leap_energy_loss": Method(settings, _leap(False, True, False)),
        "leap_energy_stabiliser": Method(settings, _leap(False, True, True)),
        "leap_length": Method(settings, _leap(True, False, False)),
        "leap_length_loss": Method(settings, _leap(True, True, False)),
        "leap_length_stabiliser": Method(settings, _leap(True, True, True)),
    }


def cli(arguments: Sequence[str] | None = None) -> None:
    main("leap_ablation", __doc__, PROFILES, methods, load, run, arguments)


if __name__ == "__main__":
    cli()
