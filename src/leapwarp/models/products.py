"""Convolutions of a stack of small networks as batched matrix products of unfolded images (im2col), for a GPU.

Each group of a grouped convolution is a network with its own kernels. On a GPU, library convolutions with groups of 16
to 64 channels reach a fraction of the speed of matrix products (benchmarks/README.md). Here the images of each network
are unfolded into patches, once for all derivatives, and every convolution is one product for each network.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

WORD = torch.complex128  # bytes of the largest element that a copy moves at once
TILE, TILES = 64, 512  # side of the tile of one GPU multiprocessor; tiles that keep all of them busy


def unfold(h: Tensor, groups: int, kernel: int) -> Tensor:
    """The patch of the image under the kernels at each pixel. For images of one pixel, only the centre of the kernels.

    Args:
        h: [batch, group * channel, height, width].

    Returns:
        [group, batch * height * width, kernel * kernel * channel].
    """
    if kernel > 1 and h.shape[-2:] != (1, 1):
        h = F.pad(h, [kernel // 2] * 4)
    else:
        kernel = 1
    last, dtype = h.permute(0, 2, 3, 1).contiguous(), h.dtype
    channels = last.shape[-1] // groups
    if all(n * last.element_size() % WORD.itemsize == 0 for n in (channels, last.storage_offset())):
        # Several numbers are copied at a time, since computing their addresses takes most of the time.
        last = last.flatten().view(WORD).view(*last.shape[:3], -1)
    last = last.unflatten(-1, (groups, -1))  # [batch, height, width, group, channel]
    seen = last.unfold(1, kernel, 1).unfold(2, kernel, 1)  # [batch, height, width, group, channel, kernel, kernel]
    copied = seen.permute(3, 0, 1, 2, 5, 6, 4).reshape(groups, -1, kernel * kernel * last.shape[-1])
    return copied.view(dtype)


def convolve(unfolded: Tensor, weight: Tensor, bias: Tensor | None, shape: Sequence[int]) -> Tensor:
    """Convolution with the same size of input and output.

    Args:
        unfolded: the unfolded images.
        weight: [group * filter, channel, kernel, kernel]. bias: [group * filter].
        shape: the shape of the images before they were unfolded; its number of channels is not used.

    Returns:
        [batch, group * filter, height, width], channels-last.
    """
    groups, sides = len(unfolded), tuple(shape[2:])
    weight = weight.unflatten(0, (groups, -1))
    if sides == (1, 1):
        middle = weight.shape[-1] // 2
        kernels = weight[..., middle, middle]
    else:
        kernels = weight.permute(0, 1, 3, 4, 2).flatten(2)
    made = unfolded.new_empty(unfolded.shape[1], groups, kernels.shape[1])
    if bias is None:
        torch.bmm(unfolded, kernels.mT, out=made.transpose(0, 1))
    else:
        torch.baddbmm(bias.view(groups, 1, -1), unfolded, kernels.mT, out=made.transpose(0, 1))
    return made.view(shape[0], *sides, -1).permute(0, 3, 1, 2)


def flipped(weight: Tensor, groups: int) -> Tensor:
    """The kernels with which the gradient of the images is a convolution of the gradient of the result.

    [group * filter, channel, kernel, kernel] -> [group * channel, filter, kernel, kernel]
    """
    return weight.unflatten(0, (groups, -1)).transpose(1, 2).flip(-1, -2).flatten(0, 1)


def weight_gradient(grad: Tensor, unfolded: Tensor, kernel: int) -> Tensor:
    """The gradient of the kernels, [group * filter, channel, kernel, kernel].

    Args:
        grad: that of the result, [batch, group * filter, height, width]. unfolded: the images.
    """
    groups = len(unfolded)
    rows = unfold(grad, groups, 1)
    filters, batch = rows.shape[-1], len(grad)
    # A sum over many pixels with few results leaves most of a GPU idle, so it is computed in parts of the batch.
    tiles = groups * -(-filters // TILE) * -(-unfolded.shape[-1] // TILE)
    parts = next((n for n in range(1, batch) if batch % n == 0 and n * tiles >= TILES), batch)
    sums = torch.bmm(_split(rows, parts).mT, _split(unfolded, parts))
    if parts > 1:
        sums = sums.unflatten(0, (groups, parts)).sum(1)
    side = 1 if grad.shape[-2:] == (1, 1) else kernel
    sums = sums.view(groups, filters, side, side, -1).permute(0, 1, 4, 2, 3)
    return (F.pad(sums, [kernel // 2] * 4) if side < kernel else sums).flatten(0, 1)


def _split(rows: Tensor, parts: int) -> Tensor:
    """[group, pixel, *] -> [group * part, pixel, *]"""
    return rows.unflatten(1, (parts, -1)).flatten(0, 1)
