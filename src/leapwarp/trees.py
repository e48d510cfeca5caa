"""Arithmetic on parameters, `dict[str, Tensor]`.

A *stack* is such a dictionary in which every tensor has one leading axis, the task.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Params = dict[str, Tensor]


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
    return map_tree(lambda a, b: a + scale * b, tree, other)


def subtract(tree: Params, other: Params) -> Params:
    return map_tree(torch.sub, tree, other)


def squared_norm(tree: Params) -> Tensor:
    """Sum of squares over everything but the leading task axis. -> [task]"""
    return torch.stack([leaf.flatten(1).square().sum(1) for leaf in tree.values()]).sum(0)


def per_task(factor: Tensor, leaf: Tensor) -> Tensor:
    """Shape `factor`, [task], so that it multiplies `leaf`, [task, ...]."""
    return factor.view(-1, *[1] * (leaf.dim() - 1))


def choose(condition: Tensor, yes: Params, no: Params) -> Params:
    """Task by task, `yes` where `condition`, [task], holds and `no` elsewhere."""
    return map_tree(lambda a, b: torch.where(per_task(condition, a), a, b), yes, no)


def mean_tasks(stack: Params) -> Params:
    return map_tree(lambda leaf: leaf.mean(0), stack)


def repeat(tree: Params, n_tasks: int) -> Params:
    """A stack of `n_tasks` views of one and the same tree (no memory is copied)."""
    return map_tree(lambda leaf: leaf.unsqueeze(0).expand(n_tasks, *leaf.shape), tree)


def take(stack: Params, rows: slice) -> Params:
    return map_tree(lambda leaf: leaf[rows], stack)


def to_device(tree: Params, device: torch.device) -> Params:
    return map_tree(lambda leaf: leaf.to(device), tree)


def partition(tree: Params, group: str) -> tuple[Params, Params]:
    """The parameters of a group, and the rest. A name's group is its first part: `warp.0.weight` is in `warp`.

    Raises:
        ValueError: either side is empty.
    """
    inside = {name: leaf for name, leaf in tree.items() if name.split(".", 1)[0] == group}
    outside = {name: leaf for name, leaf in tree.items() if name not in inside}
    if not inside or not outside:
        raise ValueError(
            f"needed parameters named {group}.* and others beside them, found {len(inside)} and {len(outside)}: "
            f"{', '.join(list(tree)[:5])}."
        )
    return inside, outside


def leaves(tree: Any, path: str = "") -> Params:
    """All tensors of nested dictionaries, by their paths (`params/head.weight`); other values are passed over."""
    if isinstance(tree, Tensor):
        return {path: tree}
    if not isinstance(tree, dict):
        return {}
    return {
        name: leaf
        for key, part in tree.items()
        for name, leaf in leaves(part, f"{path}/{key}" if path else str(key)).items()
    }
