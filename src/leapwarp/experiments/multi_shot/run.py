"""Multi-shot learning on tiered-ImageNet: Figure 7 of the WarpGrad paper (appendix I).

    snakemake multi_shot

A task has ten classes, with 640 images of each for training in a hundred steps, and 50 for evaluation. This is too long
for methods that differentiate through adaptation. Warp-Leap, trained online (Algorithm 1), is compared with Leap,
Reptile and training from scratch with large batches. If tiered-ImageNet is not available, Tiny-ImageNet takes its place
(64 images a class), or textures if that is not available either. Every row names its data.

Batch norm uses the held-out images' own statistics, so that early points of a learning curve do not depend on running
averages that have not converged. The area under the learning curves of validation tasks stops meta-training and chooses
its settings.

One run takes, on a core: smoke, a second; quick, 6 s for scratch, 13 for sgd_large, 25 for reptile and leap, 70 for
warp_leap. To expect at quick: 28 % for scratch, 30 for sgd_large and warp_leap, 32 for leap and reptile. Chance is 10.
Warp-Leap is behind Leap and Reptile at all steps, and first in the paper.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from leapwarp.data.classes import load
from leapwarp.evaluate import Evaluation, area, evaluate, points
from leapwarp.experiments.base import Evaluated, Experiment, Record, Run, Trained, trained
from leapwarp.fit import Fit, fit, thinned
from leapwarp.host import clock
from leapwarp.learners import Learner, leap, reptile, scratch, warp_leap_online
from leapwarp.learners.base import State
from leapwarp.models.conv6 import conv6
from leapwarp.optim import adam, momentum_sgd
from leapwarp.problem import Problem, Task, supervised
from leapwarp.rng import generator
from leapwarp.trees import Params, alone, stack, to_device
from leapwarp.worlds.episodes import draw_episodes
from leapwarp.worlds.multi_shot import as_tasks, draw_batch

EVALUATION = frozenset({"n_test", "eval_steps", "curve_every"})
CURVE_POINTS = 100  # of the curves of meta-training


@dataclass(frozen=True)
class Settings:
    """The settings of one method. The paper chose those that it does not print by a random search of 200 trials."""

    size: int = 84  # pixels along a side; five poolings leave the 2 x 2 of App. I
    widths: tuple[int, ...] = (64, 64, 160, 160, 256, 256)  # App. I
    ways: int = 10  # classes of a task, N: App. I
    shots: int = 640  # images of a class to learn from, K: App. I
    queries: int = 50  # held-out images of a class, L: App. I
    batch: int = 64  # App. I
    inner_lr: float = 0.1  # the paper is silent
    momentum: float = 0.9  # App. I; that of training from scratch with large batches only where a search tunes it
    inner_steps: int = 100  # App. I
    outer_lr: float = 0.001  # of Adam; the paper is silent
    leap_weight: float = 1.0  # lambda: the initialisation's rate is lambda outer_lr (Algorithm 1); the paper is silent
    meta_batch: int = 5  # App. I
    meta_steps: int = 2000  # App. I
    n_validation: int = 10  # tasks that decide when meta-training stops; the paper is silent
    validate_every: int = 50
    n_watched: int = 50  # evaluation tasks that are watched in meta-training, for the lower part of Fig. 7
    watch_steps: int = 100  # on validation and watched tasks: Fig. 7
    watch_every: int = 5  # of these steps between two points of a validation task's learning curve
    n_test: int = 50  # evaluation tasks; the paper is silent
    eval_steps: int = 100  # Fig. 7
    curve_every: int = 5  # steps between two points of a learning curve
    tasks_at_a_time: int = 5
    checkpoint_every: int = 10


PUBLISHED = Settings()


class Method(NamedTuple):
    settings: Settings
    learner: Callable[[Problem, Settings], Learner]
    warped: bool = False


def path_learner(build: Callable[..., Learner]) -> Callable[[Problem, Settings], Learner]:
    """A function that builds the learner of a method from a problem, a task and a meta optimizer."""

    def learner(problem: Problem, s: Settings) -> Learner:
        inner = momentum_sgd(s.inner_lr, s.momentum)
        return build(problem, inner, adam(s.outer_lr), s.inner_steps, s.tasks_at_a_time)

    return learner


def warp_leap_learner(problem: Problem, s: Settings) -> Learner:
    """Adam is invariant to the scale of gradients, so lambda multiplies the initialisation's rate (Algorithm 1)."""
    inner, outer = momentum_sgd(s.inner_lr, s.momentum), adam(s.leap_weight * s.outer_lr)
    return warp_leap_online(problem, inner, outer, adam(s.outer_lr), s.inner_steps, s.tasks_at_a_time)


def scratch_learner(problem: Problem, s: Settings) -> Learner:
    return scratch()


def untrained(settings: Settings) -> Settings:
    """Settings of methods without meta-training. Those of meta-training are fixed, so changing them has no effect."""
    path = {"inner_steps": 0, "outer_lr": 0.0, "leap_weight": 0.0, "meta_batch": 0, "meta_steps": 0}
    watched = {"n_validation": 0, "validate_every": 0, "n_watched": 0, "watch_steps": 0, "watch_every": 0}
    return replace(settings, **path, **watched)


def methods(settings: Settings) -> dict[str, Method]:
    """The learners of Fig. 7, and `scratch`, which differs from Leap and Reptile only in having no meta-training."""
    alone = untrained(settings)
    large = replace(alone, batch=640)  # ten times as large, as the paper has it on Omniglot (App. F)
    return {
        "scratch": Method(alone, scratch_learner),
        "sgd_large": Method(large, scratch_learner),
        "reptile": Method(settings, path_learner(reptile)),
        "leap": Method(settings, path_learner(leap)),
        "warp_leap": Method(settings, warp_leap_learner, warped=True),
    }


class Setup(NamedTuple):
    """The problem and initialisation, which training and evaluation of a run share."""

    problem: Problem
    learner: Learner
    params: Params
    """the random initialisation, without the run axis"""


def set_up(run: Run) -> Setup:
    settings = run.method.settings
    model = conv6(settings.widths, settings.ways, settings.size, run.method.warped)
    problem = supervised(model, draw=draw_batch)._replace(capture=True)
    problem = problem._replace(evaluate=problem.loss)  # batch norm uses the held-out images' own statistics
    params = to_device(model.init(generator(run.seed, "init")), run.device)
    return Setup(problem, run.method.learner(problem, settings), params)


def draw_tasks(run: Run, part: str, n: int, draws: int, *stream: str | int) -> Task:
    """Tasks of a part of the classes. The images do not depend on the number and size of the mini-batches."""
    settings, random = run.method.settings, generator(run.seed, *stream)
    episodes = draw_episodes(run.data, part, n, settings.ways, settings.shots, settings.queries, random)
    return as_tasks(run.data, episodes, draws, settings.batch, settings.size, random, run.device)


def learn(run: Run, setup: Setup, state: State, tasks: Task, steps: int, every: int) -> Evaluation:
    """Learn the tasks in `steps` steps, with a point of the learning curves after every `every` steps."""
    settings = run.method.settings
    inner = momentum_sgd(settings.inner_lr, settings.momentum)
    return evaluate(setup.learner, state, setup.problem, inner, tasks, steps, settings.tasks_at_a_time, every)


def train(runs: Sequence[Run]) -> list[Trained]:
    """Meta-train on tasks of the training classes, all seeds in one stack.

    All methods have the same tasks for a seed, with the same images. Mini-batches are the same for methods that draw as
    many of the same size: Leap and Reptile, and in evaluation all but one.
    """
    setups = [set_up(run) for run in runs]
    settings, learner = runs[0].method.settings, setups[0].learner
    steps, every = settings.watch_steps, settings.watch_every
    validation = [draw_tasks(run, "validation", settings.n_validation, steps, "validation") for run in runs]
    watched = [draw_tasks(run, "test", settings.n_watched, steps, "test") for run in runs]

    def sample(k: int, i: int) -> Task:
        return draw_tasks(runs[i], "train", settings.meta_batch, learner.draws, "meta", k)

    def validation_error(i: int, state: State) -> float:
        """1 - the criterion of App. I: the mean area under the validation tasks' curves of held-out accuracy."""
        curves = learn(runs[i], setups[i], state, validation[i], steps, every).heldout_curve
        return 1 - float(area(curves, points(steps, every)).mean())

    def watch(i: int, state: State) -> dict[str, float]:
        """Accuracy on test tasks for the lower part of Fig. 7. It has no effect on training."""
        result = learn(runs[i], setups[i], state, watched[i], steps, every)
        return {"meta_test_accuracy": float(result.accuracy.mean())}

    how = Fit(
        settings.meta_steps,
        validation_error,
        settings.validate_every,
        checkpoints=runs[0].checkpoints,
        checkpoint_every=settings.checkpoint_every,
        watch=watch,
    )
    at_validation = {"validation_error", "meta_test_accuracy"}
    params = stack([setup.params for setup in setups])
    return [
        trained(fitted, thinned(fitted.history, settings.meta_steps, CURVE_POINTS, at_validation))
        for fitted in fit(learner, params, sample, how, [run.member for run in runs])
    ]


def judge(run: Run, state: State | None) -> Evaluated:
    """Learn tasks of the test classes, from the meta-learnt state or from the random initialisation."""
    settings, setup = run.method.settings, set_up(run)
    steps, every = settings.eval_steps, settings.curve_every
    tasks = draw_tasks(run, "test", settings.n_test, steps, "test")
    records: list[Record] = [] if state else [("", None, "meta_steps", 0)]
    seconds = clock(run.device)
    began = seconds()
    start = alone(state) if state else setup.learner.init(alone(setup.params))
    result = learn(run, setup, start, tasks, steps, every)
    records.append(("", None, "adapt_seconds", (seconds() - began) / settings.n_test))
    at = points(steps, every)
    areas = area(result.heldout_curve, at)
    for i in range(settings.n_test):
        task = f"task{i:03d}"
        records += [
            (task, None, "accuracy", float(result.accuracy[i])),
            (task, None, "heldout_area", float(areas[i])),
        ]
        records += [(task, k, "heldout_accuracy", float(v)) for k, v in zip(at, result.heldout_curve[i], strict=True)]
    for k, loss in enumerate(result.loss_curve.mean(0)):
        records.append(("", k, "train_loss", float(loss)))
    return Evaluated(records)


EXPERIMENT = Experiment(PUBLISHED, methods, judge, train, load, EVALUATION)
