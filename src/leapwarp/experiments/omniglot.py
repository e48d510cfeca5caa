"""Shared by the experiments on Omniglot: a method's settings, its training, and its evaluation on new alphabets."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from leapwarp.evaluate import area, error_below, evaluate, learnt, points
from leapwarp.experiments.base import Evaluated, Record, Run, Trained, trained
from leapwarp.fit import Fit, fit
from leapwarp.host import clock
from leapwarp.inner import Gradient, Stop, adapt, gradient
from leapwarp.learners import Learner, finetune, scratch
from leapwarp.learners.base import State
from leapwarp.models.convnet import Warp, convnet
from leapwarp.optim import Optimizer, sgd
from leapwarp.problem import Model, Problem, Task, map_tasks, supervised, take_tasks
from leapwarp.rng import generator
from leapwarp.trees import Params, alone, map_leaves, stack, to_device
from leapwarp.worlds.alphabets import CLASSES, Split, draw_batch, draw_tasks, images, meta_batch, split

TIMED_STEPS = 100
EVALUATION = frozenset({"eval_steps", "curve_every", "dampings", "damping_tasks"})


@dataclass(frozen=True)
class Settings:
    """The settings of one method. The experiments' run.py give the sources of the published values."""

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
    augmentation: Literal["affine", "rotations"]
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
    """gradient steps for which the error has to stay below it"""
    stop_every: int = 1
    """gradient steps between two measurements of the error"""
    curve_every: int = 5
    """steps of a held-out task between two points of its curves"""
    eta: int = 1
    """points of the replay buffer for each update of the warps"""
    leap_weight: float = 1.0
    """lambda, the weight of the Leap objective beside that of the warps"""
    order: int = 2
    """the warp objective in full (2), to first order (1) or without the inner step (0)"""
    released_pixels: bool = False
    """pixels as in the authors' code: background 1, and 0 for ink and for the corners that rotations bring in"""
    dampings: tuple[float, ...] = ()
    """dampings of KFAC to try; the one with the best validation accuracy is used"""
    damping_tasks: int = 0
    """validation alphabets for that choice"""
    tasks_at_a_time: int = 0
    """tasks adapted in one stack, which changes time and memory, but not results; 0 for the value of `stack_size`"""
    checkpoint_every: int = 10


class Method(NamedTuple):
    """A row of the table: how to build its learner, and its own settings."""

    settings: Settings
    learner: Callable[[Problem, Settings, int, Stop | None], Learner]
    """(problem, settings, number of training tasks, early stopping of task training) -> learner"""
    warp: Warp | None = None
    natural: Callable[[Model, float], Gradient] | None = None
    """(model, damping) -> the direction in place of the plain gradient, for methods without training (KFAC)"""
    measure: "Callable[[Subject], list[Record]] | None" = None
    """further records, after the evaluation"""


class Subject(NamedTuple):
    """What a run has learnt, and the tasks that it is evaluated on."""

    settings: Settings
    model: Model
    problem: Problem
    learner: Learner
    state: State
    names: list[str]
    tasks: Task
    """held out, with their `names`"""


def stack_size(device: torch.device, settings: Settings, n_runs: int) -> int:
    """How many tasks to adapt at a time: on a CPU five, which is the fastest at every width (benchmarks/README.md).

    On a GPU all tasks of all runs, since launching an operation takes longer than computing it.
    """
    return 5 if device.type == "cpu" else max(n_runs * settings.meta_batch, settings.n_test)


def path_learner(build: Callable[..., Learner]) -> Callable[[Problem, Settings, int, Stop | None], Learner]:
    """The `learner` of a `Method` whose `build` takes a problem, two optimizers and the options of a path."""

    def learner(problem: Problem, settings: Settings, n_tasks: int, stop: Stop | None) -> Learner:
        inner, outer = sgd(settings.inner_lr), sgd(settings.outer_lr)
        return build(problem, inner, outer, settings.inner_steps, settings.tasks_at_a_time, stop)

    return learner


def finetune_learner(problem: Problem, settings: Settings, n_tasks: int, stop: Stop | None) -> Learner:
    """Finetuning mixes the batches of all tasks, so the training of a single task cannot be stopped early."""
    return finetune(problem, sgd(settings.inner_lr), settings.inner_steps, n_tasks)


def untrained(settings: Settings) -> Settings:
    """Settings of methods without meta-training. Those of meta-training are fixed, so changing them has no effect."""
    return replace(settings, outer_lr=0.0, meta_batch=0, meta_steps=0, validate_every=0, patience=None)


def scratch_learner(problem: Problem, settings: Settings, n_tasks: int, stop: Stop | None) -> Learner:
    return scratch()


class Setup(NamedTuple):
    """The model, problem and initialisation, which training and evaluation of a run share."""

    settings: Settings
    parts: Split
    model: Model
    problem: Problem
    learner: Learner
    inner: Optimizer
    stop: Stop | None
    params: Params
    """the random initialisation, of one task"""


def set_up(run: Run, n_runs: int = 1) -> Setup:
    """n_runs: how many runs train in one stack."""
    method, settings = run.method, run.method.settings
    if not settings.tasks_at_a_time:
        settings = replace(settings, tasks_at_a_time=stack_size(run.device, settings, n_runs))
    parts = split(run.data, run.seed, run.n_tasks, settings.n_test, settings.n_validation)
    model = convnet(settings.filters, CLASSES, warp=method.warp)
    problem = supervised(model, draw=draw_batch(settings.released_pixels))._replace(capture=True)
    stop = None
    if settings.stop_error:
        stop = error_below(problem, settings.stop_error, settings.stop_patience, settings.stop_every)
    learner = method.learner(problem, settings, run.n_tasks, stop)
    params = to_device(model.init(generator(run.seed, "init")), run.device)
    return Setup(settings, parts, model, problem, learner, sgd(settings.inner_lr), stop, params)


def validation_error(setup: Setup, tasks: Task, state: State, gradient: Gradient = gradient) -> float:
    """Mean held-out error on validation tasks, adapted as training tasks are."""

    def one(tasks: Task, part: slice) -> Tensor:
        start, fixed = setup.learner.start(state, tasks)
        optimizer = setup.learner.optimizer(state) if setup.learner.optimizer else setup.inner
        steps, stop = setup.settings.inner_steps, setup.stop
        adapted = adapt(setup.problem, optimizer, start, fixed, tasks, steps, stop=stop, gradient=gradient)
        return learnt(setup.problem, {**adapted.params, **fixed}, adapted, tasks, part.start)

    return 1 - float(map_tasks(one, tasks, setup.settings.tasks_at_a_time).mean())


def choose_damping(dampings: Sequence[float], error: Callable[[float], float]) -> tuple[float, list[Record]]:
    """The damping with the smallest validation error (the first of equals), and rows with the accuracies of all.

    A damping with which training diverges is not chosen, and has no row. Raises FloatingPointError if all diverge.
    """
    errors = {}
    for damping in dampings:
        try:
            errors[damping] = error(damping)
        except FloatingPointError as diverged:
            print(f"damping {damping:g}: {diverged}", flush=True)
    if not errors:
        raise FloatingPointError(
            f"no damping of {', '.join(map(str, dampings))} keeps training finite: add larger ones."
        )
    best = min(errors, key=lambda damping: errors[damping])
    records: list[Record] = [("", None, "damping", best)]
    return best, records + [("", None, f"validation_accuracy.{d:g}", 1 - error) for d, error in errors.items()]


def held(run: Run, settings: Settings, names: list[str], stream: str, draws: int) -> Task:
    """Alphabets that are not used in pretraining, all in one stack, with `draws` mini-batches of each."""
    data, index = images(run.data, names, run.seed, run.device), torch.arange(len(names))
    random = generator(run.seed, stream)
    return draw_tasks(data, index, random, draws, settings.batch, settings.augmentation, settings.released_pixels)


def train(runs: Sequence[Run]) -> list[Trained]:
    """Meta-train on `n_tasks` alphabets, all runs in one stack, also where their numbers of alphabets differ."""
    setups = [set_up(run, len(runs)) for run in runs]
    most = max(range(len(runs)), key=lambda i: runs[i].n_tasks)  # finetuning has a head for each alphabet
    settings, learner = setups[most].settings, setups[most].learner
    data = [images(run.data, setup.parts.train, run.seed, run.device) for run, setup in zip(runs, setups, strict=True)]

    def sample(k: int, i: int) -> Task:
        run, stream = runs[i], generator(runs[i].seed, "meta", k)
        index, augmentation = meta_batch(run.n_tasks, settings.meta_batch, stream), settings.augmentation
        return draw_tasks(data[i], index, stream, learner.draws, settings.batch, augmentation, settings.released_pixels)

    validate = None
    if settings.validate_every:
        tasks = [
            held(run, settings, setup.parts.validation, "validation", settings.inner_steps)
            for run, setup in zip(runs, setups, strict=True)
        ]
        validate = lambda i, state: validation_error(setups[i], tasks[i], state)  # noqa: E731
    how = Fit(
        settings.meta_steps,
        validate,
        settings.validate_every,
        settings.patience,
        runs[0].checkpoints,
        checkpoint_every=settings.checkpoint_every,
    )
    params = stack([setup.params for setup in setups])
    return [
        trained(fitted, [("", step, metric, value) for step, metric, value in fitted.history])
        for fitted in fit(learner, params, sample, how, [run.member for run in runs])
    ]


def step_seconds(setup: Setup, state: State, tasks: Task, follow: Gradient) -> float:
    """The seconds of a gradient step on a single task, without measurements in between, comparable between methods.

    They are those of the processor, also if the run uses a GPU. There most methods' steps are one launch of a graph and
    KFAC's are many, so that the times would compare launches. Other work on the machine does not count.
    """
    first = take_tasks(tasks, slice(0, 1))
    one = first._replace(**{name: leaf.cpu() for name, leaf in first._asdict().items() if leaf is not None})
    state = map_leaves(Tensor.cpu, state)
    begin, fixed = setup.learner.start(state, one)
    optimizer = setup.learner.optimizer(state) if setup.learner.optimizer else setup.inner
    steps = min(TIMED_STEPS, setup.settings.eval_steps)
    adapt(setup.problem, optimizer, begin, fixed, one, 1, gradient=follow)
    began = time.process_time()
    adapt(setup.problem, optimizer, begin, fixed, one, steps, gradient=follow)
    return (time.process_time() - began) / steps


def judge(run: Run, state: State | None) -> Evaluated:
    """Adapt to the held-out alphabets, from the learnt state or from the random initialisation."""
    setup, method = set_up(run), run.method
    settings, learner, names = setup.settings, setup.learner, setup.parts.test
    start: State = alone(state) if state else learner.init(alone(setup.params))
    records: list[Record] = []
    follow = gradient
    if method.natural:
        few = held(run, settings, setup.parts.validation[: settings.damping_tasks], "validation", settings.inner_steps)
        natural = partial(method.natural, setup.model)
        damping, records = choose_damping(
            settings.dampings, lambda damping: validation_error(setup, few, start, natural(damping))
        )
        follow = natural(damping)

    tasks = held(run, settings, names, "test", settings.eval_steps)
    seconds = clock(run.device)
    began = seconds()
    size, every, problem = settings.tasks_at_a_time, settings.curve_every, setup.problem
    result = evaluate(
        learner, start, problem, setup.inner, tasks, settings.eval_steps, size, every, setup.stop, follow
    )  # fmt: skip
    records.append(("", None, "adapt_seconds", (seconds() - began) / len(names)))
    records.append(("", None, "step_seconds", step_seconds(setup, start, tasks, follow)))
    at, auc = points(settings.eval_steps, every), area(result.accuracy_curve)
    mean_loss = area(result.loss_curve)
    for i, task in enumerate(names):
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
    if method.measure:
        records += method.measure(Subject(settings, setup.model, problem, learner, start, names, tasks))
    return Evaluated(records)
