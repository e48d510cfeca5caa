"""The multi-shot network of WarpGrad (appendix I), with or without warp layers, for a stack of tasks.

Six blocks of 3x3 convolution, batch norm and ReLU, 2x2 max-pooling after the first five, then a linear head. As in
`models.convnet`, all tasks of a stack go through one grouped convolution.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from leapwarp.models.convnet import _convolve, _fold, _linear, _scale
from leapwarp.models.norm import normalise
from leapwarp.problem import Model
from leapwarp.trees import Params

POOLED = 5  # blocks with a pooling: App. I


def conv6(widths: Sequence[int], classes: int, size: int, warped: bool = False, channels: int = 3) -> Model:
    """The network as a `Model` over images [task, batch, channel, size, size], with as many blocks as `widths`.

    With `warped`, a 3x3 convolution `warp.<block>` follows each block except the first. The first block belongs to the
    warps, as `warp.stem`: it is fixed while a task is learnt, as in the few-shot network (`models.conv4`).
    """
    side = size >> min(POOLED, len(widths))
    if not widths or min(widths) < 1 or side < 1:
        raise ValueError(
            f"{POOLED} poolings need images of at least {1 << POOLED} pixels, a block a filter; got {size}, {widths}."
        )
    blocks = [f"task.{block}" for block in range(len(widths))]
    if warped:
        blocks[0] = "warp.stem"

    def init(generator: torch.Generator) -> Params:
        params: Params = {}
        for name, inputs, outputs in zip(blocks, (channels, *widths), widths, strict=False):
            params |= _linear(f"{name}.conv", (outputs, inputs, 3, 3), generator) | _scale(f"{name}.norm", outputs)
        params |= _linear("head", (classes, widths[-1] * side * side), generator)
        for block, width in enumerate(widths):
            if warped and block:
                params |= _linear(f"warp.{block}.conv", (width, width, 3, 3), generator)
        return params

    def stats() -> Params:
        kinds = {"mean": torch.zeros, "variance": torch.ones}
        named = zip(blocks, widths, strict=True)
        return {f"{name}.norm.{kind}": make(width) for name, width in named for kind, make in kinds.items()}

    def apply(params: Params, stats: Params, x: Tensor, train: bool) -> tuple[Tensor, Params]:
        n_tasks, batch = x.shape[:2]
        h, seen = _fold(x), {}
        for block, name in enumerate(blocks):
            h = _convolve(h, params, f"{name}.conv")
            mean, variance = f"{name}.norm.mean", f"{name}.norm.variance"
            scale, shift = (params[f"{name}.norm.{part}"].flatten() for part in ("weight", "bias"))
            h, new_mean, new_variance = normalise(
                h, scale, shift, stats[mean].flatten(), stats[variance].flatten(), train
            )
            seen[mean], seen[variance] = new_mean.view(n_tasks, -1), new_variance.view(n_tasks, -1)
            h = F.relu(h)
            if block < POOLED:
                h = F.max_pool2d(h, 2)
            if warped and block:
                h = _convolve(h, params, f"warp.{block}.conv")
        features = h.reshape(batch, n_tasks, -1).transpose(0, 1)  # [task, batch, feature]
        outputs = torch.baddbmm(params["head.bias"].unsqueeze(1), features, params["head.weight"].transpose(1, 2))
        return outputs, seen

    return Model(init, stats, apply)
