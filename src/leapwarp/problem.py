"""Tasks, models and losses of one family of tasks, and functions mapped over stacks of tasks.

All tensors have a leading task axis. A *stack* is a set of tasks along this axis, and may have only one. A model that
is written for the axis (`leapwarp.models.convnet`) trains all tasks in one grouped convolution. `lift` adds the axis to
an `nn.Module` that was written for one task.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from leapwarp.modules import (
    Chosen,
    Groups,
    groups,
    kept_attributes,
    kind_of,
    modes,
    plain,
    shortened,
    with_tensors,
    without_cudnn,
)
from leapwarp.rng import global_draws_from
from leapwarp.trees import TASK_ONLY, Params, leaves, map_leaves, n_runs, take


class Task(NamedTuple):
    """A stack of tasks. All random choices of their adaptation are drawn beforehand."""

    index: Tensor
    """[task] a task's number among the training tasks (finetuning keeps one head for each)"""
    x: Any
    """[task, n, *input] training inputs, or a dictionary of such tensors, which is passed to the module"""
    y: Tensor
    """[task, n]"""
    order: Tensor
    """[task, draw, batch] the rows of x in each mini-batch"""
    x_test: Any
    """[task, m, *input] held-out inputs, already transformed for the model; or a dictionary of such tensors"""
    y_test: Tensor
    """[task, m]"""
    affine: Tensor | None = None
    """[task, draw, batch, 2, 3] random transforms of the mini-batches, where the inputs are images"""
    n_test: Tensor | None = None
    """[task] held-out rows of each task, where they differ; the rows after them in x_test and y_test are padding"""


def stack_tasks(
    data: Iterable[Any],
    draws: int,
    batch: int,
    generator: torch.Generator,
    held_out: Iterable[Any] | None = None,
    item: Callable[[Any], tuple[Any, Any]] | None = None,
    index: Sequence[int] | Tensor | None = None,
) -> Task:
    """A stack of tasks from their data, with `draws` random mini-batches for each.

    Tasks may have different numbers of rows: all are padded to the largest. Padding is never drawn in a mini-batch.
    Among held-out data its labels are -100, or 0 where they are no whole numbers, and `n_test` has the number of rows
    before it. A problem of `supervised` computes each task's held-out loss on these rows alone.

    Args:
        data: for each task a pair (x [n, *input], y [n, *]), or a data set of PyTorch's kind (`len` and items x, y).
            Inputs may be dictionaries of tensors, for modules that take one.
        draws: mini-batches of each task: `learner.draws` for a step of a learner, as many as steps for `adapt`.
        batch: rows of a mini-batch, drawn with replacement.
        generator: the random stream of the mini-batches.
        held_out: for each task the data of its evaluation, in the same form; None for the training data.
        item: (an item of a data set) -> x, y, if items are not pairs but, for example, dictionaries.
        index: each task's number among the training tasks, by which `finetune` keeps its head; None for 0, 1, 2 and so
            on. Give it where the tasks are a sample of the training tasks.

    Raises:
        ValueError: there are no tasks; the number of held-out sets differs from that of tasks; the numbers of inputs
            and targets of a task differ; a task has no rows; the shapes of rows differ between tasks; or the index is
            not a number for each task.

    Examples:
        >>> import torch, leapwarp
        >>> rng = torch.Generator().manual_seed(0)
        >>> data = [(torch.rand(n, 3), torch.zeros(n, dtype=torch.long)) for n in (20, 30)]
        >>> tasks = leapwarp.stack_tasks(data, draws=5, batch=10, generator=rng)
        >>> list(tasks.x.shape), list(tasks.order.shape)
        ([2, 30, 3], [2, 5, 10])
    """
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"the generator is {kind_of(generator)}; needed a torch.Generator.")
    if not isinstance(draws, int) or not isinstance(batch, int) or not (item is None or callable(item)):
        raise TypeError(
            f"draws are {kind_of(draws)}, batch {kind_of(batch)} and item {kind_of(item)}; needed two whole numbers "
            "(draws: learner.draws), and a function of an item or None."
        )
    data, held_out = list(data), None if held_out is None else list(held_out)
    if held_out is not None and len(held_out) != len(data):
        raise ValueError(f"{len(held_out)} held-out sets for {len(data)} tasks; needed one for each.")
    if not len(data) or draws < 1 or batch < 1:
        raise ValueError(f"{len(data)} tasks, {draws} draws, batches of {batch}; needed at least 1 of each.")
    pairs = [_pair(each, item, f"task {i}") for i, each in enumerate(data)]
    tests = [_pair(e, item, f"held-out set {i}") for i, e in enumerate(held_out)] if held_out is not None else pairs
    lengths = [len(y) for _, y in pairs]
    x, x_test = (_filled_inputs([x for x, _ in each]) for each in (pairs, tests))
    y = _filled([y for _, y in pairs], "targets", 0)
    held = [len(y) for _, y in tests]
    y_test = _filled([y for _, y in tests], "targets", 0 if tests[0][1].is_floating_point() else IGNORED)
    n_test = torch.tensor(held, device=y.device) if len(set(held)) > 1 else None
    if len(set(lengths)) == 1:
        order = torch.randint(lengths[0], (len(y), draws, batch), generator=generator)
    else:
        order = torch.stack([torch.randint(n, (draws, batch), generator=generator) for n in lengths])
    return Task(_numbers(index, len(y)).to(y.device), x, y, order.to(y.device), x_test, y_test, n_test=n_test)


def _numbers(index: Sequence[int] | Tensor | None, n_tasks: int) -> Tensor:
    """The tasks' numbers among the training tasks."""
    if index is None:
        return torch.arange(n_tasks)
    found = [float(i) for i in index] if isinstance(index, Iterable) else []
    if len(found) != n_tasks or not all(i >= 0 and i.is_integer() for i in found):
        raise ValueError(
            f"the index is {' '.join(str(index).split())[:80]}; needed a whole number for each of the {n_tasks} tasks: "
            "its number among the training tasks, from 0."
        )
    return torch.tensor([int(i) for i in found])


def _pair(data: Any, item: Callable[[Any], tuple[Any, Any]] | None, what: str) -> tuple[Any, Tensor]:
    """The inputs and targets of one task, as tensors with one row for each example."""
    is_pair = isinstance(data, tuple | list) and len(data) == 2
    is_pair = is_pair and isinstance(data[0], Tensor | dict) and isinstance(data[1], Tensor)
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__"):
        raise ValueError(
            f"{what}: found {type(data).__name__}; needed tensors (x, y), or a data set with len and items."
        )
    if not is_pair or item:
        items = [item(data[i]) if item else data[i] for i in range(len(data))]
        if not items or not all(isinstance(each, tuple | list) and len(each) == 2 for each in items):
            found = type(items[0]).__name__ if items else "no item"
            raise ValueError(
                f"{what}: found {found}; needed tensors (x, y), or a data set of such pairs, or "
                "item=lambda item: (item['image'], ...)."
            )
        data = tuple(_stacked(parts) for parts in zip(*items, strict=True))
    x, y = data
    if not all(leaf.dim() for leaf in [y, *leaves(x, "x").values()]):
        raise ValueError(
            f"{what}: found a single example; needed tensors (x, y) with a row for each, or a data set of such "
            "pairs. One data set or pair is given as a list of one task: [data]."
        )
    lengths = sorted({len(leaf) for leaf in leaves(x, "x").values()})
    if lengths != [len(y)] or not len(y):
        found = " and ".join(map(str, lengths)) or "no"
        raise ValueError(f"{what} has {found} inputs and {len(y)} targets; needed as many of both, and one at least.")
    return x, y


def _stacked(parts: Sequence[Any]) -> Any:
    """Items in one tensor or, if they are dictionaries, in one tensor for each key."""
    if isinstance(parts[0], dict):
        return {key: _stacked([part[key] for part in parts]) for key in parts[0]}
    return torch.stack([torch.as_tensor(part) for part in parts])


def _filled_inputs(parts: Sequence[Any], name: str = "") -> Any:
    if all(isinstance(part, Tensor) for part in parts):
        return _filled(parts, f"inputs{name}", 0)
    keys = [sorted(part) if isinstance(part, dict) else type(part).__name__ for part in parts]
    if isinstance(keys[0], str) or keys != keys[:1] * len(keys):
        raise ValueError(
            f"the tasks' inputs{name} are {' and '.join(sorted({str(each) for each in keys}))}; a stack needs tensors "
            "everywhere, or dictionaries with the same keys."
        )
    return {key: _filled_inputs([part[key] for part in parts], f"{name}[{key!r}]") for key in parts[0]}


def _filled(parts: Sequence[Tensor], what: str, value: float) -> Tensor:
    shapes = sorted({tuple(part.shape[1:]) for part in parts})
    if len(shapes) != 1:
        raise ValueError(f"the rows of the tasks' {what} have shapes {shapes}; a stack needs one shape for all tasks.")
    most = max(len(part) for part in parts)
    return torch.stack([torch.cat([p, p.new_full((most - len(p), *p.shape[1:]), value)]) for p in parts])


def join_tasks(parts: Sequence[Any]) -> Any:
    """Join the tasks of several runs in one stack, run by run.

    A learner with another type in place of `Task` gets that type; its tensors are joined in the same way.
    """
    if len(parts) > 1 and all(isinstance(part, Task) for part in parts):
        parts = _padded(parts)
    return _join(list(parts))


def _padded(parts: Sequence[Task]) -> list[Task]:
    """The tasks of several runs with as many rows in each run, as `stack_tasks` pads those of one."""
    n_test = [part.n_test for part in parts]
    y_test = [part.y_test for part in parts]
    if any(n is not None for n in n_test) or len({y.shape[1:2] for y in y_test}) > 1:
        n_test = [
            torch.full_like(p.index, p.y_test.shape[1]) if n is None else n for p, n in zip(parts, n_test, strict=True)
        ]
    missing = 0 if y_test[0].is_floating_point() else IGNORED
    found = {name: _widened([getattr(part, name) for part in parts], 0) for name in ("x", "y", "x_test")}
    found |= {"y_test": _widened(y_test, missing), "n_test": n_test}
    return [part._replace(**{name: each[i] for name, each in found.items()}) for i, part in enumerate(parts)]


def _widened(trees: Sequence[Any], value: float) -> list[Any]:
    """Tensors [task, n, *], or dictionaries of such, with `value` after their rows up to the largest n."""
    first = trees[0]
    if isinstance(first, dict):
        made = {key: _widened([tree[key] for tree in trees], value) for key in first}
        return [{key: each[i] for key, each in made.items()} for i in range(len(trees))]
    if not all(isinstance(tree, Tensor) and tree.dim() > 1 for tree in trees):
        return list(trees)
    most = max(tree.shape[1] for tree in trees)
    more = [tree.new_full((len(tree), most - tree.shape[1], *tree.shape[2:]), value) for tree in trees]
    return [torch.cat([tree, rest], 1) if rest.numel() else tree for tree, rest in zip(trees, more, strict=True)]


class Batch(NamedTuple):
    x: Any
    """[task, batch, *input], or a dictionary of such"""
    y: Tensor
    """[task, batch]"""
    rows: Tensor | None = None
    """[task] how many rows of each task are data, where the others are padding; None if there is no padding"""


def held_out_batch(tasks: Task) -> Batch:
    """The held-out data of each task, as one batch."""
    return Batch(tasks.x_test, tasks.y_test, tasks.n_test)


class Model(NamedTuple):
    """A network as functions of its parameters."""

    init: Callable[[torch.Generator], Params]
    """A fresh set of parameters, of one task."""
    stats: Callable[[], Params]
    """Fresh running statistics (batch norm's averages) of one task; empty if the model has none."""
    apply: Callable[..., tuple[Tensor, Params]]
    """(parameters, statistics, x, train) -> (outputs [task, batch, *], statistics), all of them stacks. A model whose
    activations can be observed (`models.convnet`) takes a fifth argument."""


class Lifted(NamedTuple):
    """A user's module as a `Model`, and functions to read its parameters back."""

    init: Callable[[torch.Generator], Params]
    stats: Callable[[], Params]
    apply: Callable[..., tuple[Tensor, Params]]
    groups: Callable[[], Groups]
    """The role of each parameter. Printed, it is a table."""
    state_dict: Callable[..., Params]
    """(parameters of one task, or a stack of one; statistics) -> a complete state for `module.load_state_dict`"""


class Loss(NamedTuple):
    loss: Tensor
    """[task] mean over the batch"""
    accuracy: Tensor
    """[task] share of correct answers, or nan if the problem has no accuracy"""
    stats: Params


class Problem(NamedTuple):
    """A family of tasks: how to draw a mini-batch and which loss to minimise."""

    draw: Callable[[Task, Tensor, Tensor], Batch]
    """(tasks, who [t], draw [t]) -> for each i, mini-batch number draw[i] of task number who[i]"""
    loss: Callable[[Params, Params, Batch], Loss]
    """(parameters, statistics, batch) -> training loss, with the batch's own statistics; twice differentiable"""
    evaluate: Callable[[Params, Params, Batch], Loss]
    """the same on held-out data, with the running statistics of the task"""
    stats: Callable[[], Params]
    """fresh running statistics of one task, as of `Model`"""
    draw_meta: Callable[[Task, Tensor, Tensor], Batch] | None = None
    """as `draw`, for L_meta, the outer loss of the warp objective; None for the same data as `draw`"""
    capture: bool = False
    """whether a GPU may run draws, losses and gradients as CUDA graphs, see `leapwarp.host.captured`"""


StackLoss = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(outputs [task, batch, *], y [task, batch, *]) -> loss [task], accuracy [task]"""

IGNORED = -100
"""the label that is ignored, as in PyTorch"""


def for_stacks(loss: StackLoss) -> StackLoss:
    """Mark a loss that takes whole stacks of tasks. `supervised` assumes that other losses are written for one task."""
    loss.for_stacks = True  # type: ignore[attr-defined]
    return loss


@for_stacks
def cross_entropy(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and accuracy of each task, over the labels that are not -100.

    Args:
        outputs: [task, batch, class, *]. y: [task, batch, *]

    Examples:
        >>> import torch, leapwarp
        >>> outputs = torch.tensor([[[4.0, 0.0], [0.0, 4.0]]])  # one task, two rows, two classes
        >>> loss, accuracy = leapwarp.cross_entropy(outputs, torch.tensor([[0, -100]]))
        >>> accuracy
        tensor([1.])
    """
    if outputs.shape[:2] + outputs.shape[3:] != y.shape or y.is_floating_point():
        raise ValueError(
            f"the outputs have shape {list(outputs.shape)} and the labels {list(y.shape)} ({y.dtype}); cross-entropy "
            "needs outputs [task, batch, class] and whole numbers [task, batch]. Other losses: supervised(model, loss)."
        )
    losses = F.cross_entropy(outputs.flatten(0, 1), y.flatten(0, 1), reduction="none").view_as(y)
    counted = (y != IGNORED).flatten(1).sum(1)
    right = (outputs.detach().argmax(2) == y).to(outputs.dtype).flatten(1).sum(1) / counted
    return losses.flatten(1).sum(1) / counted, right


@for_stacks
def mean_square(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Half the mean squared error of each task. The accuracy is nan. outputs and y [task, batch, *]

    Examples:
        >>> import torch, leapwarp
        >>> outputs, y = torch.zeros(2, 5, 1), torch.ones(2, 5, 1)  # two tasks of five rows
        >>> leapwarp.mean_square(outputs, y)
        (tensor([0.5000, 0.5000]), tensor([nan, nan]))
    """
    if outputs.shape != y.shape:
        raise ValueError(
            f"the outputs have shape {list(outputs.shape)} and the targets {list(y.shape)} (task and batch first); the "
            "squared error needs the same. Give the targets, or the outputs, the missing axis."
        )
    loss = 0.5 * (outputs - y).square().flatten(1).mean(1)
    return loss, torch.full_like(loss, float("nan")).detach()


def each_task(loss: Callable[[Tensor, Tensor], Any]) -> StackLoss:
    """Make a loss for stacks of a loss that is written for one task.

    Args:
        loss: (outputs [batch, *], y [batch, *]) -> the loss [], or a pair of it and the accuracy [].
    """

    def stacked(outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        found = []
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Using a target size")
            for own, target in zip(outputs, y, strict=True):
                try:
                    found.append(loss(own, target))
                except UserWarning:
                    raise ValueError(
                        f"a task's outputs have shape {list(own.shape)} and its targets {list(target.shape)}; the loss "
                        "would compare each with each. Give the targets, or the outputs, the missing axis."
                    ) from None
        if not isinstance(value := found[0][0] if isinstance(found[0], tuple) else found[0], Tensor):
            raise TypeError(f"the loss of one task is {kind_of(value)}; needed a tensor [], or (tensor, accuracy).")
        pairs = [
            each if isinstance(each, tuple) else (each, torch.full_like(each, torch.nan).detach()) for each in found
        ]
        if pairs[0][0].dim():
            raise ValueError(
                f"the loss of one task has shape {list(pairs[0][0].shape)}; needed one number, the mean over the "
                "batch. A loss that takes whole stacks is marked with leapwarp.problem.for_stacks."
            )
        values, accuracies = zip(*pairs, strict=True)
        return torch.stack(values), torch.stack([torch.as_tensor(accuracy) for accuracy in accuracies])

    return stacked


def rows(tasks: Task, who: Tensor, draw: Tensor) -> Batch:
    """Mini-batches of the task's data without any transform."""
    picked = tasks.order[who, draw]  # [t, batch]
    return Batch(map_leaves(lambda leaf: leaf[who[:, None], picked], tasks.x), tasks.y[who[:, None], picked])


def _only(params: Params, stats: Params, batch: Batch, i: int, n: int) -> tuple[Params, Params, Batch]:
    """The parameters, the statistics and the first n rows of task i, as stacks of one."""
    own = slice(i, i + 1)
    x, y = map_leaves(lambda leaf: leaf[own, :n], batch.x), batch.y[own, :n]
    return take(params, own), take(stats, own), Batch(x, y)


def supervised(
    model: Model | Lifted,
    loss: Callable[[Tensor, Tensor], Any] = cross_entropy,
    draw: Callable[[Task, Tensor, Tensor], Batch] = rows,
) -> Problem:
    """The problem of fitting `model` to tasks of inputs and targets.

    Args:
        model: a lifted module, or another `Model`.
        loss: `cross_entropy`, `mean_square`, or a loss written for one task (see `each_task`), such as those of
            `torch.nn.functional`.
        draw: how a mini-batch is made of a task's data; without transforms by default.

    Raises:
        TypeError: the model was not lifted, or the loss is no function.

    Examples:
        >>> import torch, leapwarp
        >>> model = leapwarp.lift(torch.nn.Linear(2, 3))
        >>> classes = leapwarp.supervised(model)
        >>> own = leapwarp.supervised(model, torch.nn.functional.smooth_l1_loss)
    """
    if isinstance(model, nn.Module | type) or not hasattr(model, "apply"):
        raise TypeError(f"the model is {kind_of(model)}; needed leapwarp.lift(module).")
    if not callable(loss) or isinstance(loss, type):
        raise TypeError(
            f"the loss is {kind_of(loss)}; needed a function of outputs and targets, such as nn.CrossEntropyLoss()."
        )
    stacked = loss if getattr(loss, "for_stacks", False) else each_task(loss)

    def compute(params: Params, stats: Params, batch: Batch, train: bool) -> Loss:
        if batch.rows is not None:  # one by one: padding would change batch norm's statistics and most losses
            each = enumerate(batch.rows.tolist())
            return _join([compute(*_only(params, stats, batch, i, n), train) for i, n in each])
        outputs, stats = model.apply(params, stats, batch.x, train)
        value, accuracy = stacked(outputs, batch.y)
        return Loss(value, accuracy, stats)

    return Problem(
        draw=draw,
        loss=lambda params, stats, batch: compute(params, stats, batch, True),
        evaluate=lambda params, stats, batch: compute(params, stats, batch, False),
        stats=model.stats,
    )


@contextmanager
def without_fast_attention() -> Iterator[None]:
    """Turn off the transformer kernels without derivatives, which parts in eval() would take under vmap."""
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(was)


class Watched(TorchFunctionMode):
    """Raises at what PyTorch (2.14) does wrongly under vmap without a word. The model then runs in a loop instead."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if func is F.embedding and named.get("padding_idx", args[2] if len(args) > 2 else None) is not None:
            raise NotImplementedError("the gradient of an embedding with padding_idx is wrong under vmap.")
        asks = Tensor.requires_grad.__get__  # pyright: ignore[reportAttributeAccessIssue]
        if func in (Tensor.register_hook, asks):
            raise NotImplementedError("hooks on gradients do not run, and requires_grad is False, under vmap.")
        return func(*args, **named)


def versions(tree: Params) -> dict[str, int]:
    """How often each tensor has been written into; 0 for those from inference mode, which are not counted."""
    return {name: 0 if leaf.is_inference() else leaf._version for name, leaf in tree.items()}


def _made(make: Callable[[], nn.Module], generator: torch.Generator) -> nn.Module:
    """The module that a function makes, with PyTorch's global draws seeded from `generator`."""
    with global_draws_from([generator]):
        module = make()
    if not isinstance(module, nn.Module):
        raise TypeError(f"the function that was lifted makes {kind_of(module)}; needed one that makes a torch module.")
    return module


def _alike(leaf: Tensor, other: Tensor | None) -> bool:
    if other is None or leaf.layout != torch.strided:
        return other is not None
    return torch.equal(leaf, other)


def lift(
    module: nn.Module | Callable[[], nn.Module],
    warp: Chosen | None = None,
    task_only: Chosen = (),
    frozen: Chosen = "requires_grad",
    keep_modes: bool = True,
) -> Lifted:
    """Make a `Model` of a module written for one task.

    The present weights of the module are the initialisation, whichever generator `init` is given. If a function that
    makes the module is lifted instead, such as its class, each call of `init` makes one with new weights, drawn from
    the generator. So runs with other seeds have other initialisations. Constants and buffers are those of one module,
    the same for all runs, with a warning if the function makes modules that differ in them.

    A stack of several tasks runs under `torch.vmap`. If that is not possible, it runs in a loop, with a warning that
    says why. A stack of one task needs neither. `print(lift(module).groups())` shows the role of each parameter.

    Args:
        module: written for one task: inputs [batch, *], or a dictionary of them -> outputs [batch, *]. Or a function
            without arguments that makes it.
        warp, task_only: names, patterns (`*.warp.*`) or modules, see `leapwarp.modules.groups`. If warp is None, the
            parameters named `warp.*` are the warps; () for none.
        frozen: parameters to keep constant, besides those whose `requires_grad` is False.
        keep_modes: if True, parts in `eval()` mode stay in it during training (batch norm with fixed averages). If
            False, all parts are in training mode then. In evaluation all parts are in `eval()` mode. Afterwards the
            module has its previous modes.

    Raises:
        ValueError: a choice matches nothing, the name of a parameter says warp and it is not chosen as one, a parameter
            is complex or has a hook, an embedding has sparse gradients, or two parameters would have one name.
        TypeError: neither a module nor a function that makes one.

    Examples:
        >>> import torch, leapwarp
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
        >>> model = leapwarp.lift(net, warp="1")
        >>> params = model.init(torch.Generator())
        >>> list(params)
        ['0.weight', '0.bias', 'warp.1.weight', 'warp.1.bias']
        >>> list(model.state_dict(params))
        ['0.weight', '0.bias', '1.weight', '1.bias']
        >>> model = leapwarp.lift(lambda: torch.nn.Linear(2, 1))  # each seed has weights of its own
        >>> one, two = (model.init(torch.Generator().manual_seed(seed))["weight"] for seed in (0, 1))
        >>> torch.equal(one, two)
        False
    """
    make = module if callable(module) and not isinstance(module, nn.Module) else None
    if make:
        module = _made(make, torch.Generator())
    if not isinstance(module, nn.Module):
        raise TypeError(f"the module is {kind_of(module)}; needed a torch.nn.Module, or a function that makes one.")
    constants = () if isinstance(frozen, str) and frozen == "requires_grad" else frozen
    found = groups(module, warp, task_only, frozen=constants)
    own: dict[str, str] = {}  # names in learners -> names in the module
    for name in [*found.learnt, *found.warp, *found.task_only]:
        called = plain(name)
        if name in found.warp:
            called = called if called.startswith("warp.") else f"warp.{called}"
        elif name in found.task_only:
            called = f"{TASK_ONLY}.{called}"
        elif called.split(".", 1)[0] in ("embedding", "rate", "warp", TASK_ONLY):  # these have a meaning for learners
            called = f"task.{called}"
        if called in own:
            raise ValueError(
                f"{plain(own[called])} and {plain(name)} would both be called {called} in learners; needed other names "
                "of these parts of the module."
            )
        own[called] = name
    if odd := [plain(name) for name in own.values() if dict(module.named_parameters())[name].is_complex()]:
        raise ValueError(f"{shortened(odd)}: complex; learners take real numbers. A front (leapwarp.Leap) takes both.")
    if odd := [name for name, part in module.named_modules() if getattr(part, "sparse", False)]:
        raise ValueError(
            f"{shortened(odd)}: sparse=True; needed sparse=False in lift. A front (leapwarp.Leap) takes both."
        )
    if odd := [plain(name) for name in own.values() if dict(module.named_parameters())[name]._backward_hooks]:
        raise ValueError(
            f"{shortened(odd)}: with a hook on its gradient, which no stack runs. A front (leapwarp.Leap) runs it."
        )
    recurrent = any(isinstance(part, nn.RNNBase) for part in module.modules())
    shapes = {name: leaf.shape for name, leaf in module.named_parameters()}
    constant = found.frozen | dict(module.named_buffers())
    looped = watched = False
    copying = True  # of inputs: at first, and where the module writes into them

    def one(params: Params, stats: Params, x: Any) -> tuple[Tensor, Params]:
        stats = {name: leaf.clone() for name, leaf in stats.items()}  # modules write into their buffers
        with kept_attributes(module):
            outputs, after = with_tensors(module, params | stats, lambda: (module(x), dict(module.named_buffers())))
        if not isinstance(outputs, Tensor):
            raise TypeError(
                f"{type(module).__name__} gives {type(outputs).__name__}; needed a tensor, of which a loss is taken. "
                "Wrap it in a module that picks one; a front (leapwarp.Leap) takes any outputs."
            )
        return outputs, {name: after[name].detach() for name in stats}

    def in_turn(params: Params, stats: Params, x: Any) -> tuple[Tensor, Params]:
        row = lambda tree, i: map_leaves(lambda leaf: leaf[i], tree)  # noqa: E731
        parts = [one(row(params, i), row(stats, i), row(x, i)) for i in range(n_runs(params))]
        outputs = [out for out, _ in parts]
        return torch.stack(outputs), {name: torch.stack([part[name] for _, part in parts]) for name in stats}

    def stacked(params: Params, stats: Params, x: Any) -> tuple[Tensor, Params]:
        nonlocal looped, watched, copying
        given = map_leaves(torch.clone, x) if copying else x
        before = versions(leaves(given))
        if n_runs(params) == 1 or looped:
            result = in_turn(params, stats, given)
            copying = copying and versions(leaves(given)) != before
            return result
        try:
            with without_fast_attention(), nullcontext() if watched else Watched():
                result = torch.vmap(one, randomness="different")(params, stats, given)
            watched, copying = True, copying and versions(leaves(given)) != before
        except Exception as error:
            # What is wrong with the module itself is raised here. The call before may have written into its inputs.
            result = in_turn(params, stats, map_leaves(torch.clone, x))
            looped = True
            warnings.warn(
                f"{type(module).__name__} cannot take a stack of tasks at once, so that they run in a loop: "
                f"{str(error).strip().splitlines()[0]}",
                stacklevel=3,
            )
        return result

    def apply(params: Params, stats: Params, x: Any, train: bool) -> tuple[Tensor, Params]:
        if unknown := params.keys() ^ own.keys():
            raise ValueError(f"the parameters differ in names from the module's: {sorted(unknown)[:6]}.")
        params = {own[name]: leaf for name, leaf in params.items()}
        if odd := [name for name, leaf in params.items() if leaf.shape[1:] != shapes[name] or not leaf.dim()]:
            raise ValueError(
                f"{odd[0]} has shape {list(params[odd[0]].shape)}; needed a stack of {list(shapes[odd[0]])} with a row "
                "for each task or run, such as leapwarp.trees.alone(model.init(generator))."
            )
        no_hooks = torch.autograd.graph.disable_saved_tensors_hooks(
            f"a part of {type(module).__name__} is checkpointed (or has other hooks of saved tensors), and would be "
            "computed again with other parameters. Needed it without in lift; a front (leapwarp.Leap) takes it."
        )
        before = versions(params)
        with (
            no_hooks,
            modes(module, lambda _, was: train and (was or not keep_modes)),
            without_cudnn() if recurrent else nullcontext(),
        ):
            result = stacked(params, stats, x)
        after = versions(params)
        if odd := [plain(name) for name in params if after[name] != before[name]]:
            raise ValueError(
                f"{shortened(odd)}: {type(module).__name__} writes into its own parameters when it is called (max_norm "
                "of an embedding, say), and tasks share them. Needed one that does not, or a front (leapwarp.Leap)."
            )
        return result

    def init(generator: torch.Generator) -> Params:
        if make and not isinstance(generator, torch.Generator):
            raise TypeError(f"the generator is {kind_of(generator)}; needed a torch.Generator, for new weights.")
        made = _made(make, generator) if make else module
        every = dict(made.named_parameters())
        others = every | dict(made.named_buffers())
        if odd := [plain(name) for name, leaf in constant.items() if not _alike(leaf, others.get(name))]:
            warnings.warn(
                f"{shortened(odd)}: constants or buffers that differ between the modules that the function makes. All "
                "runs have those of one module. For values of their own, lift a module for each run.",
                stacklevel=2,
            )
        return {called: every[name].detach().clone() for called, name in own.items()}

    def stats() -> Params:
        own = module.named_buffers()
        return {n: b.detach().clone() for n, b in own if b.layout == torch.strided}  # no stack takes sparse ones

    def state_dict(params: Params, stats: Params | None = None) -> Params:
        if not isinstance(params, dict):
            raise TypeError(f"the parameters are {kind_of(params)}; needed a dictionary such as state['params'].")
        state = {name: leaf.detach().clone() for name, leaf in module.state_dict().items()}
        if odd := params.keys() ^ own.keys():
            raise ValueError(f"the parameters differ in names from the module's: {sorted(odd)[:6]}.")
        for name, leaf in [*((own[n], leaf) for n, leaf in params.items()), *(stats or {}).items()]:
            if name not in state:  # a buffer that is not kept
                continue
            if leaf.shape == (1, *state[name].shape):
                leaf = leaf[0]
            if leaf.shape != state[name].shape:
                raise ValueError(
                    f"{name} has shape {list(leaf.shape)}, the module's {list(state[name].shape)}; needed the "
                    "parameters of one task or run: leapwarp.trees.pick(params, 0) for the first."
                )
            state[name] = leaf.detach().clone()
        for name, leaf in module.state_dict(keep_vars=True).items():  # tied weights have two names
            twin = next((n for n, p in module.named_parameters() if p is leaf), name)
            state[name] = state.get(twin, state[name])
        return state

    return Lifted(init, stats, apply, lambda: found, state_dict)


def map_tasks(function: Callable[[Task, slice], Any], tasks: Task, size: int) -> Any:
    """Apply `function` to at most `size` tasks at a time and join the results along the task axis.

    Args:
        function: (some tasks, their slice of all tasks) -> a tensor with a task axis, or a dictionary or tuple of such.
        size: 1 for a plain loop, or the number of tasks for a single call.
    """
    if size < 1:
        raise ValueError(f"tasks are mapped at least one at a time, got size {size}.")
    n_tasks = len(tasks.index)
    slices = [slice(first, min(first + size, n_tasks)) for first in range(0, n_tasks, size)]
    return _join([function(take_tasks(tasks, part), part) for part in slices])


def take_tasks(tasks: Task, part: slice) -> Task:
    """Some tasks of a stack."""
    fields = tasks._asdict().items()
    return tasks._replace(**{n: map_leaves(lambda leaf: leaf[part], field) for n, field in fields if field is not None})


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
