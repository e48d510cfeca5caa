"""Leap's Omniglot experiment: Table 1 of that paper (appendix F).

    python -m leapwarp.experiments.omniglot_leap --profile quick --method leap --n-tasks 20 --seeds 0 1 \\
        --data results/data/alphabets.safetensors --out leap.csv

Each alphabet is a task under 36 rotations, trained until it is learnt; methods meta-train on 1 to 30 alphabets until
the validation alphabets get no better, and are judged by the error on 10 alphabets held out.

One run takes, on a core: smoke, seconds; quick, about half a minute. To expect: leap below reptile below scratch in
error, and leap falling with the number of tasks.
"""

from collections.abc import Sequence
from dataclasses import replace

from leapwarp.data.alphabets import load
from leapwarp.experiments.command import main
from leapwarp.experiments.omniglot import Method, Settings, finetune_learner, path_learner, run, scratch_learner
from leapwarp.learners import fomaml, leap, reptile

PAPER = Settings(
    filters=64,  # App. F
    batch=20,  # Table 2
    inner_lr=0.1,  # Table 2; finetuning differs, below
    inner_steps=1000,  # Table 2
    outer_lr=0.1,  # Table 2
    meta_batch=20,  # Table 2
    meta_steps=5000,  # Table 2
    eval_steps=1000,  # Table 2
    augmentation="rotations",  # App. F
    n_test=10,  # App. F
    n_validation=6,  # App. F says up to 10; 46 alphabets leave 6 beside 30 and 10
    validate_every=1,  # App. F
    patience=10,  # App. F
    stop_error=0.02,  # App. F
    stop_patience=30,  # App. F
    curve_every=20,
)
QUICK = replace(
    PAPER,
    filters=16,
    meta_batch=3,
    meta_steps=20,
    inner_steps=50,
    eval_steps=100,
    validate_every=10,
    patience=10,
    stop_every=10,
    curve_every=10,
)
SMOKE = replace(
    PAPER,
    filters=4,
    meta_batch=2,
    meta_steps=3,
    inner_steps=4,
    eval_steps=10,
    n_test=2,
    n_validation=2,
    patience=1,
    curve_every=5,
    checkpoint_every=1,
)
PROFILES = {"smoke": SMOKE, "quick": QUICK, "paper": PAPER}


def methods(settings: Settings) -> dict[str, Method]:
    """The columns of Table 1, each with what sets it apart from `settings`."""
    return {
        "scratch": Method(settings, scratch_learner, pretrains=False),
        "finetune": Method(replace(settings, inner_lr=0.01), finetune_learner),  # Table 2
        "reptile": Method(settings, path_learner(reptile)),
        "fomaml": Method(settings, path_learner(fomaml)),
        "leap": Method(settings, path_learner(leap)),
    }


def cli(arguments: Sequence[str] | None = None) -> None:
    main("omniglot_leap", __doc__, PROFILES, methods, load, run, arguments)


if __name__ == "__main__":
    cli()
