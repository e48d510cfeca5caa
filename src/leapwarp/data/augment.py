"""Batched affine transforms of images, with every random number drawn beforehand.

A transform is a matrix [2, 3] that maps a position in the *result* to the position in the *source* from which its value
is read. Both are in units of half the image, with the centre at 0 (`theta` of torch's `affine_grid`). `affine` and
`rotations` draw such matrices from a named stream, and `transform` applies them.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


def affine(
    generator: torch.Generator,
    shape: tuple[int, ...],
    degrees: tuple[float, float] = (0.0, 360.0),
    translate: float = 0.2,
    scale: tuple[float, float] = (0.8, 1.2),
) -> Tensor:
    """Random affine transforms, the augmentation of WarpGrad (appendix F) and Leap's code. -> [*shape, 2, 3]

    They have the meaning of torchvision's `RandomAffine`: rotate about the centre and scale, then shift by up to
    `translate` of the image's size along each axis. Shifts are continuous, while torchvision rounds to pixels.

    Args:
        generator: CPU stream, see `leapwarp.rng`.
        shape: leading axes of the result, for example [task, step, batch].
        degrees: range of the angle, clockwise.
        translate: largest shift as a fraction of the image's size.
        scale: range of the magnification, above 0.
    """
    if translate < 0 or min(scale) <= 0:
        raise ValueError(f"translate must be at least 0 and scale above 0, got {translate} and {scale}.")
    unit = torch.rand(*shape, 4, generator=generator, dtype=torch.float64)
    angle, size = (low + (high - low) * unit[..., i] for i, (low, high) in enumerate((degrees, scale)))
    return matrices(angle, translate * (2 * unit[..., 2:] - 1), size)


def rotations(generator: torch.Generator, shape: tuple[int, ...], count: int = 36) -> Tensor:
    """Rotations drawn at random from `count` uniformly spaced ones (Leap, appendix F). -> [*shape, 2, 3]"""
    return all_rotations(count)[torch.randint(count, shape, generator=generator)]


def all_rotations(count: int = 36) -> Tensor:
    """The `count` uniformly spaced rotations, clockwise from 0 degrees. -> [count, 2, 3]"""
    if count < 1:
        raise ValueError(f"the number of rotations must be at least 1, got {count}.")
    angle = torch.arange(count, dtype=torch.float64) * (360 / count)
    return matrices(angle, torch.zeros(count, 2), torch.ones(count))


def matrices(angle: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Transforms that rotate about the centre by `angle`, magnify by `scale`, then shift. -> [..., 2, 3]

    Args:
        angle: degrees clockwise, [...].
        shift: right and down, as fractions of the image's size, [..., 2].
        scale: magnification, [...].
    """
    angle, shift, scale = angle.double() * (math.pi / 180), shift.double(), scale.double()
    cos, sin = angle.cos() / scale, angle.sin() / scale
    # The inverse, from the result to the source.
    linear = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
    offset = -linear @ (2 * shift).unsqueeze(-1)  # the image is two units wide
    return torch.cat([linear, offset], -1).float()


def transform(images: Tensor, matrices: Tensor) -> Tensor:
    """Each image under its own transform: bilinear interpolation, and 0 (the background) outside. -> [n, size, size]

    The positions are computed by one matrix product, with x and y in two planes, which the sampler reads directly. This
    takes about a quarter of the time of `affine_grid`, which uses n small products.

    Args:
        images: float32 [n, size, size].
        matrices: [n, 2, 3], moved to the images' device if it is another.
    """
    n, height, width = images.shape
    if height != width or matrices.shape != (n, 2, 3):
        raise ValueError(
            f"transform needs images [n, size, size] and matrices [n, 2, 3] of the same n, "
            f"got {list(images.shape)} and {list(matrices.shape)}."
        )
    matrices = matrices.to(images.device, images.dtype)
    planes = matrices.reshape(2 * n, 3) @ _positions(width, images.device, images.dtype)
    grid = planes.view(n, 2, height, width).permute(0, 2, 3, 1)
    return F.grid_sample(images.unsqueeze(1), grid, padding_mode="zeros", align_corners=False).squeeze(1)


@lru_cache(maxsize=8)
def _positions(size: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """x, y and 1 at the centre of every pixel. -> [3, size * size]"""
    ramp = ((2 * torch.arange(size, dtype=torch.float64) + 1) / size - 1).to(device, dtype)
    return torch.stack([ramp.repeat(size), ramp.repeat_interleave(size), torch.ones_like(ramp).repeat(size)])
