"""Few-shot tasks: some classes, with support images of each to learn from and query images (WarpGrad, app. I)."""

from typing import NamedTuple

import torch
from torch import Tensor

from leapwarp.data.classes import Classes, resize
from leapwarp.problem import Task


class Episodes(NamedTuple):
    """Tasks by the rows of their images, [task, class, image]: those to learn from and those held out."""

    support: Tensor
    query: Tensor


def draw_episodes(
    data: Classes, part: str, n: int, ways: int, shots: int, queries: int, stream: torch.Generator
) -> Episodes:
    """`n` tasks of `ways` classes from a part of the split, with `shots` images of each class, and `queries` held out.

    Raises:
        ValueError: there are too few classes, or too few images of a class.
    """
    available = data.split[part]
    if len(available) < ways:
        raise ValueError(f"{data.source} has {len(available)} {part} classes, a task needs {ways}.")
    support, query = [], []
    for _ in range(n):
        for which in torch.randperm(len(available), generator=stream)[:ways].tolist():
            mine = data.rows(available[which])
            if len(mine) < shots + queries:
                raise ValueError(
                    f"class {data.names[available[which]]} of {data.source} has {len(mine)} images, a task needs "
                    f"{shots} + {queries}."
                )
            chosen = mine.start + torch.randperm(len(mine), generator=stream)
            query.append(chosen[:queries])
            support.append(chosen[queries : queries + shots])
    return Episodes(torch.stack(support).view(n, ways, shots), torch.stack(query).view(n, ways, queries))


def pixels(images: Tensor) -> Tensor:
    """uint8 -> float from -1 to 1"""
    return images.float() / 127.5 - 1


def pictures(data: Classes, rows: Tensor, size: int) -> Tensor:
    """The images of the rows of each task, [task, class, image]. -> uint8 [task, class * image, 3, size, size]"""
    return resize(data.images[rows.flatten()], size).unflatten(0, rows.flatten(1).shape)


def labels(rows: Tensor) -> Tensor:
    """Their classes within the task. -> [task, class * image]"""
    n, ways, each = rows.shape
    return torch.arange(ways).repeat_interleave(each).expand(n, -1)


def as_tasks(data: Classes, episodes: Episodes, draws: int, size: int, device: torch.device) -> Task:
    """The episodes as tasks. Every mini-batch has all images of its task."""
    n = len(episodes.support)
    x, x_test = (pixels(pictures(data, rows, size)).to(device) for rows in episodes)
    y, y_test = (labels(rows).to(device) for rows in episodes)
    order = torch.arange(y.shape[1], device=device).expand(n, draws, -1)
    return Task(torch.arange(n, device=device), x, y, order, x_test, y_test)
