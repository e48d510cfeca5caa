"""Alphabets of handwritten characters, the tasks of the Omniglot experiments."""

import json
import os
from typing import NamedTuple

import torch
from torch import Tensor

from leapwarp.data import store
from leapwarp.data.store import DataError

DRAWINGS = 20  # people who drew each character
SIZE = 28  # pixels along a side


class Alphabets(NamedTuple):
    """All characters of all alphabets. Rows of one alphabet are adjacent, in the order of `names`."""

    images: Tensor
    """uint8 [character, 20, 28, 28]: ink 255 on background 0; the second axis is the person who drew it"""
    alphabet: Tensor
    """int64 [character]: the alphabet's index in `names`"""
    names: list[str]
    """sorted"""
    source: str
    """omniglot, or glyphs for synthetic characters"""
    checksum: str
    """checksum of the prepared file, or of the tensors before they are written"""


def build(images: Tensor, alphabet: Tensor, names: list[str], source: str) -> Alphabets:
    """An `Alphabets` from tensors that are not in a file yet."""
    checksum = store.checksum({"images": images, "alphabet": alphabet})
    return Alphabets(images, alphabet, names, source, checksum)


def save(path: str | os.PathLike[str], alphabets: Alphabets, licence: str) -> None:
    tensors = {"images": alphabets.images, "alphabet": alphabets.alphabet}
    metadata = {"source": alphabets.source, "names": json.dumps(alphabets.names), "licence": licence}
    store.write(path, tensors, metadata)


def load(path: str | os.PathLike[str]) -> Alphabets:
    """Read the prepared file.

    Raises:
        DataError: the file is missing or damaged (see `store.read`), or does not contain alphabets.
    """
    tensors, metadata = store.read(path)
    found = sorted(tensors.keys() | metadata.keys())
    missing = sorted({"images", "alphabet", "names", "source"} - set(found))
    if missing:
        raise DataError(f"{path}: no alphabets in it, it holds {found} and lacks {missing}.")
    images, alphabet, names = tensors["images"], tensors["alphabet"], json.loads(metadata["names"])
    if images.dtype != torch.uint8 or images.shape != (len(alphabet), DRAWINGS, SIZE, SIZE):
        raise DataError(
            f"{path}: images are {images.dtype} {list(images.shape)} for {len(alphabet)} characters, "
            f"needed torch.uint8 [{len(alphabet)}, {DRAWINGS}, {SIZE}, {SIZE}]."
        )
    if not torch.equal(alphabet.unique(), torch.arange(len(names))):
        raise DataError(f"{path}: characters of {len(alphabet.unique())} alphabets, names of {len(names)}.")
    return Alphabets(images, alphabet, names, metadata["source"], metadata["checksum"])
