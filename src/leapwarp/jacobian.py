"""Jacobians of training: how the parameters after i steps move with those before the first.

Leap leaves these Jacobians out and appendix D asks what that costs. There they are computed backwards, and memory ends
the measurement at 20 steps. Here a column goes forward along with the training, by the derivative of the update itself,

    V <- V - alpha H(theta_i) V,

so that memory does not depend on the number of steps, and columns can be taken a few at a time.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import grad, jvp, vmap

from leapwarp.inner import fresh_stats
from leapwarp.problem import Problem, Task
from leapwarp.trees import Params, add_scaled


def block_jacobians(
    problem: Problem, params: Params, task: Task, names: Sequence[str], rate: float, at: Sequence[int], chunk: int
) -> Tensor:
    """d theta^i / d theta^0 for gradient descent on one task, of the parameters `names` with respect to themselves.

    All parameters are trained, and a change in the block reaches it again through all of them; only the diagonal block
    of the whole Jacobian is kept.

    Args:
        params, task: stacks of one task; draw k of the task is the mini-batch of step k.
        names: the block; its elements come in this order.
        rate: the task learning rate, alpha.
        at: the numbers of steps, i, at least 1 and increasing.
        chunk: columns to carry at a time; it changes time and memory, not the result.

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
    jacobians = torch.cat(columns, 1).mT  # [point, n, n]
    if not jacobians.isfinite().all():
        step = at[int((~jacobians.isfinite()).flatten(1).any(1).nonzero()[0, 0])]
        raise FloatingPointError(f"the Jacobian after {step} steps is not finite: lower the learning rate {rate}.")
    return jacobians


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
    """The columns `part` of the block's Jacobians, as rows. -> [point, column, n]"""
    who = torch.zeros(1, dtype=torch.long, device=task.x.device)
    stats = fresh_stats(problem, 1, task.x.device)  # the training loss does not read them
    tangents = _unit(params, names, part, size)
    seen = []
    for k in range(at[-1]):
        batch = problem.draw(task, who, who + k)

        def update(params: Params, batch=batch) -> Params:
            slope = grad(lambda point: problem.loss(point, stats, batch).loss.sum())
            return add_scaled(params, -rate, slope(params))

        # The point is the same for all columns, so that vmap stacks the tangents alone.
        push = vmap(lambda tangent, params=params, update=update: jvp(update, (params,), (tangent,))[1])
        params, tangents = update(params), push(tangents)
        if k + 1 in at:
            seen.append(torch.cat([tangents[name].flatten(1) for name in names], 1))
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


def relative_precision(jacobians: Tensor) -> Tensor:
    """rho = |I - J| / |J| in the Schatten 1-norm, the sum of singular values (Leap appendix D). [*, n, n] -> [*]"""
    exact = jacobians.double()  # singular values near zero add up
    gap = torch.eye(exact.shape[-1], dtype=exact.dtype, device=exact.device) - exact
    return torch.linalg.matrix_norm(gap, "nuc") / torch.linalg.matrix_norm(exact, "nuc")
