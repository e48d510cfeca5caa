"""Jacobians of training: derivatives of the parameters after i steps with respect to those before the first step.

Leap replaces these Jacobians by the identity, and appendix D measures the error. There they are computed in reverse
mode, which memory limits to 20 steps. Here the columns of J are propagated forward along with training, by the
derivative of the update,

    J <- J - alpha H(theta_i) J.

So memory does not depend on the number of steps, and a few columns can be computed at a time. J - I is stored instead
of J, since in float32 the ones of the identity would hide everything smaller than 1e-7.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from leapwarp.inner import fresh_stats
from leapwarp.problem import Problem, Task
from leapwarp.trees import Params, add_scaled, map_tree


def departures(
    problem: Problem, params: Params, task: Task, names: Sequence[str], rate: float, at: Sequence[int], chunk: int
) -> Tensor:
    """J - I for gradient descent on one task, where J is the block of d theta^i / d theta^0 for the parameters `names`.

    All parameters are trained, so a change in the block acts on it through all of them. The result is the diagonal
    block of the whole Jacobian.

    Args:
        params, task: stacks of one task; draw k of the task is the mini-batch of step k.
        names: the block; its elements come in this order.
        rate: the task learning rate, alpha.
        at: the numbers of steps, i, at least 1 and increasing.
        chunk: columns to propagate at a time. It changes time and memory, not the result.

    Returns:
        [point, n, n] for a block of n elements.

    Raises:
        ValueError: more than one task, too few draws, or steps that do not increase.
        FloatingPointError: training diverged.
    """
    if len(task.index) != 1:
        raise ValueError(f"a Jacobian is of one task, got a stack of {len(task.index)}.")
    if not at or list(at) != sorted(set(at)) or at[0] < 1 or at[-1] > task.order.shape[1]:
        raise ValueError(f"needed increasing steps from 1 to the task's {task.order.shape[1]} draws, got {list(at)}.")
    size = sum(params[name].numel() for name in names)
    parts = [slice(first, min(first + chunk, size)) for first in range(0, size, chunk)]
    columns = [_columns(problem, params, task, names, rate, at, part, size) for part in parts]
    found = torch.cat(columns, 1).mT  # [point, n, n]
    if not found.isfinite().all():
        step = at[int((~found.isfinite()).flatten(1).any(1).nonzero()[0, 0])]
        raise FloatingPointError(f"the Jacobian after {step} steps is not finite: lower the learning rate {rate}.")
    return found


def _columns(
    problem: Problem,
    params: Params,
    task: Task,
    names: Sequence[str],
    rate: float,
    at: Sequence[int],
    part: slice,
    size: int,
) -> Tensor:
    """The columns `part` of the block's J - I, as rows. -> [point, column, n]"""
    who = torch.zeros(1, dtype=torch.long, device=task.x.device)
    stats = fresh_stats(problem, 1, task.x.device)  # they do not influence the training loss
    unit = _unit(params, names, part, size)
    moved = map_tree(torch.zeros_like, unit)  # J - I
    seen = []
    for k in range(at[-1]):
        batch = problem.draw(task, who, who + k)

        def loss(params: Params, batch=batch) -> Tensor:
            return problem.loss(params, stats, batch).loss.sum()

        # The point is the same for all columns, so vmap stacks only the tangents.
        curve = vmap(lambda tangent, params=params, loss=loss: jvp(grad(loss), (params,), (tangent,))[1])
        moved = add_scaled(moved, -rate, curve(add_scaled(unit, 1, moved)))
        params = add_scaled(params, -rate, grad(loss)(params))
        if k + 1 in at:
            seen.append(torch.cat([moved[name].flatten(1) for name in names], 1))
    return torch.stack(seen)


def _unit(params: Params, names: Sequence[str], part: slice, size: int) -> Params:
    """A stack of tangents of all parameters: rows `part` of the block's identity, and zero outside of the block."""
    rows = torch.arange(part.start, part.stop)
    like = next(iter(params.values()))
    block = torch.zeros(len(rows), size, dtype=like.dtype, device=like.device)
    block[torch.arange(len(rows)), rows] = 1
    pieces = block.split([params[name].numel() for name in names], 1)
    tangents = {name: leaf.new_zeros(len(rows), *leaf.shape) for name, leaf in params.items()}
    return tangents | {
        name: piece.reshape(len(rows), *params[name].shape) for name, piece in zip(names, pieces, strict=True)
    }


def relative_precision(departure: Tensor) -> Tensor:
    """rho = |I - J| / |J| in the Schatten 1-norm, the sum of singular values (Leap appendix D).

    Args:
        departure: J - I, [*, n, n]. -> [*]
    """
    gap = departure.double()  # singular values near zero add up
    eye = torch.eye(gap.shape[-1], dtype=gap.dtype, device=gap.device)
    return torch.linalg.matrix_norm(gap, "nuc") / torch.linalg.matrix_norm(eye + gap, "nuc")
