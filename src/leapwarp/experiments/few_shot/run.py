"""Few-shot learning on mini-ImageNet and tiered-ImageNet: Table 1 of the WarpGrad paper (section 3(a), appendix I).

    snakemake few_shot
    snakemake few_shot_tiered

A task has five classes, with one or five images of each for training and 15 for evaluation. Methods that differentiate
through adaptation are compared with Warp-MAML, which does not do so for its warps. In `few_shot_tiered` the test
classes differ more from the training classes, and only MAML and Warp-MAML are compared. If these data sets are not
available, Tiny-ImageNet takes the place of both, with the same classes, or textures if that is not available either.
Every row names its data.

All images of a task are one mini-batch, and batch norm uses its own statistics, also for the held-out images in
meta-training. Evaluation is done with both statistics for held-out images: their own (`accuracy`, transductive, common
in the field), and those of the images that the task was learnt from (`inductive_accuracy`).

One run takes, on a core: smoke, a second; quick, 5 s for fomaml, reptile and cavia, 14 for maml and metasgd, 17 for
tnets and 19 for warp_maml, and about two thirds of that with one image of a class; few_shot_tiered at quick, 6 s for
maml and 14 for warp_maml. To expect at quick: 28 % for cavia and 34 to 36 for the others with five images, 25 to 30
with one, and no order beyond the spread over seeds. Chance is 20.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from leapwarp.data.classes import load
from leapwarp.evaluate import check_adapted
from leapwarp.experiments.base import Evaluated, Experiment, Record, Run, Trained, trained
from leapwarp.fit import Fit, fit, thinned
from leapwarp.host import clock
from leapwarp.inner import adapt
from leapwarp.learners import Learner, cavia, maml, metasgd, reptile, tnets, warp_maml
from leapwarp.learners.base import State
from leapwarp.models.conv4 import PLAIN, Extra, conv4
from leapwarp.optim import adam, sgd
from leapwarp.problem import Batch, Loss, Model, Problem, Task, map_tasks, supervised
from leapwarp.rng import generator
from leapwarp.trees import Params, alone, stack, to_device
from leapwarp.worlds.episodes import as_tasks, draw_episodes

EVALUATION = frozenset({"n_test"})
WAYS = 5  # classes of a task: App. I
CURVE_POINTS = 100  # of the curves of meta-training
ONE_SHOT = "_1shot"  # suffix of the methods that learn a task from one image of a class


@dataclass(frozen=True)
class Settings:
    """The settings of one method. The paper chose those that it does not print by a random search of 50 trials."""

    size: int = 84  # pixels along a side; four poolings leave the 5 x 5 of App. I
    filters: int = 32  # MAML's and T-Nets': more do worse (App. I); Finn et al., 2017
    contexts: int = 100  # of CAVIA: Zintgraf et al., 2019
    shots: int = 5  # images of a class to learn an evaluation task from: App. I
    train_shots: int = 15  # the same in meta-training: App. I
    queries: int = 15  # held-out images of a class, L: App. I
    inner_steps: int = 5  # App. I
    inner_lr: float = 0.01  # the paper is silent; Finn et al., 2017
    outer_lr: float = 0.001  # of Adam; the paper is silent; Finn et al., 2017
    maml_weight: float = 1.0  # lambda of J = L + lambda C; the paper is silent, section 3(a) has J = L + C
    meta_batch: int = 1  # App. I
    meta_steps: int = 60_000  # App. I
    n_test: int = 600  # evaluation tasks: App. I
    n_validation: int = 600  # App. I
    validate_every: int = 1000
    tasks_at_a_time: int = 4
    checkpoint_every: int = 100


PUBLISHED = Settings()


class Method(NamedTuple):
    settings: Settings
    learner: Callable[[Problem, Settings], Learner]
    extra: Callable[[Settings], Extra] = lambda settings: PLAIN
    """parameters that it adds to the network"""


def adapting(build: Callable[..., Learner]) -> Callable[[Problem, Settings], Learner]:
    """A function that builds the learner of a method from a problem, a task and a meta optimizer."""
    return lambda problem, s: build(problem, sgd(s.inner_lr), adam(s.outer_lr), s.inner_steps, s.tasks_at_a_time)


def metasgd_learner(problem: Problem, s: Settings) -> Learner:
    return metasgd(problem, s.inner_lr, adam(s.outer_lr), s.inner_steps, s.tasks_at_a_time)


def warp_maml_learner(problem: Problem, s: Settings) -> Learner:
    """Adam is invariant to the scale of gradients, so lambda multiplies the initialisation's rate (Algorithm 1)."""
    inner, outer = sgd(s.inner_lr), adam(s.maml_weight * s.outer_lr)
    return warp_maml(problem, inner, outer, adam(s.outer_lr), s.inner_steps, s.tasks_at_a_time)


def with_contexts(settings: Settings) -> Extra:
    return Extra(context=settings.contexts)


def with_projections(settings: Settings) -> Extra:
    return Extra(projections=True)


def methods(settings: Settings) -> dict[str, Method]:
    """The learners of Table 1 from five images of a class, and from one."""
    one = replace(settings, shots=1, train_shots=5)  # App. I
    wide = replace(one, filters=128)  # App. I; claims W16 and W29
    return of_shots(settings) | {
        **{name + ONE_SHOT: method for name, method in of_shots(one).items()},
        "maml_wide" + ONE_SHOT: Method(wide, adapting(maml)),
        "tnets_wide" + ONE_SHOT: Method(wide, adapting(tnets), with_projections),
        "metasgd_wide" + ONE_SHOT: Method(wide, metasgd_learner),
        "reptile_wide" + ONE_SHOT: Method(wide, adapting(reptile)),
        # CAVIA's published 512 filters are wide already.
        "cavia_narrow" + ONE_SHOT: Method(replace(one, inner_lr=1.0), adapting(cavia), with_contexts),
    }


def of_shots(settings: Settings) -> dict[str, Method]:
    modulated = replace(settings, filters=512, inner_lr=1.0)  # Table 1; the paper is silent; Zintgraf et al., 2019
    warped = replace(settings, filters=128)  # App. I
    return {
        "maml": Method(settings, adapting(maml)),
        "fomaml": Method(settings, adapting(partial(maml, order=1))),
        "reptile": Method(settings, adapting(reptile)),
        "metasgd": Method(settings, metasgd_learner),
        "cavia": Method(modulated, adapting(cavia), with_contexts),
        "tnets": Method(settings, adapting(tnets), with_projections),
        "warp_maml": Method(warped, warp_maml_learner, lambda s: Extra(warps=True)),
    }


class Scores(NamedTuple):
    """The result of learning a stack of tasks."""

    accuracy: Tensor
    """[task, point] on held-out images, with their own batch statistics, before the first step and after each step"""
    loss: Tensor
    """[task, point] likewise"""
    inductive: Tensor
    """[task] accuracy after the last step, with the batch statistics of the training images"""


class Setup(NamedTuple):
    """The problem and initialisation, which training and evaluation of a run share."""

    model: Model
    problem: Problem
    learner: Learner


def set_up(run: Run) -> Setup:
    settings = run.method.settings
    model = conv4(settings.filters, WAYS, settings.size, run.method.extra(settings))
    problem = supervised(model)._replace(capture=True)
    return Setup(model, problem, run.method.learner(problem, settings))


def held_out(run: Run, part: str, n: int) -> Task:
    """Tasks for validation or test. Those with one image of a class are the first images of those with five."""
    settings, stream = run.method.settings, generator(run.seed, part)
    episodes = draw_episodes(run.data, part, n, WAYS, settings.shots, settings.queries, stream)
    return as_tasks(run.data, episodes, settings.inner_steps, settings.size, run.device)


def score(setup: Setup, settings: Settings, state: State, tasks: Task) -> Scores:
    """Learn the tasks from the meta-learnt state."""
    model, problem, learner = setup
    inner = learner.optimizer(state) if learner.optimizer else sgd(settings.inner_lr)

    def one(tasks: Task, part: slice) -> Scores:
        params, fixed = learner.start(state, tasks)
        images = Batch(tasks.x_test, tasks.y_test)
        curve: list[Loss] = []

        @torch.no_grad()
        def observe(step: int, params: Params, stats: Params) -> None:
            curve.append(problem.loss({**params, **fixed}, stats, images))

        adapted = adapt(problem, inner, params, fixed, tasks, settings.inner_steps, observe=observe)
        check_adapted(adapted, curve[-1].loss, part.start)
        everything = {**adapted.params, **fixed}
        with torch.no_grad():
            _, stats = model.apply(everything, adapted.stats, tasks.x, True)
            inductive = problem.evaluate(everything, stats, images).accuracy
        accuracy, loss = (torch.stack(points, 1) for points in ([p.accuracy for p in curve], [p.loss for p in curve]))
        return Scores(accuracy, loss, inductive)

    return map_tasks(one, tasks, settings.tasks_at_a_time)


def train(runs: Sequence[Run]) -> list[Trained]:
    """Meta-train on tasks of the training classes, all seeds in one stack."""
    settings, setup = runs[0].method.settings, set_up(runs[0])

    def sample(k: int, i: int) -> Task:
        run, stream = runs[i], generator(runs[i].seed, "meta", k)
        shots, queries = settings.train_shots, settings.queries
        episodes = draw_episodes(run.data, "train", settings.meta_batch, WAYS, shots, queries, stream)
        return as_tasks(run.data, episodes, setup.learner.draws, settings.size, run.device)

    validation = [held_out(run, "validation", settings.n_validation) for run in runs]

    def validation_error(i: int, state: State) -> float:
        return 1 - float(score(setup, settings, state, validation[i]).accuracy[:, -1].mean())

    how = Fit(
        settings.meta_steps,
        validation_error,
        settings.validate_every,
        checkpoints=runs[0].checkpoints,
        checkpoint_every=settings.checkpoint_every,
    )
    params = stack([to_device(setup.model.init(generator(run.seed, "init")), run.device) for run in runs])
    return [
        trained(fitted, thinned(fitted.history, settings.meta_steps, CURVE_POINTS, {"validation_error"}))
        for fitted in fit(setup.learner, params, sample, how, [run.member for run in runs])
    ]


def judge(run: Run, state: State | None) -> Evaluated:
    """Learn tasks of the test classes. All methods have the same tasks for a seed."""
    assert state is not None  # every method is trained
    settings = run.method.settings
    tasks, setup = held_out(run, "test", settings.n_test), set_up(run)
    seconds = clock(run.device)
    began = seconds()
    scores = score(setup, settings, alone(state), tasks)
    records: list[Record] = [("", None, "adapt_seconds", (seconds() - began) / settings.n_test)]
    for i in range(settings.n_test):
        accuracy, inductive = float(scores.accuracy[i, -1]), float(scores.inductive[i])
        records += [
            (f"task{i:03d}", None, "accuracy", accuracy),
            (f"task{i:03d}", None, "inductive_accuracy", inductive),
            (f"task{i:03d}", None, "normalisation_gain", float(scores.accuracy[i, -1] - scores.inductive[i])),
        ]
    for k in range(settings.inner_steps + 1):
        records.append(("", k, "heldout_accuracy", float(scores.accuracy[:, k].mean())))
        records.append(("", k, "heldout_loss", float(scores.loss[:, k].mean())))
    return Evaluated(records)


EXPERIMENT = Experiment(PUBLISHED, methods, judge, train, load, EVALUATION)
