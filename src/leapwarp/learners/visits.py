"""Learners for tasks of different shapes, which are trained one at a time: Leap on an encoder, and sequential methods.

A *visit* is one training of a task during meta-training; a task may be visited many times. A task owns some parameters,
at least its head, whose shapes may differ from task to task, and shares the others. So every task is a stack of one
with its own number of steps. Seeds are trained one after another, for the same reason.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from leapwarp.inner import Adapted, Fold, Gradient, Step, Stop, adapt, gradient
from leapwarp.learners.base import Info, Learner, State, one_run
from leapwarp.learners.leap import leap_fold
from leapwarp.optim import Optimizer, cosine_sgd
from leapwarp.problem import Problem, Task, take_tasks
from leapwarp.trees import Params, add_scaled, map_tree, repeat, to_device, zeros_like


class Visit(NamedTuple):
    """How a training task is trained on each visit."""

    steps: int
    """largest number of steps"""
    batches: int
    """batches of an epoch"""
    classes: int
    error: Callable[[Params, Params], Tensor]
    """(all parameters, statistics) -> validation error []"""


class Training(NamedTuple):
    """Settings of training that all tasks share."""

    learning_rate: float
    patience: int
    """a task stops after this many measurements of the validation error without improvement"""
    every: int
    """steps between two measurements; 0 for an epoch"""


class Sharing(NamedTuple):
    """How a method divides parameters into those that tasks share and those that each task owns."""

    new: Callable[[int, torch.Generator], Params]
    """(classes, stream) -> the first values of the parameters that a task owns, without a task axis"""
    join: Callable[[State, int | None, Params, int], tuple[Params, Params]]
    """(state, number of a training task or None, its own parameters, batches of an epoch) -> trained and fixed
    parameters, as stacks of one"""
    keep: Callable[[State, int, Params], State]
    """(state, number, trained parameters, of one task) -> state"""
    gradient: Gradient = gradient
    inner: Callable[[float, int], Optimizer] = cosine_sgd
    """(learning rate, steps) -> the task optimizer"""


def no_better(error: Callable[[Params, Params], Tensor], patience: int, every: int) -> Stop:
    """Stop a stack of one when its validation error has not improved in `patience` consecutive measurements.

    The returned `Stop` remembers the best error, so every visit needs a new one.
    """
    best = float("inf")

    def is_learnt(params: Params, stats: Params, tasks: Task) -> Tensor:
        nonlocal best
        found = float(error(params, stats))
        better, best = found < best, min(found, best)
        return torch.tensor([not better], device=tasks.order.device)

    return Stop(is_learnt, patience * every, every)


def visit(
    problem: Problem,
    training: Training,
    sharing: Sharing,
    state: State,
    number: int,
    own: Params,
    task: Task,
    about: Visit,
    fold: Fold | None = None,
    total: Params | None = None,
) -> Adapted:
    """Train one task, from the state and the parameters that it owns, until it stops."""
    params, fixed = sharing.join(state, number, own, about.batches)
    stop = no_better(about.error, training.patience, training.every or about.batches)
    optimizer = sharing.inner(training.learning_rate, about.steps)
    follow = sharing.gradient
    return adapt(problem, optimizer, params, fixed, task, about.steps, fold, total, stop, gradient=follow)


def single(tasks: Task, number: int) -> Task:
    """One task of a stack, as a stack of one."""
    return take_tasks(tasks, slice(number, number + 1))


def first(stack: Params) -> Params:
    """The parameters of a stack of one."""
    return {name: leaf[0] for name, leaf in stack.items()}


def joined_info(visits: list[Adapted]) -> Info:
    """Losses and accuracies [task, step], nan after a task's last step, and steps [task]."""
    length = max(each.loss.shape[1] for each in visits)

    def padded(curve: Tensor) -> Tensor:
        return torch.nn.functional.pad(curve[0], (0, length - curve.shape[1]), value=torch.nan)

    return {
        "loss": torch.stack([padded(each.loss) for each in visits]),
        "accuracy": torch.stack([padded(each.accuracy) for each in visits]),
        "steps": torch.cat([each.steps for each in visits]),
    }


def encoder_fold(fold: Fold, names: set[str]) -> Fold:
    """`fold` for the path of the parameters `names` only. Others are not in its sum or in the norm of a segment."""

    def part(step: Step) -> Step:
        kept = [{n: leaf for n, leaf in tree.items() if n in names} for tree in (step.params, step.grads)]
        return Step(step.number, kept[0], kept[1], step.loss)

    return lambda total, before, after: fold(total, part(before), part(after))


def encoder_sharing(new: Callable[[int, torch.Generator], Params]) -> Sharing:
    """One encoder, `state["shared"]`, with a head for each task."""

    def join(state: State, number: int | None, own: Params, batches: int) -> tuple[Params, Params]:
        return repeat(state["shared"] | own, 1), {}

    def keep(state: State, number: int, params: Params) -> State:
        shared = {name: params[name] for name in state["shared"]}
        own = {name: leaf for name, leaf in params.items() if name not in shared}
        return state | {"shared": shared, "own": state["own"] | {str(number): own}}

    return Sharing(new, join, keep)


def leap_encoder(
    problem: Problem,
    sharing: Sharing,
    training: Training,
    outer: Optimizer,
    visits: list[Visit],
    length: bool = True,
) -> Learner:
    """Leap on the encoder only. On every visit a task starts with a new random head (Leap appendix G).

    Args:
        outer: the optimizer of the encoder's initialisation, with one update after each meta-batch.
        visits: how each training task is trained, by its number.
        length: minimise the path's length rather than its energy.
    """

    def init(params: Params) -> State:
        device = next(iter(params.values())).device
        return {"shared": params, "outer": outer.init(params), "latest": _unmet(visits, device)}

    def step(state: State, tasks: Task, generators: Sequence[torch.Generator]) -> tuple[State, Info]:
        shared, (generator,) = state["shared"], generators
        fold, total = encoder_fold(leap_fold(length), set(shared)), zeros_like(shared)
        trained, latest = [], state["latest"].clone()
        for i, number in enumerate(tasks.index.tolist()):
            about = visits[number]
            own = to_device(sharing.new(about.classes, generator), tasks.order.device)
            zero = zeros_like(repeat(shared, 1))
            adapted = visit(problem, training, sharing, state, number, own, single(tasks, i), about, fold, zero)
            total = add_scaled(total, 1 / len(tasks.index), first(adapted.total))
            latest[number] = about.error(adapted.params, adapted.stats)
            trained.append(adapted._replace(params={}, total=None))
        shared, outer_state = outer.update(shared, total, state["outer"])
        return {"shared": shared, "outer": outer_state, "latest": latest}, joined_info(trained)

    return one_run(Learner(init, step, _starts_by_join))


def sequential(
    problem: Problem,
    sharing: Sharing,
    training: Training,
    visits: list[Visit],
    owned: list[Params],
    shares: bool = True,
) -> Learner:
    """Tasks are trained one after another, each from the parameters after the visits before.

    There is no distinction between an initialisation and the parameters of a task (Leap appendix G). On its next visit
    a task continues with the parameters that it owns.

    Args:
        owned: the parameters that each training task owns before its first visit.
        shares: whether tasks share the initial parameters of meta-training; if not, these are left out.
    """

    def init(params: Params) -> State:
        own = {str(number): dict(each) for number, each in enumerate(owned)}
        like = next(iter(owned[0].values()))
        met = torch.zeros(len(owned), device=like.device)
        return {"shared": params if shares else {}, "own": own, "met": met, "latest": _unmet(visits, like.device)}

    def step(state: State, tasks: Task, generators: Sequence[torch.Generator]) -> tuple[State, Info]:
        trained, latest = [], state["latest"].clone()
        for i, number in enumerate(tasks.index.tolist()):
            about, own = visits[number], state["own"][str(number)]
            adapted = visit(problem, training, sharing, state, number, own, single(tasks, i), about)
            _, fixed = sharing.join(state, number, own, about.batches)
            latest[number] = about.error({**adapted.params, **fixed}, adapted.stats)
            state = sharing.keep(state, number, map_tree(torch.clone, first(adapted.params)))
            met = state["met"].clone()
            met[number] = 1
            state = state | {"met": met}
            trained.append(adapted._replace(params={}))
        return state | {"latest": latest}, joined_info(trained)

    return one_run(Learner(init, step, _starts_by_join))


def _unmet(visits: list[Visit], device: torch.device) -> Tensor:
    """The state's `latest`, [task]: each task's validation error on its last visit, or 2 before its first one.

    The mean of these errors measures the progress of meta-training. A mean over the tasks of a meta-batch would mostly
    depend on which tasks these are. An error is at most 1, so the mean is not lowest before all tasks have been
    visited.
    """
    return torch.full((len(visits),), 2.0, device=device)


def _starts_by_join(state: State, tasks: Task) -> tuple[Params, Params]:
    raise ValueError("a new task has its own shapes here: begin with `Sharing.join`, and what `Sharing.new` gives it.")
