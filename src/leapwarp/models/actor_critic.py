"""The Atari network: an encoder of frames that all games share, and a head with logits and a value for each game."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from leapwarp.trees import Params

SHAPES = {  # Mnih et al. (2013), for pictures of three colours
    "encoder.0": (16, 3, 8, 8),
    "encoder.1": (32, 16, 4, 4),
    "encoder.2": (256, 32 * 9 * 9),
}
WIDTH = SHAPES["encoder.2"][0]


def layer(name: str, shape: tuple[int, ...], rng: torch.Generator) -> Params:
    """Weight and bias, uniform within 1 / sqrt(inputs)."""
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    return {
        f"{name}.weight": torch.empty(shape).uniform_(-bound, bound, generator=rng),
        f"{name}.bias": torch.empty(shape[0]).uniform_(-bound, bound, generator=rng),
    }


def encoder(rng: torch.Generator) -> Params:
    params: Params = {}
    for name, shape in SHAPES.items():
        params |= layer(name, shape, rng)
    return params


def head(n_actions: int, rng: torch.Generator) -> Params:
    """The head as one linear layer: a row for each action, and the value in the last row."""
    return layer("head", (n_actions + 1, WIDTH), rng)


def forward(params: Params, pixels: Tensor) -> Tensor:
    """Logits and, last, values. pixels [batch, 84, 84, 3] of bytes -> [batch, action + 1]"""
    # Frames have their colours last, and convolutions are faster in that layout (benchmarks/README.md).
    x = pixels.permute(0, 3, 1, 2).to(params["encoder.0.bias"].dtype) / 255
    for name, stride in (("encoder.0", 4), ("encoder.1", 2)):
        weight = params[f"{name}.weight"].contiguous(memory_format=torch.channels_last)
        x = F.relu(F.conv2d(x, weight, params[f"{name}.bias"], stride))
    x = F.relu(F.linear(x.flatten(1), params["encoder.2.weight"], params["encoder.2.bias"]))
    return F.linear(x, params["head.weight"], params["head.bias"])
