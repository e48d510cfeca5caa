"""Arithmetic on parameters, `dict[str, Tensor]`.

A *stack* is such a dictionary in which every tensor has one leading axis: the run or the task. If several runs train in
parallel, their tasks share one axis of R n rows, and run r of R has the rows r n to (r + 1) n - 1.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Params = dict[str, Tensor]

TASK_ONLY = "task_only"
"""The group of parameters that every task adapts from the same values, and that no meta-learner changes."""


def map_tree(function: Callable[..., Tensor], *trees: Params) -> Params:
    """Apply `function` name by name; all trees must have the names of the first."""
    first = trees[0]
    for other in trees[1:]:
        if other.keys() != first.keys():
            raise ValueError(f"trees differ in names: {sorted(first.keys() ^ other.keys())}.")
    return {name: function(*(tree[name] for tree in trees)) for name in first}


def zeros_like(tree: Params) -> Params:
    return map_tree(torch.zeros_like, tree)


def add_scaled(tree: Params, scale: float | Tensor, other: Params) -> Params:
    """`tree + scale * other`."""
    if isinstance(scale, Tensor):
        return map_tree(lambda a, b: a + scale * b, tree, other)
    return map_tree(lambda a, b: torch.add(a, b, alpha=scale), tree, other)  # one pass through memory, not two


def subtract(tree: Params, other: Params) -> Params:
    return map_tree(torch.sub, tree, other)


def squared_norm(tree: Params) -> Tensor:
    """Sum of squares over everything but the leading task axis. -> [task]"""
    return torch.stack([leaf.unsqueeze(1).flatten(1).square().sum(1) for leaf in tree.values()]).sum(0)


def per_task(factor: Tensor, leaf: Tensor) -> Tensor:
    """Shape `factor`, [task], so that it multiplies `leaf`, [task, ...]."""
    return factor.view(-1, *[1] * (leaf.dim() - 1))


def choose(condition: Tensor, yes: Params, no: Params) -> Params:
    """Task by task, `yes` where `condition`, [task], holds and `no` elsewhere."""
    return map_tree(lambda a, b: torch.where(per_task(condition, a), a, b), yes, no)


def repeat(tree: Params, n: int) -> Params:
    """A stack of `n` views of one and the same tree (no memory is copied)."""
    return map_tree(lambda leaf: leaf.unsqueeze(0).expand(n, *leaf.shape), tree)


def spread(stack: Params, n_rows: int) -> Params:
    """Repeat each run's tensors for its equal part of the rows. [run, ...] -> [row, ...]; a view if there is one run"""

    def one(leaf: Tensor) -> Tensor:
        if n_rows % len(leaf):
            raise ValueError(
                f"{n_rows} tasks cannot be shared out to {len(leaf)} runs in equal parts. The parameters of a single "
                "run need an axis of their own, of length one: trees.alone(params)."
            )
        copies = n_rows // len(leaf)
        return leaf.unsqueeze(1).expand(len(leaf), copies, *leaf.shape[1:]).reshape(n_rows, *leaf.shape[1:])

    return map_tree(one, stack)


def mean_rows(stack: Params, runs: int) -> Params:
    """The mean over each run's own rows. [row, ...] -> [run, ...]"""
    return map_tree(lambda leaf: leaf.unflatten(0, (runs, -1)).mean(1), stack)


def take(stack: Params, rows: slice) -> Params:
    return map_tree(lambda leaf: leaf[rows], stack)


def n_runs(tree: Any) -> int:
    """How many runs a stack of runs has, in nested dictionaries."""
    return len(next(iter(leaves(tree).values())))


def map_leaves(function: Callable[[Tensor], Tensor], tree: Any) -> Any:
    """Nested dictionaries with `function` of every tensor; other values stay as they are."""
    if isinstance(tree, Tensor):
        return function(tree)
    return {key: map_leaves(function, part) for key, part in tree.items()} if isinstance(tree, dict) else tree


def pick(tree: Any, rows: int | Sequence[int]) -> Any:
    """A copy of some rows of nested dictionaries. For a single number, the copy has no leading axis."""
    if isinstance(rows, int):
        return map_leaves(lambda leaf: leaf[rows].clone(), tree)
    return map_leaves(lambda leaf: leaf[torch.tensor(rows, device=leaf.device)], tree)


def join(trees: Sequence[Any]) -> Any:
    """Nested dictionaries with the rows of all `trees`. Other values are taken from the first."""
    first = trees[0]
    if isinstance(first, Tensor):
        return torch.cat(list(trees))
    return {key: join([tree[key] for tree in trees]) for key in first} if isinstance(first, dict) else first


def alone(tree: Any) -> Any:
    """Nested dictionaries as a stack of one."""
    return map_leaves(lambda leaf: leaf.unsqueeze(0), tree)


def stack(trees: Sequence[Params]) -> Params:
    return map_tree(lambda *parts: torch.stack(parts), *trees)


def to_device(tree: Params, device: torch.device) -> Params:
    return map_tree(lambda leaf: leaf.to(device), tree)


def group_of(name: str) -> str:
    """The first part of a name: `warp.0.weight` is in the group `warp`."""
    return name.split(".", 1)[0]


def partition(tree: Params, *groups: str) -> tuple[Params, Params]:
    """The parameters of one or several groups, and the rest, see `group_of`.

    Raises:
        ValueError: either side is empty.
    """
    inside = {name: leaf for name, leaf in tree.items() if group_of(name) in groups}
    outside = {name: leaf for name, leaf in tree.items() if name not in inside}
    if not inside or not outside:
        raise ValueError(
            f"needed parameters named {' or '.join(f'{group}.*' for group in groups)} and others beside them, found "
            f"{len(inside)} and {len(outside)}: {', '.join(list(tree)[:5])}."
        )
    return inside, outside


def is_task_only(name: str) -> bool:
    return group_of(name) == TASK_ONLY


def without_task_only(grads: Params) -> Params:
    """The gradient of an initialisation, with 0 for the parameters `task_only.*`, which are not learnt."""
    return {name: torch.zeros_like(grad) if is_task_only(name) else grad for name, grad in grads.items()}


def leaves(tree: Any, path: str = "") -> Params:
    """All tensors of nested dictionaries, by their paths (`params/head.weight`). Other values are ignored."""
    if isinstance(tree, Tensor):
        return {path: tree}
    if not isinstance(tree, dict):
        return {}
    return {
        name: leaf
        for key, part in tree.items()
        for name, leaf in leaves(part, f"{path}/{key}" if path else str(key)).items()
    }
