"""No pretraining: every task starts from the same random initialisation."""

from leapwarp.learners.base import Info, Learner, State
from leapwarp.problem import Task
from leapwarp.trees import repeat


def scratch() -> Learner:
    """A learner that learns nothing; `fit` has nothing to do for it."""

    def step(state: State, tasks: Task, generator: object) -> tuple[State, Info]:
        return state, {}

    return Learner(lambda params: {"params": params}, step, lambda s, t: (repeat(s["params"], len(t.index)), {}))
