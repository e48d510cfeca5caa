"""Leap's Omniglot experiment: Table 1 of that paper (appendix F).

    snakemake omniglot_leap

Each alphabet is a task, with 36 rotations of its images, and is trained until it is learnt. Methods meta-train on 1 to
30 alphabets until the error on the validation alphabets no longer improves. They are compared by the error on 10
held-out alphabets.

One run takes, on a core: smoke, seconds; quick, about half a minute. To expect: leap below reptile below scratch in
error, and leap falling with the number of tasks.
"""

from dataclasses import replace

from leapwarp.data.alphabets import load
from leapwarp.experiments.base import Experiment
from leapwarp.experiments.omniglot import (
    EVALUATION,
    Method,
    Settings,
    finetune_learner,
    judge,
    path_learner,
    scratch_learner,
    train,
    untrained,
)
from leapwarp.learners import fomaml, leap, reptile

PUBLISHED = Settings(
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


def methods(settings: Settings) -> dict[str, Method]:
    """The columns of Table 1, each with its own settings."""
    return {
        "scratch": Method(untrained(settings), scratch_learner),
        "finetune": Method(replace(settings, inner_lr=0.01), finetune_learner),  # Table 2
        "finetune_fast": Method(settings, finetune_learner),  # at the rate of all others, as in the released code
        "reptile": Method(settings, path_learner(reptile)),
        "fomaml": Method(settings, path_learner(fomaml)),
        "leap": Method(settings, path_learner(leap)),
        "leap_to_the_end": Method(replace(settings, stop_error=0.0), path_learner(leap)),  # App. F: "no effect"
    }


EXPERIMENT = Experiment(PUBLISHED, methods, judge, train, load, EVALUATION)
