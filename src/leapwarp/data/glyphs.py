"""Glyphs: synthetic alphabets that replace Omniglot if it is missing, without a download.

An alphabet has a style, which is a vocabulary of a few strokes and the number of strokes in a character. So its
characters look related. A person has a hand (slant, size, pen, jitter), which affects all their drawings. A stroke is a
spline through a few points. All random numbers come from named streams, so the images are always the same. The unit of
length is half the image's side, and y points down.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from leapwarp.data.alphabets import DRAWINGS, SIZE, Alphabets, build
from leapwarp.rng import generator

LICENCE = "made by leapwarp.data.glyphs, no rights of others"
SEED = 0  # seed of the data set, the same for all experiments
ALPHABETS = 50
SMALL = (14, 14, 16, 17)  # alphabets with fewer than 20 characters, the sizes of Omniglot's four
STROKES = 4  # most strokes of a character
POINTS = 7  # that a stroke passes through
TURNS = (  # of a stroke at its inner points, radians
    (0.0, 0.0, 0.0, 0.0, 0.0),  # line
    (0.0, 0.0, 1.7, 0.0, 0.0),  # corner
    (0.0, 1.9, 0.0, -1.9, 0.0),  # zigzag
    (0.5, 0.5, 0.5, 0.5, 0.5),  # arc
    (1.2, 1.2, 1.2, 1.2, 1.2),  # loop
    (0.9, 0.9, 0.0, -0.9, -0.9),  # wave
    (0.0, 0.0, 0.0, 1.1, 1.1),  # hook
)
SAMPLES = 61  # along a stroke, when it is drawn
INK = 0.5  # of a pen, so that the middle of a stroke is about black


def make(n_alphabets: int = ALPHABETS) -> Alphabets:
    """The first `n_alphabets` of the 50 alphabets, 20 drawings of each character."""
    characters = sizes()[:n_alphabets]
    images = [draw(alphabet, count) for alphabet, count in enumerate(characters)]
    names = [f"glyphs_{alphabet:02d}" for alphabet in range(n_alphabets)]
    alphabet = torch.arange(n_alphabets).repeat_interleave(torch.tensor(characters))
    return build(torch.cat(images), alphabet, names, "glyphs")


def sizes() -> list[int]:
    """Characters of each alphabet: 14 to 55, four alphabets below 20, 1,623 in all, as in Omniglot."""
    n = ALPHABETS - len(SMALL)
    large = [20 + round(35 * (i / (n - 1)) ** 1.53) for i in range(n)]
    order = torch.randperm(ALPHABETS, generator=generator(SEED, "glyphs", "sizes")).tolist()
    ranked = [*SMALL, *large]
    return [ranked[i] for i in order]


def draw(alphabet: int, count: int) -> Tensor:
    """All drawings of the first `count` characters of an alphabet, ink 255. -> uint8 [count, 20, 28, 28]"""
    points, is_drawn = _characters(alphabet, count)
    points, pen = _hands(alphabet, points)
    ink = _render(_curve(points.flatten(0, 1)), is_drawn.repeat_interleave(DRAWINGS, 0), pen.repeat(count))
    return (ink * 255).round().byte().view(count, DRAWINGS, SIZE, SIZE)


def _characters(alphabet: int, count: int) -> tuple[Tensor, Tensor]:
    """The ideal characters of an alphabet in its style.

    Returns:
        points of the strokes [count, stroke, point, 2], and which strokes exist, bool [count, stroke].
    """
    rng = generator(SEED, "glyphs", "style", alphabet)
    vocabulary = _vocabulary(rng)
    rng = generator(SEED, "glyphs", "characters", alphabet)
    mean_strokes = 1.2 + 1.8 * torch.rand(1, generator=rng)
    attached = 0.5 + 0.5 * torch.rand(1, generator=rng)  # share of strokes that start on an earlier one
    mirrored = 0.5 * torch.rand(1, generator=rng)

    n_strokes = (mean_strokes + 0.8 * torch.randn(count, generator=rng)).round().clamp(1, STROKES)
    word = torch.randint(len(vocabulary), (count, STROKES), generator=rng)
    # Two characters with the same single stroke would be identical, so the later one gets a second stroke.
    alone = torch.where(n_strokes == 1, word[:, 0], -1 - torch.arange(count))
    is_repeat = (alone[:, None] == alone).tril(-1).any(1)
    is_drawn = torch.arange(STROKES) < torch.where(is_repeat, 2, n_strokes)[:, None]
    strokes = vocabulary[word]
    strokes = strokes * (0.5 + 0.6 * torch.rand(count, STROKES, 1, 1, generator=rng))
    flip = torch.rand(count, STROKES, 1, 2, generator=rng) < mirrored
    strokes = torch.where(flip, -strokes, strokes)

    placed = [strokes[:, 0]]
    rows = torch.arange(count)
    for s in range(1, STROKES):
        host = torch.stack(placed, 1).flatten(1, 2)  # [count, point of an earlier stroke, 2]
        anchor = host[rows, torch.randint(host.shape[1], (count,), generator=rng)]
        own = strokes[rows, s, torch.randint(POINTS, (count,), generator=rng)]
        apart = 1.6 * torch.rand(count, 2, generator=rng) - 0.8
        is_attached = torch.rand(count, 1, generator=rng) < attached
        origin = torch.where(is_attached, anchor - own, apart - strokes[:, s].mean(1))
        placed.append(strokes[:, s] + origin[:, None])
    points = torch.stack(placed, 1)

    # Centre the drawn strokes and give the character a size.
    mask = is_drawn[:, :, None, None]
    low = torch.where(mask, points, math.inf).flatten(1, 2).amin(1)
    high = torch.where(mask, points, -math.inf).flatten(1, 2).amax(1)
    half = ((high - low) / 2).clamp(min=0.1)
    half = (half * half.amax(1, keepdim=True)).sqrt()  # on the way from their shape to a square
    size = torch.empty(count, 1).uniform_(0.45, 0.72, generator=rng)
    return (points - ((low + high) / 2)[:, None, None]) * (size / half)[:, None, None], is_drawn


def _vocabulary(rng: torch.Generator) -> Tensor:
    """The strokes that characters of an alphabet are made of, centred, of size 1. -> [stroke, point, 2]"""
    n = int(torch.randint(5, 10, (1,), generator=rng))
    liking = (1.2 * torch.randn(len(TURNS), generator=rng)).exp()  # an alphabet is round, angular, hooked ...
    turns = torch.tensor(TURNS)[torch.multinomial(liking, n, replacement=True, generator=rng)]
    turns = turns * torch.empty(n, 1).uniform_(0.75, 1.25, generator=rng)
    turns = torch.where(torch.rand(n, 1, generator=rng) < 0.5, -turns, turns)
    # Strokes start in one of eight directions, with vertical and horizontal ones twice as often.
    start = torch.randint(12, (n, 1), generator=rng)
    start = torch.where(start < 8, start * (math.pi / 4), start * (math.pi / 2))
    heading = start + F.pad(turns, (1, 0)).cumsum(1)
    step = torch.empty(n, POINTS - 1).uniform_(0.7, 1.3, generator=rng)
    walk = (torch.stack([heading.cos(), heading.sin()], -1) * step[..., None]).cumsum(1)
    points = F.pad(walk, (0, 0, 1, 0))
    points = points - points.mean(1, keepdim=True)
    return points / (2 * points.abs().amax((1, 2), keepdim=True))


def _hands(alphabet: int, points: Tensor) -> tuple[Tensor, Tensor]:
    """The characters as the alphabet's 20 people draw them.

    Returns:
        points [character, person, stroke, point, 2], and the width of each person's pen [person].
    """
    rng = generator(SEED, "glyphs", "hands", alphabet)
    n = len(points)
    slant, turn = 0.15 * torch.randn(2, DRAWINGS, generator=rng)
    shape, size = 0.12 * torch.randn(2, DRAWINGS, generator=rng), 0.1 * torch.randn(DRAWINGS, generator=rng)
    wide, high = (shape + size).exp()
    jitter = 0.025 + 0.045 * torch.rand(DRAWINGS, 1, 1, 1, generator=rng)
    pen = 0.030 + 0.008 * torch.rand(DRAWINGS, generator=rng)

    shape = (n, DRAWINGS, STROKES)
    wobble = torch.randn(n * DRAWINGS * STROKES, 2, 3, generator=rng)  # slow along the stroke
    wobble = F.interpolate(wobble, POINTS, mode="linear", align_corners=True).mT.view(*shape, POINTS, 2)
    drawn = points[:, None] + jitter * wobble
    middle = drawn.mean(3, keepdim=True)
    angle = 2.0 * jitter * torch.randn(*shape, 1, 1, generator=rng)
    stretch = 1 + 2.5 * jitter * torch.randn(*shape, 1, 1, generator=rng)
    offset = drawn - middle
    turned = offset * angle.cos() + torch.stack([-offset[..., 1], offset[..., 0]], -1) * angle.sin()
    drawn = middle + stretch * turned + 1.2 * jitter * torch.randn(*shape, 1, 2, generator=rng)

    hand = torch.stack([torch.stack([wide * turn.cos(), slant - turn.sin()], -1),
                        torch.stack([turn.sin(), high * turn.cos()], -1)], -2)  # fmt: skip
    drawn = torch.einsum("dij,cdspj->cdspi", hand, drawn)
    return drawn + 0.08 * torch.randn(n, DRAWINGS, 1, 1, 2, generator=rng), pen


def _curve(points: Tensor) -> Tensor:
    """Positions along Catmull-Rom splines through points. [..., point, 2] -> [..., sample, 2]"""
    t = torch.linspace(0, POINTS - 1, SAMPLES, dtype=torch.float64)
    k = t.floor().clamp(max=POINTS - 2)
    u = t - k
    weights = [
        (-u + 2 * u**2 - u**3) / 2,
        (2 - 5 * u**2 + 3 * u**3) / 2,
        (u + 4 * u**2 - 3 * u**3) / 2,
        (u**3 - u**2) / 2,
    ]
    basis = torch.zeros(SAMPLES, POINTS, dtype=torch.float64)
    for shift, weight in enumerate(weights):
        index = (k.long() + shift - 1).clamp(0, POINTS - 1)
        basis.scatter_add_(1, index[:, None], weight[:, None])
    return basis.float() @ points


def _render(curves: Tensor, is_drawn: Tensor, pen: Tensor) -> Tensor:
    """Ink along curves: a round Gaussian pen integrated over their length, at most 1. -> [n, 28, 28]

    The Gaussian is a product of one over x and one over y, so an image is the product of two matrices.

    Args:
        curves: [n, stroke, sample, 2].
        is_drawn: [n, stroke].
        pen: standard deviation of the Gaussian, [n].
    """
    length = (curves[:, :, 1:] - curves[:, :, :-1]).norm(dim=-1) * is_drawn[..., None]
    ink = (INK * length / pen[:, None, None]).flatten(1)  # [n, sample]
    middle = ((curves[:, :, 1:] + curves[:, :, :-1]) / 2).flatten(1, 2)
    centres = (2 * torch.arange(SIZE) + 1) / SIZE - 1
    squares = ((middle[..., None] - centres) / pen[:, None, None, None]).square_()  # [n, sample, 2, pixel]
    x, y = squares.mul_(-0.5).exp_().unbind(2)
    return ((y * ink[..., None]).mT @ x).clamp_(0, 1)
