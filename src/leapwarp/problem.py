"""What the tasks of one family share, and how a function of one stack of tasks is mapped over many.

Everything here carries a leading task axis: a *stack* of one task is the plain, unbatched case. A model that knows
the axis (`leapwarp.models.convnet`) trains all its tasks in one grouped convolution; a user's own `nn.Module` is
given the axis by `lift`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from leapwarp.trees import Params


class Task(NamedTuple):
    """A stack of tasks, with every random choice of their adaptation drawn beforehand."""

    index: Tensor
    """[task] a task's number among the training tasks (finetuning keeps one head for each)"""
    x: Tensor
    """[task, n, *input] training inputs"""
    y: Tensor
    """[task, n]"""
    order: Tensor
    """[task, draw, batch] rows of x that each mini-batch takes"""
    x_test: Tensor
    """[task, m, *input] held-out inputs, ready for the model"""
    y_test: Tensor
    """[task, m]"""
    affine: Tensor | None = None
    """[task, draw, batch, 2, 3] random transforms of the mini-batches, where the inputs are images"""


def stack_tasks(
    data: Sequence[tuple[Tensor, Tensor]],
    draws: int,
    batch: int,
    generator: torch.Generator,
    held_out: Sequence[tuple[Tensor, Tensor]] | None = None,
) -> Task:
    """Tasks from their inputs and targets, (x [n, *input], y [n, *]), with `draws` random mini-batches for each.

    Args:
        held_out: as many pairs, for the tasks' evaluation; where None, the training data serve again.

    Raises:
        ValueError: the tasks differ in their shapes, so that they cannot be stacked.
    """
    fields = []
    for pairs in (data, held_out or data):
        for what, parts in zip(("inputs", "targets"), zip(*pairs, strict=True), strict=True):
            shapes = sorted({tuple(part.shape) for part in parts})
            if len(shapes) != 1:
                raise ValueError(f"the tasks' {what} have shapes {shapes}; a stack needs one shape for all tasks.")
            fields.append(torch.stack(parts))
    x, y, x_test, y_test = fields
    order = torch.randint(x.shape[1], (len(x), draws, batch), generator=generator).to(x.device)
    return Task(torch.arange(len(x), device=x.device), x, y, order, x_test, y_test)


def join_tasks(parts: Sequence[Task]) -> Task:
    """The tasks of several runs in one stack, run by run."""
    if len(parts) == 1:
        return parts[0]
    fields = {name: [getattr(part, name) for part in parts] for name in Task._fields}
    return Task(**{name: torch.cat(field) for name, field in fields.items() if field[0] is not None})


class Batch(NamedTuple):
    x: Tensor
    """[task, batch, *input]"""
    y: Tensor
    """[task, batch]"""


class Model(NamedTuple):
    """A network as functions of its parameters."""

    init: Callable[[torch.Generator], Params]
    """A fresh set of parameters, of one task."""
    stats: Callable[[], Params]
    """Fresh running statistics (batch norm's averages), of one task; empty where the model has none."""
    apply: Callable[..., tuple[Tensor, Params]]
    """(parameters, statistics, x, train) -> (outputs [task, batch, *], statistics), all of them stacks. A model whose
    layers can be watched (`models.convnet`) takes a fifth argument."""


class Loss(NamedTuple):
    loss: Tensor
    """[task] mean over the batch"""
    accuracy: Tensor
    """[task] share of right answers, or nan where the problem has none"""
    stats: Params


class Problem(NamedTuple):
    """A family of tasks: how to draw a mini-batch and what to minimise."""

    draw: Callable[[Task, Tensor, Tensor], Batch]
    """(tasks, who [t], draw [t]) -> the batch number draw[i] of the task number who[i]"""
    loss: Callable[[Params, Params, Batch], Loss]
    """Training loss with the batch's own statistics, twice differentiable."""
    evaluate: Callable[[Params, Params, Batch], Loss]
    """The same on held-out data, with the running statistics gathered on the task."""
    stats: Callable[[], Params]


def cross_entropy(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and accuracy of each task. outputs [task, batch, class], y [task, batch] -> [task], [task]"""
    losses = F.cross_entropy(outputs.flatten(0, 1), y.flatten(), reduction="none")
    right = (outputs.detach().argmax(-1) == y).to(outputs.dtype)
    return losses.view(y.shape).mean(1), right.mean(1)


def mean_square(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Half the mean squared error of each task; there is no accuracy (nan). outputs and y [task, batch, *]"""
    loss = 0.5 * (outputs - y).square().flatten(1).mean(1)
    return loss, torch.full_like(loss, float("nan")).detach()


def rows(tasks: Task, who: Tensor, draw: Tensor) -> Batch:
    """The mini-batches as they lie in the data, without any transform."""
    picked = tasks.order[who, draw]  # [t, batch]
    return Batch(tasks.x[who[:, None], picked], tasks.y[who[:, None], picked])


def supervised(
    model: Model,
    loss: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = cross_entropy,
    draw: Callable[[Task, Tensor, Tensor], Batch] = rows,
) -> Problem:
    """The problem of fitting `model` to tasks of inputs and targets."""

    def compute(params: Params, stats: Params, batch: Batch, train: bool) -> Loss:
        outputs, stats = model.apply(params, stats, batch.x, train)
        value, accuracy = loss(outputs, batch.y)
        return Loss(value, accuracy, stats)

    return Problem(
        draw=draw,
        loss=lambda params, stats, batch: compute(params, stats, batch, True),
        evaluate=lambda params, stats, batch: compute(params, stats, batch, False),
        stats=model.stats,
    )


def lift(module: nn.Module) -> Model:
    """Make a `Model` of a module written for one task; its present weights are the first initialisation.

    A stack of several tasks runs under `torch.vmap`, a stack of one without it.
    """

    def apply(params: Params, stats: Params, x: Tensor, train: bool) -> tuple[Tensor, Params]:
        module.train(train)

        def one(params: Params, stats: Params, x: Tensor) -> tuple[Tensor, Params]:
            stats = {name: leaf.clone() for name, leaf in stats.items()}  # modules write into their buffers
            return functional_call(module, (params, stats), (x,)), stats

        if x.shape[0] == 1:
            single = [{name: leaf[0] for name, leaf in tree.items()} for tree in (params, stats)]
            outputs, stats = one(single[0], single[1], x[0])
            return outputs[None], {name: leaf[None] for name, leaf in stats.items()}
        return torch.vmap(one, randomness="different")(params, stats, x)

    return Model(
        init=lambda generator: {n: p.detach().clone() for n, p in module.named_parameters()},
        stats=lambda: {n: b.detach().clone() for n, b in module.named_buffers()},
        apply=apply,
    )


def map_tasks(function: Callable[[Task, slice], Any], tasks: Task, size: int) -> Any:
    """Apply `function` to at most `size` tasks at a time and join the results along the task axis.

    `size=1` is a plain loop, `size=len(tasks)` one call. The result is a tensor, or a dictionary or tuple of results.
    `function` also gets the slice that its tasks are of the whole.
    """
    if size < 1:
        raise ValueError(f"tasks are mapped at least one at a time, got size {size}.")
    n_tasks = len(tasks.index)
    slices = [slice(first, min(first + size, n_tasks)) for first in range(0, n_tasks, size)]
    return _join([function(take_tasks(tasks, part), part) for part in slices])


def take_tasks(tasks: Task, part: slice) -> Task:
    """Some tasks of a stack."""
    return tasks._replace(**{name: field[part] for name, field in tasks._asdict().items() if field is not None})


def _join(results: list[Any]) -> Any:
    first = results[0]
    if len(results) == 1 or first is None:
        return first
    if isinstance(first, Tensor):
        return torch.cat(results)
    if isinstance(first, dict):
        return {name: _join([result[name] for result in results]) for name in first}
    joined = [_join(list(parts)) for parts in zip(*results, strict=True)]
    return type(first)(*joined) if hasattr(first, "_fields") else tuple(joined)
