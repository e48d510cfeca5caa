"""Small problems with known answers, and synthetic tasks."""

from collections.abc import Callable
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch

from leapwarp import fit, trees
from leapwarp.inner import adapt
from leapwarp.learners.base import Learner, State
from leapwarp.learners.hat import Attention, gated, hat_sharing
from leapwarp.learners.progressive import progressive_sharing
from leapwarp.learners.recurrent import Block
from leapwarp.learners.visits import Sharing, encoder_sharing
from leapwarp.models import columns
from leapwarp.models.convnet import Warp, convnet
from leapwarp.optim import sgd
from leapwarp.problem import Batch, Loss, Problem, Task, lift, supervised
from leapwarp.trees import alone, pick

DOUBLE = torch.float64


@contextmanager
def dies_after(meta_steps: int):
    """Inside this context, the process dies when `fit` has made so many meta-steps."""
    left, real = iter(range(meta_steps)), fit.join_tasks

    def stopped(parts):
        if next(left, None) is None:
            raise ZeroDivisionError
        return real(parts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit, "join_tasks", stopped)
        with pytest.raises(ZeroDivisionError):
            yield


def of_one(build):
    """A function that builds learners of one run. Their states have no run axis, and their steps take one stream."""

    def without_axis(*arguments, **options) -> Learner:
        learner = build(*arguments, **options)

        def step(state, tasks, stream):
            after, info = learner.step(alone(state), tasks, [stream])
            return pick(after, 0), info

        return learner._replace(
            init=lambda params: pick(learner.init(alone(params)), 0),
            step=step,
            start=lambda state, tasks: learner.start(alone(state), tasks),
            optimizer=learner.optimizer and (lambda state: learner.optimizer(alone(state))),
        )

    return without_axis


def quadratic(matrices: torch.Tensor, centres: torch.Tensor) -> Problem:
    """Task t has the loss 0.5 (w - c_t)' A_t (w - c_t); `task.index` has t. matrices [n, d, d], centres [n, d]."""

    def draw(tasks: Task, who: torch.Tensor, number: torch.Tensor) -> Batch:
        return Batch(tasks.index[who, None], tasks.index[who, None])

    def loss(params, stats, batch):
        t = batch.x[:, 0]
        gap = params["w"] - centres[t]
        value = 0.5 * torch.einsum("ti,tij,tj->t", gap, matrices[t], gap)
        return Loss(value, torch.full_like(value, torch.nan).detach(), stats)

    return Problem(draw, loss, loss, dict)


def quadratic_tasks(n_tasks: int, draws: int) -> Task:
    index = torch.arange(n_tasks)
    blank = torch.zeros(n_tasks, 1, dtype=DOUBLE)
    return Task(index, blank, index[:, None], torch.zeros(n_tasks, draws, 1, dtype=torch.long), blank, index[:, None])


def random_quadratics(n_tasks: int, size: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    stream = torch.Generator().manual_seed(seed)
    root = torch.randn(n_tasks, size, size, generator=stream, dtype=DOUBLE)
    eye = torch.eye(size, dtype=DOUBLE)
    return root @ root.mT / size + 0.5 * eye, torch.randn(n_tasks, size, generator=stream, dtype=DOUBLE)


def image_tasks(n_tasks: int, draws: int, batch: int = 8, n: int = 40, classes: int = 5, dtype=DOUBLE) -> Task:
    """Random images with labels that a network can learn: the mean of an image's pixels depends on its class."""
    stream = torch.Generator().manual_seed(1)
    y = torch.arange(n).remainder(classes).expand(n_tasks, n)
    patterns = torch.randn(n_tasks, classes, 28, 28, generator=stream, dtype=dtype)
    noise = torch.randn(n_tasks, n, 28, 28, generator=stream, dtype=dtype)
    x = torch.stack([patterns[t, y[t]] for t in range(n_tasks)]) + 0.3 * noise
    order = torch.randint(n, (n_tasks, draws, batch), generator=stream)
    return Task(torch.arange(n_tasks), x, y, order, x[:, : 2 * classes], y[:, : 2 * classes])


class SmallWarped(torch.nn.Module):
    """A smooth network with warp layers, for finite differences."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.task = torch.nn.ModuleList([torch.nn.Linear(3, 4), torch.nn.Linear(4, 4)])
        self.warp = torch.nn.ModuleList([torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)])
        self.head = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for task, warp in zip(self.task, self.warp, strict=True):
            x = warp(torch.tanh(task(x)))
        return self.head(x)


def small_warped(n_tasks: int = 3, draws: int = 40) -> tuple[Problem, dict, Task]:
    """-> problem, parameters of one task, tasks: three-class problems in three dimensions, in float64."""
    module = SmallWarped().double()
    stream = torch.Generator().manual_seed(2)
    x = torch.randn(n_tasks, 30, 3, generator=stream, dtype=DOUBLE)
    shared = torch.randn(3, 3, generator=stream, dtype=DOUBLE)  # the tasks are alike, so there is something to learn
    rotate = shared + 0.5 * torch.randn(n_tasks, 3, 3, generator=stream, dtype=DOUBLE)
    y = (x @ rotate).argmax(-1)
    order = torch.randint(30, (n_tasks, draws, 6), generator=stream)
    model = lift(module)
    return supervised(model), model.init(stream), Task(torch.arange(n_tasks), x, y, order, x[:, :9], y[:, :9])


class SmallModulated(torch.nn.Module):
    """A smooth network whose hidden units are shifted by a context."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.film = torch.nn.Linear(3, 4), torch.nn.Linear(5, 4)
        self.context, self.head = torch.nn.Parameter(torch.zeros(5)), torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.body(x) * (1 + self.film(self.context))))


# ---------------------------------------------------------------- where each learner learns


class World(NamedTuple):
    """A problem, tasks and parameters for a learner, small enough for a test."""

    problem: Any
    """what its function takes first"""
    params: trees.Params
    """where meta-training begins, of one task"""
    tasks: Any
    """a meta-batch"""
    loss: Callable[[Learner, State], float]
    """what meta-training is to lower"""
    meta_steps: int = 60
    """in which it does"""


def after_adaptation(problem: Problem, tasks: Task, steps: int) -> Callable[[Learner, State], float]:
    """The mean loss on all data of the tasks after `steps` of descent."""

    def loss(learner: Learner, state: State) -> float:
        start, fixed = learner.start(state, tasks)
        adapted = adapt(problem, sgd(0.1), start, fixed, tasks, steps)
        return problem.loss({**adapted.params, **fixed}, adapted.stats, Batch(tasks.x, tasks.y)).loss.mean().item()

    return loss


def warped_world(steps: int, group: str = "") -> World:
    """Three tasks for a warped network. With `group`, only the parameters of that group are learnt."""
    problem, params, tasks = small_warped()
    kept = {name: leaf for name, leaf in params.items() if name.startswith(group)}
    return World(problem, kept, tasks, after_adaptation(problem, tasks, steps))


def modulated_world(steps: int) -> World:
    """The same tasks, for a network with a context."""
    _, _, tasks = small_warped()
    model = lift(SmallModulated().double())
    problem = supervised(model)
    return World(problem, model.init(torch.Generator()), tasks, after_adaptation(problem, tasks, steps))


def stream_world() -> World:
    """A stream of numbers, a different one for each run. The sum of two parameters has to match them."""
    targets = [torch.tensor([[1.0 + 0.1 * (-1) ** k]], dtype=DOUBLE) for k in range(6)]

    def gradient(params: trees.Params, target: torch.Tensor) -> tuple[torch.Tensor, trees.Params, torch.Tensor]:
        error = params["task.w"] + params["warp.w"] - target
        return error.square() / 2, {"task.w": error, "warp.w": error}, -error  # all [run, 1]

    def loss(learner: Learner, state: State) -> float:
        params, warp = learner.start(state, None)
        return torch.stack([gradient({**params, **warp}, target)[0].mean() for target in targets]).mean().item()

    start = {name: torch.full((1,), 0.01, dtype=DOUBLE) for name in ("task.w", "warp.w")}
    return World(gradient, start, Block(torch.tensor([0]), targets), loss)


class Visited(NamedTuple):
    """The problem of tasks that are trained one at a time, and how they share parameters."""

    problem: Problem
    sharing: Sharing
    owned: list[trees.Params]
    """what each task owns at first"""


def visited_world(kind: str, steps: int, meta_steps: int = 20, filters: int = 4, classes: int = 5) -> World:
    """Three tasks of images for an encoder with a head for each, for HAT, or for Progressive Nets."""
    whole, side = image_tasks(3, steps + 1), 16
    parts = {name: getattr(whole, name)[:, :, None, :side, :side] for name in ("x", "x_test")}
    tasks, encoder = whole._replace(**parts), convnet(filters, classes, size=side)

    def head(classes: int, stream: torch.Generator) -> trees.Params:
        fresh = encoder.init(stream)
        return {name: leaf.double() for name, leaf in fresh.items() if name.startswith("head.")}

    def column(classes: int, stream: torch.Generator) -> trees.Params:
        made = columns.column(filters, 2, classes, stream, channels=1, size=side)
        return {name: leaf.double() for name, leaf in made.items()}

    if kind == "hat":
        about = Attention(4, filters)
        problem = gated(supervised(convnet(filters, classes, size=side, warp=Warp(kernel=0))), about)
        sharing = hat_sharing(head, about)
    elif kind == "progressive":
        problem = supervised(columns.columns(filters, 2, channels=1, size=side))
        sharing = progressive_sharing(column, columns.dense)
    else:
        problem, sharing = supervised(encoder), encoder_sharing(head)

    def new(number: int) -> trees.Params:
        return sharing.new(classes, torch.Generator().manual_seed(number))

    owned = [new(number) for number in range(3)]

    def loss(learner: Learner, state: State) -> float:
        """The loss of each task with the parameters that it owns, or after one more training if it owns none."""
        total = 0.0
        for i, own in enumerate(owned):
            params, fixed = sharing.join(state, i, state.get("own", {}).get(str(i), own), 3)
            one = Task(*(part[i : i + 1] for part in tasks[:6]))
            stats = {name: leaf[None] for name, leaf in problem.stats().items()}
            if "own" not in state:
                params = adapt(problem, sgd(0.1), params, fixed, one, steps).params
            total += problem.loss({**params, **fixed}, stats, Batch(one.x, one.y)).loss.item() / 3
        return total

    shared = {name: leaf.double() for name, leaf in encoder.init(torch.Generator().manual_seed(9)).items()}
    encoder_params = {name: leaf for name, leaf in shared.items() if name.startswith("task.")}
    return World(Visited(problem, sharing, owned), encoder_params, tasks, loss, meta_steps)
