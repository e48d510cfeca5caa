"""Data files: named tensors and text metadata in a safetensors file, written atomically and verified when read."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from leapwarp.files import atomic

SEAL = "checksum_of_metadata"


class DataError(ValueError):
    """Data are missing or damaged. The message says what was found, what is needed and what to do."""


_MARKS = (  # kinds of files that are often found in the place of others
    (b"\x1f\x8b", "is packed with gzip: unpack it"),
    (b"BZh", "is packed with bzip2: unpack it"),
    (b"\xfd7zXZ", "is packed with xz: unpack it"),
    (b"PK\x03\x04", "is a zip, or what torch.save writes"),
    (b"\x89HDF", "is HDF5"),
    (b"\x93NUMPY", "is an .npy"),
    (b"version https://git-lfs", "is a pointer of Git LFS: git lfs pull"),
    (b"<", "is a page of a website: download it again"),
)


def beginning(data: bytes) -> str:
    """A text that says, by its first bytes, what an unreadable file seems to be."""
    if not data:
        return "it is empty"
    if data[4:8] == b"ftyp" and data[8:11] in (b"hei", b"hev", b"mif", b"msf"):
        return "it is HEIC, which is not read: save it as PNG or JPEG"
    known = next((what for mark, what in _MARKS if data.lstrip().startswith(mark)), None)
    return f"it {known}" if known else f"it begins with {data[:12]!r}"


def write(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Write `tensors` and `metadata` atomically, with a checksum.

    Returns:
        The checksum.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    digest = checksum(tensors)
    with atomic(path) as temporary:
        described = {**metadata, "checksum": digest}
        temporary.write_bytes(save(tensors, metadata={**described, SEAL: seal(described)}))
    return digest


PREPARE = "Delete it and run `python -m leapwarp.data.prepare` again."


def read(path: str | os.PathLike[str], advice: str = PREPARE) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and metadata of a file that `write` made.

    Args:
        advice: what to do if it is missing or damaged, for the message.

    Raises:
        DataError: no such file, not a safetensors file, or no checksum or a wrong one.
    """
    if not Path(path).is_file():
        make = f"Make it with `python -m leapwarp.data.prepare --out {path}`."
        raise DataError(f"{path}: no such data file. {make if advice == PREPARE else advice}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: damaged, not a safetensors file ({error}). {advice}") from None
    needed, found = metadata.pop(SEAL, None), seal(metadata)
    if found != needed:
        raise DataError(
            f"{path}: damaged or of an older version, found metadata of checksum {found}, needed {needed}. {advice}"
        )
    needed, found = metadata.get("checksum"), checksum(tensors)
    if found != needed:
        raise DataError(f"{path}: damaged, found checksum {found}, its metadata says {needed}. {advice}")
    return tensors, metadata


def seal(metadata: Mapping[str, str]) -> str:
    """SHA-256 of the metadata."""
    return hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the bytes of all tensors, in the sorted order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
