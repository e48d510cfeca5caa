"""What both fronts share: the meta-gradient of one path, and the block of a task."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from types import TracebackType
from typing import Any, Generic, ParamSpec, TypeVar

import torch
from torch import Tensor

# One launch for all tensors; public only through torch.optim.
foreach_add_, foreach_copy_, foreach_mul_, foreach_norm, foreach_sub_, foreach_zero_ = (
    getattr(torch, f"_foreach_{name}") for name in ("add_", "copy_", "mul_", "norm", "sub_", "zero_")
)


P = ParamSpec("P")
T = TypeVar("T")


class Block(AbstractContextManager[T], Generic[T]):
    """What `task()` of a front returns: the context of a task, for `with`. It has no other use."""

    def __init__(self, opened: AbstractContextManager[T]) -> None:
        self._opened = opened

    def __enter__(self) -> T:
        return self._opened.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        return self._opened.__exit__(kind, error, trace)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"the task is not open, and has no {name}; needed `with meta.task() as task:`, and task.{name} inside."
        )


def block(function: Callable[P, Iterator[T]]) -> Callable[P, Block[T]]:
    """As `contextlib.contextmanager`, with a message that tells of `with` where it was forgotten."""
    managed = contextmanager(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Block[T]:
        return Block(managed(*args, **kwargs))

    return call


class Path:
    """Sums up Leap's meta-gradient along one path, as `leapwarp.learners.leap.leap_fold` does for stacks.

    It keeps the last point, its gradient (if the loss is part of the path) and the sum. These are three copies of the
    parameters, however long the path is.

    Args:
        like: the parameters. length, loss, stabiliser: see `leap_fold`.
    """

    def __init__(self, like: Sequence[Tensor], length: bool, loss: bool, stabiliser: bool) -> None:
        self.options = length, loss, stabiliser
        self.total, self.point = ([zero_sum(leaf) for leaf in like] for _ in range(2))
        self.grads = [zero_sum(leaf) for leaf in like] if loss else []
        self.last: Tensor | None = None  # the loss at the point, []
        self.losses: Tensor | float = 0.0
        self.length: Tensor | float = 0.0
        self.still: Tensor | int = 0  # segments on which no parameter has moved
        self.steps = 0

    @torch.no_grad()
    def extend(self, params: Sequence[Tensor], loss: Tensor, grads: Sequence[Tensor | None] | None) -> None:
        """Add the segment from the last point to `params`.

        Args:
            loss: [] at `params`.
            grads: the gradient at `params`, where None for a parameter means 0; None at the path's end.

        Raises:
            FloatingPointError: the loss at the last point was not finite, or the loss at the path's end is not.
        """
        loss = number(loss)
        if self.last is not None:
            self._check(self.last, self.steps - 1)  # the device has computed this one by now
            self._segment(params, self.last, loss)
        if grads is None:
            self._check(loss, self.steps)
            return
        foreach_copy_(self.point, list(params))
        if self.grads:
            given = [(ours, theirs) for ours, theirs in zip(self.grads, grads, strict=True) if theirs is not None]
            if len(given) < len(self.grads):
                foreach_zero_(self.grads)
            foreach_copy_([ours for ours, _ in given], [dense(theirs) for _, theirs in given])
        self.last, self.losses, self.steps = loss, self.losses + loss, self.steps + 1

    def _segment(self, params: Sequence[Tensor], last: Tensor, loss: Tensor) -> None:
        """Leap equation 8, see `leap_fold`: total -= (d_theta + d_f grad f) / norm."""
        length, with_loss, stabiliser = self.options
        foreach_sub_(self.point, list(params))  # -d_theta
        squares = torch.stack(foreach_norm(self.point)).square().sum()
        rise = (loss - last).to(squares)
        rise = -rise.abs() if stabiliser else rise
        rise = rise if with_loss else torch.zeros_like(rise)
        norm = (squares + rise.square()).sqrt()
        scale = torch.where(norm > 0, 1 / norm, 0.0) if length else torch.ones_like(norm)
        self.length, self.still = self.length + norm, self.still + (squares == 0)
        _add(self.total, scale, self.point)
        if with_loss:
            _add(self.total, -scale * rise, self.grads)

    def _check(self, loss: Tensor, step: int) -> None:
        if not loss.isfinite():
            raise FloatingPointError(
                f"the loss of this task is {loss.item()} at step {step}; needed a finite one. Lower the task's "
                "learning rate, or clip its gradient. This task contributes nothing."
            )


def dense(grad: Tensor) -> Tensor:
    """A gradient as a dense tensor. Embeddings may have sparse gradients, which the formulas do not take."""
    return grad.to_dense() if grad.is_sparse else grad


def number(loss: Tensor) -> Tensor:
    """A copy of a loss in float32 or its more precise type. A loop may reuse the tensor itself."""
    return loss.detach().to(torch.promote_types(loss.dtype, torch.float32), copy=True)


def zero_sum(leaf: Tensor) -> Tensor:
    """Zeros with which a sum over steps, points or tasks begins, in float32 or the parameter's more precise type."""
    return torch.zeros_like(leaf, dtype=torch.promote_types(leaf.dtype, torch.float32), requires_grad=False)


def _add(total: list[Tensor], scale: Tensor, tree: list[Tensor]) -> None:
    """total += scale * tree, without waiting for a GPU. `tree` may be overwritten."""
    if scale.device.type == "cpu":
        foreach_add_(total, tree, alpha=scale.item())  # one pass through memory, not two
    else:
        foreach_mul_(tree, scale)
        foreach_add_(total, tree)
