"""Alphabets as tasks (Omniglot, both papers): their split, and mini-batches of their images.

An alphabet is a 20-way classification task, with 15 drawings of each character for training and 5 held out.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from leapwarp.data import augment
from leapwarp.data.alphabets import Alphabets
from leapwarp.problem import Batch, Task
from leapwarp.rng import generator

CLASSES = 20  # characters of a task; alphabets with fewer are dropped (both papers)
DRAWINGS_HELD_OUT = 5  # of the 20 drawings of each character (both papers)


class Split(NamedTuple):
    train: list[str]
    validation: list[str]
    test: list[str]


def split(alphabets: Alphabets, seed: int, n_tasks: int, n_test: int, n_validation: int) -> Split:
    """Names of the alphabets of each part, which depend only on the seed.

    Test and validation alphabets are the same for every number of training tasks, and training sets are nested.

    Raises:
        ValueError: there are too few alphabets with 20 characters.
    """
    counts = torch.bincount(alphabets.alphabet, minlength=len(alphabets.names)).tolist()
    names = [name for name, count in zip(alphabets.names, counts, strict=True) if count >= CLASSES]
    needed = n_test + n_validation + n_tasks
    if len(names) < needed:
        raise ValueError(
            f"found {len(names)} alphabets with at least {CLASSES} characters; {n_tasks} training tasks, "
            f"{n_validation} for validation and {n_test} held out need {needed}."
        )
    shuffled = [names[i] for i in torch.randperm(len(names), generator=generator(seed, "alphabets")).tolist()]
    rest = shuffled[n_test + n_validation :]
    return Split(rest[:n_tasks], shuffled[n_test : n_test + n_validation], shuffled[:n_test])


class Images(NamedTuple):
    """The images of some alphabets, uint8; every task has 20 characters."""

    train: Tensor
    """[task, 20 * 15, 28, 28]"""
    test: Tensor
    """[task, 20 * 5, 28, 28]"""
    train_labels: Tensor
    """[20 * 15]"""
    test_labels: Tensor
    """[20 * 5]"""


def images(alphabets: Alphabets, names: Sequence[str], seed: int, device: torch.device) -> Images:
    """Pick 20 characters of each alphabet, and hold out 5 of its 20 drawers. The choice depends only on the seed."""
    train, test = [], []
    for name in names:
        rows = (alphabets.alphabet == alphabets.names.index(name)).nonzero()[:, 0]
        chosen = torch.randperm(len(rows), generator=generator(seed, "characters", name))[:CLASSES]
        drawers = torch.randperm(alphabets.images.shape[1], generator=generator(seed, "drawers", name))
        pictures = alphabets.images[rows[chosen]]  # [character, drawer, 28, 28]
        test.append(pictures[:, drawers[:DRAWINGS_HELD_OUT]].flatten(0, 1))
        train.append(pictures[:, drawers[DRAWINGS_HELD_OUT:]].flatten(0, 1))
    labels = [torch.arange(CLASSES).repeat_interleave(part[0].shape[0] // CLASSES) for part in (train, test)]
    return Images(*(part.to(device) for part in (torch.stack(train), torch.stack(test), *labels)))


def pixels(pictures: Tensor, matrices: Tensor, released: bool) -> Tensor:
    """uint8 [*, 28, 28], transformed by matrices [*, 2, 3] -> float32 in [0, 1], ink 1 on background 0.

    With `released`, ink is 0 on background 1, and pixels from outside the image are 0.
    """
    shape = pictures.shape
    values = pictures.reshape(-1, *shape[-2:]).float() / 255
    return augment.transform(1 - values if released else values, matrices.reshape(-1, 2, 3)).view(shape)


def draw_matrices(stream: torch.Generator, shape: tuple[int, ...], augmentation: str) -> Tensor:
    if augmentation == "affine":
        return augment.affine(stream, shape)
    if augmentation == "rotations":
        return augment.rotations(stream, shape)
    raise ValueError(f"augmentation is {augmentation!r}, needed 'affine' or 'rotations'.")


def draw_tasks(
    data: Images,
    index: Tensor,
    stream: torch.Generator,
    draws: int,
    batch: int,
    augmentation: str,
    released: bool = False,
) -> Task:
    """The tasks `index` of `data`. All random numbers of their training are drawn from `stream`.

    Mini-batches are not balanced by class. Over all draws together, every training image is drawn equally often (as in
    the released code). Each image of each mini-batch has its own random transform, and each held-out image has one.

    Args:
        augmentation: "affine" or "rotations".
        released: pixels as in the released code, see `pixels`.
    """
    device, (n_tasks, n) = data.train.device, (len(index), data.train.shape[1])
    # Held-out images first, so that their transforms do not depend on the batch size.
    test_matrices = draw_matrices(stream, (n_tasks, data.test.shape[1]), augmentation)
    order = torch.rand(n_tasks, draws * batch, generator=stream).argsort(1) % n
    matrices = draw_matrices(stream, (n_tasks, draws, batch), augmentation)
    index = index.to(device)
    return Task(
        index=index,
        x=data.train[index],
        y=data.train_labels.expand(n_tasks, n),
        order=order.view(n_tasks, draws, batch).to(device),
        x_test=pixels(data.test[index], test_matrices.to(device), released),
        y_test=data.test_labels.expand(n_tasks, -1),
        affine=matrices.to(device),
    )


def draw_batch(released: bool) -> Callable[[Task, Tensor, Tensor], Batch]:
    def draw(tasks: Task, who: Tensor, number: Tensor) -> Batch:
        picked = tasks.order[who, number]  # [t, batch]
        assert tasks.affine is not None
        # Whole images are copied, which takes a quarter of the time of x[who, picked].
        rows = (who[:, None] * tasks.x.shape[1] + picked).flatten()
        pictures = tasks.x.flatten(0, 1).index_select(0, rows).unflatten(0, picked.shape)
        return Batch(pixels(pictures, tasks.affine[who, number], released), tasks.y[who[:, None], picked])

    return draw


def draw_heldout(tasks: Task, who: Tensor, number: Tensor) -> Batch:
    """A mini-batch of held-out images, by the same random numbers. Each has its one transform, as in evaluation."""
    picked = tasks.order[who, number] % tasks.x_test.shape[1]
    return Batch(tasks.x_test[who[:, None], picked], tasks.y_test[who[:, None], picked])


def meta_batch(n_tasks: int, size: int, stream: torch.Generator) -> Tensor:
    """Numbers of `size` training tasks, in random order without repeats; if there are fewer, in several rounds."""
    rounds = -(-size // n_tasks)
    return torch.cat([torch.randperm(n_tasks, generator=stream) for _ in range(rounds)])[:size]
