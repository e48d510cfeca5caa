"""Progressive Nets with lateral connections between all tasks (Leap appendix G). A task trains only its own column.

Tasks may be trained more than once, in contrast to the original method.
"""

from collections.abc import Callable

import torch

from leapwarp.learners.base import State
from leapwarp.learners.visits import Sharing
from leapwarp.trees import Params, repeat


def progressive_sharing(
    new: Callable[[int, torch.Generator], Params], constants: Callable[[list[Params], int | None], Params]
) -> Sharing:
    """Tasks share no trained parameters. Each owns a column, and the other columns are constant while it is trained.

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
