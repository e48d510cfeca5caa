"""Continual sine regression (WarpGrad appendix K): one function on five intervals, which are learnt in sequence."""

import math

import torch
from torch import Tensor

from leapwarp.problem import Batch, Task

LOW, HIGH = -5.0, 5.0
SUBTASKS = 5
PARTS = ("a1", "b1", "a2", "b2", "o")


def draw(n: int, stream: torch.Generator) -> Tensor:
    """Random functions [n, 5]: amplitudes in [0.1, 5], phases in [0, pi], an offset in [-5, 5], as in PARTS."""
    low = torch.tensor([0.1, 0.0, 0.1, 0.0, -5.0])
    high = torch.tensor([5.0, math.pi, 5.0, math.pi, 5.0])
    return low + (high - low) * torch.rand(n, len(PARTS), generator=stream)


def value(function: Tensor, x: Tensor) -> Tensor:
    """Equation 16. function [n, 5], x [n, *] -> as x"""
    a1, b1, a2, b2, o = (part.view(-1, *[1] * (x.dim() - 1)) for part in function.unbind(1))
    share = torch.sigmoid(x + o)
    return share * a1 * torch.sin(x - b1) + (1 - share) * a2 * torch.sin(x - b2)


def interval(subtask: int) -> tuple[float, float]:
    """The ends of a sub-task's interval; sub-task 0 is the leftmost."""
    width = (HIGH - LOW) / SUBTASKS
    return LOW + subtask * width, LOW + (subtask + 1) * width


def sample(shape: tuple[int, ...], subtasks: list[int], stream: torch.Generator) -> Tensor:
    """Uniform random points in the intervals of `subtasks`. -> [*shape, subtask]"""
    low = torch.tensor([interval(i)[0] for i in subtasks])
    return low + (HIGH - LOW) / SUBTASKS * torch.rand(*shape, len(subtasks), generator=stream)


def held_out(function: Tensor, points: int, stream: torch.Generator) -> Batch:
    """`points` random points of each sub-task, from left to right. -> x and y [n, subtask * points, 1]"""
    x = sample((len(function), points), list(range(SUBTASKS)), stream).mT.flatten(1)
    return Batch(x[..., None], value(function, x)[..., None])


def tasks(
    function: Tensor,
    stream: torch.Generator,
    batch: int,
    steps: int,
    order: list[int],
    n_validation: int,
    every: bool = False,
    replay: int = 0,
) -> Task:
    """Sequences of sub-tasks in `order`, with `steps` mini-batches of new points for each.

    Args:
        function: [n, 5].
        steps: gradient steps on one sub-task.
        n_validation: points of each sub-task in x_test, see `held_out`.
        every: each mini-batch has `batch` points of every sub-task, for training on all at once.
        replay: the number of points in every mini-batch that are drawn from earlier mini-batches, besides the `batch`
            new ones. (The first mini-batch of all has copies of its own points.)
    """
    n, sequence = len(function), [subtask for subtask in order for _ in range(steps)]
    if every:
        x = sample((n, len(sequence), batch), list(range(SUBTASKS)), stream).flatten(2)  # [n, step, batch * subtask]
    else:
        x = sample((n, batch), sequence, stream).mT  # [n, step, batch]
    held = held_out(function, n_validation, stream)
    size = x.shape[2]
    rows = torch.arange(len(sequence) * size).view(len(sequence), size).expand(n, -1, -1)
    if replay:
        seen = (torch.arange(len(sequence)) * size).clamp_min(size)  # at step k from the first k mini-batches
        again = (torch.rand(n, len(sequence), replay, generator=stream) * seen[:, None]).long()
        rows = torch.cat([rows, again], 2)
    x = x.flatten(1)
    return Task(torch.arange(n), x[..., None], value(function, x)[..., None], rows, held.x, held.y)


def on(device: torch.device, tasks: Task) -> Task:
    return tasks._replace(**{name: part.to(device) for name, part in tasks._asdict().items() if part is not None})
