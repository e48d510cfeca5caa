"""The Omniglot network of both papers, with or without warp layers, for a stack of tasks.

Four blocks of 3x3 convolution, 2x2 max-pooling, batch norm and ReLU, then a linear head (Leap appendix F, WarpGrad
appendix F; the order pool, norm, ReLU is WarpGrad's and the released code's). A warp layer may follow each block.

All tasks of a stack go through one grouped convolution: activations are [batch, task * channel, height, width] in
channels-last memory, so that each task is a group. The same network with `torch.vmap` takes 1.1 to 2.5 times as long on
a CPU (benchmarks/README.md). A test checks that both give the same results.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from leapwarp.models.norm import normalise
from leapwarp.models.twice import convolve
from leapwarp.problem import Model
from leapwarp.trees import Params

BLOCKS = 4

Tap = Callable[[str, Tensor, Tensor], None]
"""(layer, input, output): is called with the tensors that pass through a layer, as parts of the graph"""


class Warp(NamedTuple):
    """The kind of a warp layer (WarpGrad appendix G). The default is the main experiment's: one 3x3 convolution.

    The order is norm -> convolution -> ReLU -> sum with its input -> norm, and the fields say which parts there are.
    The second norm belongs to the residual connection. This is the order of the released code; the paper gives none.
    """

    kernel: int = 3
    """kernel size of the convolutions; 0 for a scale and a shift of each channel instead"""
    layers: int = 1
    """stacked layers, 1 or 2; with two, the first has twice the filters"""
    norm: bool = False
    relu: bool = False
    residual: bool = False
    """if a layer changes the number of channels, the residual input goes through a 1x1 convolution"""
    film: bool = False
    """a scale and a shift of each channel between two layers, which tasks adapt: parameters `embedding.*`, from 0"""


def convnet(filters: int = 64, classes: int = 20, channels: int = 1, size: int = 28, warp: Warp | None = None) -> Model:
    """The network as a `Model` over images [task, batch, channel, size, size] (or without the channel axis).

    Parameters are named `task.<block>.*`, `warp.<block>.*`, `embedding.<block>.*` and `head.*`. They have PyTorch's
    default initialisation, except that scales are 1, and shifts and embeddings 0.

    `apply` takes a `Tap` as an optional last argument. It is called for the convolutions `task.<block>.conv`, the warps
    `warp.<block>` (all with tensors [batch, task * channel, height, width]) and the `head` ([task, batch, *]).
    """
    side = size >> BLOCKS
    if filters < 1 or side < 1:
        raise ValueError(
            f"{BLOCKS} poolings need images of at least {1 << BLOCKS} pixels and a filter; got {size}, {filters}."
        )
    if warp and (warp.layers not in (1, 2) or (warp.film and warp.layers == 1)):
        raise ValueError(f"a warp has one or two layers, and task embeddings between two; got {warp}.")
    widths = [filters] if not warp or warp.layers == 1 else [filters, 2 * filters]

    def init(generator: torch.Generator) -> Params:
        params: Params = {}
        inputs = channels
        for block in range(BLOCKS):
            name = f"task.{block}"
            params |= _linear(f"{name}.conv", (filters, inputs, 3, 3), generator) | _scale(f"{name}.norm", filters)
            inputs = filters
        params |= _linear("head", (classes, filters * side * side), generator)
        for block in range(BLOCKS if warp else 0):
            assert warp is not None
            for layer, width in enumerate(widths):
                name, outputs = _layer(warp, block, layer), widths[(layer + 1) % len(widths)]
                if not warp.kernel:
                    params |= _scale(f"{name}.scale", filters)
                    continue
                params |= _linear(f"{name}.conv", (outputs, width, warp.kernel, warp.kernel), generator)
                if warp.norm:
                    params |= _scale(f"{name}.norm", width)
                if warp.residual:
                    params |= _scale(f"{name}.norm_out", outputs)
                    params |= _linear(f"{name}.skip", (outputs, width, 1, 1), generator) if outputs != width else {}
            if warp.film:
                parts = ("scale", "shift")
                params |= {f"embedding.{block}.{part}": torch.zeros(2 * filters) for part in parts}
        return params

    def stats() -> Params:
        norms = {f"task.{block}.norm": filters for block in range(BLOCKS)}
        for block in range(BLOCKS if warp else 0):
            assert warp is not None
            for layer, width in enumerate(widths):
                name = _layer(warp, block, layer)
                norms |= {f"{name}.norm": width} if warp.norm else {}
                norms |= {f"{name}.norm_out": widths[(layer + 1) % len(widths)]} if warp.residual else {}
        return {
            f"{name}.{kind}": value
            for name, width in norms.items()
            for kind, value in (("mean", torch.zeros(width)), ("variance", torch.ones(width)))
        }

    def apply(params: Params, stats: Params, x: Tensor, train: bool, tap: Tap | None = None) -> tuple[Tensor, Params]:
        n_tasks, batch = x.shape[:2]
        h = _fold(x.view(n_tasks, batch, channels, size, size))
        stats = dict(stats)

        def norm(h: Tensor, name: str) -> Tensor:
            mean, variance = f"{name}.mean", f"{name}.variance"
            h, new_mean, new_variance = normalise(
                h,
                params[f"{name}.weight"].flatten(),
                params[f"{name}.bias"].flatten(),
                stats[mean].flatten(),
                stats[variance].flatten(),
                train,
            )
            stats[mean], stats[variance] = new_mean.view(n_tasks, -1), new_variance.view(n_tasks, -1)
            return h

        def warped(h: Tensor, block: int, warp: Warp) -> Tensor:
            for layer in range(warp.layers):
                name, before = _layer(warp, block, layer), h
                if not warp.kernel:
                    return _modulate(h, params[f"{name}.scale.weight"], params[f"{name}.scale.bias"])
                h = norm(h, f"{name}.norm") if warp.norm else h
                h = _convolve(h, params, f"{name}.conv")
                h = F.relu(h) if warp.relu else h
                if warp.residual:
                    skip = f"{name}.skip"
                    h = h + (_convolve(before, params, skip) if f"{skip}.weight" in params else before)
                    h = norm(h, f"{name}.norm_out")
                if warp.film and layer == 0:
                    scale, shift = (params[f"embedding.{block}.{part}"] for part in ("scale", "shift"))
                    h = _modulate(h, 1 + scale, shift)
            return h

        for block in range(BLOCKS):
            name = f"task.{block}"
            before, h = h, _convolve(h, params, f"{name}.conv")
            if tap:
                tap(f"{name}.conv", before, h)
            h = F.relu(norm(F.max_pool2d(h, 2), f"{name}.norm"))
            if warp:
                before, h = h, warped(h, block, warp)
                if tap:
                    tap(f"warp.{block}", before, h)
        features = h.reshape(batch, n_tasks, -1).transpose(0, 1)  # [task, batch, feature]
        weight, bias = params["head.weight"], params["head.bias"]
        outputs = torch.baddbmm(bias.unsqueeze(1), features, weight.transpose(1, 2))
        if tap:
            tap("head", features, outputs)
        return outputs, stats

    return Model(init, stats, apply)


def _layer(warp: Warp, block: int, layer: int) -> str:
    """The name of a layer of a warp. If the warp has only one layer, the name has no number."""
    return f"warp.{block}" if warp.layers == 1 else f"warp.{block}.{layer}"


def _scale(name: str, channels: int) -> Params:
    return {f"{name}.weight": torch.ones(channels), f"{name}.bias": torch.zeros(channels)}


def _linear(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Params:
    """Weight and bias, uniform within 1 / sqrt(inputs): PyTorch's default for nn.Conv2d and nn.Linear."""
    bound = torch.Size(shape[1:]).numel() ** -0.5
    draw = lambda *size: (2 * torch.rand(*size, generator=generator) - 1) * bound  # noqa: E731
    return {f"{name}.weight": draw(*shape), f"{name}.bias": draw(shape[0])}


def _fold(x: Tensor) -> Tensor:
    """[task, batch, channel, height, width] -> [batch, task * channel, height, width], channels-last."""
    n_tasks, batch, channels, height, width = x.shape
    h = x.permute(1, 3, 4, 0, 2).reshape(batch, height, width, n_tasks * channels).contiguous()
    # With one task and one channel, the memory is both NCHW and NHWC. Convolutions would then return NCHW, in which
    # pooling takes ten times as long. Explicit strides prevent this.
    depth = n_tasks * channels
    return h.as_strided((batch, depth, height, width), (height * width * depth, 1, width * depth, depth))


def _convolve(h: Tensor, params: Params, name: str) -> Tensor:
    return convolve(h, params[f"{name}.weight"], params[f"{name}.bias"])


def _modulate(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Scale and shift each channel of h, [batch, task * channel, height, width], by [task, channel] each."""
    return h * scale.flatten()[:, None, None] + shift.flatten()[:, None, None]
