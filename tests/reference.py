"""Slow, obvious versions of what the library does, for one task at a time and in plain PyTorch."""

from itertools import pairwise

import torch
from torch import nn


def network(filters: int, classes: int = 20, warp: bool = False) -> nn.Sequential:
    """The Omniglot network from PyTorch's own layers, over [batch, 1, 28, 28]."""
    layers: list[nn.Module] = []
    inputs = 1
    for _ in range(4):
        layers += [
            nn.Conv2d(inputs, filters, 3, padding=1),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(filters),
            nn.ReLU(),
        ]
        layers += [nn.Conv2d(filters, filters, 3, padding=1)] if warp else []
        inputs = filters
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(filters, classes))


def load(module: nn.Sequential, params: dict, warp: bool = False) -> nn.Sequential:
    """`module` with the parameters of one task of `leapwarp.models.convnet`."""
    order = []
    for block in range(4):
        order += [f"task.{block}.conv.weight", f"task.{block}.conv.bias"]
        order += [f"task.{block}.norm.weight", f"task.{block}.norm.bias"]
        order += [f"warp.{block}.conv.weight", f"warp.{block}.conv.bias"] if warp else []
    order += ["head.weight", "head.bias"]
    assert sorted(order) == sorted(params)
    with torch.no_grad():
        for target, name in zip(module.parameters(), order, strict=True):
            target.copy_(params[name])
    return module


def path(theta, loss_and_grad, rate, steps):
    """Points of plain gradient descent: [(theta_k, f_k, g_k)], k = 0..steps."""
    points = []
    for k in range(steps + 1):
        loss, grad = loss_and_grad(theta, k)
        points.append((theta, loss, grad))
        theta = theta - rate * grad
    return points


def leap_gradient(points, length=True, loss=True, stabiliser=True):
    """Leap's meta-gradient from one path of flat vectors, written from equation 8 with identity Jacobians."""
    total = torch.zeros_like(points[0][0])
    for (theta, f, g), (theta_next, f_next, _) in pairwise(points):
        d_theta = theta_next - theta
        d_f = f_next - f if loss else torch.zeros(())
        if stabiliser:
            d_f = -abs(d_f)
        gap = d_theta + d_f * g
        norm = torch.sqrt((d_theta**2).sum() + d_f**2) if length else 1.0
        total = total - gap / norm
    return total
