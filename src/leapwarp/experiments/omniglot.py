"""What the two Omniglot experiments share: alphabets as tasks, their splits, and a run from data to rows.

An alphabet is a 20-way classification task of 15 drawings a character to train on and 5 held out.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from leapwarp.data import augment
from leapwarp.data.alphabets import Alphabets
from leapwarp.evaluate import area, check_adapted, error_below, evaluate, heldout, points
from leapwarp.experiments.command import Record
from leapwarp.fit import Fit, fit
from leapwarp.inner import Gradient, Stop, adapt, gradient
from leapwarp.learners import Learner, finetune, scratch
from leapwarp.learners.base import State
from leapwarp.models.convnet import Warp, convnet
from leapwarp.optim import Optimizer, sgd
from leapwarp.problem import Batch, Model, Problem, Task, map_tasks, supervised
from leapwarp.rng import generator

CLASSES = 20  # characters of a task; alphabets with fewer are dropped (both papers)
DRAWINGS_HELD_OUT = 5  # of the 20 drawings of each character (both papers)


@dataclass(frozen=True)
class Settings:
    """The numbers of one method in one experiment at one size; the experiments give their sources."""

    filters: int
    batch: int
    """images in a mini-batch of task training"""
    inner_lr: float
    inner_steps: int
    """gradient steps on a task in meta-training, at most"""
    outer_lr: float
    meta_batch: int
    meta_steps: int
    eval_steps: int
    """gradient steps on a held-out task, at most"""
    augmentation: str
    """"affine" or "rotations" """
    n_test: int = 10
    """alphabets held out"""
    n_validation: int = 10
    """alphabets for early stopping of meta-training"""
    validate_every: int = 0
    """meta-steps between two validations; 0 for none"""
    patience: int | None = None
    """meta-steps without a better validation error before meta-training stops"""
    stop_error: float = 0.0
    """task training stops below this held-out error; 0 for never"""
    stop_patience: int = 30
    """gradient steps for which it has to stay below"""
    stop_every: int = 1
    """gradient steps between two looks at it"""
    curve_every: int = 5
    """steps of a held-out task between two points of its curves"""
    eta: int = 1
    """points of the replay buffer for each update of the warps"""
    leap_weight: float = 1.0
    """lambda, the weight of the Leap objective beside that of the warps"""
    order: int = 2
    """the warp objective in full (2), to first order (1) or without the inner step (0)"""
    released_pixels: bool = False
    """paper white, ink and rotated-in corners black, as in the authors' code"""
    dampings: tuple[float, ...] = ()
    """KFAC's: the one of the best validation accuracy is taken"""
    damping_tasks: int = 0
    """validation alphabets for that choice"""
    tasks_at_a_time: int = 0
    """tasks adapted in one stack: time and memory, not results; 0 for what `stack_size` says"""
    checkpoint_every: int = 10


class Method(NamedTuple):
    """A row of the table: how to build its learner, and its own settings."""

    settings: Settings
    learner: Callable[[Problem, Settings, int, Stop | None], Learner]
    """(problem, settings, number of training tasks, early stopping of task training) -> learner"""
    warp: Warp | None = None
    pretrains: bool = True
    natural: Callable[[Model, float], Gradient] | None = None
    """(model, damping) -> what held-out tasks follow instead of the plain gradient; for methods that do not pretrain"""
    measure: "Callable[[Subject], list[Record]] | None" = None
    """further records, after the evaluation"""


class Subject(NamedTuple):
    """What a run has learnt and on whom it is judged."""

    settings: Settings
    model: Model
    problem: Problem
    learner: Learner
    state: State
    names: list[str]
    tasks: Task
    """held out, with their `names`"""


def stack_size(device: torch.device, settings: Settings) -> int:
    """How many tasks to adapt at a time: five on a CPU, the fastest or as fast at every width (benchmarks/README.md).

    On a GPU, where starting an operation costs more than what it computes, all of a meta-batch; not measured here.
    """
    return 5 if device.type == "cpu" else max(settings.meta_batch, settings.n_test)


def path_learner(build: Callable[..., Learner]) -> Callable[[Problem, Settings, int, Stop | None], Learner]:
    """The learner of a method that takes a problem, two optimizers, and how to walk the path."""

    def learner(problem: Problem, settings: Settings, n_tasks: int, stop: Stop | None) -> Learner:
        inner, outer = sgd(settings.inner_lr), sgd(settings.outer_lr)
        return build(problem, inner, outer, settings.inner_steps, settings.tasks_at_a_time, stop)

    return learner


def finetune_learner(problem: Problem, settings: Settings, n_tasks: int, stop: Stop | None) -> Learner:
    """Finetuning mixes the batches of all tasks, so that there is no training of one task to stop."""
    return finetune(problem, sgd(settings.inner_lr), settings.inner_steps, n_tasks)


def scratch_learner(problem: Problem, settings: Settings, n_tasks: int, stop: Stop | None) -> Learner:
    return scratch()


class Split(NamedTuple):
    train: list[str]
    validation: list[str]
    test: list[str]


def split(alphabets: Alphabets, seed: int, n_tasks: int, n_test: int, n_validation: int) -> Split:
    """Names of the alphabets of each part, from the seed alone.

    Test and validation alphabets are the same whatever the number of training tasks, and training sets are nested.

    Raises:
        ValueError: there are too few alphabets with 20 characters.
    """
    counts = torch.bincount(alphabets.alphabet, minlength=len(alphabets.names)).tolist()
    names = [name for name, count in zip(alphabets.names, counts, strict=True) if count >= CLASSES]
    needed = n_test + n_validation + n_tasks
    if len(names) < needed:
        raise ValueError(
            f"found {len(names)} alphabets with at least {CLASSES} characters; {n_tasks} training tasks, "
            f"{n_validation} for validation and {n_test} held out need {needed}."
        )
    shuffled = [names[i] for i in torch.randperm(len(names), generator=generator(seed, "alphabets")).tolist()]
    rest = shuffled[n_test + n_validation :]
    return Split(rest[:n_tasks], shuffled[n_test : n_test + n_validation], shuffled[:n_test])


class Images(NamedTuple):
    """The images of some alphabets, uint8; every task has 20 characters."""

    train: Tensor
    """[task, 20 * 15, 28, 28]"""
    test: Tensor
    """[task, 20 * 5, 28, 28]"""
    train_labels: Tensor
    """[20 * 15]"""
    test_labels: Tensor
    """[20 * 5]"""


def images(alphabets: Alphabets, names: Sequence[str], seed: int, device: torch.device) -> Images:
    """Pick 20 characters of each alphabet, and 5 of its 20 drawers to hold out; the seed decides for all methods."""
    train, test = [], []
    for name in names:
        rows = (alphabets.alphabet == alphabets.names.index(name)).nonzero()[:, 0]
        chosen = torch.randperm(len(rows), generator=generator(seed, "characters", name))[:CLASSES]
        drawers = torch.randperm(alphabets.images.shape[1], generator=generator(seed, "drawers", name))
        pictures = alphabets.images[rows[chosen]]  # [character, drawer, 28, 28]
        test.append(pictures[:, drawers[:DRAWINGS_HELD_OUT]].flatten(0, 1))
        train.append(pictures[:, drawers[DRAWINGS_HELD_OUT:]].flatten(0, 1))
    labels = [torch.arange(CLASSES).repeat_interleave(part[0].shape[0] // CLASSES) for part in (train, test)]
    return Images(*(part.to(device) for part in (torch.stack(train), torch.stack(test), *labels)))


def pixels(pictures: Tensor, matrices: Tensor, released: bool) -> Tensor:
    """uint8 [*, 28, 28] seen through matrices [*, 2, 3] -> float32 in [0, 1], ink 1 on background 0.

    `released` gives ink 0 on background 1 instead, with 0 rotated in from outside.
    """
    shape = pictures.shape
    values = pictures.reshape(-1, *shape[-2:]).float() / 255
    return augment.transform(1 - values if released else values, matrices.reshape(-1, 2, 3)).view(shape)


def draw_matrices(stream: torch.Generator, shape: tuple[int, ...], augmentation: str) -> Tensor:
    if augmentation == "affine":
        return augment.affine(stream, shape)
    if augmentation == "rotations":
        return augment.rotations(stream, shape)
    raise ValueError(f"augmentation is {augmentation!r}, needed 'affine' or 'rotations'.")


def draw_tasks(
    data: Images, index: Tensor, stream: torch.Generator, draws: int, batch: int, settings: Settings
) -> Task:
    """The tasks `index` of `data`, with all that is random about their training drawn from `stream`.

    Mini-batches have no class balance; over all draws together every training image comes as often as any other
    (the released sampler). Every image of every mini-batch is transformed anew, and each held-out image once.
    """
    device, (n_tasks, n) = data.train.device, (len(index), data.train.shape[1])
    # Held-out images first: their views are then the same for methods of other batch sizes.
    test_matrices = draw_matrices(stream, (n_tasks, data.test.shape[1]), settings.augmentation)
    order = torch.rand(n_tasks, draws * batch, generator=stream).argsort(1) % n
    matrices = draw_matrices(stream, (n_tasks, draws, batch), settings.augmentation)
    index = index.to(device)
    return Task(
        index=index,
        x=data.train[index],
        y=data.train_labels.expand(n_tasks, n),
        order=order.view(n_tasks, draws, batch).to(device),
        x_test=pixels(data.test[index], test_matrices.to(device), settings.released_pixels),
        y_test=data.test_labels.expand(n_tasks, -1),
        affine=matrices.to(device),
    )


def draw_batch(released: bool) -> Callable[[Task, Tensor, Tensor], Batch]:
    def draw(tasks: Task, who: Tensor, number: Tensor) -> Batch:
        picked = tasks.order[who, number]  # [t, batch]
        assert tasks.affine is not None
        pictures = tasks.x[who[:, None], picked]
        return Batch(pixels(pictures, tasks.affine[who, number], released), tasks.y[who[:, None], picked])

    return draw


def meta_batch(n_tasks: int, size: int, stream: torch.Generator) -> Tensor:
    """Numbers of `size` training tasks: all of them in random order, again and again where there are fewer."""
    rounds = -(-size // n_tasks)
    return torch.cat([torch.randperm(n_tasks, generator=stream) for _ in range(rounds)])[:size]


def validation_error(
    learner: Learner,
    problem: Problem,
    inner: Optimizer,
    tasks: Task,
    settings: Settings,
    stop: Stop | None,
    state: State,
    gradient: Gradient = gradient,
) -> float:
    """Mean held-out error on validation tasks, adapted as training tasks are."""

    def one(tasks: Task, part: slice) -> Tensor:
        start, fixed = learner.start(state, tasks)
        optimizer = learner.optimizer(state) if learner.optimizer else inner
        adapted = adapt(problem, optimizer, start, fixed, tasks, settings.inner_steps, stop=stop, gradient=gradient)
        check_adapted(adapted.loss, adapted.steps, part.start)
        return heldout(problem, {**adapted.params, **fixed}, adapted.stats, tasks)

    return 1 - float(map_tasks(one, tasks, settings.tasks_at_a_time).mean())


def choose_damping(dampings: Sequence[float], error: Callable[[float], float]) -> tuple[float, list[Record]]:
    """The damping with the least validation error (the first of equals), and the rows that say so.

    One with which training stops being finite counts as an error of 1; raises FloatingPointError where all do.
    """
    errors = {}
    for damping in dampings:
        try:
            errors[damping] = error(damping)
        except FloatingPointError as diverged:
            print(f"damping {damping:g}: {diverged}", flush=True)
            errors[damping] = 1.0
    best = min(errors, key=lambda damping: errors[damping])
    if errors[best] == 1.0:
        raise FloatingPointError(
            f"no damping of {', '.join(map(str, dampings))} keeps training finite: add larger ones."
        )
    records: list[Record] = [("", None, "damping", best)]
    return best, records + [("", None, f"validation_accuracy.{d:g}", 1 - error) for d, error in errors.items()]


def run(
    alphabets: Alphabets,
    method: Method,
    name: str,
    n_tasks: int,
    seed: int,
    device: torch.device,
    checkpoints: Path | None,
    identity: dict[str, Any],
) -> tuple[list[Record], float]:
    """One run: meta-train on `n_tasks` alphabets, then adapt to the held-out ones. -> records, seconds

    Args:
        checkpoints: folder for checkpoints, or None to keep none.
        identity: whatever else the result depends on, as JSON values: a checkpoint of another one is refused.
    """
    settings = method.settings
    if not settings.tasks_at_a_time:
        settings = replace(settings, tasks_at_a_time=stack_size(device, settings))
    parts = split(alphabets, seed, n_tasks, settings.n_test, settings.n_validation)
    model = convnet(settings.filters, CLASSES, warp=method.warp)
    problem = supervised(model, draw=draw_batch(settings.released_pixels))
    stop = None
    if settings.stop_error:
        stop = error_below(problem, settings.stop_error, settings.stop_patience, settings.stop_every)
    learner = method.learner(problem, settings, n_tasks, stop)
    inner = sgd(settings.inner_lr)
    params = {k: leaf.to(device) for k, leaf in model.init(generator(seed, "init")).items()}

    def held(names: list[str], stream: str) -> Task:
        data = images(alphabets, names, seed, device)
        everything = torch.arange(len(names))
        draws = max(settings.eval_steps, settings.inner_steps)
        return draw_tasks(data, everything, generator(seed, stream), draws, settings.batch, settings)

    fitted = None
    if method.pretrains:
        train = images(alphabets, parts.train, seed, device)

        def sample(k: int) -> Task:
            stream = generator(seed, "meta", k)
            index = meta_batch(n_tasks, settings.meta_batch, stream)
            return draw_tasks(train, index, stream, learner.draws, settings.batch, settings)

        validate = None
        if settings.validate_every:
            validation = held(parts.validation, "validation")
            validate = partial(validation_error, learner, problem, inner, validation, settings, stop)

        how = Fit(
            settings.meta_steps,
            validate,
            settings.validate_every,
            settings.patience,
            checkpoints / f"seed{seed}.pt" if checkpoints else None,
            settings.checkpoint_every,
        )
        title = f"{name}, {n_tasks} tasks, seed {seed}"
        fitted = fit(learner, params, sample, how, seed, title, identity)
    state = fitted.state if fitted else learner.init(params)

    records: list[Record] = []
    follow, began = gradient, time.monotonic()
    if method.natural:
        few = held(parts.validation[: settings.damping_tasks], "validation")
        natural = partial(method.natural, model)
        damping, records = choose_damping(
            settings.dampings,
            lambda damping: validation_error(learner, problem, inner, few, settings, stop, state, natural(damping)),
        )
        follow = natural(damping)
    search_seconds = time.monotonic() - began

    tasks = held(parts.test, "test")
    began = time.monotonic()
    size, every = settings.tasks_at_a_time, settings.curve_every
    result = evaluate(learner, state, problem, inner, tasks, settings.eval_steps, size, every, stop, follow)
    seconds = time.monotonic() - began

    if fitted:
        records += [("", step, metric, value) for step, metric, value in fitted.history]
        records += [("", None, "meta_steps", fitted.meta_steps), ("", None, "meta_seconds", fitted.seconds)]
    records.append(("", None, "adapt_seconds", seconds / len(parts.test)))
    at, auc = points(settings.eval_steps, every), area(result.accuracy_curve)
    mean_loss = area(result.loss_curve)
    for i, task in enumerate(parts.test):
        steps = int(result.steps[i])
        records += [
            (task, None, "accuracy", float(result.accuracy[i])),
            (task, None, "auc", float(auc[i])),
            (task, None, "mean_loss", float(mean_loss[i])),
            (task, None, "steps", steps),
        ]
        records += [(task, k, "heldout_accuracy", float(v)) for k, v in zip(at, result.heldout_curve[i], strict=True)]
        for k in range(0, steps, every):
            records.append((task, k, "train_loss", float(result.loss_curve[i, k])))
            records.append((task, k, "train_accuracy", float(result.accuracy_curve[i, k])))
    began = time.monotonic()
    if method.measure:
        records += method.measure(Subject(settings, model, problem, learner, state, parts.test, tasks))
    seconds += search_seconds + time.monotonic() - began
    return records, seconds + (fitted.seconds if fitted else 0.0)
