"""Image data sets as tasks: the part of a set that a seed uses, and its mini-batches (Leap, appendix G).

Sets differ in classes and sizes, so they are trained one at a time, and every draw is from a stack of one task.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from leapwarp.data.images import ImageSet
from leapwarp.problem import Batch, Task
from leapwarp.rng import generator

CHANNELS = 3  # grey images have their one channel repeated


class Part(NamedTuple):
    """Images of a set with their labels, and the statistics that normalise them."""

    x: Tensor
    """uint8 [n, 1 or 3, 32, 32]"""
    y: Tensor
    """[n]"""
    mean: Tensor
    """[1 or 3, 1, 1]"""
    std: Tensor
    """likewise"""


class Images(NamedTuple):
    """A set as a task: its training images, and the validation images that stop its training."""

    train: Part
    validation: Part
    classes: int
    n_train: int
    """images of both together, and of those for validation that are not used"""


def classes_taken(name: str, images: ImageSet, most: int | None, seed: int) -> Tensor:
    """The classes of a set that the seed uses, all or `most` of them, in the order of their new labels. [class]"""
    return torch.randperm(images.classes, generator=generator(seed, "classes", name))[: most or None]


def take(
    name: str, images: ImageSet, part: str, classes: Tensor, most: int | None, seed: int, device: torch.device
) -> Part:
    """The images of some classes in a part of a set ("train" or "test"): all or `most` of them, in the seed's order."""
    pictures, labels = {
        "train": (images.train_images, images.train_labels),
        "test": (images.test_images, images.test_labels),
    }[part]
    renamed = torch.full((images.classes,), -1)
    renamed[classes] = torch.arange(len(classes))
    found = (renamed[labels] >= 0).nonzero()[:, 0]
    rows = found[torch.randperm(len(found), generator=generator(seed, part, name))][: most or None]
    mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (images.mean, images.std))
    return Part(pictures[rows].to(device), renamed[labels[rows]].to(device), mean, std)


def split(images: Part, share: float, most_validation: int | None, classes: int) -> Images:
    """A set as a task. A share of its training images is for validation; at most `most_validation` are used."""

    def rows(which: slice) -> Part:
        return images._replace(x=images.x[which], y=images.y[which])

    n = max(1, round(share * len(images.y)))
    return Images(rows(slice(n, None)), rows(slice(min(n, most_validation or n))), classes, len(images.y))


def pixels(images: Part, rows: Tensor | slice) -> Tensor:
    """Some of the images, normalised. -> [n, 3, 32, 32]"""
    return ((images.x[rows].float() / 255 - images.mean) / images.std).expand(-1, CHANNELS, -1, -1)


def draw_from(sets: list[Images]) -> Callable[[Task, Tensor, Tensor], Batch]:
    """Mini-batches of a stack of one. `tasks.x` is the number of the set."""

    def draw(tasks: Task, who: Tensor, number: Tensor) -> Batch:
        images = sets[int(tasks.x[int(who[0]), 0])].train
        rows = tasks.order[int(who[0]), int(number[0])]
        return Batch(pixels(images, rows)[None], images.y[rows][None])

    return draw


def batches(images: Images, batch: int) -> int:
    """Number of mini-batches in an epoch."""
    return -(-len(images.train.y) // batch)


def order(n: int, draws: int, batch: int, stream: torch.Generator) -> Tensor:
    """Rows of `draws` mini-batches. Each epoch has its own random order. -> [draw, batch]"""
    rounds = -(-draws * batch // n)
    return torch.cat([torch.randperm(n, generator=stream) for _ in range(rounds)])[: draws * batch].view(draws, batch)


def task_stack(sets: list[Images], index: list[int], draws: list[int], batch: int, stream: torch.Generator) -> Task:
    """Tasks by the numbers of their sets, without copies of the images. Missing draws are padded with row 0."""
    orders = torch.zeros(len(index), max(draws), batch, dtype=torch.long)
    for i, (number, n) in enumerate(zip(index, draws, strict=True)):
        orders[i, :n] = order(len(sets[number].train.y), n, batch, stream)
    device = sets[0].train.y.device
    which = torch.tensor(index, device=device)
    return Task(which, which[:, None], which[:, None], orders.to(device), which[:, None], which[:, None])
