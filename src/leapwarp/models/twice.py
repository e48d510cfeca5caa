"""Convolution and batch norm for objectives that are differentiated twice, such as that of the warps.

The first derivatives use PyTorch's kernels. PyTorch's second derivatives are slow: that of a grouped convolution loops
over the groups and computes gradients that are not needed, and that of batch norm takes about forty elementwise
operations. Here both are computed with the kernels of the first derivatives.

Under the transforms of `torch.func` (`leapwarp.jacobian`), which do not support functions of our own, PyTorch's
operations are used. `transformed` tells whether such a transform is active.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from leapwarp.models import products

_convolution_backward = torch.ops.aten.convolution_backward.default
_batch_norm_backward = torch.ops.aten.native_batch_norm_backward.default

PRODUCTS = True
"""Whether convolutions on a GPU are matrix products of unfolded images; False for grouped convolutions, to compare."""


def transformed() -> bool:
    """Whether a transform of `torch.func` is active."""
    return torch._C._are_functorch_transforms_active()


def convolve(h: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolution of a stack of tasks, with the same size of input and output.

    Args:
        h: [batch, task * channel, height, width].
        weight: [task, filter, channel, kernel, kernel], with an odd kernel size and the dtype of `h`.
        bias: [task, filter], or None.

    Returns:
        [batch, task * filter, height, width]. On a GPU it has two derivatives, and a third one raises an error.
    """
    if transformed():
        return _convolve(h, weight.flatten(0, 1), None if bias is None else bias.flatten(), len(weight))
    function = _Product if _as_products(h) else _Convolution
    return function.apply(h, weight.flatten(0, 1), None if bias is None else bias.flatten(), len(weight))


def batch_norm(
    h: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, momentum: float, epsilon: float
) -> Tensor:
    """Batch norm in training, twice differentiable, which writes new running averages into `mean` and `variance`.

    Args:
        h: [batch, channel, height, width]. The others: [channel].
    """
    return _BatchNorm.apply(h, weight, bias, mean, variance, momentum, epsilon)


def _convolve(h: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
    """h [batch, group * channel, height, width], weight [group * filter, channel, kernel, kernel]"""
    middle = weight.shape[-1] // 2
    if h.shape[-2:] != (1, 1) or h.device.type != "cpu":
        return F.conv2d(h, weight, bias, padding=middle, groups=groups)
    # A single pixel uses only the centre of the kernel. A matrix product takes a tenth of the convolution's time.
    centre = weight[:, :, middle, middle].unflatten(0, (groups, -1)).mT
    rows = _rows(h, groups)
    return _pixels(torch.bmm(rows, centre) if bias is None else torch.baddbmm(bias.view(groups, 1, -1), rows, centre))


def _gradients(
    grad: Tensor, h: Tensor, weight: Tensor, groups: int, needed: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of a convolution's input and weight, if `needed`. The convolution is linear in `h` and in `weight`."""
    middle = weight.shape[-1] // 2
    if h.shape[-2:] != (1, 1) or h.device.type != "cpu":
        pad, one, mask = [middle, middle], [1, 1], [*needed, False]
        return _convolution_backward(grad, h, weight, None, one, pad, one, False, [0, 0], groups, mask)[:2]
    rows = _rows(grad, groups)
    grad_h = grad_weight = None
    if needed[0]:
        grad_h = _pixels(torch.bmm(rows, weight[:, :, middle, middle].unflatten(0, (groups, -1))))
    if needed[1]:
        grad_weight = torch.zeros_like(weight)
        grad_weight[:, :, middle, middle] = torch.bmm(rows.mT, _rows(h, groups)).flatten(0, 1)
    return grad_h, grad_weight


def _as_products(h: Tensor) -> bool:
    return PRODUCTS and h.device.type in ("cuda", "meta") and h.numel() > 0


def _rows(h: Tensor, groups: int) -> Tensor:
    """Images of one pixel, [batch, group * channel, 1, 1], as [group, batch, channel]."""
    return h.reshape(len(h), groups, -1).transpose(0, 1)


def _pixels(rows: Tensor) -> Tensor:
    """[group, batch, channel] -> [batch, group * channel, 1, 1], channels-last."""
    depth = rows.shape[0] * rows.shape[2]
    h = rows.transpose(0, 1).contiguous()
    return h.as_strided((rows.shape[1], depth, 1, 1), (depth, 1, depth, depth))


def _needed(ctx: Any, count: int) -> list[bool]:
    """Which of a function's first inputs need their gradient in this backward pass.

    `needs_input_grad` tells which inputs require a gradient in any pass. For a leaf PyTorch gives no further
    information, and its gradient is always computed.
    """
    nodes = [node for node, _ in ctx.next_functions[:count]]
    return [n is not None and (hasattr(n, "variable") or torch._C._will_engine_execute_node(n)) for n in nodes]


class _Convolution(Function):
    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        ctx.save_for_backward(h, weight)
        ctx.groups = groups
        return _convolve(h, weight, bias, groups)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        need_h, need_weight, need_bias = (*_needed(ctx, 3), False)[:3]
        grad_bias = grad.sum((0, 2, 3)) if need_bias else None
        h, weight = ctx.saved_tensors
        gradients = _ConvolutionGradients.apply if torch.is_grad_enabled() else _gradients
        return *gradients(grad, h, weight, ctx.groups, (need_h, need_weight)), grad_bias, None


class _ConvolutionGradients(Function):
    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, h: Tensor, weight: Tensor, groups: int, needed: Sequence[bool]
    ) -> tuple[Tensor | None, Tensor | None]:
        ctx.save_for_backward(grad, h, weight)
        ctx.set_materialize_grads(False)
        ctx.groups = groups
        return _gradients(grad, h, weight, groups, needed)

    @staticmethod
    def backward(ctx: Any, to_h: Tensor | None, to_weight: Tensor | None) -> tuple[Tensor | None, ...]:
        """`to_h` and `to_weight` are the gradients of the two outputs. Each output is linear in two of three inputs."""
        grad, h, weight = ctx.saved_tensors
        need_grad, need_h, need_weight = _needed(ctx, 3)
        need_h, need_weight = need_h and to_weight is not None, need_weight and to_h is not None
        to_grad, found = None, (None, None)
        if need_grad:
            pairs = [(a, b) for a, b in ((to_h, weight), (h, to_weight)) if a is not None and b is not None]
            parts = [_convolve(a, b, None, ctx.groups) for a, b in pairs]
            to_grad = parts[0] + parts[1] if len(parts) == 2 else parts[0] if parts else None
        if need_h or need_weight:
            left, right = h if to_h is None else to_h, weight if to_weight is None else to_weight
            found = _gradients(grad, left, right, ctx.groups, (need_h, need_weight))
        return to_grad, *found, None, None


class _Product(Function):
    """`_Convolution` as matrix products. Each tensor is unfolded once, and the result is passed on."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, weight: Tensor, bias: Tensor | None, groups: int) -> Tensor:
        unfolded = products.unfold(h, groups, weight.shape[-1])
        ctx.save_for_backward(h, weight, unfolded if ctx.needs_input_grad[1] else None)
        ctx.groups = groups
        return products.convolve(unfolded, weight, bias, h.shape)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        need_h, need_weight, need_bias = (*_needed(ctx, 3), False)[:3]
        grad_bias = grad.sum((0, 2, 3)) if need_bias else None
        h, weight, unfolded = ctx.saved_tensors
        needed = need_h, need_weight
        if torch.is_grad_enabled():
            gradients = _ProductGradients.apply(grad, h, weight, unfolded, ctx.groups, needed)
        else:
            gradients = _gradients_of_product(grad, weight, unfolded, ctx.groups, needed)[:2]
        return *gradients, grad_bias, None


class _ProductGradients(Function):
    @staticmethod
    def forward(
        ctx: Any,
        grad: Tensor,
        h: Tensor,
        weight: Tensor,
        unfolded: Tensor | None,
        groups: int,
        needed: Sequence[bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        grad_h, grad_weight, unfolded_grad = _gradients_of_product(grad, weight, unfolded, groups, needed)
        kept = (unfolded, unfolded_grad) if needed[1] else (None, None)  # for what comes back to `grad_weight`
        ctx.save_for_backward(grad, weight, *kept)
        ctx.set_materialize_grads(False)
        ctx.groups = groups
        return grad_h, grad_weight

    @staticmethod
    def backward(ctx: Any, to_h: Tensor | None, to_weight: Tensor | None) -> tuple[Tensor | None, ...]:
        """As `backward` of `_ConvolutionGradients`."""
        if torch.is_grad_enabled():
            raise RuntimeError("these convolutions can be differentiated twice, and this asks for a third derivative.")
        grad, weight, unfolded, unfolded_grad = ctx.saved_tensors
        groups, kernel = ctx.groups, weight.shape[-1]
        need_grad, need_h, need_weight = _needed(ctx, 3)
        to_grad = grad_h = grad_weight = None
        if to_h is not None:
            unfolded_to_h = products.unfold(to_h, groups, kernel)
            to_grad = products.convolve(unfolded_to_h, weight, None, grad.shape) if need_grad else None
            grad_weight = products.weight_gradient(grad, unfolded_to_h, kernel) if need_weight else None
        if to_weight is not None:
            if need_grad:
                along = products.convolve(unfolded, to_weight, None, grad.shape)
                to_grad = along if to_grad is None else to_grad.add_(along)
            if need_h:
                if unfolded_grad is None:
                    unfolded_grad = products.unfold(grad, groups, kernel)
                grad_h = products.convolve(unfolded_grad, products.flipped(to_weight, groups), None, grad.shape)
        return to_grad, grad_h, grad_weight, None, None, None


def _gradients_of_product(
    grad: Tensor, weight: Tensor, unfolded: Tensor | None, groups: int, needed: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """As `_gradients`, and the unfolded `grad` if it was computed."""
    kernel = weight.shape[-1]
    grad_h = grad_weight = unfolded_grad = None
    if needed[0]:
        unfolded_grad = products.unfold(grad, groups, kernel)
        grad_h = products.convolve(unfolded_grad, products.flipped(weight, groups), None, grad.shape)
    if needed[1]:
        assert unfolded is not None
        grad_weight = products.weight_gradient(grad, unfolded, kernel)
    return grad_h, grad_weight, unfolded_grad


class _BatchNorm(Function):
    @staticmethod
    def forward(
        ctx: Any,
        h: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        momentum: float,
        epsilon: float,
    ) -> Tensor:
        out, centre, inverse = torch.native_batch_norm(h, weight, bias, mean, variance, True, momentum, epsilon)
        ctx.save_for_backward(h, weight, centre, inverse)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradients = _BatchNormGradients.apply if torch.is_grad_enabled() else _norm_gradients
        return *gradients(grad, *ctx.saved_tensors), None, None, None, None


def _norm_gradients(
    grad: Tensor, h: Tensor, weight: Tensor | None, mean: Tensor, inverse: Tensor, needed: Sequence[bool] = (True,) * 3
) -> tuple[Tensor, Tensor, Tensor]:
    """weight * inverse * (grad - its mean - x * mean of grad * x), the sum of grad * x, that of grad, for each channel.

    x is the normalised input, (h - mean) * inverse.
    """
    return _batch_norm_backward(grad, h, weight, None, None, mean, inverse, True, 0.0, list(needed))


def _sums_of_products(a: Tensor, b: Tensor) -> Tensor:
    """The sum of a * b for each channel."""
    if a.device.type != "cpu":
        return (a * b).sum((0, 2, 3))  # the kernel below fails on a GPU if the gradient of its input is not needed
    none, one = a.new_zeros(a.shape[1]), a.new_ones(a.shape[1])
    return _norm_gradients(a, b, None, none, one, (False, True, False))[1]


class _BatchNormGradients(Function):
    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, h: Tensor, weight: Tensor, mean: Tensor, inverse: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        grads = _norm_gradients(grad, h, weight, mean, inverse)
        ctx.save_for_backward(grad, h, weight, mean, inverse, *grads[1:])
        return grads

    @staticmethod
    def backward(ctx: Any, to_h: Tensor, to_weight: Tensor, to_bias: Tensor) -> tuple[Tensor | None, ...]:
        """Derivatives of <to_h, grad_h> + <to_weight, grad_weight> + <to_bias, grad_bias>.

        With x = (h - mean) * inverse, sums over the n values of a channel, and u = weight * inverse, this is

            u * (sum(a g) - (sum(a) sum(g) + sum(a x) sum(g x)) / n) + to_weight * sum(g x) + to_bias * sum(g),

        a = to_h and g = grad. It is differentiated by g, by h through x and `inverse`, and by the weight.
        """
        if torch.is_grad_enabled():
            raise RuntimeError("batch norm can be differentiated twice, and this asks for a third derivative.")
        g, h, weight, mean, inverse, sum_gx, sum_g = ctx.saved_tensors
        n = h.numel() // h.shape[1]
        by_g, sum_ax, sum_a = _norm_gradients(to_h, h, weight, mean, inverse)
        sum_ag = _sums_of_products(to_h, g)
        square = inverse.pow(-2)

        def line(slope: Tensor, offset: Tensor) -> Tensor:  # slope * x + offset
            # Older PyTorch (2.11 does) refuses an epsilon of 0 in the function of `torch.nn.functional`.
            return torch.batch_norm(h, slope, offset, mean, square, False, 0.0, 0.0, False)

        bracket = sum_ag - (sum_a * sum_g + sum_ax * sum_gx) / n
        share = inverse / n
        along_a = weight * inverse * sum_gx / n
        along_u = weight * inverse * sum_ax / n
        along_g = to_weight - along_u
        # The derivative by x is along_g * g - along_a * a, minus each channel's mean and its part along x, as for any
        # gradient.
        slope = -share * (sum_gx * (along_g - along_u) + weight * inverse * bracket)
        offset = -share * (along_g * sum_g - along_a * sum_a)
        by_h = line(slope, offset)
        by_h.addcmul_(to_h, (-inverse * along_a).view(-1, 1, 1)).addcmul_(g, (inverse * along_g).view(-1, 1, 1))
        return by_g.add_(line(to_weight, to_bias)), by_h, inverse * bracket, None, None
