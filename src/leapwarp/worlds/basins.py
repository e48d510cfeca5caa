"""Tasks in the plane with exact gradient paths and limit points, for Leap's Theorem 1 (appendix B).

A task's loss at theta is the mean, over its points c, of

    1/2 (theta - c)' A (theta - c) + ripple * sum_d (1 - cos(2.5 (theta_d - c_d))),

which has one basin for a small ripple and several for a large one. All tensors are float64, so that small rises can be
distinguished from rounding.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from leapwarp.problem import Batch, Loss, Problem, Task
from leapwarp.rng import generator
from leapwarp.trees import Params

DOUBLE = torch.float64
FREQUENCY = 2.5


class Family(NamedTuple):
    problem: Problem
    tasks: Task
    """tasks whose mini-batches have all points"""
    start: Params


def family(n_tasks: int, points: int, ripple: float, draws: int, seed: int, device: torch.device) -> Family:
    """Tasks with centres around the origin, and an initialisation at distance 4 from it, from the seed.

    Args:
        points: points of each task.
        draws: mini-batches of each task.
    """
    stream = generator(seed, "family")

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=stream, dtype=DOUBLE)

    x = normal(n_tasks, 1, 2) + 0.3 * normal(n_tasks, points, 2)
    turn = torch.linalg.qr(normal(n_tasks, 2, 2)).Q
    scales = 0.5 + torch.rand(n_tasks, 2, generator=stream, dtype=DOUBLE)
    matrices = (turn @ torch.diag_embed(scales) @ turn.mT).to(device)
    towards = normal(2)
    start = {"theta": (4 * towards / towards.norm()).to(device)}
    order = torch.arange(points, device=device).expand(n_tasks, draws, points)
    nothing = torch.zeros(n_tasks, 1, dtype=DOUBLE, device=device)
    tasks = Task(torch.arange(n_tasks, device=device), x.to(device), nothing, order, nothing, nothing)

    def draw(tasks: Task, who: Tensor, number: Tensor) -> Batch:
        return Batch(tasks.x[who[:, None], tasks.order[who, number]], tasks.index[who, None])

    def loss(params: Params, stats: Params, batch: Batch) -> Loss:
        gap = params["theta"].unsqueeze(1) - batch.x  # [task, batch, 2]
        bowl = 0.5 * (gap @ matrices[batch.y[:, 0]] * gap)
        value = (bowl + ripple * (1 - torch.cos(FREQUENCY * gap))).sum(-1).mean(1)
        return Loss(value, torch.full_like(value, torch.nan).detach(), stats)

    return Family(Problem(draw, loss, loss, dict), tasks, start)
