"""No pretraining: every task starts from the same random initialisation."""

from collections.abc import Sequence

import torch

from leapwarp.learners.base import Info, Learner, State
from leapwarp.problem import Task
from leapwarp.trees import spread


def scratch() -> Learner:
    """A learner without meta-training: its step changes nothing."""

    def step(state: State, tasks: Task, generators: Sequence[torch.Generator]) -> tuple[State, Info]:
        return state, {}

    return Learner(lambda params: {"params": params}, step, lambda s, t: (spread(s["params"], len(t.index)), {}))
