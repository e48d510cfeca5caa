"""MAML and methods that also backpropagate through adaptation: Meta-SGD, CAVIA, T-Nets.

All use the same inner loop as the other methods. They differ in which parameters are adapted, by which optimizer, and
what else is learnt. A function called `unfold` defines this for each method.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from leapwarp import inner as loop
from leapwarp.given import check_given
from leapwarp.inner import Stop, adapt, fresh_stats
from leapwarp.learners.base import Info, Learner, State, gradient_learner, path_info
from leapwarp.modules import check_once_only, told
from leapwarp.optim import Optimizer, scaled_sgd
from leapwarp.problem import Batch, Loss, Problem, Task, held_out_batch, map_tasks
from leapwarp.trees import Params, map_tree, mean_rows, n_runs, partition, spread, take

Unfold = Callable[[Params], tuple[Params, Params, Optimizer]]
"""meta-parameters, a stack -> the task's initial parameters, its fixed parameters, and the task optimizer, all of them
differentiable in the meta-parameters"""


def _first_order(
    problem: Problem, params: Params, fixed: Params, stats: Params, batch: Batch, differentiable: bool
) -> tuple[Loss, Params]:
    """`leapwarp.inner.gradient` without its graph, so that it is a constant in later derivatives."""
    return loop.gradient(problem, params, fixed, stats, batch, False)


@told()
def row_gradients(
    problem: Problem,
    unfold: Unfold,
    params: Params,
    tasks: Task,
    steps: int,
    stop: Stop | None = None,
    order: int = 2,
    observe: Callable[[int, Params, Params], None] | None = None,
) -> tuple[Params, Info]:
    """The gradient, through `steps` updates, of the loss on each task's held-out data.

    Batch norm uses the held-out data's own statistics. Memory grows with `steps`.

    Args:
        params: meta-parameters [task, ...], a row for each task.
        order: 2, or 1 to treat the task gradients as constants.
        observe: as in `adapt`.

    Returns:
        gradients [task, ...] shaped as `params`, and the info of `path_info`.
    """
    learnt = {n: leaf.detach().requires_grad_() for n, leaf in params.items()}
    start, fixed, inner = unfold(learnt)
    adapted = adapt(
        problem,
        inner,
        start,
        fixed,
        tasks,
        steps,
        stop=stop,
        observe=observe,
        differentiable=True,
        gradient=loop.gradient if order == 2 else _first_order,
    )
    stats = fresh_stats(problem, len(tasks.index), tasks.order.device)
    query = problem.loss({**adapted.params, **fixed}, stats, held_out_batch(tasks))
    if order == 2:
        check_once_only([query.loss])
    grads = torch.autograd.grad(query.loss.sum(), list(learnt.values()))
    return dict(zip(learnt, grads, strict=True)), path_info(adapted)


def query_gradient(
    problem: Problem, unfold: Unfold, steps: int, size: int, stop: Stop | None = None, order: int = 2
) -> Callable[[Params, Task], tuple[Params, Info]]:
    """`row_gradients` from the meta-parameters of each run, averaged over its tasks."""
    if order not in (1, 2):
        raise ValueError(f"order is {order}, needed 2 or 1.")

    def meta_gradient(params: Params, tasks: Task) -> tuple[Params, Info]:
        rows = spread(params, len(tasks.index))

        def one(tasks: Task, part: slice) -> tuple[Params, Info]:
            return row_gradients(problem, unfold, take(rows, part), tasks, steps, stop, order)

        grads, info = map_tasks(one, tasks, size)
        return mean_rows(grads, n_runs(params)), info

    return meta_gradient


@check_given
def maml(
    problem: Problem,
    inner: Optimizer,
    outer: Optimizer,
    steps: int,
    size: int = 5,
    stop: Stop | None = None,
    order: int = 2,
) -> Learner:
    """MAML (Finn et al., 2017): the gradient, through all updates, of the loss on the task's held-out data.

    Batch norm uses the held-out data's own statistics. Memory grows with `steps`.

    Args:
        problem, inner, outer, steps, size, stop: as in `leap`.
        order: 2, or 1 for the first-order approximation, which is the gradient on the held-out data at theta_K.
    """
    unfold = lambda learnt: (learnt, {}, inner)  # noqa: E731
    return gradient_learner(query_gradient(problem, unfold, steps, size, stop, order), outer, steps)


@check_given
def tnets(problem: Problem, inner: Optimizer, outer: Optimizer, steps: int, size: int = 5) -> Learner:
    """T-Nets (Lee and Choi, 2018): MAML that also learns the layers `warp.*`, which are fixed within a task."""

    def unfold(learnt: Params) -> tuple[Params, Params, Optimizer]:
        fixed, theta = partition(learnt, "warp")
        return theta, fixed, inner

    learner = gradient_learner(query_gradient(problem, unfold, steps, size), outer, steps)

    def start(state: State, tasks: Task) -> tuple[Params, Params]:
        fixed, theta = partition(state["params"], "warp")
        return spread(theta, len(tasks.index)), spread(fixed, len(tasks.index))

    return learner._replace(start=start)


@check_given
def metasgd(problem: Problem, learning_rate: float, outer: Optimizer, steps: int, size: int = 5) -> Learner:
    """Meta-SGD (Li et al., 2017): MAML that also learns a task learning rate for every parameter.

    Args:
        problem, outer, steps, size: as in `leap`.
        learning_rate: the initial value of all task learning rates.
    """

    def split(learnt: Params) -> tuple[Params, Params]:
        rates, theta = partition(learnt, "rate")
        return theta, {name.removeprefix("rate."): leaf for name, leaf in rates.items()}

    def unfold(learnt: Params) -> tuple[Params, Params, Optimizer]:
        theta, rates = split(learnt)
        return theta, {}, scaled_sgd(rates)

    learner = gradient_learner(query_gradient(problem, unfold, steps, size), outer, steps)

    def init(params: Params) -> State:
        rates = {f"rate.{name}": torch.full_like(leaf, learning_rate) for name, leaf in params.items()}
        return learner.init(params | rates)

    def start(state: State, tasks: Task) -> tuple[Params, Params]:
        return spread(split(state["params"])[0], len(tasks.index)), {}

    return Learner(init, learner.step, start, steps, lambda state: scaled_sgd(split(state["params"])[1]))


@check_given
def cavia(problem: Problem, inner: Optimizer, outer: Optimizer, steps: int, size: int = 5) -> Learner:
    """CAVIA (Zintgraf et al., 2019): a task adapts only `context`, from 0. All other parameters are meta-learned.

    The model takes a parameter `context` [task, context size], and has `film.weight` [*, context size], which turns it
    into scales and shifts, as `leapwarp.models.conv4` with a context has.

    Raises:
        ValueError: the model has no `film.weight`.
    """

    def begin(shared: Params) -> Params:
        if "film.weight" not in shared:
            raise ValueError(
                "the model has no parameter film.weight, whose last axis is the size of the context; needed a model "
                "with a context for each task, such as leapwarp.models.conv4 with Extra(context=100)."
            )
        context = shared["film.weight"]
        return {"context": context.new_zeros(*context.shape[:-2], context.shape[-1])}

    def unfold(learnt: Params) -> tuple[Params, Params, Optimizer]:
        return map_tree(Tensor.requires_grad_, begin(learnt)), learnt, inner

    learner = gradient_learner(query_gradient(problem, unfold, steps, size), outer, steps)

    def init(params: Params) -> State:
        return learner.init({name: leaf for name, leaf in params.items() if name != "context"})

    def start(state: State, tasks: Task) -> tuple[Params, Params]:
        shared = spread(state["params"], len(tasks.index))
        return begin(shared), shared

    return learner._replace(init=init, start=start)
