"""Slow and obvious implementations of the library's functions, for one task at a time, in plain PyTorch."""

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


def warp(h, params: dict, block: int, spec) -> torch.Tensor:
    """A warp layer of `leapwarp.models.convnet.Warp` in training, for one task: h [batch, channel, height, width]."""

    def layer(name: str, make) -> torch.Tensor:
        module = make.double()
        module.load_state_dict({n.removeprefix(f"{name}."): p for n, p in params.items() if n.startswith(f"{name}.")})
        return module

    if not spec.kernel:
        weight, bias = params[f"warp.{block}.scale.weight"], params[f"warp.{block}.scale.bias"]
        return h * weight.view(1, -1, 1, 1) + bias.view(1, -1, 1, 1)
    for i in range(spec.layers):
        name, x = f"warp.{block}" + (f".{i}" if spec.layers > 1 else ""), h
        wide, outputs = h.shape[1], len(params[f"{name}.conv.weight"])
        if spec.norm:
            h = layer(f"{name}.norm", nn.BatchNorm2d(wide, track_running_stats=False))(h)
        h = layer(f"{name}.conv", nn.Conv2d(wide, outputs, spec.kernel, padding="same"))(h)
        h = nn.functional.relu(h) if spec.relu else h
        if spec.residual:
            h = h + (x if wide == outputs else layer(f"{name}.skip", nn.Conv2d(wide, outputs, 1))(x))
            h = layer(f"{name}.norm_out", nn.BatchNorm2d(outputs, track_running_stats=False))(h)
        if spec.film and i == 0:
            scale, shift = (params[f"embedding.{block}.{part}"].view(1, -1, 1, 1) for part in ("scale", "shift"))
            h = h + scale * h + shift
    return h


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
