"""Affine transforms: known answers, agreement with torchvision, and equal results one by one and in a batch."""

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import affine as torchvision_affine

from leapwarp.data import augment
from leapwarp.rng import generator

SIZE = 28


def images(n: int) -> torch.Tensor:
    return torch.rand(n, SIZE, SIZE, generator=generator(0, "images"))


def one(angle: float = 0.0, shift: tuple[float, float] = (0.0, 0.0), scale: float = 1.0) -> torch.Tensor:
    return augment.matrices(torch.tensor([angle]), torch.tensor([shift]), torch.tensor([scale]))


def test_identity_returns_the_image():
    x = images(1)
    torch.testing.assert_close(augment.transform(x, one()), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_quarter_turns_are_clockwise(quarters: int):
    x = images(1)
    turned = augment.transform(x, one(angle=90.0 * quarters))
    torch.testing.assert_close(turned, torch.rot90(x, -quarters, (1, 2)), atol=1e-5, rtol=0)


def test_translation_shifts_and_fills_with_background():
    x = images(1)
    moved = augment.transform(x, one(shift=(3 / SIZE, -5 / SIZE)))  # 3 to the right, 5 up
    expected = torch.zeros_like(x)
    expected[:, :-5, 3:] = x[:, 5:, :-3]
    torch.testing.assert_close(moved, expected, atol=1e-5, rtol=0)


def test_scale_magnifies():
    blob = torch.zeros(1, SIZE, SIZE)
    blob[:, 10:18, 10:18] = 1.0
    area = augment.transform(blob, one(scale=1.5)).sum() / blob.sum()
    assert area == pytest.approx(1.5**2, rel=1e-3)


@pytest.mark.parametrize(
    ("angle", "shift", "scale"),
    [(0, (0, 0), 0.8), (37, (0, 0), 1), (211, (4, -3), 1.13), (300.5, (-5, 2), 0.87)],
)
def test_equals_torchvision(angle: float, shift: tuple[int, int], scale: float):
    x = images(3)
    theirs = torchvision_affine(x, angle, list(shift), scale, [0.0, 0.0], InterpolationMode.BILINEAR)
    m = one(angle, (shift[0] / SIZE, shift[1] / SIZE), scale)
    ours = augment.transform(x, m.expand(3, 2, 3))
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)  # float32 positions of up to 14 pixels


def test_batch_equals_one_by_one():
    x, m = images(20), augment.affine(generator(0, "affine"), (20,))
    singles = torch.cat([augment.transform(x[i : i + 1], m[i : i + 1]) for i in range(20)])
    torch.testing.assert_close(augment.transform(x, m), singles, atol=1e-5, rtol=0)


def test_draws_stay_in_range_and_repeat():
    m = augment.affine(generator(0, "affine"), (50, 40), degrees=(0, 360), translate=0.2, scale=(0.8, 1.2))
    assert m.shape == (50, 40, 2, 3)
    assert m.dtype == torch.float32
    torch.testing.assert_close(m, augment.affine(generator(0, "affine"), (50, 40)), atol=0, rtol=0)
    magnification = torch.linalg.det(m[..., :2].double()) ** -0.5
    assert 0.8 <= magnification.min() < 0.81
    assert 1.19 < magnification.max() <= 1.2
    shift = -torch.linalg.solve(m[..., :2].double(), m[..., 2:].double()) / 2  # undo the inverse
    assert 0.19 < shift.abs().max() <= 0.2 + 1e-6
    angle = torch.atan2(m[..., 0, 1], m[..., 0, 0])
    assert torch.histc(angle, 8).min() > 200  # 2,000 angles, every eighth of the circle is used


def test_rotations_are_drawn_from_the_spaced_ones():
    every = augment.all_rotations(36)
    assert every.shape == (36, 2, 3)
    torch.testing.assert_close(every[1], one(angle=10.0)[0], atol=1e-7, rtol=0)
    drawn = augment.rotations(generator(0, "turns"), (10, 100), 36)
    assert drawn.shape == (10, 100, 2, 3)
    same = (drawn.view(-1, 1, 2, 3) == every).flatten(2).all(2)  # [draw, rotation]
    assert same.any(1).all()
    assert same.any(0).all()


def test_wrong_shapes_say_so():
    with pytest.raises(ValueError, match=r"\[3, 28, 28\] and \[2, 2, 3\]"):
        augment.transform(images(3), one().expand(2, 2, 3))
    with pytest.raises(ValueError, match="scale above 0"):
        augment.affine(generator(0), (1,), scale=(0.0, 1.0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
def test_cuda_equals_cpu():
    x, m = images(20), augment.affine(generator(0, "affine"), (20,))
    on_gpu = augment.transform(x.cuda(), m).cpu()
    torch.testing.assert_close(on_gpu, augment.transform(x, m), atol=1e-4, rtol=0)
