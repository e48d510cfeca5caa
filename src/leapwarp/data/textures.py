"""Textures: synthetic classes of coloured shapes that replace the ImageNet subsets if none is available.

A class has a shape (a closed outline), a texture of three gratings and two colours. Each image shows it at a random
place, size and angle, with random phases, light and noise, in front of a smooth background of random colours. All
random numbers come from named streams, so the images are always the same.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from leapwarp.data.classes import PARTS, Classes, build
from leapwarp.rng import generator

LICENCE = "made by leapwarp.data.textures, no rights of others"
SEED = 0  # seed of the data set, the same for all experiments
CLASSES = (64, 16, 20)  # train, validation, test: as mini-ImageNet
IMAGES = 60  # of a class
SIZE = 32  # pixels along a side
WAVES = 5  # of an outline
GRATINGS = 3


def make(n_classes: tuple[int, int, int] = CLASSES, n_images: int = IMAGES, size: int = SIZE) -> Classes:
    """The classes, with `n_images` images each."""
    total = sum(n_classes)
    images = torch.cat([draw(index, n_images, size) for index in range(total)])
    split, first = {}, 0
    for part, count in zip(PARTS, n_classes, strict=True):
        split[part] = list(range(first, first + count))
        first += count
    names = [f"texture_{index:03d}" for index in range(total)]
    return build(images, torch.arange(total).repeat_interleave(n_images), names, split, "textures")


def draw(index: int, n_images: int, size: int) -> Tensor:
    """Images of class number `index`. -> uint8 [n_images, 3, size, size]"""
    style = generator(SEED, "textures", "class", index)
    wave = torch.arange(1, WAVES + 1)
    height = 0.35 * torch.randn(WAVES, generator=style) / wave
    turn = 2 * math.pi * torch.rand(WAVES, generator=style)
    direction = math.pi * torch.rand(GRATINGS, generator=style)
    frequency = 3 + 12 * torch.rand(GRATINGS, generator=style)
    weight = torch.rand(GRATINGS, generator=style)
    colours = torch.rand(2, 3, generator=style)

    own = generator(SEED, "textures", "images", index)
    uniform = lambda low, high, *shape: low + (high - low) * torch.rand(n_images, *shape, generator=own)  # noqa: E731
    ramp = (torch.arange(size) * 2 + 1) / size - 1
    y, x = torch.meshgrid(ramp, ramp, indexing="ij")
    centre, scale, angle = uniform(-0.3, 0.3, 2), uniform(0.45, 0.8), uniform(-0.6, 0.6)
    phase = uniform(0, 2 * math.pi, GRATINGS)
    dx, dy = x - centre[:, 0, None, None], y - centre[:, 1, None, None]
    radius, around = torch.hypot(dx, dy) / scale[:, None, None], torch.atan2(dy, dx) - angle[:, None, None]
    waves = torch.cos(around[..., None] * wave + turn) * height
    inside = torch.sigmoid((1 + waves.sum(-1) - radius) * size / 4)  # [image, y, x]

    along = direction + angle[:, None]  # [image, grating]
    way = dx[..., None] * along.cos()[:, None, None] + dy[..., None] * along.sin()[:, None, None]
    gratings = torch.sin(way * frequency / scale[:, None, None, None] + phase[:, None, None])
    mix = torch.sigmoid(4 * (gratings * weight).sum(-1) / weight.sum())[:, None]
    tint = colours + uniform(-0.12, 0.12, 2, 3)
    shape = tint[:, 0, :, None, None] * mix + tint[:, 1, :, None, None] * (1 - mix)

    coarse = uniform(0, 1, 3, 4, 4)
    behind = F.interpolate(coarse, (size, size), mode="bilinear", align_corners=True)
    picture = inside[:, None] * shape + (1 - inside[:, None]) * behind
    picture = picture * uniform(0.75, 1.25, 1, 1, 1) + 0.05 * torch.randn(n_images, 3, size, size, generator=own)
    return (255 * picture.clamp(0, 1)).round().byte()
