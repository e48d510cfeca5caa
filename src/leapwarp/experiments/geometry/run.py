"""How close gradient warping is to descent under the metric of the warp: Equations 4 to 7 of WarpGrad (appendix B).

    snakemake geometry

On random smooth losses, one step is made in the parameters under a random warp, and one step of G^-1 grad L in the
warped space. The losses after both steps are equal up to O(alpha^2). So their difference must be divided by four when
the rate is halved, and be zero if the warp is linear.

One run takes, on a core: two seconds at every size. It uses float64, since the smallest differences are near rounding.
To expect: order 2 for both curved warps, and only rounding for the linear one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import vmap

from leapwarp.experiments.base import Evaluated, Experiment, Record, Run
from leapwarp.geometry import descend, inverse_metric
from leapwarp.learners.base import State
from leapwarp.rng import generator

DOUBLE = torch.float64
ROUNDING = 1e-12  # of the loss; a difference below it does not depend on the rate


@dataclass(frozen=True)
class Settings:
    size: int
    """dimensions of theta and gamma"""
    draws: int
    """random losses and starting points, each with a warp"""
    largest_rate: float
    halvings: int
    tail: int
    """the smallest rates, to which the order is fitted: the O(alpha^2) is a statement on small rates"""


class Method(NamedTuple):
    settings: Settings
    warp: Callable[[Tensor, Tensor, Tensor], Tensor]
    """(theta, first matrix, second matrix) -> gamma"""


# All values are our choice: the paper states the expansion and has no experiment.
PUBLISHED = Settings(size=10, draws=200, largest_rate=0.1, halvings=12, tail=5)


def linear_warp(theta: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return theta + first @ theta


def residual_tanh(theta: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return theta + second @ torch.tanh(first @ theta)


def two_layer_tanh(theta: Tensor, first: Tensor, second: Tensor) -> Tensor:
    return second @ torch.tanh(first @ theta)


def uneven(gamma: Tensor, curvature: Tensor, centre: Tensor) -> Tensor:
    """A loss whose curvature differs from point to point: a quadratic, and walls that grow linearly."""
    gap = gamma - centre
    return 0.5 * gap @ curvature @ gap + torch.log(torch.cosh(gap)).sum()


def methods(settings: Settings) -> dict[str, Method]:
    """A method is a kind of warp."""
    return {
        "linear_warp": Method(settings, linear_warp),
        "residual_tanh": Method(settings, residual_tanh),
        "two_layer_tanh": Method(settings, two_layer_tanh),
    }


def order(rates: Tensor, errors: Tensor, tail: int) -> Tensor:
    """The order of the error in the rate, by least squares over the last `tail` rates. [rate] each -> []"""
    x, y = rates[-tail:].log(), errors[-tail:].log()
    return ((x - x.mean()) * y).sum() / (x - x.mean()).square().sum()


def measure(run: Run, state: State | None) -> Evaluated:
    """The difference of Equation 6 for every draw and rate. The step of a record counts halvings of the rate."""
    settings = run.method.settings
    # Losses, starts and matrices are the same for all warps.
    stream, n = generator(run.seed, "geometry"), settings.size
    vectors = torch.randn(2, settings.draws, n, generator=stream, dtype=DOUBLE).to(run.device)
    matrices = torch.randn(3, settings.draws, n, n, generator=stream, dtype=DOUBLE).to(run.device) / n**0.5
    rates = settings.largest_rate * 0.5 ** torch.arange(settings.halvings + 1, dtype=DOUBLE)

    def one(theta: Tensor, centre: Tensor, root: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
        loss = partial(uneven, curvature=root @ root.mT, centre=centre)

        def warp(point: Tensor) -> Tensor:
            return run.method.warp(point, first, second)

        ends = [descend(loss, warp, theta, rate) for rate in rates.tolist()]
        errors = torch.stack([(end.warped - end.preconditioned).abs() for end in ends])
        eigenvalues = torch.linalg.eigvalsh(inverse_metric(warp, theta))
        return errors, errors / loss(warp(theta)), eigenvalues[0] / eigenvalues[-1]

    errors, relative, definite = (part.cpu() for part in vmap(one)(*vectors, *matrices))
    records: list[Record] = [("", k, "rate", rate) for k, rate in enumerate(rates.tolist())]
    for draw, (row, share, ratio) in enumerate(zip(errors, relative, definite, strict=True)):
        task = f"draw {draw}"
        records += [(task, k, "error", value) for k, value in enumerate(row.tolist())]
        records += [(task, None, "largest_error", float(share.max())), (task, None, "definite", float(ratio))]
        if share.min() > ROUNDING:
            records.append((task, None, "order", float(order(rates, row, settings.tail))))
    return Evaluated(records)


EXPERIMENT = Experiment(PUBLISHED, methods, measure)
