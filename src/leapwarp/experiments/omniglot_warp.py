"""WarpGrad's main Omniglot experiment: Table 2 and Figures 2 (left) and 5 of that paper.

    python -m leapwarp.experiments.omniglot_warp --profile quick --method leap --n-tasks 25 --seeds 0 1 \\
        --data results/data/alphabets.safetensors --out leap.csv

Each alphabet is a task of 100 gradient steps under strong augmentation; methods meta-train on 1 to 25 alphabets and
are judged by the accuracy on 10 alphabets held out, and by the area under their training curves.

One run takes, on a core: smoke, seconds; quick, half a minute to three minutes (warp_leap). To expect: warp_leap above
leap above reptile above scratch at 10 tasks, and leap and warp_leap far better with 10 tasks than with 1.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from leapwarp.data.alphabets import load
from leapwarp.experiments.command import main
from leapwarp.experiments.omniglot import Method, Settings, finetune_learner, path_learner, run, scratch_learner
from leapwarp.inner import Gradient, Stop
from leapwarp.kfac import Columns, empirical, kfac
from leapwarp.learners import Learner, fomaml, leap, maml, reptile, warp_leap
from leapwarp.learners.warpgrad import Rates
from leapwarp.models.convnet import Warp
from leapwarp.optim import sgd
from leapwarp.problem import Model, Problem, cross_entropy

PAPER = Settings(
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
    dampings=(0.01, 0.03, 0.1, 0.3, 1.0),  # not in the paper, nor its released code
    damping_tasks=10,
)
QUICK = replace(
    PAPER,
    filters=8,
    meta_batch=3,
    meta_steps=60,
    eta=3,  # the sum of three gradients is one stack, two fifths cheaper than three in turn
    dampings=(0.1, 0.3, 1.0),
    damping_tasks=2,
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
    dampings=(0.1, 1.0),
    damping_tasks=2,
    checkpoint_every=1,
)
PROFILES = {"smoke": SMOKE, "quick": QUICK, "paper": PAPER}


def warp_leap_learner(
    problem: Problem, settings: Settings, n_tasks: int, stop: Stop | None, rates: Rates | None = None
) -> Learner:
    """Warp-Leap takes all steps of every task: its buffer holds as many points of each, so `stop` is not used."""
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


def kfac_gradient(columns: Columns = empirical) -> Callable[[Model, float], Gradient]:
    return lambda model, damping: kfac(model.apply, cross_entropy, damping, columns)


def methods(settings: Settings) -> dict[str, Method]:
    """The rows of Table 2, each with what sets it apart from `settings`."""
    # The released code's meta learning rate of both MAMLs, and 5 steps for the one that differentiates through them.
    second_order = replace(settings, outer_lr=0.5, inner_steps=min(5, settings.inner_steps))
    # Ten times the batch and the rate, WarpGrad Table 2.
    ten_times = replace(settings, batch=10 * settings.batch, inner_lr=10 * settings.inner_lr)

    natural = replace(ten_times, tasks_at_a_time=1)  # a third faster: what KFAC looks at then stays in the cache

    return {
        "scratch": Method(settings, scratch_learner, pretrains=False),
        "sgd10x": Method(ten_times, scratch_learner, pretrains=False),
        "kfac": Method(natural, scratch_learner, pretrains=False, natural=kfac_gradient()),
        "finetune": Method(settings, finetune_learner),
        "reptile": Method(settings, path_learner(reptile)),
        "fomaml": Method(replace(settings, outer_lr=0.5), path_learner(fomaml)),
        "maml": Method(second_order, path_learner(maml)),
        "leap": Method(settings, path_learner(leap)),
        "leap_released_pixels": Method(replace(settings, released_pixels=True), path_learner(leap)),
        "warp_leap": Method(settings, warp_leap_learner, warp=Warp()),
        "warp_leap_approx": Method(replace(settings, order=1), warp_leap_learner, warp=Warp()),
    }


def cli(arguments: Sequence[str] | None = None) -> None:
    main("omniglot_warp", __doc__, PROFILES, methods, load, run, arguments)


if __name__ == "__main__":
    cli()
