"""Progressive Nets with laterals between all tasks and revisits (Leap appendix G): a task trains its own column."""

from collections.abc import Callable

import torch

from leapwarp.learners.base import State
from leapwarp.learners.visits import Sharing
from leapwarp.trees import Params, repeat


def progressive_sharing(
    new: Callable[[int, torch.Generator], Params], constants: Callable[[list[Params], int | None], Params]
) -> Sharing:
    """Tasks share nothing that moves: each owns a column, and the others' are constants while it is trained.

    Args:
        new: (classes, stream) -> a new column.
        constants: (all columns, the number of the one that is trained or None) -> the others, a stack of one.
    """

    def join(state: State, number: int | None, own: Params, batches: int) -> tuple[Params, Params]:
        all_columns = [state["own"][str(i)] for i in range(len(state["own"]))]
        return repeat(own, 1), constants(all_columns, number)

    def keep(state: State, number: int, params: Params) -> State:
        return state | {"own": state["own"] | {str(number): params}}

    return Sharing(new, join, keep)
