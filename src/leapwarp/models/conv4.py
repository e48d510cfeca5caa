"""The few-shot network of WarpGrad (appendix I), with the parameters that each method adds, for a stack of tasks.

Four blocks of 3x3 convolution, batch norm, ReLU and 2x2 max-pooling, then a linear head. As in `models.convnet`, all
tasks of a stack go through one grouped convolution. Running statistics are those of the last training batch, so that
held-out images can be normalised by the statistics of the images that a task was learnt from.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from leapwarp.models.convnet import BLOCKS, _convolve, _fold, _linear, _modulate, _scale
from leapwarp.models.norm import normalise
from leapwarp.problem import Model
from leapwarp.trees import Params

FILM_BLOCK = 2  # CAVIA modulates the third convolution (Zintgraf et al., 2019)


class Extra(NamedTuple):
    """The parameters that a method adds to the network."""

    warps: bool = False
    """WarpGrad: 3x3 convolutions `warp.*` after the last three blocks. The first block belongs to the warps, as
    `warp.stem`, since it is fixed while a task is learnt"""
    projections: bool = False
    """T-Nets (Lee and Choi, 2018): linear maps `warp.*` after all convolutions and the head, initially the identity"""
    context: int = 0
    """CAVIA (Zintgraf et al., 2019): the size of `context`, a vector that starts at 0. A linear map `film` turns it
    into a scale and a shift of the third block's channels"""


PLAIN = Extra()


def conv4(filters: int, classes: int, size: int, extra: Extra = PLAIN, channels: int = 3) -> Model:
    """The network as a `Model` over images [task, batch, channel, size, size]."""
    side = size >> BLOCKS
    if filters < 1 or side < 1:
        raise ValueError(
            f"{BLOCKS} poolings need images of at least {1 << BLOCKS} pixels and a filter; got {size}, {filters}."
        )
    blocks = [f"task.{block}" for block in range(BLOCKS)]
    if extra.warps:
        blocks[0] = "warp.stem"

    def init(generator: torch.Generator) -> Params:
        params: Params = {}
        for block, name in enumerate(blocks):
            inputs = filters if block else channels
            params |= _linear(f"{name}.conv", (filters, inputs, 3, 3), generator) | _scale(f"{name}.norm", filters)
        params |= _linear("head", (classes, filters * side * side), generator)
        if extra.warps:
            for block in range(1, BLOCKS):
                params |= _linear(f"warp.{block}.conv", (filters, filters, 3, 3), generator)
        if extra.projections:
            eye = torch.eye(filters)[:, :, None, None]
            params |= {f"warp.{block}.weight": eye.clone() for block in range(BLOCKS)}
            params["warp.head.weight"] = torch.eye(classes)
        if extra.context:
            params |= _linear("film", (2 * filters, extra.context), generator)
            params["film.bias"] = torch.cat([torch.ones(filters), torch.zeros(filters)])
            params["context"] = torch.zeros(extra.context)
        return params

    def stats() -> Params:
        kinds = {"mean": torch.zeros, "variance": torch.ones}
        return {f"{name}.norm.{kind}": make(filters) for name in blocks for kind, make in kinds.items()}

    def apply(params: Params, stats: Params, x: Tensor, train: bool) -> tuple[Tensor, Params]:
        n_tasks, batch = x.shape[:2]
        h, seen = _fold(x), {}
        for block, name in enumerate(blocks):
            h = _convolve(h, params, f"{name}.conv")
            if extra.projections:
                weight = params[f"warp.{block}.weight"].flatten(0, 1)
                h = F.conv2d(h, weight, groups=n_tasks)
            mean, variance = f"{name}.norm.mean", f"{name}.norm.variance"
            scale, shift = (params[f"{name}.norm.{part}"].flatten() for part in ("weight", "bias"))
            h, new_mean, new_variance = normalise(
                h, scale, shift, stats[mean].flatten(), stats[variance].flatten(), train, momentum=1.0
            )
            seen[mean], seen[variance] = new_mean.view(n_tasks, -1), new_variance.view(n_tasks, -1)
            if extra.context and block == FILM_BLOCK:
                film = torch.einsum("tfc,tc->tf", params["film.weight"], params["context"]) + params["film.bias"]
                h = _modulate(h, film[:, :filters], film[:, filters:])
            h = F.max_pool2d(F.relu(h), 2)
            if extra.warps and block:
                h = _convolve(h, params, f"warp.{block}.conv")
        features = h.reshape(batch, n_tasks, -1).transpose(0, 1)  # [task, batch, feature]
        outputs = torch.baddbmm(params["head.bias"].unsqueeze(1), features, params["head.weight"].transpose(1, 2))
        if extra.projections:
            outputs = outputs @ params["warp.head.weight"].transpose(1, 2)
        return outputs, seen

    return Model(init, stats, apply)
