"""Multi-shot learning on tiered-ImageNet: Figure 7 of the WarpGrad paper (appendix I).

    python -m leapwarp.experiments.multi_shot --profile quick --method warp_leap --n-tasks 0 --seeds 0 1 \\
        --data results/data/tiered_imagenet.safetensors --out warp_leap.csv

A task is ten classes with 640 images of each to learn from in a hundred steps, and 50 to be judged on: too long for
methods that differentiate through adaptation. Warp-Leap, trained online (Algorithm 1), is compared with Leap, Reptile
and training from scratch with large batches. Where tiered-ImageNet is not there, Tiny-ImageNet stands in for it (64
images a class), and where that is not there, textures; every row says which.

Held-out images are normalised by their own statistics, so that points of a learning curve can be compared however
little of the task's statistics has been gathered. Settings of meta-training are chosen, and meta-training is stopped,
by the area under the learning curves of validation tasks.

One run takes, on a core: smoke, a second; quick, 6 s for scratch, 13 for sgd_large, 25 for reptile and leap, 70 for
warp_leap.
To expect at quick, chance being 10: 28 % for scratch, 30 for sgd_large and warp_leap, 32 for leap and reptile.
Warp-Leap is behind Leap and Reptile all the way, where the paper has it first.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from leapwarp.data.classes import Classes, load, resize
from leapwarp.evaluate import Evaluation, area, evaluate, points
from leapwarp.experiments.command import Record, main
from leapwarp.experiments.few_shot import thinned
from leapwarp.fit import Fit, fit
from leapwarp.learners import Learner, leap, reptile, scratch, warp_leap_online
from leapwarp.learners.base import State
from leapwarp.models.conv6 import conv6
from leapwarp.optim import adam, momentum_sgd
from leapwarp.problem import Batch, Problem, Task, supervised
from leapwarp.rng import generator


@dataclass(frozen=True)
class Settings:
    """The numbers of one method at one size. Where the paper is silent, it chose by a random search of 200 (App. I)."""

    size: int = 84  # pixels along a side; five poolings leave the 2 x 2 of App. I
    widths: tuple[int, ...] = (64, 64, 160, 160, 256, 256)  # App. I
    ways: int = 10  # classes of a task, N: App. I
    shots: int = 640  # images of a class to learn from, K: App. I
    queries: int = 50  # held-out images of a class, L: App. I
    batch: int = 64  # App. I
    large_batch: int = 640  # of training from scratch: ten times as large, as the paper has it on Omniglot (App. F)
    inner_lr: float = 0.1  # the paper is silent
    warp_lr: float = 0.1  # the paper is silent; inner_lr of Warp-Leap
    large_lr: float = 0.1  # the paper is silent; inner_lr of training from scratch with large batches
    momentum: float = 0.9  # App. I; that of training from scratch with large batches only where a search tunes it
    inner_steps: int = 100  # App. I
    eval_steps: int = 100  # Fig. 7
    outer_lr: float = 0.001  # of Adam; the paper is silent
    warp_outer_lr: float = 0.001  # the paper is silent; outer_lr of Warp-Leap
    leap_weight: float = 1.0  # lambda: the initialisation's rate is lambda outer_lr (Algorithm 1); the paper is silent
    meta_batch: int = 5  # App. I
    meta_steps: int = 2000  # App. I
    n_test: int = 50  # evaluation tasks; the paper is silent
    n_validation: int = 10  # the paper is silent
    validate_every: int = 50
    curve_every: int = 5  # steps between two points of a learning curve
    tasks_at_a_time: int = 5
    checkpoint_every: int = 10


PAPER = Settings()
QUICK = replace(
    PAPER,
    size=32,
    widths=(8, 8, 16, 16, 32, 32),
    shots=44,  # with those held out as many as the textures have; Tiny-ImageNet has 64
    queries=16,
    batch=32,
    large_batch=128,
    inner_lr=0.03,  # all rates: of a few, the best on validation classes with seeds 100 and 101, see docs/log.md
    warp_lr=0.03,
    large_lr=0.1,
    inner_steps=20,
    eval_steps=50,
    outer_lr=0.003,
    warp_outer_lr=0.003,
    meta_batch=2,
    meta_steps=80,
    n_test=20,
    n_validation=5,
    validate_every=20,
)
SMOKE = replace(
    QUICK,
    widths=(3, 3, 4, 4, 4, 4),
    shots=4,
    queries=2,
    batch=8,
    large_batch=16,
    inner_steps=3,
    eval_steps=4,
    meta_batch=2,
    meta_steps=2,
    n_test=3,
    n_validation=2,
    validate_every=1,
    curve_every=2,
    checkpoint_every=1,
)
PROFILES = {"smoke": SMOKE, "quick": QUICK, "paper": PAPER}


class Method(NamedTuple):
    settings: Settings
    learner: Callable[[Problem, Settings], Learner]
    warped: bool = False
    pretrains: bool = False  # on tasks without number, so that there is no count of them to report


def _reptile(problem: Problem, s: Settings) -> Learner:
    return reptile(problem, momentum_sgd(s.inner_lr, s.momentum), adam(s.outer_lr), s.inner_steps, s.tasks_at_a_time)


def _leap(problem: Problem, s: Settings) -> Learner:
    return leap(problem, momentum_sgd(s.inner_lr, s.momentum), adam(s.outer_lr), s.inner_steps, s.tasks_at_a_time)


def _warp_leap(problem: Problem, s: Settings) -> Learner:
    """Adam does not see the scale of a gradient: lambda multiplies the initialisation's rate, as Algorithm 1 has it."""
    inner, outer = momentum_sgd(s.inner_lr, s.momentum), adam(s.leap_weight * s.outer_lr)
    return warp_leap_online(problem, inner, outer, adam(s.outer_lr), s.inner_steps, s.tasks_at_a_time)


def _scratch(problem: Problem, s: Settings) -> Learner:
    return scratch()


def methods(settings: Settings) -> dict[str, Method]:
    """The learners of Fig. 7, and `scratch`, which differs from Leap and Reptile by meta-training alone."""
    warped = replace(settings, inner_lr=settings.warp_lr, outer_lr=settings.warp_outer_lr)
    alone = replace(settings, meta_steps=0)
    large = replace(alone, batch=settings.large_batch, inner_lr=settings.large_lr)
    return {
        "scratch": Method(alone, _scratch),
        "sgd_large": Method(large, _scratch),
        "reptile": Method(settings, _reptile),
        "leap": Method(settings, _leap),
        "warp_leap": Method(warped, _warp_leap, warped=True),
    }


def draw_tasks(data: Classes, part: str, n: int, draws: int, stream: torch.Generator, settings: Settings) -> Task:
    """`n` tasks of random classes of a part of the split, images as uint8, with `draws` random mini-batches for each.

    Mini-batches have no class balance; over all draws together every image comes as often as any other, give or take
    one. The images of a task do not depend on how many mini-batches of which size are drawn.

    Raises:
        ValueError: too few classes, or images of a class.
    """
    available, per_class = data.split[part], settings.shots + settings.queries
    if len(available) < settings.ways:
        raise ValueError(f"{data.source} has {len(available)} {part} classes, a task needs {settings.ways}.")
    chosen = []
    for _ in range(n):
        for which in torch.randperm(len(available), generator=stream)[: settings.ways].tolist():
            rows = data.rows(available[which])
            if len(rows) < per_class:
                raise ValueError(
                    f"class {data.names[available[which]]} of {data.source} has {len(rows)} images, a task needs "
                    f"{settings.shots} + {settings.queries}."
                )
            chosen.append(rows.start + torch.randperm(len(rows), generator=stream)[:per_class])
    rows = torch.stack(chosen).view(n, settings.ways, per_class)
    held_out, learnt = rows[:, :, : settings.queries].flatten(1), rows[:, :, settings.queries :].flatten(1)
    needed, images = draws * settings.batch, learnt.shape[1]
    rounds = torch.rand(n, -(-needed // images), images, generator=stream).argsort(2)  # each an order of all images
    order = rounds.flatten(1)[:, :needed]
    x, x_test = (
        resize(data.images[part.flatten()], settings.size).unflatten(0, part.shape) for part in (learnt, held_out)
    )
    y, y_test = (
        torch.arange(settings.ways).repeat_interleave(each).expand(n, -1) for each in (settings.shots, settings.queries)
    )
    return Task(torch.arange(n), x, y, order.reshape(n, draws, settings.batch), pixels(x_test), y_test)


def pixels(images: Tensor) -> Tensor:
    """uint8 -> float from -1 to 1"""
    return images.float() / 127.5 - 1


def draw_batch(tasks: Task, who: Tensor, number: Tensor) -> Batch:
    picked = tasks.order[who, number]  # [t, batch]
    return Batch(pixels(tasks.x[who[:, None], picked]), tasks.y[who[:, None], picked])


def to(tasks: Task, device: torch.device) -> Task:
    return tasks._replace(**{name: field.to(device) for name, field in tasks._asdict().items() if field is not None})


def run(
    data: Classes,
    method: Method,
    name: str,
    n_tasks: int,
    seed: int,
    device: torch.device,
    checkpoints: Path | None,
    identity: dict[str, Any],
) -> tuple[list[Record], float]:
    """One run: meta-train on tasks of the training classes, then learn tasks of the test classes.

    Tasks of a seed are the same for all methods; so are their mini-batches for methods of one batch size.
    """
    settings = method.settings
    model = conv6(settings.widths, settings.ways, settings.size, method.warped)
    problem = supervised(model, draw=draw_batch)
    problem = problem._replace(evaluate=problem.loss)  # held-out images are normalised by their own statistics
    learner = method.learner(problem, settings)
    inner = momentum_sgd(settings.inner_lr, settings.momentum)
    params = {k: leaf.to(device) for k, leaf in model.init(generator(seed, "init")).items()}

    def held_out(part: str, n: int) -> Task:
        return to(draw_tasks(data, part, n, settings.eval_steps, generator(seed, part), settings), device)

    def sample(k: int) -> Task:
        stream = generator(seed, "meta", k)
        return to(draw_tasks(data, "train", settings.meta_batch, learner.draws, stream, settings), device)

    def learn(state: State, tasks: Task) -> Evaluation:
        steps, size, every = settings.eval_steps, settings.tasks_at_a_time, settings.curve_every
        return evaluate(learner, state, problem, inner, tasks, steps, size, every)

    validation = held_out("validation", settings.n_validation) if settings.meta_steps else None
    tasks = held_out("test", settings.n_test)

    def validation_error(state: State) -> float:
        """1 - the criterion of App. I: the mean area under the validation tasks' curves of held-out accuracy."""
        assert validation is not None
        return 1 - float(area(learn(state, validation).heldout_curve).mean())

    def watch(state: State) -> dict[str, float]:
        """For the lower part of Fig. 7, which decides nothing."""
        return {"meta_test_accuracy": float(learn(state, tasks).accuracy.mean())}

    how = Fit(
        settings.meta_steps,
        validation_error if settings.meta_steps else None,
        settings.validate_every,
        checkpoint=checkpoints / f"seed{seed}.pt" if checkpoints else None,
        checkpoint_every=settings.checkpoint_every,
        watch=watch,
    )
    fitted = fit(learner, params, sample, how, seed, f"{name}, seed {seed}", identity)
    records = thinned(fitted.history, settings.meta_steps)
    records += [("", None, "meta_steps", fitted.meta_steps), ("", None, "meta_seconds", fitted.seconds)]

    began = time.monotonic()
    result = learn(fitted.state, tasks)
    seconds = time.monotonic() - began
    records.append(("", None, "adapt_seconds", seconds / settings.n_test))
    at, areas = points(settings.eval_steps, settings.curve_every), area(result.heldout_curve)
    for i in range(settings.n_test):
        task = f"task{i:03d}"
        records += [
            (task, None, "accuracy", float(result.accuracy[i])),
            (task, None, "heldout_area", float(areas[i])),
        ]
        records += [(task, k, "heldout_accuracy", float(v)) for k, v in zip(at, result.heldout_curve[i], strict=True)]
    for k, loss in enumerate(result.loss_curve.mean(0)):
        records.append(("", k, "train_loss", float(loss)))
    return records, seconds + fitted.seconds


def cli(arguments: Sequence[str] | None = None) -> None:
    main("multi_shot", __doc__, PROFILES, methods, load, run, arguments)


if __name__ == "__main__":
    cli()
