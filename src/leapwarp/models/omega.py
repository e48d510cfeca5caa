"""The explicit warp of WarpGrad appendix E: a network from the plane, where a learner moves, to the plane of the task.

omega(theta) = skip * theta + W_1 tanh(W_0 theta + b_0) + b_1, with parameters `warp.0.*` and `warp.1.*`. With the skip
connection (a residual warp), every point of the plane is the image of some theta, since the other term is bounded.
Without it, the image is bounded, and a learner may be unable to start at a given point.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from leapwarp.trees import Params

Kind = Literal["identity", "residual", "plain"]
"""how a warp is initialised, see `init`"""
TRIES = 4  # points of the lattice from which the search for a preimage starts


def init(kind: Kind, stream: torch.Generator, hidden: int = 30) -> Params:
    """Warp parameters, of one task.

    Args:
        kind: "identity", a residual warp whose last layer is zero; "residual", a residual warp with PyTorch's default
            layers; "plain", default layers without the skip connection.

    Raises:
        ValueError: another kind.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"the kind of warp is {kind!r}, needed one of {', '.join(get_args(Kind))}.")
    params: Params = {}
    for layer, (inputs, outputs) in enumerate([(2, hidden), (hidden, 2)]):
        bound = inputs**-0.5
        for name, shape in (("weight", (outputs, inputs)), ("bias", (outputs,))):
            params[f"warp.{layer}.{name}"] = bound * (2 * torch.rand(shape, generator=stream) - 1)
    if kind == "identity":
        params |= {name: torch.zeros_like(leaf) for name, leaf in params.items() if name.startswith("warp.1.")}
    return params


def omega(params: Params, theta: Tensor, skip: bool = True) -> Tensor:
    """The image of `theta` under the warp. Stacks; theta [task, 2] or [task, point, 2] -> the same shape"""
    points = theta if theta.dim() == 3 else theta.unsqueeze(1)
    hidden = torch.tanh(_linear(params, 0, points))
    image = _linear(params, 1, hidden) + (points if skip else 0)
    return image.view(theta.shape)


def jacobian(params: Params, theta: Tensor, skip: bool = True) -> Tensor:
    """D omega / D theta. Stacks; theta [task, 2] -> [task, 2, 2]"""
    slope = 1 - torch.tanh(_linear(params, 0, theta.unsqueeze(1))) ** 2  # [task, 1, hidden]
    product = (params["warp.1.weight"] * slope) @ params["warp.0.weight"]
    return product + torch.eye(2, dtype=theta.dtype, device=theta.device) if skip else product


@torch.no_grad()
def preimage(params: Params, x: Tensor, skip: bool = True, steps: int = 40, points: int = 41) -> Tensor:
    """A theta whose image is `x`, or as close to it as possible. Stacks; x [task, 2] -> [task, 2]

    It is found by damped Gauss-Newton steps (Levenberg and Marquardt) from x. If they do not reach x, they start again
    from the points of a lattice around x whose images are closest. With the skip connection, the lattice covers all
    possible preimages.
    """
    theta = _descend(params, x, x, skip, steps)
    missed = (omega(params, theta, skip) - x).norm(dim=1) > 1e-4
    if missed.any():
        mine, target = {name: leaf[missed] for name, leaf in params.items()}, x[missed]
        reach = (mine["warp.1.weight"].abs().sum(2) + mine["warp.1.bias"].abs()).amax(1)  # bound of the other term
        line = torch.linspace(-1, 1, points, dtype=x.dtype, device=x.device)
        around = target[:, None] + reach[:, None, None] * torch.cartesian_prod(line, line)
        distance = (omega(mine, around, skip) - target[:, None]).norm(dim=2)
        nearest = distance.topk(TRIES, dim=1, largest=False).indices  # [missed, try]
        begin = around.gather(1, nearest[..., None].expand(-1, -1, 2)).flatten(0, 1)
        again = {name: leaf.repeat_interleave(TRIES, 0) for name, leaf in mine.items()}
        goal = target.repeat_interleave(TRIES, 0)
        end = _descend(again, goal, begin, skip, steps)
        best = (omega(again, end, skip) - goal).norm(dim=1).view(-1, TRIES).argmin(1)
        theta[missed] = end.view(-1, TRIES, 2)[torch.arange(len(best)), best]
    return theta


def _descend(params: Params, x: Tensor, theta: Tensor, skip: bool, steps: int) -> Tensor:
    damping = torch.full_like(x[:, :1], 1e-2)
    gap = omega(params, theta, skip) - x
    for _ in range(steps):
        slope = jacobian(params, theta, skip)
        normal, right = slope.mT @ slope, (slope.mT @ gap[..., None])[..., 0]
        a, b, d = normal[:, :1, 0] + damping, normal[:, :1, 1], normal[:, 1:, 1] + damping
        r1, r2 = right[:, :1], right[:, 1:]
        tried = theta - torch.cat([d * r1 - b * r2, a * r2 - b * r1], 1) / (a * d - b * b).clamp_min(1e-20)
        new_gap = omega(params, tried, skip) - x
        better = new_gap.norm(dim=1, keepdim=True) < gap.norm(dim=1, keepdim=True)
        theta, gap = torch.where(better, tried, theta), torch.where(better, new_gap, gap)
        damping = torch.where(better, damping / 4, damping * 4).clamp(1e-9, 1e6)
    return theta


def _linear(params: Params, layer: int, points: Tensor) -> Tensor:
    weight, bias = params[f"warp.{layer}.weight"], params[f"warp.{layer}.bias"]
    return torch.baddbmm(bias.unsqueeze(1), points, weight.mT)
