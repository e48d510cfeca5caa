"""The Omniglot network of both papers, with or without warp layers, for a stack of tasks at a time.

Four blocks of 3x3 convolution, 2x2 max-pooling, batch norm and ReLU, then a linear head (Leap appendix F, WarpGrad
appendix F; the order pool, norm, ReLU is WarpGrad's and the released code's). A warp layer follows each block.

All tasks of a stack go through one grouped convolution: activations are [batch, task * channel, height, width] in
channels-last memory, so that a group is a task. Written plainly with `torch.vmap`, the same network takes 1.1
to 2.5 times as long on a CPU (benchmarks/README.md), and a test holds the two equal.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from leapwarp.models.norm import normalise
from leapwarp.problem import Model
from leapwarp.trees import Params

BLOCKS = 4


def convnet(filters: int = 64, classes: int = 20, channels: int = 1, size: int = 28, warp: bool = False) -> Model:
    """The network as a `Model` over images [task, batch, channel, size, size] (or without the channel axis).

    Parameters are named `task.<block>.*`, `warp.<block>.*` and `head.*`. A warp layer is a 3x3 convolution with
    zero padding and a bias, initialised as the convolutions of the blocks are (PyTorch's default).
    """
    side = size >> BLOCKS
    if filters < 1 or side < 1:
        raise ValueError(
            f"{BLOCKS} poolings need images of at least {1 << BLOCKS} pixels and a filter; got {size}, {filters}."
        )

    def init(generator: torch.Generator) -> Params:
        params: Params = {}
        inputs = channels
        for block in range(BLOCKS):
            name = f"task.{block}"
            params |= _linear(f"{name}.conv", (filters, inputs, 3, 3), generator)
            params |= {f"{name}.norm.weight": torch.ones(filters), f"{name}.norm.bias": torch.zeros(filters)}
            inputs = filters
        params |= _linear("head", (classes, filters * side * side), generator)
        if warp:
            for block in range(BLOCKS):
                params |= _linear(f"warp.{block}.conv", (filters, filters, 3, 3), generator)
        return params

    def stats() -> Params:
        return {
            f"task.{block}.norm.{kind}": value
            for block in range(BLOCKS)
            for kind, value in (("mean", torch.zeros(filters)), ("variance", torch.ones(filters)))
        }

    def apply(params: Params, stats: Params, x: Tensor, train: bool) -> tuple[Tensor, Params]:
        n_tasks, batch = x.shape[:2]
        h = _fold(x.view(n_tasks, batch, channels, size, size))
        stats = dict(stats)
        for block in range(BLOCKS):
            name = f"task.{block}"
            h = F.max_pool2d(_convolve(h, params, f"{name}.conv"), 2)
            mean, variance = f"{name}.norm.mean", f"{name}.norm.variance"
            h, new_mean, new_variance = normalise(
                h,
                params[f"{name}.norm.weight"].flatten(),
                params[f"{name}.norm.bias"].flatten(),
                stats[mean].flatten(),
                stats[variance].flatten(),
                train,
            )
            stats[mean], stats[variance] = new_mean.view(n_tasks, -1), new_variance.view(n_tasks, -1)
            h = F.relu(h)
            if warp:
                h = _convolve(h, params, f"warp.{block}.conv")
        features = h.reshape(batch, n_tasks, -1).transpose(0, 1)  # [task, batch, feature]
        weight, bias = params["head.weight"], params["head.bias"]
        return torch.baddbmm(bias.unsqueeze(1), features, weight.transpose(1, 2)), stats

    return Model(init, stats, apply)


def _linear(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Params:
    """Weight and bias, uniform within 1 / sqrt(inputs): PyTorch's default for nn.Conv2d and nn.Linear."""
    bound = torch.Size(shape[1:]).numel() ** -0.5
    draw = lambda *size: (2 * torch.rand(*size, generator=generator) - 1) * bound  # noqa: E731
    return {f"{name}.weight": draw(*shape), f"{name}.bias": draw(shape[0])}


def _fold(x: Tensor) -> Tensor:
    """[task, batch, channel, height, width] -> [batch, task * channel, height, width], channels-last."""
    n_tasks, batch, channels, height, width = x.shape
    h = x.permute(1, 3, 4, 0, 2).reshape(batch, height, width, n_tasks * channels).contiguous()
    # With one task and one channel the memory is NCHW and NHWC at once, and convolutions would go on in NCHW, in
    # which pooling alone takes ten times as long; explicit strides settle it.
    depth = n_tasks * channels
    return h.as_strided((batch, depth, height, width), (height * width * depth, 1, width * depth, depth))


def _convolve(h: Tensor, params: Params, name: str) -> Tensor:
    weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]
    return F.conv2d(h, weight.flatten(0, 1), bias.flatten(), padding=1, groups=len(weight))
