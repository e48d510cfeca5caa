"""Batch normalisation as a function of its statistics."""

import torch
import torch.nn.functional as F
from torch import Tensor

from leapwarp.models import twice

MOMENTUM = 0.1  # weight of the newest batch in the running averages, PyTorch's default
EPSILON = 1e-5


def normalise(
    h: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    train: bool,
    momentum: float = MOMENTUM,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise each channel: with the batch's statistics in training, with the running averages otherwise.

    Args:
        h: [batch, channel, height, width]; a stack of tasks is folded into the channels.
        weight, bias, mean, variance: [channel].
        momentum: weight of the newest batch. With 1, the running statistics are those of the last batch.

    Returns:
        the normalised h, and the new running mean and variance (unbiased, as in PyTorch).

    Raises:
        ValueError: in training, a channel has one value only, which has no variance.
    """
    if not train:
        return F.batch_norm(h, mean, variance, weight, bias, False, MOMENTUM, EPSILON), mean, variance
    n = h.numel() // h.shape[1]  # values of a channel
    if n < 2:
        raise ValueError(
            f"batch norm has one value for each channel, in activations of shape {list(h.shape)}, and a variance needs "
            "two. Needed larger mini-batches, or larger images."
        )
    if not twice.transformed():
        mean, variance = mean.to(h.dtype, copy=True), variance.to(h.dtype, copy=True)
        return twice.batch_norm(h, weight, bias, mean, variance, momentum, EPSILON), mean, variance
    out, batch_mean, inverse_deviation = torch.native_batch_norm(h, weight, bias, None, None, True, MOMENTUM, EPSILON)
    batch_variance = (inverse_deviation.detach().pow(-2) - EPSILON) * (n / (n - 1))
    return (
        out,
        mean + momentum * (batch_mean.detach() - mean),
        variance + momentum * (batch_variance - variance),
    )
