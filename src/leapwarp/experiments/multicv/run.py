"""Leap's Multi-CV experiment: transfer between eight image data sets, Table 3 of that paper (appendix G).

    snakemake multicv

Each set is held out in turn: a method is pretrained on all other sets and then learns the held-out one, with a new
head. Sets are trained one at a time, since they differ in classes and sizes.

One run holds out every set, with a checkpoint for each. It takes, on a core: smoke, a second; quick, scratch 7 s,
finetune, hat and leap_1_epoch half a minute, leap and finetune_many_epochs 80 s, progressive 160 s. To expect at quick:
Leap, finetuning and Progressive Nets have a smaller area than no pretraining, and HAT a much larger one. Differences in
test error are not certain.
"""

import resource
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from leapwarp import fit
from leapwarp.data.images import SIZE, load
from leapwarp.evaluate import area, check_adapted, points
from leapwarp.experiments.base import Evaluated, Experiment, Record, Run, Trained, in_turn
from leapwarp.experiments.states import learnt
from leapwarp.host import clock
from leapwarp.inner import adapt
from leapwarp.learners import Learner
from leapwarp.learners.base import State
from leapwarp.learners.hat import Attention, gated, hat_sharing
from leapwarp.learners.progressive import progressive_sharing
from leapwarp.learners.visits import Sharing, Training, Visit, encoder_sharing, leap_encoder, no_better, sequential
from leapwarp.models import columns as column_nets
from leapwarp.models.convnet import BLOCKS, Warp, convnet
from leapwarp.optim import adam
from leapwarp.problem import Batch, Problem, Task, supervised
from leapwarp.rng import generator
from leapwarp.trees import Params, alone, leaves, partition, to_device
from leapwarp.worlds.image_sets import (
    CHANNELS,
    Images,
    Part,
    batches,
    classes_taken,
    draw_from,
    pixels,
    split,
    take,
    task_stack,
)

CHUNK = 500  # images evaluated at a time


@dataclass(frozen=True)
class Settings:
    """The settings of one method."""

    filters: int = 64  # App. G: the encoder of the Omniglot experiment
    batch: int = 32  # Table 4
    inner_lr: float = 0.1  # Table 4, annealed to 0 over the most steps that a task may take
    epochs: int = 1  # of a task in pretraining, at most: Table 4
    heldout_epochs: int = 100  # at most: Table 4
    outer_lr: float = 0.01  # of Adam: Table 4
    meta_batch: int = 10  # tasks, drawn with replacement: Table 4
    meta_steps: int = 1000  # at most: Table 4
    meta_patience: int = 10  # meta-steps without a better mean validation error: App. G
    # Early stopping of a task (App. G): 10 consecutive gradient steps without a better validation error.
    patience: int = 10
    stop_every: int = 1
    """gradient steps between two measurements of the validation error; 0 for an epoch"""
    # On a held-out set, the caption of Table 3 says "until convergence", and errors on training images are 0 there. Ten
    # steps end most trainings after fifty (docs/log/multicv.md). So here it is ten epochs.
    heldout_patience: int = 10
    length: bool = True  # Leap's: the paper does not say here; its main form
    validation_share: float = 0.15  # of a set's training images; HAT's code
    most_validation: int | None = None
    """validation images that early stopping uses"""
    most_train: int | None = None
    """images of each set, including its validation images"""
    most_test: int | None = None
    most_classes: int | None = None
    curve_points: int = 50
    """points of a held-out set's curves"""
    checkpoint_every: int = 1


PUBLISHED = Settings()
EVALUATION = frozenset({"heldout_epochs", "heldout_patience", "most_test", "curve_points"})


class Kind(NamedTuple):
    """The functions that define a kind of method, without its settings."""

    network: Callable[[list[Images], int, int], tuple[Problem, Sharing]]
    """(sets, number of other tasks, filters) -> the problem, and how tasks share parameters"""
    parameters: Callable[[int, int], int]
    """(filters, number of tasks so far) -> number of parameters, without heads"""
    learner: Callable[[Problem, Sharing, Settings, list[Visit], list[Params]], Learner]
    """(..., how each training task is trained, the first parameters of each task) -> learner"""


class Method(NamedTuple):
    settings: Settings
    kind: Kind


# ---------------------------------------------------------------- methods


def new_head(filters: int) -> Callable[[int, torch.Generator], Params]:
    features = filters * (SIZE >> BLOCKS) ** 2

    def new(classes: int, stream: torch.Generator) -> Params:
        weight = column_nets.uniform((classes, features), stream, features)
        return {"head.weight": weight, "head.bias": column_nets.uniform((classes,), stream, features)}

    return new


def encoder_network(sets: list[Images], others: int, filters: int) -> tuple[Problem, Sharing]:
    """One encoder for all tasks, and a head for each."""
    model = convnet(filters, channels=CHANNELS, size=SIZE)
    return supervised(model, draw=draw_from(sets)), encoder_sharing(new_head(filters))


def hat_network(sets: list[Images], others: int, filters: int) -> tuple[Problem, Sharing]:
    """One encoder, and for each task a head and gates for the filters."""
    model, attention = convnet(filters, channels=CHANNELS, size=SIZE, warp=Warp(kernel=0)), Attention(BLOCKS, filters)
    return gated(supervised(model, draw=draw_from(sets)), attention), hat_sharing(new_head(filters), attention)


def progressive_network(sets: list[Images], others: int, filters: int) -> tuple[Problem, Sharing]:
    """A column for each task, which receives the features of the other columns."""

    def new(classes: int, stream: torch.Generator) -> Params:
        return column_nets.column(filters, others, classes, stream)

    problem = supervised(column_nets.columns(filters, others), draw=draw_from(sets))
    return problem, progressive_sharing(new, column_nets.dense)


def encoder_parameters(filters: int, n_tasks: int) -> int:
    return column_nets.parameters(filters, 1)  # a first column is an encoder


def hat_parameters(filters: int, n_tasks: int) -> int:
    return encoder_parameters(filters, n_tasks) + BLOCKS * filters * n_tasks


def training_of(settings: Settings) -> Training:
    return Training(settings.inner_lr, settings.patience, settings.stop_every)


def leap_learner(
    problem: Problem, sharing: Sharing, settings: Settings, visits: list[Visit], owned: list[Params]
) -> Learner:
    """Leap. It draws a new head each time a task is trained, so it does not use the tasks' first parameters."""
    outer = adam(settings.outer_lr)
    return leap_encoder(problem, sharing, training_of(settings), outer, visits, settings.length)


def sequential_learner(
    problem: Problem,
    sharing: Sharing,
    settings: Settings,
    visits: list[Visit],
    owned: list[Params],
    shares: bool = True,
) -> Learner:
    """Each task continues from earlier training: with the encoder of all tasks, or with its own column."""
    return sequential(problem, sharing, training_of(settings), visits, owned, shares)


LEAP = Kind(encoder_network, encoder_parameters, leap_learner)
ENCODER = Kind(encoder_network, encoder_parameters, sequential_learner)
HAT = Kind(hat_network, hat_parameters, sequential_learner)
PROGRESSIVE = Kind(progressive_network, column_nets.parameters, partial(sequential_learner, shares=False))


def methods(settings: Settings) -> dict[str, Method]:
    """The rows of Table 3, and Leap and finetuning with each other's epochs (App. G: only Leap gains from more)."""
    many = replace(settings, epochs=10)  # Leap's: Table 4
    # HAT looks at the validation error once an epoch, as it anneals its gates over an epoch.
    return {
        "scratch": Method(settings, ENCODER),
        "finetune": Method(settings, ENCODER),
        "hat": Method(replace(settings, stop_every=0), HAT),
        "progressive": Method(settings, PROGRESSIVE),
        "leap": Method(many, LEAP),
        "leap_1_epoch": Method(settings, LEAP),
        "finetune_many_epochs": Method(many, ENCODER),
        "hat_many_epochs": Method(replace(many, stop_every=0), HAT),
        "progressive_many_epochs": Method(many, PROGRESSIVE),
    }


# ---------------------------------------------------------------- what training and evaluation share


def taken(run: Run, name: str) -> tuple[Images, Tensor]:
    """The images and classes of a set that a seed uses, the same for all methods. Raises ValueError if there are fewer
    training images than a batch."""
    settings, images = run.method.settings, run.data.sets[name]
    classes = classes_taken(name, images, settings.most_classes, run.seed)
    train = take(name, images, "train", classes, settings.most_train, run.seed, run.device)
    found = split(train, settings.validation_share, settings.most_validation, len(classes))
    if len(found.train.y) < settings.batch:
        raise ValueError(f"{name} has {len(found.train.y)} training images, a batch needs {settings.batch}.")
    return found, classes


def random_encoder(run: Run) -> Params:
    """The random initialisation, the same for every method."""
    model = convnet(run.method.settings.filters, channels=CHANNELS, size=SIZE)
    return to_device(partition(model.init(generator(run.seed, "init")), "task")[0], run.device)


@torch.no_grad()
def error(problem: Problem, images: Part, params: Params, stats: Params) -> Tensor:
    """Share of wrong answers, with running batch-norm averages. -> []"""
    wrong = torch.zeros((), device=images.y.device)  # a whole number, so that equal errors are equal numbers
    for first in range(0, len(images.y), CHUNK):
        chunk = slice(first, first + CHUNK)
        y = images.y[chunk]
        found = problem.evaluate(params, stats, Batch(pixels(images, chunk)[None], y[None]))
        wrong = wrong + ((1 - found.accuracy[0]) * len(y)).round()
    return wrong / len(images.y)


@torch.no_grad()
def last_loss(problem: Problem, images: Part, params: Params, stats: Params) -> Tensor:
    """The loss on the first chunk of images, [1], which is not finite if the parameters have diverged."""
    chunk = slice(0, CHUNK)
    return problem.evaluate(params, stats, Batch(pixels(images, chunk)[None], images.y[chunk][None])).loss


def mean_error(errors: Tensor, sizes: Sequence[int]) -> float:
    """The mean of errors [set] on sets of these sizes. It is rounded once, so that equal means are equal numbers."""
    shares = [Fraction(round(error * n), n) for error, n in zip(errors.tolist(), sizes, strict=True)]
    return float(sum(shares) / len(shares))


def count(tree: Any) -> int:
    """Numbers in nested dictionaries of tensors."""
    return sum(leaf.numel() for leaf in leaves(tree).values())


def peak_memory(device: torch.device) -> float:
    """The largest memory of the process so far in MB, or on a GPU that of the GPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# ---------------------------------------------------------------- training


def train(run: Run) -> Trained:
    """Pretrain on all sets except one, for each in turn. The state has the results for each held-out set."""
    sets = {name: taken(run, name)[0] for name in run.data.sets}
    without: dict[str, State] = {}
    records: list[Record] = []
    seconds = 0.0
    for held_out in sets:
        fitted = pretrain(run, held_out, [images for name, images in sets.items() if name != held_out])
        without[held_out] = learnt(fitted.state)
        records += [(held_out, step, metric, value) for step, metric, value in fitted.history]
        records += [(held_out, None, "meta_steps", fitted.meta_steps), (held_out, None, "meta_seconds", fitted.seconds)]
        records += [(held_out, None, name, value) for name, value in fitted.moved.items()]
        seconds += fitted.seconds
    records.append(("", None, "peak_memory", peak_memory(run.device)))
    return Trained({"without": without}, records, seconds)


def pretrain(run: Run, held_out: str, sets: list[Images]) -> fit.Fitted:
    """Meta-train on the other sets."""
    method, settings, seed = run.method, run.method.settings, run.seed
    problem, sharing = method.kind.network(sets, len(sets) - 1, settings.filters)
    visits, owned = [], []
    for number, images in enumerate(sets):
        in_epoch, validation = batches(images, settings.batch), partial(error, problem, images.validation)
        visits.append(Visit(settings.epochs * in_epoch, in_epoch, images.classes, validation))
        own = sharing.new(images.classes, generator(seed, "own", held_out, number))
        owned.append(to_device(own, run.device))
    learner = method.kind.learner(problem, sharing, settings, visits, owned)

    def sample(k: int, i: int) -> Task:
        stream = generator(seed, "meta", held_out, k)
        index = torch.randint(len(sets), (settings.meta_batch,), generator=stream).tolist()
        return task_stack(sets, index, [visits[i].steps + 1 for i in index], settings.batch, stream)

    how = fit.Fit(
        settings.meta_steps,
        lambda i, state: mean_error(state["latest"][0], [len(images.validation.y) for images in sets]),
        1,
        settings.meta_patience,
        run.checkpoints,
        settings.checkpoint_every,
        keep_best=False,  # App. G says when to stop, and nothing of returning to the best state
    )
    title, identity = f"{run.name}, {held_out} held out, seed {seed}", run.identity | {"set": held_out}
    (fitted,) = fit.fit(learner, alone(random_encoder(run)), sample, how, [fit.Member(seed, title, identity, held_out)])
    return fitted


# ---------------------------------------------------------------- evaluation


def judge(run: Run, state: State | None) -> Evaluated:
    """Learn each held-out set, from the state that was pretrained without it or from the random initialisation."""
    sets, method, start = run.data.sets, run.method, {"shared": random_encoder(run)}
    without = state["without"] if state else dict.fromkeys(sets, start)
    if set(without) != set(sets):
        raise ValueError(
            f"{run.title}: has the held-out sets {', '.join(sorted(without))}; needed {', '.join(sorted(sets))}."
        )
    records: list[Record] = []
    for held_out in sets:
        records += learn_once(run, held_out, without[held_out])
    for met in range(1, len(sets) + 1):
        records.append(("", met, "parameters_without_heads", method.kind.parameters(method.settings.filters, met)))
    if state is None:  # else training has measured it
        records.append(("", None, "peak_memory", peak_memory(run.device)))
    return Evaluated(records)


def learn_once(run: Run, held_out: str, state: State) -> list[Record]:
    """`learn`, with its records stored beside the checkpoints: an interrupted job continues with the next set."""
    kept, identity = run.checkpoint(f"{held_out}-evaluated"), run.identity | {"set": held_out}
    found = fit.load(kept, identity) if kept else None
    if found:
        return [tuple(record) for record in found["records"]]
    records = learn(run, held_out, state)
    if kept:
        fit.save(kept, {"finished": True, "records": records}, identity)
    return records


def learn(run: Run, held_out: str, state: State) -> list[Record]:
    """Learn the held-out set, and measure."""
    method, settings, names = run.method, run.method.settings, list(run.data.sets)
    images, classes = taken(run, held_out)
    test = take(held_out, run.data.sets[held_out], "test", classes, settings.most_test, run.seed, run.device)
    problem, sharing = method.kind.network([images], len(names) - 1, settings.filters)
    own = to_device(sharing.new(images.classes, generator(run.seed, "own", held_out)), run.device)
    in_epoch = batches(images, settings.batch)
    steps = settings.heldout_epochs * in_epoch
    params, fixed = sharing.join(state, None, own, in_epoch)
    task = task_stack([images], [0], [steps], settings.batch, generator(run.seed, "order", held_out))
    stop = no_better(partial(error, problem, images.validation), settings.heldout_patience, in_epoch)
    width = max(1, steps // settings.curve_points)
    at, curve, looking, now = points(steps, width), [], 0.0, clock(run.device)

    def observe(step: int, params: Params, stats: Params) -> None:
        nonlocal looking
        if step in at:
            began = now()
            curve.append(float(error(problem, test, {**params, **fixed}, stats)))
            looking += now() - began

    began = now()
    inner, follow = sharing.inner(settings.inner_lr, steps), sharing.gradient
    adapted = adapt(problem, inner, params, fixed, task, steps, stop=stop, observe=observe, gradient=follow)
    seconds = now() - began - looking
    everything, taken_steps = {**adapted.params, **fixed}, int(adapted.steps[0])
    check_adapted(adapted, last_loss(problem, test, everything, adapted.stats), names.index(held_out))
    test_error, train_error = (float(error(problem, part, everything, adapted.stats)) for part in (test, images.train))
    curve += [test_error] * (len(at) - len(curve))  # after a stop it keeps its value
    wrong = torch.where(adapted.accuracy.isnan(), train_error, 1 - adapted.accuracy)
    values = {
        "accuracy": 1 - test_error,
        "train_error": train_error,
        "error_area": 100 * float(area(wrong)[0]),
        "steps": taken_steps,
        "step_seconds": seconds / taken_steps,
        "parameters": count({"shared": state["shared"], "own": state.get("own", {}), "new": own}),
        "n_train": images.n_train,
        "n_test": len(test.y),
        "n_classes": images.classes,
    }
    records: list[Record] = [(held_out, None, metric, float(value)) for metric, value in values.items()]
    records += [(held_out, k, "heldout_accuracy", 1 - value) for k, value in zip(at, curve, strict=True)]
    for k in range(0, steps, width):
        records.append((held_out, k, "train_batch_error", float(wrong[0, k : k + width].mean())))
    return records


EXPERIMENT = Experiment(PUBLISHED, methods, judge, in_turn(train), load, EVALUATION)
