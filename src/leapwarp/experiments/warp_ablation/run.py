"""WarpGrad's ablation of warps, objective and meta-training: Table 3 of that paper (appendix G).

    snakemake warp_ablation

The experiment is that of `omniglot_warp` with 25 tasks. The rows vary the training of the warps (offline or online,
second or first order, with a learned rate and momentum) and their kind (from a scale and a shift to two convolutional
layers with task embeddings).

One run takes, on a core: smoke, seconds; quick, 10 to 50 s. To expect: in the paper, offline far above online, and more
expressive warps above simpler ones; quick trains too little to show all of it.
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
    train,
)
from leapwarp.experiments.omniglot_warp import run as omniglot_warp
from leapwarp.experiments.omniglot_warp.run import warp_leap_learner
from leapwarp.inner import Stop
from leapwarp.learners import Learner, leap, warp_leap_online
from leapwarp.learners.warpgrad import Rates
from leapwarp.models.convnet import Warp
from leapwarp.optim import sgd
from leapwarp.problem import Problem

PUBLISHED = omniglot_warp.PUBLISHED  # App. G: "all ablations use the same hyper-parameters", but for online
ONLINE_LR = 0.001  # App. G
ONLINE_TERMS = PUBLISHED.meta_batch * PUBLISHED.inner_steps  # terms of the sum that this rate multiplies in the paper


def online_learner(
    problem: Problem, settings: Settings, n_tasks: int, stop: Stop | None, rate: float = ONLINE_LR
) -> Learner:
    """Online Warp-Leap, with the paper's rate on the sum over tasks and steps; the initialisation is as offline."""
    inner, outer = sgd(settings.inner_lr), sgd(settings.outer_lr)
    return warp_leap_online(
        problem,
        inner,
        outer,
        sgd(rate),
        settings.inner_steps,
        settings.tasks_at_a_time,
        settings.leap_weight,
        settings.order,
    )


def scaled_online_learner(problem: Problem, settings: Settings, n_tasks: int, stop: Stop | None) -> Learner:
    """Online Warp-Leap with the paper's step for each term of the sum. Smaller sizes have fewer terms."""
    rate = ONLINE_LR * ONLINE_TERMS / (settings.meta_batch * settings.inner_steps)
    return online_learner(problem, settings, n_tasks, stop, rate)


def rates_learner(problem: Problem, settings: Settings, n_tasks: int, stop: Stop | None) -> Learner:
    return warp_leap_learner(problem, settings, n_tasks, stop, Rates(settings.inner_lr))


def methods(settings: Settings) -> dict[str, Method]:
    """The rows of Table 3, and `warp_leap_no_step`, the approximation in the released code."""

    def warped(warp: Warp, learner: Callable[..., Learner] = warp_leap_learner, order: int = 2) -> Method:
        return Method(replace(settings, order=order), learner, warp)

    summed = replace(settings, leap_weight=float(settings.meta_batch))
    two_layers = Warp(layers=2, norm=True, relu=True, residual=True)
    return {
        "leap": Method(settings, path_learner(leap)),
        "warp_leap": warped(Warp()),
        "warp_leap_approx": warped(Warp(), order=1),
        "warp_leap_no_step": warped(Warp(), order=0),
        "warp_leap_online": warped(Warp(), online_learner),
        "warp_leap_online_scaled": warped(Warp(), scaled_online_learner),
        # Equation 12 sums over tasks, and Leap's objective is a mean. So lambda is multiplied by the number of tasks.
        "warp_leap_summed": Method(summed, warp_leap_learner, Warp()),
        "warp_leap_rates": warped(Warp(), rates_learner),
        "warp_scaling": warped(Warp(kernel=0)),
        "warp_1x1": warped(Warp(kernel=1)),
        "warp_relu": warped(Warp(relu=True)),
        "warp_norm": warped(Warp(norm=True)),
        "warp_norm_relu": warped(Warp(norm=True, relu=True)),
        "warp_residual": warped(Warp(norm=True, relu=True, residual=True)),
        "warp_two_layers": warped(two_layers),
        "warp_embedding": warped(two_layers._replace(film=True)),
    }


EXPERIMENT = Experiment(PUBLISHED, methods, judge, train, load, EVALUATION)
