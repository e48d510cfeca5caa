"""Natural gradient by Kronecker factors: a gradient that `adapt` may follow in place of the plain one.

KFAC (Martens and Grosse, 2015; for convolutions Grosse and Martens, 2016) takes the Fisher matrix of each layer for
the Kronecker product of two small ones and of the number of places T at which the layer is applied to an example,

    F = T A (x) S,   A = E[a a'],  S = E[g g'],

where a is what the layer's weights are multiplied with, with a 1 appended for the bias, g the gradient of an example's
loss at the layer's output, and E the mean over examples and places. The natural gradient of the layer is then

    (S + sqrt(damping / T) I)^-1  G  (A + sqrt(damping / T) I)^-1 / T,

with G [output, input + 1] the plain gradient of weight and bias. This is the setting of the code that the authors
of WarpGrad name as theirs (docs/warpgrad.md): factors of the present batch alone, the damping split evenly.
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
"""(the model's outputs, layers' outputs, gradient of the loss of the batch's labels at these) -> gradients g whose
outer products sum up to the S of each layer"""


def empirical(outputs: Tensor, layers: Sequence[Tensor], grads: Sequence[Tensor]) -> Iterable[Sequence[Tensor]]:
    """Of the labels in the batch: the empirical Fisher matrix, as in the released setting. It costs nothing more."""
    yield grads


def expected(outputs: Tensor, layers: Sequence[Tensor], grads: Sequence[Tensor]) -> Iterable[Sequence[Tensor]]:
    """In expectation over the labels that the model predicts: the Fisher matrix. One backward pass for each class.

    outputs are logits, [task, batch, class]. The gradient of -log p_c at the logits is p - e_c, of weight p_c.
    """
    p = outputs.detach().softmax(-1)
    for c, e in enumerate(torch.eye(p.shape[-1], dtype=p.dtype, device=p.device)):
        column = p[..., c, None].sqrt() * (p - e) / p.shape[1]  # the mean over the batch, as of the loss
        yield torch.autograd.grad(outputs, layers, column, retain_graph=True)


def rows_of(x: Tensor, n_tasks: int) -> Tensor:
    """What a layer takes or gives, examples and places in one axis: [task, row, feature].

    x: [task, batch, feature] of a linear layer, or [batch, task * channel, height, width] of a convolution.
    """
    if x.dim() == 3:
        return x
    batch, depth, height, width = x.shape
    apart = x.permute(0, 2, 3, 1).reshape(batch * height * width, n_tasks, depth // n_tasks)
    return apart.transpose(0, 1)


def patches(x: Tensor, n_tasks: int, side: int, height: int) -> Tensor:
    """What a convolution of stride 1 multiplies its weights with: [task, row, side * side * channel].

    Channels come last, as they lie in memory: with the weights' own order, this takes four times as long.

    Args:
        x: [batch, task * channel, height, width]. height: of the output, from which the padding follows.
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
    """Uncentred: the mean of outer products. [task, row, feature] -> [task, feature, feature]"""
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
        met: what the layers took and gave. columns: see `Columns`, of the mean over `batch` examples.
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
    """Cholesky factor of `factor + sqrt(damping) I`; raises FloatingPointError naming the layer where there is none."""
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

    Every task has its own factors, of the batch of the step. Parameters that are not of a linear layer or convolution
    (batch norm's) keep the plain gradient.

    Args:
        apply: a model's, that calls its last argument, `tap`, with (name, input, output) of each layer in the graph;
            the layer's parameters are `<name>.weight` and `<name>.bias`, its shapes those of `models.convnet`.
        loss: mean over the batch for each task.
        damping: added to the eigenvalues of the Fisher matrix, split evenly between the factors.
        columns: which Fisher matrix, `empirical` or `expected`.

    Raises:
        FloatingPointError: from the result, where a factor is not finite or cannot be inverted.
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
