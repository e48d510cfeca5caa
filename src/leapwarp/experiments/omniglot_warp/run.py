"""WarpGrad's main Omniglot experiment: Table 2 and Figures 2 (left) and 5 of that paper.

    snakemake omniglot_warp

Each alphabet is a task of 100 gradient steps with strong augmentation. Methods meta-train on 1 to 25 alphabets. They
are compared by the accuracy on 10 held-out alphabets, and by the area under their training curves.

One run takes, on a core: smoke, seconds; quick, two minutes, warp_leap ten. To expect: warp_leap above
leap above reptile above scratch at 25 tasks, and leap and warp_leap far better with 25 tasks than with 1.
"""

from collections.abc import Callable
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
from leapwarp.inner import Gradient, Stop
from leapwarp.kfac import Columns, empirical, kfac
from leapwarp.learners import Learner, fomaml, leap, maml, reptile, warp_leap
from leapwarp.learners.warpgrad import Rates
from leapwarp.models.convnet import Warp
from leapwarp.optim import sgd
from leapwarp.problem import Model, Problem, cross_entropy
from leapwarp.worlds.alphabets import draw_heldout

PUBLISHED = Settings(
    filters=64,  # WarpGrad App. F
    batch=20,  # Leap Table 2, which WarpGrad App. F follows; its 10x row has 200 (App. H)
    inner_lr=0.1,  # Leap Table 2
    inner_steps=100,  # WarpGrad Sec. 3(b)
    outer_lr=0.1,  # Leap Table 2
    meta_batch=20,  # Leap Table 2
    meta_steps=1000,  # not in the paper; the released code's
    eval_steps=100,  # WarpGrad App. F
    augmentation="affine",  # WarpGrad App. F
    n_test=10,  # WarpGrad App. F
    eta=1,  # WarpGrad App. C
    leap_weight=1.0,  # lambda: WarpGrad Sec. 3(b), J = L + C
    dampings=(0.001, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),  # not in the paper, nor its released code
    damping_tasks=10,
)


def warp_leap_learner(
    problem: Problem, settings: Settings, n_tasks: int, stop: Stop | None, rates: Rates | None = None
) -> Learner:
    """Warp-Leap makes all steps on every task, since its buffer has a fixed number of points. So `stop` is not used."""
    inner, outer = sgd(settings.inner_lr), sgd(settings.outer_lr)
    return warp_leap(
        problem,
        inner,
        outer,
        settings.inner_steps,
        settings.tasks_at_a_time,
        eta=settings.eta,
        scale=settings.leap_weight,
        order=settings.order,
        rates=rates,
    )


def heldout_learner(problem: Problem, settings: Settings, n_tasks: int, stop: Stop | None) -> Learner:
    """Warp-Leap whose L_meta is on held-out drawings of the training tasks (App. F)."""
    return warp_leap_learner(problem._replace(draw_meta=draw_heldout), settings, n_tasks, stop)


def kfac_gradient(columns: Columns = empirical) -> Callable[[Model, float], Gradient]:
    return lambda model, damping: kfac(model.apply, cross_entropy, damping, columns)


def methods(settings: Settings) -> dict[str, Method]:
    """The rows of Table 2, each with its own settings."""
    # The released code's meta learning rate of both MAMLs, and 5 steps for the one that differentiates through them.
    second_order = replace(settings, outer_lr=0.5, inner_steps=min(5, settings.inner_steps))
    # Ten times the batch and the rate, WarpGrad Table 2.
    ten_times = replace(settings, batch=10 * settings.batch, inner_lr=10 * settings.inner_lr)
    slow_replay = replace(settings, eta=5)  # App. C: "eta > 1", without a number
    # A third faster one at a time, since KFAC's data then stay in the cache.
    natural = replace(untrained(ten_times), tasks_at_a_time=1)
    return {
        "scratch": Method(untrained(settings), scratch_learner),
        "sgd10x": Method(untrained(ten_times), scratch_learner),
        "kfac": Method(natural, scratch_learner, natural=kfac_gradient()),
        "finetune": Method(settings, finetune_learner),
        "finetune_slow": Method(replace(settings, inner_lr=0.01), finetune_learner),  # Leap Table 2's rate
        "reptile": Method(settings, path_learner(reptile)),
        "fomaml": Method(replace(settings, outer_lr=0.5), path_learner(fomaml)),
        "maml": Method(second_order, path_learner(maml)),
        "leap": Method(settings, path_learner(leap)),
        "leap_released_pixels": Method(replace(settings, released_pixels=True), path_learner(leap)),
        "warp_leap": Method(settings, warp_leap_learner, warp=Warp()),
        "warp_leap_approx": Method(replace(settings, order=1), warp_leap_learner, warp=Warp()),
        "warp_leap_heldout": Method(settings, heldout_learner, warp=Warp()),
        "warp_leap_eta5": Method(slow_replay, warp_leap_learner, warp=Warp()),
        # App. F: all learners gain from large batches.
        "finetune_10x": Method(ten_times, finetune_learner),
        "reptile_10x": Method(ten_times, path_learner(reptile)),
        "leap_10x": Method(ten_times, path_learner(leap)),
        "warp_leap_10x": Method(ten_times, warp_leap_learner, warp=Warp()),
    }


EXPERIMENT = Experiment(PUBLISHED, methods, judge, train, load, EVALUATION)
