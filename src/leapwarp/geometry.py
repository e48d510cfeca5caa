"""The geometry of an explicit warp Omega (WarpGrad appendix B): its metric, and descent under this metric.

A warp is given as a function of one vector, gamma = Omega(theta).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad, jacrev

Warp = Callable[[Tensor], Tensor]
"""theta [n] -> gamma [m]"""
Loss = Callable[[Tensor], Tensor]
"""gamma [m] -> []"""


def inverse_metric(warp: Warp, theta: Tensor) -> Tensor:
    """G^-1 = [D Omega] [D Omega]^T at theta, the preconditioner that the warp defines. -> [m, m]"""
    slope = jacrev(warp)(theta)  # [m, n]
    return slope @ slope.mT


def metric(warp: Warp, theta: Tensor) -> Tensor:
    """The metric G at gamma = Omega(theta), positive definite. -> [m, m]

    Raises:
        ValueError: D Omega does not have full rank at theta, so that there is no metric.
    """
    slope = jacrev(warp)(theta)
    values = torch.linalg.svdvals(slope)
    rows, columns = slope.shape
    smallest = float(values[-1]) if columns >= rows else 0.0
    if smallest <= max(rows, columns) * torch.finfo(slope.dtype).eps * float(values[0]):
        raise ValueError(
            f"the warp is degenerate here: D Omega, {rows} x {columns}, has singular values from "
            f"{float(values[0]):.3g} down to {smallest:.3g}, and a metric needs rank {rows}."
        )
    back = torch.linalg.pinv(slope)  # G = (D D^T)^-1, with the condition number of D rather than its square
    return back.mT @ back


class Descent(NamedTuple):
    """The losses after one step of warped descent and after one step of descent under the metric."""

    warped: Tensor
    """(L o Omega)(theta - alpha Delta theta), the step that a WarpGrad optimiser takes"""
    preconditioned: Tensor
    """L(gamma - alpha G^-1 grad L(gamma)), descent under the metric. Eq. 7 minimises its mean over warps"""


def descend(loss: Loss, warp: Warp, theta: Tensor, rate: float) -> Descent:
    """The losses after one step of each kind. They agree to first order in the rate alpha (Eq. 6)."""
    gamma = warp(theta)
    step = grad(lambda point: loss(warp(point)))(theta)  # Eq. 4: [D Omega]^T grad L(gamma)
    metric_step = inverse_metric(warp, theta) @ grad(loss)(gamma)  # Eq. 5
    return Descent(loss(warp(theta - rate * step)), loss(gamma - rate * metric_step))
