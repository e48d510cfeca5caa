"""Few-shot data sets: images of classes that are split into training, validation and test classes."""

import json
import os
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from leapwarp.data import store
from leapwarp.data.store import DataError

PARTS = ("train", "validation", "test")
CHUNK = 2048  # images resized at a time


class Classes(NamedTuple):
    """All images of all classes. Rows of one class are adjacent, in the order of `names`."""

    images: Tensor
    """uint8 [image, 3, size, size]"""
    label: Tensor
    """int64 [image]: the class's index in `names`"""
    names: list[str]
    """train, then validation, then test classes; sorted within each"""
    split: dict[str, list[int]]
    """indices in `names` of the train, validation and test classes"""
    source: str
    """mini-imagenet, tiered-imagenet, tiny-imagenet, textures for synthetic images, or a folder's name"""
    checksum: str
    """checksum of the prepared file, or of the tensors before they are written"""

    def rows(self, index: int) -> range:
        """The rows of the images of a class."""
        first, last = torch.searchsorted(self.label, torch.tensor([index, index + 1])).tolist()
        return range(first, last)


def build(images: Tensor, label: Tensor, names: list[str], split: dict[str, list[int]], source: str) -> Classes:
    """A `Classes` from tensors that are not in a file yet."""
    checksum = store.checksum({"images": images, "label": label})
    return Classes(images, label, names, split, source, checksum)


def save(path: str | os.PathLike[str], classes: Classes, licence: str) -> None:
    metadata = {
        "source": classes.source,
        "names": json.dumps(classes.names),
        "split": json.dumps(classes.split),
        "licence": licence,
    }
    store.write(path, {"images": classes.images, "label": classes.label}, metadata)


def load(path: str | os.PathLike[str], size: int | None = None) -> Classes:
    """Read the prepared file. If `size` is given, images are resized to this number of pixels a side.

    Images whose size does not change are memory-mapped and not read into memory.

    Raises:
        DataError: the file is missing or damaged (see `store.read`), or does not contain classes of images.
    """
    tensors, metadata = store.read(path)
    found = sorted(tensors.keys() | metadata.keys())
    missing = sorted({"images", "label", "names", "split", "source"} - set(found))
    if missing:
        raise DataError(f"{path}: no classes of images in it, it holds {found} and lacks {missing}.")
    images, label, names = tensors["images"], tensors["label"], json.loads(metadata["names"])
    split = json.loads(metadata["split"])
    if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[:2] != (len(label), 3):
        raise DataError(
            f"{path}: images are {images.dtype} {list(images.shape)} with {len(label)} labels, "
            f"needed torch.uint8 [{len(label)}, 3, size, size]."
        )
    in_split = sorted(index for part in PARTS for index in split[part])
    if not torch.equal(label.unique_consecutive(), torch.arange(len(names))) or in_split != list(range(len(names))):
        raise DataError(
            f"{path}: images of {len(label.unique())} classes, names of {len(names)}, {len(in_split)} in the split."
        )
    if size is not None:
        images = resize(images, size)
    return Classes(images, label, names, split, metadata["source"], metadata["checksum"])


def for_choosing(classes: Classes) -> Classes:
    """The same data with the validation classes as test classes, to choose settings without use of the test classes."""
    return classes._replace(split=classes.split | {"test": classes.split["validation"]})


def resize(images: Tensor, size: int) -> Tensor:
    """Images [n, 3, *, *] at another size, bilinear with antialiasing. -> [n, 3, size, size]"""
    if images.shape[-2:] == (size, size):
        return images
    result = torch.empty(len(images), 3, size, size, dtype=torch.uint8)
    for first in range(0, len(images), CHUNK):
        part = images[first : first + CHUNK].float()
        part = F.interpolate(part, (size, size), mode="bilinear", antialias=True, align_corners=False)
        result[first : first + CHUNK] = part.round().clamp(0, 255).byte()
    return result
