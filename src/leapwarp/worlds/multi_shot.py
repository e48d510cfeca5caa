"""Multi-shot tasks, which are learnt in random mini-batches (WarpGrad, appendix I)."""

import torch
from torch import Tensor

from leapwarp.data.classes import Classes
from leapwarp.problem import Batch, Task
from leapwarp.worlds.episodes import Episodes, labels, pictures, pixels


def as_tasks(
    data: Classes,
    episodes: Episodes,
    draws: int,
    batch: int,
    size: int,
    stream: torch.Generator,
    device: torch.device,
) -> Task:
    """The episodes as tasks with uint8 training images, and `draws` random mini-batches of `batch` images for each.

    Mini-batches are not balanced by class. Over all draws together, the numbers of draws of two images differ by at
    most one.
    """
    learnt, held_out = episodes
    n, images = learnt.flatten(1).shape
    rounds = torch.rand(n, -(-draws * batch // images), images, generator=stream).argsort(2)
    order = rounds.flatten(1)[:, : draws * batch].reshape(n, draws, batch)  # each round is a random order of all images
    x, x_test = pictures(data, learnt, size), pixels(pictures(data, held_out, size))
    fields = (torch.arange(n), x, labels(learnt), order, x_test, labels(held_out))
    return Task(*(field.to(device) for field in fields))


def draw_batch(tasks: Task, who: Tensor, number: Tensor) -> Batch:
    picked = tasks.order[who, number]  # [t, batch]
    return Batch(pixels(tasks.x[who[:, None], picked]), tasks.y[who[:, None], picked])
