"""Subsets of ImageNet for few-shot learning: find them in the layouts that people have, check them, read them.

mini-ImageNet (Vinyals et al., 2016, with the split of Ravi and Larochelle, 2017) and tiered-ImageNet (Ren et al., 2018)
have no official archive. A set is a folder, or a zip of one, that holds one of

    folders  train/, val/ and test/ with a folder of images for each class (a user's own data set is the same)
    csv      train.csv, val.csv and test.csv with the columns filename and label, and the images in images/
    cache    mini-imagenet-cache-{train,val,test}.pkl: image_data [n, 84, 84, 3] and class_dict
    split    miniImageNet_category_split_{train_phase_train,val,test}.pickle: data and labels
    tiered   {train,val,test}_images_png.pkl (encoded images) or {train,val,test}_images.npz, and {...}_labels.pkl

of which the last four cannot be in a zip. Images are squeezed to the size asked for, whatever their proportions.
"""

import csv
import io
import pickle
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from leapwarp.data.classes import PARTS, Classes, build
from leapwarp.data.omniglot import BROKEN_PNG, BROKEN_ZIP
from leapwarp.data.store import DataError

LICENCE = "ImageNet's terms: for non-commercial research and education, https://image-net.org"
SIZE = 84  # pixels along a side (mini- and tiered-ImageNet as the few-shot literature uses them)
WORDS = {"train": ("train",), "validation": ("val", "validation", "valid"), "test": ("test",)}
EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
# What zipfile and Pillow raise on damaged files, and what arrays of another kind or length than they should be lead to.
BROKEN = (*BROKEN_ZIP, *BROKEN_PNG, TypeError, IndexError)


class Kind(NamedTuple):
    """What a published set has to have."""

    source: str
    folders: tuple[str, ...]
    """names under which people keep it"""
    classes: tuple[int, int, int] | None = None
    """train, validation, test; None where any will do"""
    images: tuple[int, int] = (1, 1_000_000)
    """of a class, least and most"""
    size: int = SIZE


KINDS = {
    "mini": Kind(
        "mini-imagenet", ("mini-imagenet", "mini_imagenet", "miniimagenet", "miniImageNet"), (64, 16, 20), (600, 600)
    ),
    "tiered": Kind(
        "tiered-imagenet",
        ("tiered-imagenet", "tiered_imagenet", "tieredimagenet", "tieredImageNet"),
        (351, 97, 160),
        (732, 1300),
    ),
    "tiny": Kind("tiny-imagenet", ("tiny-imagenet",), (128, 32, 40), size=64),  # 200 classes x 64 images of 64 x 64
}

Read = Callable[[int], "np.ndarray | bytes"]
"""number of an image of a class -> its pixels [height, width, 3], or the bytes of its file"""


class Found(NamedTuple):
    """A class as it lies on the disk."""

    place: str
    """for messages"""
    count: int
    read: Read


Listing = dict[str, dict[str, Found]]
"""part -> name of a class -> its images"""


def find(folder: Path, kind: Kind) -> Path | None:
    """Where the set lies in `folder`, or None."""
    for name in kind.folders:
        for path in (folder / name, folder / f"{name}.zip"):
            if path.exists():
                return path
    return None


def read(path: Path, kind: Kind, size: int | None = None) -> Classes:
    """Read and check all of a set.

    Args:
        size: pixels along a side; the kind's own where None.

    Raises:
        DataError: something is missing, damaged or not as many as it has to be; the message names it.
    """
    size = size or kind.size
    listing = _list(path)
    check(path, listing, kind)
    names, label, split, classes = [], [], {}, []
    for part in PARTS:
        split[part] = list(range(len(names), len(names) + len(listing[part])))
        for name in sorted(listing[part]):
            label += [len(names)] * listing[part][name].count
            names.append(name)
            classes.append(listing[part][name])
    images = np.empty((len(label), 3, size, size), np.uint8)
    row = 0
    for one in classes:
        for number in range(one.count):
            images[row] = _pixels(one, number, size)
            row += 1
    return build(torch.from_numpy(images), torch.tensor(label), names, split, kind.source)


def check(path: Path, listing: Listing, kind: Kind) -> None:
    """Raise DataError unless classes and images are as many as the set has, and no class is in two parts."""
    counts = tuple(len(listing[part]) for part in PARTS)
    if kind.classes and counts != kind.classes:
        found, needed = ("/".join(map(str, each)) for each in (counts, kind.classes))
        raise DataError(f"{path}: found {found} train/validation/test classes, {kind.source} has {needed}.")
    if not all(counts):
        raise DataError(
            f"{path}: found {'/'.join(map(str, counts))} train/validation/test classes, needed some of each."
        )
    twice = [name for name, n in Counter(name for part in PARTS for name in listing[part]).items() if n > 1]
    if twice:
        raise DataError(f"{path}: {len(twice)} classes are in two parts of the split: {', '.join(twice[:3])}.")
    low, high = kind.images
    for part in PARTS:
        for name, found in sorted(listing[part].items()):
            if not low <= found.count <= high:
                needed = f"{low}" if low == high else f"{low} to {high}"
                raise DataError(f"{found.place}: found {found.count} images of class {name}, needed {needed}.")


def _list(path: Path) -> Listing:
    """The set in whichever layout it is."""
    if path.is_file():
        return _list_zip(path)
    for layout in (_list_csv, _list_cache, _list_split, _list_tiered, _list_folders):
        listing = layout(path)
        if listing is not None:
            return listing
    there = sorted(entry.name for entry in path.iterdir())[:10]
    raise DataError(
        f"{path}: needed train/, val/ and test/ with a folder for each class, or train.csv, val.csv, test.csv and "
        f"images/, or one of the pickle caches; found {there}."
    )


def _part_files(path: Path, pattern: str) -> dict[str, Path] | None:
    """The file (or folder) of each part, `pattern` with its word for {}; None where a part has none."""
    found = {}
    for part, words in WORDS.items():
        there = [path / pattern.format(word) for word in words if (path / pattern.format(word)).exists()]
        if not there:
            return None
        found[part] = there[0]
    return found


def _list_folders(path: Path) -> Listing | None:
    folders = _part_files(path, "{}")
    if folders is None:
        return None
    return {
        part: {
            one.name: _files([file for file in sorted(one.rglob("*")) if file.suffix.lower() in EXTENSIONS], one)
            for one in sorted(folder.iterdir())
            if one.is_dir() and not one.name.startswith(".")
        }
        for part, folder in folders.items()
    }


def _files(files: list[Path], place: Path) -> Found:
    return Found(str(place), len(files), lambda number: files[number].read_bytes())


def _list_zip(path: Path) -> Listing:
    """`[top/]train/<class>/...` in a zip, read without unpacking it."""
    try:
        archive = zipfile.ZipFile(path)
    except BROKEN as error:
        raise DataError(f"{path}: truncated or damaged zip ({error}). Get the zip again.") from None
    part_of = {word: part for part, words in WORDS.items() for word in words}
    entries: dict[tuple[str, str], list[str]] = {}
    for entry in archive.namelist():
        parts = PurePosixPath(entry).parts
        at = next((i for i, word in enumerate(parts[:-2]) if word in part_of), None)
        if at is not None and entry.lower().endswith(EXTENSIONS) and not parts[-1].startswith("."):
            entries.setdefault((part_of[parts[at]], parts[at + 1]), []).append(entry)
    listing: Listing = {part: {} for part in PARTS}
    for (part, name), files in entries.items():
        listing[part][name] = _entries(archive, sorted(files), f"{path}/{part}/{name}")
    return listing


def _entries(archive: zipfile.ZipFile, files: list[str], place: str) -> Found:
    return Found(place, len(files), lambda number: archive.read(files[number]))


def _list_csv(path: Path) -> Listing | None:
    tables = _part_files(path, "{}.csv")
    if tables is None:
        return None
    listing: Listing = {}
    for part, table in tables.items():
        try:
            with open(table, newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
        except (UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{table}: is no CSV ({error}).") from None
        wrong = next((row for row in rows if not (row.get("filename") and row.get("label"))), None)
        if not rows or wrong:
            raise DataError(f"{table}: needed rows with the columns filename and label, found {wrong or 'none'}.")
        files: dict[str, list[Path]] = {}
        places = [path / "images", path]
        for row in rows:
            name, file = row["label"], row["filename"]
            candidates = [place / way for place in places for way in (file, f"{name}/{file}")]
            there = next((candidate for candidate in candidates if candidate.is_file()), None)
            if there is None:
                raise DataError(f"{table} names {file} of class {name}, which is neither in images/ nor beside it.")
            files.setdefault(name, []).append(there)
        listing[part] = {name: _files(paths, table) for name, paths in files.items()}
    return listing


def _list_cache(path: Path) -> Listing | None:
    caches = _part_files(path, "mini-imagenet-cache-{}.pkl")
    if caches is None:
        return None
    listing: Listing = {}
    for part, file in caches.items():
        content = _unpickle(file, ("image_data", "class_dict"))
        listing[part] = {
            str(name): _picked(content["image_data"], list(rows), file) for name, rows in content["class_dict"].items()
        }
    return listing


def _list_split(path: Path) -> Listing | None:
    first = {"train": "train_phase_train", "validation": "val", "test": "test"}
    files = {part: path / f"miniImageNet_category_split_{word}.pickle" for part, word in first.items()}
    if not all(file.is_file() for file in files.values()):
        return None
    listing: Listing = {}
    for part, file in files.items():
        content = _unpickle(file, ("data", "labels"))
        listing[part] = _by_label(content["data"], content["labels"], part, file)
    return listing


def _list_tiered(path: Path) -> Listing | None:
    labels = _part_files(path, "{}_labels.pkl")
    images = _part_files(path, "{}_images_png.pkl") or _part_files(path, "{}_images.npz")
    if labels is None or images is None:
        return None
    listing: Listing = {}
    for part, file in images.items():
        found = _unpickle(labels[part])
        if isinstance(found, dict):
            keys = ("label_specific", "labels", "label_specific_str")
            key = next((key for key in keys if key in found), None)
            if key is None:
                raise DataError(f"{labels[part]}: needed one of {', '.join(keys)}, found {sorted(map(str, found))}.")
            names, found = found.get("label_specific_str"), found[key]
            if names is not None:  # of each class, with a number for each image; or of each image
                found = names if len(names) == len(found) else [names[int(number)] for number in found]
        if file.suffix == ".npz":
            try:
                with np.load(file, allow_pickle=False) as archive:
                    pictures = archive["images"]
            except (KeyError, *BROKEN) as error:
                raise DataError(f"{file}: needed an array `images` ({error}).") from None
        else:
            pictures = _unpickle(file)
        listing[part] = _by_label(pictures, found, part, file)
    return listing


def _by_label(pictures: Any, labels: Any, part: str, file: Path) -> dict[str, Found]:
    """Images by the class that each has a label of; numbers count within a part, so that names take its own."""
    if not (hasattr(pictures, "__len__") and hasattr(labels, "__len__")):
        raise DataError(f"{file}: needed images and labels, found {type(pictures).__name__}, {type(labels).__name__}.")
    if len(pictures) != len(labels):
        raise DataError(f"{file}: found {len(pictures)} images and {len(labels)} labels.")
    rows: dict[str, list[int]] = {}
    for row, label in enumerate(labels):
        name = label if isinstance(label, str) else f"{part}_{int(label):03d}"
        rows.setdefault(name, []).append(row)
    return {name: _picked(pictures, each, file) for name, each in rows.items()}


def _picked(pictures: Any, rows: list[int], file: Path) -> Found:
    def one(number: int) -> np.ndarray | bytes:
        picture = np.asarray(pictures[rows[number]], dtype=np.uint8)
        return picture if picture.ndim == 3 else picture.tobytes()  # an encoded image is a row of bytes

    return Found(str(file), len(rows), one)


ADMITTED = {f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")}
ADMITTED |= {"numpy.ndarray", "numpy.dtype", "_codecs.encode", "builtins.set", "collections.OrderedDict"}


class _Unpickler(pickle.Unpickler):
    """Admits arrays and plain values only: a pickle can otherwise run any program when it is read."""

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in ADMITTED:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is neither an array nor a plain value")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _unpickle(file: Path, needed: tuple[str, ...] = ()) -> Any:
    """What a pickle holds, written by Python 2 or 3; a dictionary with the keys `needed`, where they are given."""
    try:
        with open(file, "rb") as stream:
            content = _Unpickler(stream, encoding="latin1").load()
    except Exception as error:  # a damaged pickle raises almost anything
        raise DataError(f"{file}: damaged, or not a cache of images ({error}).") from None
    if needed and not (isinstance(content, dict) and set(needed) <= content.keys()):
        there = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise DataError(f"{file}: needed {' and '.join(needed)}, found {there}.")
    return content


def _pixels(one: Found, number: int, size: int) -> np.ndarray:
    """One image. -> uint8 [3, size, size]"""
    try:
        content = one.read(number)
        image = Image.open(io.BytesIO(content)) if isinstance(content, bytes) else Image.fromarray(content)
        image = image.convert("RGB")
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.LANCZOS)
    except BROKEN as error:
        raise DataError(f"{one.place}: image number {number} is truncated or damaged ({error}).") from None
    return np.asarray(image).transpose(2, 0, 1)
