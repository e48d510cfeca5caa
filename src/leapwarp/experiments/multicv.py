"""Leap's Multi-CV experiment: transfer between eight image data sets, Table 3 of that paper (appendix G).

    python -m leapwarp.experiments.multicv --profile quick --method leap --n-tasks 0 --seeds 0 \\
        --data results/data/images.safetensors --out leap.csv

Each set is held out in turn: a method is pretrained on all others and then learns the one held out, with a head that it
has never seen. Sets are met one at a time, since they differ in classes and sizes.

One run holds out every set, each with its checkpoint. It takes, on a core: smoke, a second; quick, scratch 7 s,
finetune, hat and leap_1_epoch half a minute, leap and finetune_many_epochs 80 s, progressive 160 s. To expect at
quick: Leap, finetuning and Progressive Nets below no pretraining in area, HAT far above; in test error little is sure.
"""

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from leapwarp import fit as fitting
from leapwarp.data.images import ImageSet, ImageSets, load
from leapwarp.evaluate import area, check_adapted, points
from leapwarp.experiments.command import Record, main
from leapwarp.fit import Fit, fit
from leapwarp.inner import adapt
from leapwarp.learners import Learner
from leapwarp.learners.base import State
from leapwarp.learners.hat import Attention, gated, hat_sharing
from leapwarp.learners.progressive import progressive_sharing
from leapwarp.learners.visits import (
    Sharing,
    Training,
    Visit,
    encoder_sharing,
    leap_encoder,
    no_better,
    sequential,
)
from leapwarp.models import columns as column_nets
from leapwarp.models.convnet import BLOCKS, Warp, convnet
from leapwarp.optim import adam
from leapwarp.problem import Batch, Problem, Task, supervised
from leapwarp.rng import generator
from leapwarp.trees import Params, partition, to_device

CHANNELS, SIZE = 3, 32
CHUNK = 500  # images evaluated at a time


@dataclass(frozen=True)
class Settings:
    """The numbers of one method at one size."""

    filters: int = 64  # App. G: the encoder of the Omniglot experiment
    batch: int = 32  # Table 4
    inner_lr: float = 0.1  # Table 4, annealed to 0 over the most steps that a task may take
    epochs: int = 1  # of a task in pretraining, at most: Table 4
    many_epochs: int = 10  # likewise, Leap's: Table 4
    heldout_epochs: int = 100  # at most: Table 4
    outer_lr: float = 0.01  # of Adam: Table 4
    meta_batch: int = 10  # tasks, drawn with replacement: Table 4
    meta_steps: int = 1000  # at most: Table 4
    meta_patience: int = 10  # meta-steps without a better mean validation error: App. G
    # Early stopping of a task, as App. G has it: 10 gradient steps on end without a better validation error. HAT looks
    # at it once an epoch (0), as it anneals its gates over an epoch.
    patience: int = 10
    stop_every: int = 1
    # On a set held out, the caption of Table 3 says "until convergence", and errors on training images are 0 there; ten
    # steps end most trainings after fifty (docs/log.md). So here it is ten epochs.
    heldout_patience: int = 10
    length: bool = True  # Leap's: the paper does not say here; its main form
    validation_share: float = 0.15  # of a set's training images; HAT's code
    most_validation: int | None = None
    """images looked at for early stopping"""
    most_train: int | None = None
    """images of each set, its validation images among them"""
    most_test: int | None = None
    most_classes: int | None = None
    curve_points: int = 50
    """of a held-out set's curves"""
    checkpoint_every: int = 1


PAPER = Settings()
QUICK = replace(
    PAPER,
    filters=16,
    many_epochs=3,
    heldout_epochs=12,
    meta_batch=4,
    meta_steps=12,
    patience=5,
    stop_every=10,
    heldout_patience=5,
    most_train=400,
    most_test=500,
    most_classes=20,
    curve_points=12,
)
SMOKE = replace(
    QUICK,
    filters=2,
    many_epochs=2,
    heldout_epochs=2,
    meta_batch=2,
    meta_steps=2,
    most_train=70,
    most_test=40,
    curve_points=3,
)
PROFILES = {"smoke": SMOKE, "quick": QUICK, "paper": PAPER}


class Method(NamedTuple):
    settings: Settings
    kind: str
    trains: bool = True
    pretrains: bool = False  # on sets, whose number is what the data have: there is no count to report


def methods(settings: Settings) -> dict[str, Method]:
    """The rows of Table 3, and Leap and finetuning with each other's epochs (App. G: only Leap gains from more)."""
    many = replace(settings, epochs=settings.many_epochs)
    return {
        "scratch": Method(settings, "encoder", trains=False),
        "finetune": Method(settings, "encoder"),
        "hat": Method(replace(settings, stop_every=0), "hat"),
        "progressive": Method(settings, "progressive"),
        "leap": Method(many, "leap"),
        "leap_1_epoch": Method(settings, "leap"),
        "finetune_many_epochs": Method(many, "encoder"),
        "hat_many_epochs": Method(replace(many, stop_every=0), "hat"),
        "progressive_many_epochs": Method(many, "progressive"),
    }


class Images(NamedTuple):
    """A set as a task: uint8 images, which batches normalise."""

    x: Tensor
    y: Tensor
    x_validation: Tensor
    y_validation: Tensor
    x_test: Tensor
    y_test: Tensor
    mean: Tensor
    std: Tensor
    classes: int


def split(name: str, images: ImageSet, settings: Settings, seed: int, device: torch.device) -> Images:
    """What the seed takes of a set, and which part of it is for validation: the same for all methods."""
    n_classes = min(images.classes, settings.most_classes or images.classes)
    chosen = torch.randperm(images.classes, generator=generator(seed, "classes", name))[:n_classes]
    renamed = torch.full((images.classes,), -1)
    renamed[chosen] = torch.arange(n_classes)

    def rows(labels: Tensor, most: int | None, part: str) -> Tensor:
        found = (renamed[labels] >= 0).nonzero()[:, 0]
        return found[torch.randperm(len(found), generator=generator(seed, part, name))][: most or len(found)]

    train = rows(images.train_labels, settings.most_train, "train")
    test = rows(images.test_labels, settings.most_test, "test")
    n_validation = max(1, round(settings.validation_share * len(train)))
    validation, train = train[:n_validation][: settings.most_validation or n_validation], train[n_validation:]
    if len(train) < settings.batch:
        raise ValueError(f"{name} has {len(train)} training images, a batch needs {settings.batch}.")
    return Images(
        x=images.train_images[train].to(device),
        y=renamed[images.train_labels[train]].to(device),
        x_validation=images.train_images[validation].to(device),
        y_validation=renamed[images.train_labels[validation]].to(device),
        x_test=images.test_images[test].to(device),
        y_test=renamed[images.test_labels[test]].to(device),
        mean=torch.tensor(images.mean, device=device).view(-1, 1, 1),
        std=torch.tensor(images.std, device=device).view(-1, 1, 1),
        classes=n_classes,
    )


def pixels(x: Tensor, images: Images) -> Tensor:
    """uint8 [n, 1 or 3, 32, 32] -> normalised [n, 3, 32, 32]"""
    return ((x.float() / 255 - images.mean) / images.std).expand(-1, CHANNELS, -1, -1)


class Setup(NamedTuple):
    """One set held out of all."""

    sets: list[Images]
    """those to pretrain on, and last the one held out"""
    train: Problem
    heldout: Problem
    """the two differ where the network grows with its tasks"""
    sharing: Sharing


def draw_from(sets: list[Images]) -> Callable[[Task, Tensor, Tensor], Batch]:
    """Batches of a stack of one; `tasks.x` says which set."""

    def draw(tasks: Task, who: Tensor, number: Tensor) -> Batch:
        images = sets[int(tasks.x[int(who[0]), 0])]
        rows = tasks.order[int(who[0]), int(number[0])]
        return Batch(pixels(images.x[rows], images)[None], images.y[rows][None])

    return draw


def new_head(filters: int) -> Callable[[int, torch.Generator], Params]:
    features = filters * (SIZE >> BLOCKS) ** 2

    def new(classes: int, stream: torch.Generator) -> Params:
        weight = column_nets.uniform((classes, features), stream, features)
        return {"head.weight": weight, "head.bias": column_nets.uniform((classes,), stream, features)}

    return new


def set_up(kind: str, sets: list[Images], settings: Settings) -> Setup:
    draw, filters = draw_from(sets), settings.filters
    if kind == "progressive":
        n = len(sets) - 1
        before, after = (supervised(column_nets.columns(filters, others), draw=draw) for others in (n - 1, n))

        def new(classes: int, stream: torch.Generator) -> Params:
            return column_nets.column(filters, n, classes, stream)

        return Setup(sets, before, after, progressive_sharing(new, column_nets.dense))
    warp = Warp(kernel=0) if kind == "hat" else None
    problem = supervised(convnet(filters, channels=CHANNELS, size=SIZE, warp=warp), draw=draw)
    if kind == "hat":
        attention = Attention(BLOCKS, filters)
        problem = gated(problem, attention)
        return Setup(sets, problem, problem, hat_sharing(new_head(filters), attention))
    return Setup(sets, problem, problem, encoder_sharing(new_head(filters)))


@torch.no_grad()
def error(problem: Problem, images: Images, part: str, params: Params, stats: Params) -> Tensor:
    """Share of wrong answers on a part of a set, with running batch-norm averages. -> []"""
    x, y = {
        "train": (images.x, images.y),
        "validation": (images.x_validation, images.y_validation),
        "test": (images.x_test, images.y_test),
    }[part]
    wrong = torch.zeros((), device=y.device)
    for first in range(0, len(y), CHUNK):
        chunk = slice(first, first + CHUNK)
        found = problem.evaluate(params, stats, Batch(pixels(x[chunk], images)[None], y[chunk][None]))
        wrong = wrong + (1 - found.accuracy[0]) * len(y[chunk])
    return wrong / len(y)


def batches(images: Images, settings: Settings) -> int:
    """Mini-batches in an epoch."""
    return -(-len(images.y) // settings.batch)


def order(n: int, draws: int, batch: int, stream: torch.Generator) -> Tensor:
    """Rows of `draws` mini-batches, epoch after epoch, each in an order of its own. -> [draw, batch]"""
    rounds = -(-draws * batch // n)
    return torch.cat([torch.randperm(n, generator=stream) for _ in range(rounds)])[: draws * batch].view(draws, batch)


def task_stack(sets: list[Images], index: list[int], draws: list[int], batch: int, stream: torch.Generator) -> Task:
    """Tasks by the numbers of their sets; the images stay where they are. Missing draws are filled up with row 0."""
    orders = torch.zeros(len(index), max(draws), batch, dtype=torch.long)
    for i, (number, n) in enumerate(zip(index, draws, strict=True)):
        orders[i, :n] = order(len(sets[number].y), n, batch, stream)
    device = sets[0].y.device
    which = torch.tensor(index, device=device)
    return Task(which, which[:, None], which[:, None], orders.to(device), which[:, None], which[:, None])


def build_learner(method: Method, setup: Setup, visits: list[Visit], owned: list[Params]) -> Learner:
    settings = method.settings
    training = Training(settings.inner_lr, settings.patience, settings.stop_every)
    if method.kind == "leap":
        outer = adam(settings.outer_lr)
        return leap_encoder(setup.train, setup.sharing, training, outer, visits, settings.length)
    return sequential(setup.train, setup.sharing, training, visits, owned, shares=method.kind != "progressive")


def pretrain(
    method: Method,
    setup: Setup,
    encoder: Params,
    held_out: str,
    seed: int,
    how: Fit,
    title: str,
    identity: dict[str, Any],
) -> fitting.Fitted:
    """Meta-train on all sets but the last."""
    settings, sets = method.settings, setup.sets[:-1]
    visits, owned = [], []
    for number, images in enumerate(sets):
        validation = partial(error, setup.train, images, "validation")
        in_epoch = batches(images, settings)
        visits.append(Visit(settings.epochs * in_epoch, in_epoch, images.classes, validation))
        if method.kind != "leap":
            new = training_column(settings, len(sets)) if method.kind == "progressive" else setup.sharing.new
            owned.append(to_device(new(images.classes, generator(seed, "own", held_out, number)), images.y.device))
    learner = build_learner(method, setup, visits, owned)

    def sample(k: int) -> Task:
        stream = generator(seed, "meta", held_out, k)
        index = torch.randint(len(sets), (settings.meta_batch,), generator=stream).tolist()
        return task_stack(sets, index, [visits[i].steps + 1 for i in index], settings.batch, stream)

    return fit(learner, encoder, sample, how, seed, title, identity)


def training_column(settings: Settings, n: int) -> Callable[[int, torch.Generator], Params]:
    """A column among `n` of the training tasks."""
    return lambda classes, stream: column_nets.column(settings.filters, n - 1, classes, stream)


def count(params: Params) -> int:
    return sum(leaf.numel() for leaf in params.values())


def without_heads(kind: str, filters: int, encoder: int, n_tasks: int) -> int:
    """Parameters of a method that has met so many tasks, heads apart."""
    if kind == "progressive":
        return column_nets.parameters(filters, n_tasks)
    return encoder + (BLOCKS * filters * n_tasks if kind == "hat" else 0)


def learn(method: Method, setup: Setup, state: State, held_out: str, seed: int) -> list[Record]:
    """Learn the set held out, and measure."""
    settings, images, problem = method.settings, setup.sets[-1], setup.heldout
    own = to_device(setup.sharing.new(images.classes, generator(seed, "own", held_out)), images.y.device)
    in_epoch = batches(images, settings)
    steps = settings.heldout_epochs * in_epoch
    params, fixed = setup.sharing.join(state, None, own, in_epoch)
    last = len(setup.sets) - 1
    task = task_stack(setup.sets, [last], [steps], settings.batch, generator(seed, "order", held_out))
    validation = partial(error, problem, images, "validation")
    stop = no_better(validation, settings.heldout_patience, in_epoch)
    at, curve, looking = points(steps, max(1, steps // settings.curve_points)), [], 0.0

    def observe(step: int, params: Params, stats: Params) -> None:
        nonlocal looking
        if step in at:
            began = time.monotonic()
            curve.append(float(error(problem, images, "test", {**params, **fixed}, stats)))
            looking += time.monotonic() - began

    began = time.monotonic()
    inner = setup.sharing.inner(settings.inner_lr, steps)
    adapted = adapt(
        problem, inner, params, fixed, task, steps, stop=stop, observe=observe, gradient=setup.sharing.gradient
    )  # fmt: skip
    seconds = time.monotonic() - began - looking
    check_adapted(adapted.loss, adapted.steps, last)
    everything, taken = {**adapted.params, **fixed}, int(adapted.steps[0])
    test = float(error(problem, images, "test", everything, adapted.stats))
    train = float(error(problem, images, "train", everything, adapted.stats))
    curve += [test] * (len(at) - len(curve))
    wrong = torch.where(adapted.accuracy.isnan(), train, 1 - adapted.accuracy)  # once stopped, what it has reached
    kept = count(state["shared"]) + sum(count(each) for each in state.get("own", {}).values())
    values = {
        "accuracy": 1 - test,
        "train_error": train,
        "error_area": 100 * float(area(wrong)[0]),
        "steps": taken,
        "step_seconds": seconds / taken,
        "parameters": kept + count(own),
        "n_train": len(images.y) + len(images.y_validation),
        "n_test": len(images.y_test),
        "n_classes": images.classes,
    }
    records: list[Record] = [(held_out, None, metric, float(value)) for metric, value in values.items()]
    records += [(held_out, k, "heldout_accuracy", 1 - value) for k, value in zip(at, curve, strict=True)]
    width = max(1, steps // settings.curve_points)
    for k in range(0, steps, width):
        records.append((held_out, k, "train_batch_error", float(wrong[0, k : k + width].mean())))
    return records


def hold_out(
    data: ImageSets,
    method: Method,
    title: str,
    held_out: str,
    seed: int,
    device: torch.device,
    checkpoints: Path | None,
    identity: dict[str, Any],
) -> tuple[list[Record], float]:
    """Pretrain on the others and learn one set; what is finished is kept beside the checkpoint. -> records, seconds"""
    settings, identity = method.settings, identity | {"held_out": held_out}
    finished = checkpoints / f"seed{seed}-{held_out}-rows.pt" if checkpoints else None
    found = fitting.load(finished, identity) if finished else None
    if found:
        return [tuple(record) for record in found["records"]], found["seconds"]
    began = time.monotonic()
    names = [name for name in data.sets if name != held_out] + [held_out]
    sets = [split(name, data.sets[name], settings, seed, device) for name in names]
    setup = set_up(method.kind, sets, settings)
    model = convnet(settings.filters, channels=CHANNELS, size=SIZE)
    encoder, _ = partition(model.init(generator(seed, "init")), "task")
    encoder = {name: leaf.to(device) for name, leaf in encoder.items()}
    state, records, earlier = {"shared": encoder}, [], 0.0
    if method.trains:
        checkpoint = checkpoints / f"seed{seed}-{held_out}.pt" if checkpoints else None
        how = Fit(
            settings.meta_steps,
            lambda state: float(state["latest"].mean()),
            1,
            settings.meta_patience,
            checkpoint,
            settings.checkpoint_every,
            keep_best=False,  # App. G says when to stop, not to go back
        )
        began_fit = time.monotonic()
        fitted = pretrain(method, setup, encoder, held_out, seed, how, title, identity)
        state = fitted.state
        earlier = fitted.seconds - (time.monotonic() - began_fit)  # of interrupted processes
        records += [(held_out, step, metric, value) for step, metric, value in fitted.history]
        records += [(held_out, None, "meta_steps", float(fitted.meta_steps))]
        records += [(held_out, None, "meta_seconds", fitted.seconds)]
    records += learn(method, setup, state, held_out, seed)
    seconds = time.monotonic() - began + max(0.0, earlier)
    if finished:
        fitting.save(finished, {"finished": True, "records": records, "seconds": seconds}, identity)
    return records, seconds


def run(
    data: ImageSets,
    method: Method,
    name: str,
    n_tasks: int,
    seed: int,
    device: torch.device,
    checkpoints: Path | None,
    identity: dict[str, Any],
) -> tuple[list[Record], float]:
    """Hold out every set in turn."""
    records: list[Record] = []
    seconds = 0.0
    for held_out in data.sets:
        title = f"{name}, {held_out} held out, seed {seed}"
        found, took = hold_out(data, method, title, held_out, seed, device, checkpoints, identity)
        records, seconds = records + found, seconds + took
    encoder = count(
        partition(convnet(method.settings.filters, channels=CHANNELS, size=SIZE).init(generator(0)), "task")[0]
    )
    for tasks in range(1, len(data.sets) + 1):
        value = without_heads(method.kind, method.settings.filters, encoder, tasks)
        records.append(("", tasks, "parameters_without_heads", float(value)))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device) / 2**20
    records.append(("", None, "peak_memory", peak))
    return records, seconds


def cli(arguments: Sequence[str] | None = None) -> None:
    main("multicv", __doc__, PROFILES, methods, load, run, arguments)


if __name__ == "__main__":
    cli()
