"""Tasks of many images, learnt in random mini-batches (WarpGrad, appendix I, multi-shot)."""

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
    """The episodes as tasks, images to learn from as uint8, with `draws` random mini-batches of `batch` for each.

    Mini-batches have no class balance; over all draws together every image comes as often as any other, give or take
    one.
    """
    learnt, held_out = episodes
    n, images = learnt.flatten(1).shape
    rounds = torch.rand(n, -(-draws * batch // images), images, generator=stream).argsort(2)
    order = rounds.flatten(1)[:, : draws * batch].reshape(n, draws, batch)  # each round is an order of all images
    x, x_test = pictures(data, learnt, size), pixels(pictures(data, held_out, size))
    fields = (torch.arange(n), x, labels(learnt), order, x_test, labels(held_out))
    return Task(*(field.to(device) for field in fields))


def draw_batch(tasks: Task, who: Tensor, number: Tensor) -> Batch:
    picked = tasks.order[who, number]  # [t, batch]
    return Batch(pixels(tasks.x[who[:, None], picked]), tasks.y[who[:, None], picked])
