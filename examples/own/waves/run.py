"""An experiment of one's own, with its own tasks, model and method: which segments of a path should Leap follow?

A task is to learn a wave, y = height sin(x + shift), from mini-batches of 10 points. `train` and `evaluate` are all
that an experiment needs. `report.py` makes the table and the figure, and `experiment.yaml` says what belongs to it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from leapwarp.evaluate import check_adapted
from leapwarp.experiments.base import Evaluated, Experiment, Run, Trained, trained
from leapwarp.fit import Fit, fit
from leapwarp.inner import Fold, Step, adapt
from leapwarp.learners import Learner, leap, scratch
from leapwarp.learners.base import gradient_learner
from leapwarp.learners.leap import leap_fold, path_gradient
from leapwarp.optim import adam, sgd
from leapwarp.problem import Batch, Model, Problem, Task, lift, mean_square, stack_tasks, supervised
from leapwarp.rng import generator
from leapwarp.trees import Params, alone, choose, stack

ROWS = 50  # points of a wave, of which mini-batches are drawn, and as many for its evaluation


@dataclass(frozen=True)
class Settings:
    """A size may change each of them, by its name."""

    hidden: int = 40
    batch: int = 10
    inner_lr: float = 0.05
    inner_steps: int = 10
    outer_lr: float = 0.01
    meta_batch: int = 10
    meta_steps: int = 300
    n_test: int = 20
    eval_steps: int = 20


class Method(NamedTuple):
    settings: Settings
    learner: Callable[[Problem, Settings], Learner]


def falling(fold: Fold) -> Fold:
    """The idea to try: `fold` on the segments in which a task's loss falls. The others add nothing."""

    def add(total: Params, before: Step, after: Step) -> Params:
        return choose(after.loss < before.loss, fold(total, before, after), total)

    return add


def leap_falling(problem: Problem, s: Settings) -> Learner:
    along = path_gradient(problem, sgd(s.inner_lr), s.inner_steps, falling(leap_fold(stabiliser=False)), s.meta_batch)
    return gradient_learner(along, adam(s.outer_lr), s.inner_steps + 1)


def methods(settings: Settings) -> dict[str, Method]:
    def usual(problem: Problem, s: Settings) -> Learner:
        return leap(problem, sgd(s.inner_lr), adam(s.outer_lr), s.inner_steps, s.meta_batch)

    return {
        "leap": Method(settings, usual),
        "leap_falling": Method(settings, leap_falling),
        "scratch": Method(settings, lambda problem, s: scratch()),
    }


def set_up(run: Run) -> tuple[Problem, Learner, Params]:
    """The problem, the learner, and the random initialisation of the run's seed."""
    s: Settings = run.method.settings
    model: Model = lift(lambda: nn.Sequential(nn.Linear(1, s.hidden), nn.Tanh(), nn.Linear(s.hidden, 1)))
    problem = supervised(model, mean_square)
    return problem, run.method.learner(problem, s), model.init(generator(run.seed, "init"))


def waves(n: int, draws: int, batch: int, stream: torch.Generator) -> Task:
    """`n` random waves, with `draws` mini-batches of each, and other points for their evaluation."""
    height, shift = 1 + torch.rand(n, 1, 1, generator=stream), 3 * torch.rand(n, 1, 1, generator=stream)

    def points() -> list[tuple[Tensor, Tensor]]:
        x = 6 * torch.rand(n, ROWS, 1, generator=stream) - 3
        return list(zip(x, height * (x + shift).sin(), strict=True))

    return stack_tasks(points(), draws, batch, stream, points())


def train(runs: Sequence[Run]) -> list[Trained]:
    """Meta-train all seeds of a method in one stack. Streams are named, so a seed is the same in any stack."""
    settings: Settings = runs[0].method.settings
    made = [set_up(run) for run in runs]
    _, learner, _ = made[0]

    def sample(k: int, i: int) -> Task:
        stream = generator(runs[i].seed, "meta", k)
        return waves(settings.meta_batch, learner.draws, settings.batch, stream)

    found = fit(
        learner,
        stack([params for _, _, params in made]),
        sample,
        Fit(settings.meta_steps, checkpoints=runs[0].checkpoints, checkpoint_every=50),
        [run.member for run in runs],
    )
    return [trained(each, [("", k, metric, value) for k, metric, value in each.history]) for each in found]


def evaluate(run: Run, state: Any) -> Evaluated:
    """Learn new waves, from the learnt initialisation or (where `state` is None) from the random one."""
    settings: Settings = run.method.settings
    problem, learner, params = set_up(run)
    state = alone(state) if state else learner.init(alone(params))
    tasks = waves(settings.n_test, settings.eval_steps, settings.batch, generator(run.seed, "test"))
    start, fixed = learner.start(state, tasks)
    began = time.monotonic()
    learnt = adapt(problem, sgd(settings.inner_lr), start, fixed, tasks, settings.eval_steps)
    seconds = time.monotonic() - began
    final = problem.evaluate({**learnt.params, **fixed}, learnt.stats, Batch(tasks.x_test, tasks.y_test)).loss
    check_adapted(learnt, final, 0)
    records = [(f"wave{i:02d}", None, "final_loss", float(loss)) for i, loss in enumerate(final)]
    records += [("", k, "train_loss", float(loss)) for k, loss in enumerate(learnt.loss.mean(0))]
    return Evaluated([*records, ("", None, "adapt_seconds", seconds / settings.n_test)])


EXPERIMENT = Experiment(
    published=Settings(),
    methods=methods,
    evaluate=evaluate,
    train=train,
    evaluation=frozenset({"n_test", "eval_steps"}),  # changing them repeats the evaluation, and no training
)
