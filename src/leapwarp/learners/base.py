"""What a meta-learner is: a tuple of functions.

Every tensor of a state is a stack of runs, [run, ...]. Runs, such as several seeds, train in parallel. Each has its own
initialisation and its own tasks, and gives the same results as if it were alone. The tasks of a meta-batch are
[run x task, ...], run by run. A single run is a stack of one.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import Tensor

from leapwarp.inner import Adapted, first_bad
from leapwarp.modules import kind_of
from leapwarp.optim import Optimizer
from leapwarp.problem import Task, take_tasks
from leapwarp.rng import global_draws_from
from leapwarp.trees import Params, alone, join, leaves, n_runs, pick, spread, without_task_only

State = dict[str, Any]
Info = dict[str, Any]
Step = Callable[[State, Task, Sequence[torch.Generator]], tuple[State, Info]]


class _Functions(NamedTuple):
    init: Callable[[Params], State]
    """parameters [run, ...] -> state: the meta-parameters and the outer optimizer's own state"""
    step: Step
    """(state, tasks, a stream of random numbers for each run) -> state, info: one meta-update of each run, from its
    part of the meta-batch. Info has the entries of `path_info` and those that the method adds, run by run."""
    start: Callable[[State, Task], tuple[Params, Params]]
    """(state, tasks) -> stacks of the adaptable and of the fixed parameters from which new tasks start"""
    draws: int = 1
    """mini-batches of every task that one meta-update needs"""
    optimizer: Callable[[State], Optimizer] | None = None
    """(state of one run) -> the task optimizer that was learnt; None if the method does not learn one"""


class Learner(_Functions):
    """A meta-learner.

    Its step raises ValueError for tasks with too few mini-batches, and `Diverged` if every run has a loss that is not
    finite. Dropout and other global draws of the step come from the streams that it is given.
    """

    __slots__ = ()

    def __new__(
        cls,
        init: Callable[[Params], State],
        step: Step,
        start: Callable[[State, Task], tuple[Params, Params]],
        draws: int = 1,
        optimizer: Callable[[State], Optimizer] | None = None,
    ) -> "Learner":
        return super().__new__(cls, begun(init), checked(step, draws), started(start), draws, optimizer)


def begun(init: Callable[[Params], State]) -> Callable[[Params], State]:
    """A learner's `init` with a check of what it is given."""

    @wraps(init)
    def whole(params: Params) -> State:
        if not isinstance(params, dict) or not all(isinstance(leaf, Tensor) for leaf in params.values()):
            raise TypeError(
                f"the parameters are {kind_of(params)}; needed a dictionary of stacks with a row for each run: "
                "leapwarp.trees.alone(model.init(generator)) for one run."
            )
        return init(params)

    return whole


def started(start: Callable[[State, Task], tuple[Params, Params]]) -> Callable[[State, Task], tuple[Params, Params]]:
    """A learner's `start` with a check of the state."""

    @wraps(start)
    def whole(state: State, tasks: Task) -> tuple[Params, Params]:
        check_state(state)
        return start(state, tasks)

    return whole


def check_state(state: State) -> None:
    """Raise TypeError if `state` is not what a learner's `init` gives, which has dictionaries of parameters."""
    if not isinstance(state, dict) or not any(isinstance(part, dict) for part in state.values()):
        found = "a dictionary without parameters in groups" if isinstance(state, dict) else kind_of(state)
        raise TypeError(f"the state is {found}; needed that of learner.init(params), or of the step before.")


def check_streams(state: State, generators: Sequence[torch.Generator]) -> None:
    """Raise ValueError if there is not one random stream for each run."""
    runs = n_runs(state)
    if runs != len(generators):
        raise ValueError(
            f"{len(generators)} generators, and a state of {runs} runs; needed one for each run. The state of a single "
            "run is learner.init(leapwarp.trees.alone(model.init(generator)))."
        )


class Diverged(FloatingPointError):
    """Every run of a stack has a loss, or a number in what it has learnt, that is not finite.

    `after` is the result of the step.
    """

    def __init__(self, message: str, after: tuple[State, Info]) -> None:
        super().__init__(message)
        self.after = after


def checked(step: Step, draws: int) -> Step:
    """A learner's step with the checks and random streams that all learners have, see `Learner`."""
    in_turn = False  # whether the step makes global draws (dropout), so that each run needs its own stream

    @wraps(step)
    def whole(state: State, tasks: Task, generators: Sequence[torch.Generator]) -> tuple[State, Info]:
        are_streams = isinstance(generators, list | tuple) and all(isinstance(g, torch.Generator) for g in generators)
        if not hasattr(tasks, "_fields") or not are_streams or not generators:
            found = f"a list of {len(generators)}" if isinstance(generators, list) else kind_of(generators)
            raise TypeError(
                f"tasks are {kind_of(tasks)} and generators {found}; needed tasks of stack_tasks, and a list of "
                "generators, one for each run."
            )
        check_state(state)
        if isinstance(tasks, Task) and tasks.order.shape[1] < draws:
            raise ValueError(
                f"a step of this learner needs {draws} mini-batches of every task; the tasks have "
                f"{tasks.order.shape[1]}. Draw them with stack_tasks(data, learner.draws, ...)."
            )
        nonlocal in_turn
        if not in_turn:
            before = [each.get_state() for each in generators]
            with global_draws_from(generators) as drawn:
                after, info = step(state, tasks, generators)
                in_turn = len(generators) > 1 and isinstance(tasks, Task) and drawn()
            for each, was in zip(generators, before, strict=True) if in_turn else ():
                each.set_state(was)
        if in_turn:
            after, info = each_run(step, state, tasks, generators)
        state = after
        if bad := everywhere_bad(info, len(generators)):
            raise Diverged(f"{bad} Needed finite losses: lower the task or meta learning rate.", (state, info))
        if not any(are_finite(state, len(generators))):
            raise Diverged(
                "what was learnt is not finite after this step, though the losses along the paths are. Needed finite "
                "numbers: lower the task or meta learning rate.",
                (state, info),
            )
        return state, info

    return whole


def each_run(step: Step, state: State, tasks: Task, generators: Sequence[torch.Generator]) -> tuple[State, Info]:
    """Make the step of each run of a stack separately, with global draws from the run's own stream."""
    check_streams(state, generators)
    n_tasks, found = len(tasks.index) // len(generators), []
    for run, stream in enumerate(generators):
        with global_draws_from([stream]):
            own = take_tasks(tasks, slice(run * n_tasks, (run + 1) * n_tasks))
            found.append(step(pick(state, [run]), own, [stream]))
    states, infos = zip(*found, strict=True)
    return join(states), join(infos)


def everywhere_bad(info: Info, runs: int) -> str:
    """A sentence on the first loss that is not finite, if every run has such a loss; else an empty text."""
    said = []
    if "loss" in info and "steps" in info and (bad := first_bad(info["loss"], info["steps"])):
        said.append(f"the training loss of task {bad[0]} is {info['loss'][bad].item()} at step {bad[1]}.")
    replayed = info.get("replay_loss", torch.zeros(1))
    if not replayed.isfinite().all():
        said.append("the meta-loss of the warps is not finite.")
    if not said:
        return ""
    fine = torch.ones(runs, dtype=torch.bool, device=replayed.device)
    if "loss" in info:
        taken = torch.arange(info["loss"].shape[1], device=replayed.device) < info["steps"][:, None]
        fine &= (~taken | info["loss"].isfinite()).view(runs, -1).all(1)
    if "replay_loss" in info:
        fine &= replayed.isfinite().view(runs, -1).all(1)
    return "" if fine.any() else said[0]


def are_finite(state: State, runs: int) -> list[bool]:
    """For each run, whether every number of its state is finite, with one transfer from the device."""
    parts = [leaf.isfinite().reshape(runs, -1).all(1) for leaf in leaves(state).values() if leaf.numel()]
    return torch.stack(parts).all(0).tolist() if parts else [True] * runs


def path_info(adapted: Adapted) -> Info:
    """The info of every meta-update: losses and accuracies [run x task, step], nan after a stop, and steps taken."""
    return {"loss": adapted.loss, "accuracy": adapted.accuracy, "steps": adapted.steps}


def gradient_learner(
    meta_gradient: Callable[[Params, Task], tuple[Params, Info]], outer: Optimizer, draws: int
) -> Learner:
    """A learner that learns only an initialisation, from its meta-gradient. Most methods have this form.

    Args:
        meta_gradient: (parameters [run, ...], tasks) -> gradient [run, ...], info.
    """

    def init(params: Params) -> State:
        return {"params": params, "outer": outer.init(params)}

    def step(state: State, tasks: Task, generators: Sequence[torch.Generator]) -> tuple[State, Info]:
        check_streams(state["params"], generators)
        made = meta_gradient(state["params"], tasks)
        if not isinstance(made, tuple) or [isinstance(each, dict) for each in made] != [True, True]:
            raise TypeError(
                f"the function of the meta-gradient returns {kind_of(made)}; needed a pair: gradient, info."
            )
        grads, info = made
        for name, leaf in grads.items():
            if leaf.shape != state["params"][name].shape:
                raise ValueError(
                    f"the meta-gradient of {name} has shape {list(leaf.shape)}; needed "
                    f"{list(state['params'][name].shape)}, with a row for each run: a mean over all tasks mixes the "
                    "runs. leapwarp.trees.mean_rows(gradients, n_runs(params)) has the mean over those of each run."
                )
        params, outer_state = outer.update(state["params"], without_task_only(grads), state["outer"])
        return {"params": params, "outer": outer_state}, info

    def start(state: State, tasks: Task) -> tuple[Params, Params]:
        return spread(state["params"], len(tasks.index)), {}

    return Learner(init, step, start, draws)


def one_run(learner: Learner) -> Learner:
    """A learner for stacks of one run, from a learner that is written for one run without the run axis.

    Raises:
        ValueError: it is given several runs.
    """

    def init(params: Params) -> State:
        if n_runs(params) != 1:
            raise ValueError(f"this learner trains one run at a time, got {n_runs(params)}; fit them in turn.")
        return alone(learner.init(pick(params, 0)))

    def step(state: State, tasks: Task, generators: Sequence[torch.Generator]) -> tuple[State, Info]:
        try:
            after, info = learner.step(pick(state, 0), tasks, generators)
        except Diverged as error:
            raise Diverged(str(error), (alone(error.after[0]), error.after[1])) from None
        return alone(after), info

    return learner._replace(init=init, step=step, start=lambda state, tasks: learner.start(pick(state, 0), tasks))
