"""Natural gradient by Kronecker factors, which `adapt` can follow in place of the plain gradient.

KFAC (Martens and Grosse, 2015; for convolutions Grosse and Martens, 2016) approximates the Fisher matrix of each layer
by a Kronecker product of two small matrices, times the number T of places at which a layer is applied to an example,

    F = T A (x) S,   A = E[a a'],  S = E[g g'],

where a is the input of the layer's weights, with a 1 appended for the bias, g is the gradient of an example's loss at
the layer's output, and E is the mean over examples and places. The natural gradient of the layer is then

    (S + sqrt(damping / T) I)^-1  G  (A + sqrt(damping / T) I)^-1 / T,

where G [output, input + 1] is the plain gradient of weight and bias. These are the settings of the code that the
authors of WarpGrad name (docs/warpgrad.md): factors come from the present batch only, and the damping is split evenly.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from leapwarp.inner import Gradient
from leapwarp.problem import Batch, Loss, Problem
from leapwarp.trees import Params


class Factors(NamedTuple):
    """The Fisher matrix of one layer of each task."""

    inputs: Tensor
    """A, [task, input + 1, input + 1]"""
    outputs: Tensor
    """S, [task, output, output]"""
    places: int
    """T: positions of a convolution, 1 for a linear layer"""


Columns = Callable[[Tensor, Sequence[Tensor], Sequence[Tensor]], Iterable[Sequence[Tensor]]]
"""(the model's outputs, layers' outputs, gradient of the batch's loss at these) -> gradients g, whose outer products
sum to the S of each layer"""


def empirical(outputs: Tensor, layers: Sequence[Tensor], grads: Sequence[Tensor]) -> Iterable[Sequence[Tensor]]:
    """Gradients for the labels in the batch: the empirical Fisher matrix, as in the released code, at no extra cost."""
    yield grads


def expected(outputs: Tensor, layers: Sequence[Tensor], grads: Sequence[Tensor]) -> Iterable[Sequence[Tensor]]:
    """Gradients for all labels, weighted by the model's prediction: the Fisher matrix. One backward pass a class.

    outputs are logits, [task, batch, class]. The gradient of -log p_c at the logits is p - e_c, with weight p_c.
    """
    p = outputs.detach().softmax(-1)
    for c, e in enumerate(torch.eye(p.shape[-1], dtype=p.dtype, device=p.device)):
        column = p[..., c, None].sqrt() * (p - e) / p.shape[1]  # the mean over the batch, as of the loss
        yield torch.autograd.grad(outputs, layers, column, retain_graph=True)


def rows_of(x: Tensor, n_tasks: int) -> Tensor:
    """A layer's input or output with examples and places in one axis: [task, row, feature].

    x: [task, batch, feature] for a linear layer, or [batch, task * channel, height, width] for a convolution.
    """
    if x.dim() == 3:
        return x
    batch, depth, height, width = x.shape
    apart = x.permute(0, 2, 3, 1).reshape(batch * height * width, n_tasks, depth // n_tasks)
    return apart.transpose(0, 1)


def patches(x: Tensor, n_tasks: int, side: int, height: int) -> Tensor:
    """The image patches that a convolution of stride 1 multiplies by its weights: [task, row, side * side * channel].

    Channels come last, as in memory. With the order of the weights this would take four times as long.

    Args:
        x: [batch, task * channel, height, width].
        height: of the output, which determines the padding.
    """
    padding = (height - x.shape[2] + side - 1) // 2
    padded = F.pad(x.permute(0, 2, 3, 1), (0, 0, *(padding,) * 4))
    windows = padded.unfold(1, side, 1).unfold(2, side, 1)  # [batch, height, width, task * channel, side, side]
    apart = windows.unflatten(3, (n_tasks, -1)).permute(3, 0, 1, 2, 5, 6, 4)
    return apart.reshape(n_tasks, windows.shape[:3].numel(), -1)


def flat(weight: Tensor) -> Tensor:
    """A layer's weights as a matrix for each task, in the order of `patches`: [task, output, input]."""
    return weight.movedim(2, -1).flatten(2)


def unflat(matrix: Tensor, like: Tensor) -> Tensor:
    n_tasks, outputs, inputs, *sides = like.shape
    return matrix.view(n_tasks, outputs, *sides, inputs).movedim(-1, 2)


def covariance(rows: Tensor) -> Tensor:
    """The mean of outer products, not centred. [task, row, feature] -> [task, feature, feature]"""
    return rows.mT @ rows / rows.shape[1]


def append_one(rows: Tensor) -> Tensor:
    """The covariance of `rows` with a 1 appended to each."""
    mean = rows.mean(1, keepdim=True)
    one = torch.ones_like(mean[..., :1])
    return torch.cat([torch.cat([covariance(rows), mean.mT], 2), torch.cat([mean, one], 2)], 1)


def factors(
    weights: Sequence[Tensor], met: Sequence[tuple[Tensor, Tensor]], columns: Iterable[Sequence[Tensor]], batch: int
) -> list[Factors]:
    """Both factors of every layer.

    Args:
        weights: [task, output, input] each, or [task, output, input, side, side] of a convolution.
        met: the inputs and outputs of the layers.
        columns: see `Columns`; for the mean over `batch` examples.
    """
    n_tasks = len(weights[0])
    outer = [torch.zeros((), dtype=weight.dtype, device=weight.device) for weight in weights]
    for grads in columns:
        outer = [s + batch**2 * covariance(rows_of(g, n_tasks)) for s, g in zip(outer, grads, strict=True)]
    result = []
    for weight, (x, out), s in zip(weights, met, outer, strict=True):
        is_conv = weight.dim() == 5
        rows = patches(x.detach(), n_tasks, weight.shape[-1], out.shape[2]) if is_conv else x.detach()
        result.append(Factors(append_one(rows), s, out.shape[2:].numel() if is_conv else 1))
    return result


def inverse_root(factor: Tensor, damping: float, name: str) -> Tensor:
    """Cholesky factor of `factor + sqrt(damping) I`. Raises FloatingPointError with the layer's name if none exists."""
    if not factor.isfinite().all():
        raise FloatingPointError(f"a Fisher factor of the layer {name} is not finite: raise the damping of KFAC.")
    damped = factor + damping**0.5 * torch.eye(factor.shape[-1], dtype=factor.dtype, device=factor.device)
    root, failed = torch.linalg.cholesky_ex(damped)
    if failed.any():
        raise FloatingPointError(
            f"a Fisher factor of the layer {name} has no inverse in this precision: raise the damping of KFAC."
        )
    return root


def precondition(found: Factors, grad: Tensor, damping: float, name: str) -> Tensor:
    """The natural gradient of one layer from its plain one, [task, output, input + 1]."""
    share = damping / found.places
    left = torch.cholesky_solve(grad, inverse_root(found.outputs, share, name))
    right = torch.cholesky_solve(left.mT, inverse_root(found.inputs, share, name))
    return right.mT / found.places


def kfac(
    apply: Callable[..., tuple[Tensor, Params]],
    loss: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    damping: float,
    columns: Columns = empirical,
) -> Gradient:
    """The natural gradient of `supervised(model, loss)`, for `adapt(..., gradient=kfac(model.apply, loss, damping))`.

    Every task has its own factors, from the batch of the step. Parameters that do not belong to a linear layer or
    convolution (batch norm's) keep the plain gradient.

    Args:
        apply: the `apply` of a model. It calls its last argument, `tap`, with (name, input, output) of each layer. The
            layer's parameters are `<name>.weight` and `<name>.bias`, with the shapes of `models.convnet`.
        loss: the mean over the batch for each task.
        damping: added to the eigenvalues of the Fisher matrix, split evenly between the factors.
        columns: which Fisher matrix, `empirical` or `expected`.

    Raises:
        FloatingPointError: when the returned function is called, if a factor is not finite or cannot be inverted.
    """
    if damping <= 0:
        raise ValueError(f"KFAC needs a damping above 0, got {damping}.")

    def gradient(
        problem: Problem, params: Params, fixed: Params, stats: Params, batch: Batch, differentiable: bool = False
    ) -> tuple[Loss, Params]:
        if differentiable:
            raise ValueError("the natural gradient is not differentiable: learn through the plain gradient.")
        leaves = {name: leaf.detach().requires_grad_() for name, leaf in params.items()}
        met: dict[str, tuple[Tensor, Tensor]] = {}

        def tap(name: str, x: Tensor, out: Tensor) -> None:
            if f"{name}.weight" in leaves:
                met[name] = x, out

        outputs, new_stats = apply({**leaves, **fixed}, stats, batch.x, True, tap)
        value, accuracy = loss(outputs, batch.y)
        layers = [out for _, out in met.values()]
        found = torch.autograd.grad(value.sum(), [*leaves.values(), *layers], retain_graph=True)
        grads = dict(zip(leaves, found[: len(leaves)], strict=True))
        weights = [grads[f"{name}.weight"] for name in met]
        at_layers = columns(outputs, layers, found[len(leaves) :])
        matrices = factors(weights, list(met.values()), at_layers, batch.x.shape[1])
        for name, weight, matrix in zip(met, weights, matrices, strict=True):
            joint = torch.cat([flat(weight), grads[f"{name}.bias"][..., None]], 2)
            joint = precondition(matrix, joint, damping, name)
            grads[f"{name}.weight"], grads[f"{name}.bias"] = unflat(joint[..., :-1], weight), joint[..., -1]
        return Loss(value.detach(), accuracy, new_stats), grads

    return gradient
