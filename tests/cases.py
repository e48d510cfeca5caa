"""Small problems with known answers, and made-up tasks."""

import torch

from leapwarp.learners import Learner
from leapwarp.problem import Batch, Loss, Problem, Task, lift, supervised
from leapwarp.trees import alone, pick

DOUBLE = torch.float64


def of_one(build):
    """A builder of learners of one run, whose states have no axis of runs and whose steps take one stream."""

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
    """Task t is 0.5 (w - c_t)' A_t (w - c_t); `task.index` says which. matrices [n, d, d], centres [n, d]."""

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
    """Random images with labels that a network can learn: the class moves the mean of its pixels."""
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
