"""Few-shot learning on mini-ImageNet: the upper part of Table 1 of the WarpGrad paper (section 3(a), appendix I).

    python -m leapwarp.experiments.few_shot --profile quick --method warp_maml --n-tasks 0 --seeds 0 1 \\
        --data results/data/mini_imagenet.safetensors --out warp_maml.csv
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from leapwarp.data import classes
from leapwarp.data.classes import Classes
from leapwarp.evaluate import check_adapted
from leapwarp.experiments.command import Record, main
from leapwarp.fit import Fit, fit
from leapwarp.inner import adapt
from leapwarp.learners import Learner, cavia, maml, metasgd, reptile, tnets, warp_maml
from leapwarp.learners.base import State
from leapwarp.models.conv4 import Extra, conv4
from leapwarp.optim import adam, sgd
from leapwarp.problem import Batch, Model, Problem, Task, map_tasks, supervised
from leapwarp.rng import generator
from leapwarp.trees import Params

WAYS = 5  # classes of a task: App. I


@dataclass(frozen=True)
class Settings:
    """The numbers of one method at one size."""

    size: int = 84  # pixels along a side; what leaves the 5 x 5 of App. I after four poolings
    filters: int = 128  # App. I: 128 or less, chosen by tuning
    shots: int = 5  # images of a class to learn an evaluation task from: App. I
    train_shots: int = 15  # the same in meta-training: App. I
    queries: int = 15  # held-out images of a class, L: App. I
    inner_steps: int = 5  # App. I
    inner_lr: float = 0.01  # the paper is silent; MAML's on mini-ImageNet
    outer_lr: float = 0.001  # of Adam; the paper is silent; MAML's
    meta_batch: int = 1  # App. I
    meta_steps: int = 60_000  # App. I
    n_test: int = 600  # evaluation tasks: App. I
    n_validation: int = 600  # App. I
    validate_every: int = 1000
    maml_weight: float = 1.0  # lambda of J = L + lambda C; the paper is silent
    tasks_at_a_time: int = 4
    checkpoint_every: int = 100


PAPER = Settings()
QUICK = replace(
    PAPER, size=28, filters=16, meta_steps=300, n_test=100, n_validation=40, validate_every=100
)
SMOKE = replace(
    QUICK, size=16, filters=4, train_shots=2, queries=2, inner_steps=2, meta_steps=2, n_test=4, n_validation=2,
    validate_every=1, checkpoint_every=1,
)
PROFILES = {"smoke": SMOKE, "quick": QUICK, "paper": PAPER}


class Method(NamedTuple):
    settings: Settings
    learner: Callable[[Problem, Settings], Learner]
    extra: Extra = Extra()
    pretrains: bool = False  # on tasks without number, so that there is no count of them to report


def _maml(order: int) -> Callable[[Problem, Settings], Learner]:
    return lambda problem, s: maml(
        problem, sgd(s.inner_lr), adam(s.outer_lr), s.inner_steps, s.tasks_at_a_time, order=order
    )


def _reptile(problem: Problem, s: Settings) -> Learner:
    return reptile(problem, sgd(s.inner_lr), adam(s.outer_lr), s.inner_steps, s.tasks_at_a_time)


def _metasgd(problem: Problem, s: Settings) -> Learner:
    return metasgd(problem, s.inner_lr, adam(s.outer_lr), s.inner_steps, s.tasks_at_a_time)


def _cavia(problem: Problem, s: Settings) -> Learner:
    return cavia(problem, sgd(s.inner_lr), adam(s.outer_lr), s.inner_steps, s.tasks_at_a_time)


def _tnets(problem: Problem, s: Settings) -> Learner:
    return tnets(problem, sgd(s.inner_lr), adam(s.outer_lr), s.inner_steps, s.tasks_at_a_time)


def _warp_maml(problem: Problem, s: Settings) -> Learner:
    outer = adam(s.outer_lr)
    return warp_maml(problem, sgd(s.inner_lr), outer, outer, s.inner_steps, s.tasks_at_a_time, s.maml_weight)


def methods(settings: Settings) -> dict[str, Method]:
    five = {
        "maml": Method(settings, _maml(2)),
        "fomaml": Method(settings, _maml(1)),
        "reptile": Method(settings, _reptile),
        "metasgd": Method(settings, _metasgd),
        "cavia": Method(settings, _cavia, Extra(context=100)),
        "tnets": Method(settings, _tnets, Extra(projections=True)),
        "warp_maml": Method(settings, _warp_maml, Extra(warps=True)),
    }
    return five


class Episodes(NamedTuple):
    """Tasks by the rows of their images, [task, class, image], those to learn from and those held out."""

    support: Tensor
    query: Tensor


def draw_episodes(data: Classes, part: str, n: int, shots: int, queries: int, stream: torch.Generator) -> Episodes:
    """`n` tasks of WAYS classes of a part of the split, `shots` images of each to learn from and `queries` held out.

    Raises:
        ValueError: too few classes, or images of a class.
    """
    available = data.split[part]
    if len(available) < WAYS:
        raise ValueError(f"{data.source} has {len(available)} {part} classes, a task needs {WAYS}.")
    rows = {index: data.rows(index) for index in available}
    support, query = [], []
    for _ in range(n):
        for which in torch.randperm(len(available), generator=stream)[:WAYS].tolist():
            mine = rows[available[which]]
            if len(mine) < shots + queries:
                raise ValueError(
                    f"class {data.names[available[which]]} of {data.source} has {len(mine)} images, a task needs "
                    f"{shots} + {queries}."
                )
            chosen = mine.start + torch.randperm(len(mine), generator=stream)
            query.append(chosen[:queries])
            support.append(chosen[queries : queries + shots])
    return Episodes(torch.stack(support).view(n, WAYS, shots), torch.stack(query).view(n, WAYS, queries))


def pixels(images: Tensor) -> Tensor:
    """uint8 -> float32 from -1 to 1"""
    return images.float() / 127.5 - 1


def as_tasks(data: Classes, episodes: Episodes, draws: int, device: torch.device) -> Task:
    """Every mini-batch of a task is all of its images."""
    n = len(episodes.support)
    x, x_test = (pixels(data.images[rows.flatten(1)]).to(device) for rows in episodes)
    y, y_test = (torch.arange(WAYS).repeat_interleave(rows.shape[2]).expand(n, -1).to(device) for rows in episodes)
    order = torch.arange(y.shape[1], device=device).expand(n, draws, -1)
    return Task(torch.arange(n, device=device), x, y, order, x_test, y_test)


class Scores(NamedTuple):
    """[task] each, but the curve"""

    accuracy: Tensor
    inductive: Tensor
    loss: Tensor
    curve: Tensor
    """[task, step]"""


def score(
    learner: Learner, state: State, model: Model, problem: Problem, tasks: Task, settings: Settings
) -> Scores:
    inner = learner.optimizer(state) if learner.optimizer else sgd(settings.inner_lr)

    def one(tasks: Task, part: slice) -> Scores:
        params, fixed = learner.start(state, tasks)
        held_out, curve = Batch(tasks.x_test, tasks.y_test), []

        @torch.no_grad()
        def observe(step: int, params: Params, stats: Params) -> None:
            curve.append(problem.loss({**params, **fixed}, stats, held_out))

        adapted = adapt(problem, inner, params, fixed, tasks, settings.inner_steps, observe=observe)
        check_adapted(adapted.loss, adapted.steps, part.start)
        everything = {**adapted.params, **fixed}
        with torch.no_grad():
            _, stats = model.apply(everything, adapted.stats, tasks.x, True)
            inductive = problem.evaluate(everything, stats, held_out).accuracy
        return Scores(curve[-1].accuracy, inductive, curve[-1].loss, torch.stack([c.accuracy for c in curve], 1))

    return map_tasks(one, tasks, settings.tasks_at_a_time)


if __name__ == "__main__":
    import sys
    torch.set_num_threads(1)
    name, changes = sys.argv[1], dict(a.split("=") for a in sys.argv[2:])
    s = replace(QUICK, **{k: type(getattr(QUICK, k))(v) for k, v in changes.items()})
    data = classes.load("/tmp/lw/h/fsd/tiny.safetensors", s.size)
    m = methods(s)[name]
    model = conv4(s.filters, WAYS, s.size, m.extra)
    problem = supervised(model)
    learner = m.learner(problem, s)
    state = learner.init(model.init(generator(100, "init")))
    val = as_tasks(data, draw_episodes(data, "validation", 100, s.shots, s.queries, generator(100, "val")), s.inner_steps, torch.device("cpu"))
    t = time.time(); tt = 0
    for k in range(s.meta_steps + 1):
        if k % 100 == 0:
            tt += time.time() - t; t = time.time()
            sc = score(learner, state, model, problem, val, s)
            print(name, changes, k, f"{tt:.1f}s eval {time.time()-t:.1f}s acc {sc.accuracy.mean():.4f} ind {sc.inductive.mean():.4f} start", [f"{v:.2f}" for v in sc.curve.mean(0).tolist()], flush=True)
            t = time.time()
        tasks = as_tasks(data, draw_episodes(data, "train", s.meta_batch, s.train_shots, s.queries, generator(100, "meta", k)), learner.draws, torch.device("cpu"))
        state, info = learner.step(state, tasks, generator(100, "l", k))
