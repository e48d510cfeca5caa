"""Loss surfaces over the plane (WarpGrad appendix E): a random family like the function `peaks` of Matlab.

A surface is a row [7] of its random factors, in the order of FACTORS.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from leapwarp.problem import Batch, Loss, Problem, Task
from leapwarp.trees import Params

FACTORS = ("a1", "a2", "a3", "b1", "b2", "b3", "s")
EDGE = 3.0  # learners start in [-3, 3]^2: the domain


def draw(n: int, stream: torch.Generator) -> Tensor:
    """Random surfaces [n, 7]: a from -1, 0, 1; b from -5, ..., 5; s from 1, ..., 10; all equally likely."""
    a = torch.randint(-1, 2, (n, 3), generator=stream)
    b = torch.randint(-5, 6, (n, 3), generator=stream)
    s = torch.randint(1, 11, (n, 1), generator=stream)
    return torch.cat([a, b, s], 1).float()


def starts(n: int, stream: torch.Generator) -> Tensor:
    """Random points of the domain [n, 2]."""
    return EDGE * (2 * torch.rand(n, 2, generator=stream) - 1)


def height(x: Tensor, surface: Tensor, peaks: bool = False) -> Tensor:
    """The loss f(x) of WarpGrad appendix E. x [*, 2], surface [*, 7] -> [*]

    Args:
        peaks: use the fifth power of x_2 in place of its cube, and x_2 in place of the second x_1 of the last term.
            This is the `peaks` function, from which the printed formula differs in these two places.
    """
    x1, x2 = x.unbind(-1)
    a1, a2, a3, b1, b2, b3, s = surface.unbind(-1)
    bowl = b1 * (a1 - x1) ** 2 * torch.exp(-(x1**2) - (x2 + a2) ** 2)
    ridge = b2 * (x1 / s - x1**3 - x2 ** (5 if peaks else 3)) * torch.exp(-(x1**2) - x2**2)
    hole = b3 * torch.exp(-((x1 + a3) ** 2) - (x2 if peaks else x1) ** 2)
    return bowl - ridge - hole


def grid(points: int, edge: float = EDGE) -> Tensor:
    """A square lattice over [-edge, edge]^2, x_1 varying fastest. -> [points * points, 2]"""
    line = torch.linspace(-edge, edge, points)
    x2, x1 = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([x1.flatten(), x2.flatten()], 1)


class Range(NamedTuple):
    """The lowest and the highest point of each surface in the domain, [task] each."""

    low: Tensor
    high: Tensor

    def gap(self, height: Tensor) -> Tensor:
        """Heights [task, point] between 0, the lowest, and 1, the highest; 0 on a flat surface."""
        span = torch.where(self.high > self.low, self.high - self.low, 1.0)
        return (height - self.low[:, None]) / span[:, None]


def extremes(surface: Tensor, peaks: bool, points: int = 121) -> Range:
    """The lowest and the highest value on a lattice over the domain. surface [n, 7]"""
    values = height(grid(points).to(surface.device), surface[:, None], peaks)
    return Range(values.amin(1), values.amax(1))


def tasks(surface: Tensor, start: Tensor, steps: int) -> Task:
    """Tasks from surfaces [n, 7] and the starts on them [n, 2]. Each draw, one for each step, is the surface itself."""
    n = len(surface)
    order = torch.zeros(1, dtype=torch.long, device=surface.device).expand(n, steps, 1)
    return Task(torch.arange(n, device=surface.device), start, surface, order, start, surface)


def draw_tasks(n: int, stream: torch.Generator, steps: int, device: torch.device) -> Task:
    """Random surfaces, with a random start on each."""
    surface, start = draw(n, stream), starts(n, stream)
    return tasks(surface.to(device), start.to(device), steps)


def itself(params: Params) -> Tensor:
    return params["x"]


def problem(peaks: bool = False, place: Callable[[Params], Tensor] = itself) -> Problem:
    """Minimise the surface from any point: the task parameters are `x` [task, 2].

    Args:
        place: parameters -> the point [task, 2] whose height is the loss: `x` itself, or its image under a warp.
    """

    def draw_batch(tasks: Task, who: Tensor, number: Tensor) -> Batch:
        return Batch(tasks.x[who], tasks.y[who])

    def loss(params: Params, stats: Params, batch: Batch) -> Loss:
        value = height(place(params), batch.y, peaks)
        return Loss(value, torch.full_like(value, torch.nan).detach(), stats)

    return Problem(draw_batch, loss, loss, dict)
