"""Subsets of ImageNet for few-shot learning: find them in their common layouts, check them, and read them.

mini-ImageNet (Vinyals et al., 2016, with the split of Ravi and Larochelle, 2017) and tiered-ImageNet (Ren et al., 2018)
have no official archive. A set is a folder or a zip file that contains, at its top or in a single folder, one of

    folders  train/, val/ and test/ with a folder of images for each class (a user's own data set is the same)
    csv      train.csv, val.csv and test.csv with the columns filename and label, and the images in images/
    arrays   a pickle or .npz of each part by one of the names in ARRAYS, such as mini-imagenet-cache-train.pkl: images
             (image_data, data, images or features) with class_dict (class -> rows) or labels (labels or targets)
    tiered   {train,val,test}_images_png.pkl (encoded images) or {train,val,test}_images.npz, and {...}_labels.pkl
    tiny     the official tiny-imagenet-200: train/<class>/images/, val/ with val_annotations.txt, test/ without labels

The official Tiny-ImageNet has all of its 200 classes in train/ and again in val/. Its test images have no labels and
are ignored. Of each 25 classes, sorted by name, the first 16 are for training, the next 4 for validation and the last 5
for tests: 128, 32 and 40 classes, each with its 500 + 50 images. If images are missing, rows call the set
tiny-imagenet-200-subset. Images are resized to the requested size without keeping proportions.
"""

import posixpath
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from leapwarp.data import caches, listing, pictures, tables
from leapwarp.data.classes import PARTS, Classes, build
from leapwarp.data.listing import Listing
from leapwarp.data.store import DataError

LICENCE = "ImageNet's terms: for non-commercial research and education, https://image-net.org"
SIZE = 84  # pixels along a side (mini- and tiered-ImageNet as the few-shot literature uses them)
WORDS = {"train": ("train",), "validation": ("val", "validation", "valid"), "test": ("test",)}
ARRAYS = (  # of one part each, for whose word {} stands
    *("mini-imagenet-cache-{}", "miniImageNet_category_split_{}", "few-shot-{}"),
    *("mini_imagenet_{}", "mini-imagenet-{}", "miniImageNet_{}", "{}"),
)
IMAGES, LABELS = ("image_data", "data", "images", "features"), ("class_dict", "labels", "targets")
ENDINGS = (".pkl", ".pickle", ".npz")
OFFICIAL_TINY = (500, 50)  # images of a class in train/ and in val/
ANNOTATIONS = "val/val_annotations.txt"


class Kind(NamedTuple):
    """The required properties of a published set."""

    source: str
    folders: tuple[str, ...]
    """names of its folder; letter case, hyphens and underscores do not matter"""
    classes: tuple[int, int, int] | None = None
    """numbers of train, validation and test classes; None for any"""
    images: tuple[int, int] = (1, 1_000_000)
    """smallest and largest number of images of a class"""
    size: int = SIZE


KINDS = {
    "mini": Kind("mini-imagenet", ("mini-imagenet",), (64, 16, 20), (600, 600)),
    "tiered": Kind("tiered-imagenet", ("tiered-imagenet",), (351, 97, 160), (732, 1300)),
    "tiny": Kind("tiny-imagenet", ("tiny-imagenet", "tiny-imagenet-200"), (128, 32, 40), size=64),
}


class Found(NamedTuple):
    """A class on the disk."""

    place: str
    """its place, for messages"""
    count: int
    read: Callable[[int], pictures.Item]
    """number of an image of the class -> its pixels, or the bytes of its file"""
    where: Callable[[int], str]
    """the place of such an image, for messages"""


class Set(NamedTuple):
    parts: dict[str, dict[str, Found]]
    """part -> name of a class -> its images"""
    source: str | None = None
    """its name in rows, if the layout determines it"""


def plain(name: str) -> str:
    return name.casefold().replace("-", "").replace("_", "").replace(" ", "")


def find(folder: Path, kind: Kind) -> Path | None:
    """The path of the set in `folder`, or None.

    Raises:
        DataError: it exists as an archive of a kind that is not read.
    """
    entries = sorted(folder.iterdir())
    for name in kind.folders:
        entries.sort(key=lambda path: path.name not in (name, f"{name}.zip"))
        for ending in ("", ".zip"):
            found = [path for path in entries if plain(path.name) == plain(name) + ending]
            if found:
                return found[0]
    for path in entries:
        if any(plain(path.name) == plain(name) + ending for name in kind.folders for ending in listing.UNREAD):
            raise DataError(f"{path}: found an archive that is not read, needed a folder or a .zip. Unpack it.")
    return None


def read(path: Path, kind: Kind, size: int | None = None) -> Classes:
    """Read and check a whole set. Prints a line about ignored files.

    Args:
        size: pixels along a side; None for the usual size of the set.

    Raises:
        DataError: something is missing or damaged, or a number is wrong. The message names it.
    """
    size = size or kind.size
    lying = listing.of(path)
    found = _layout(lying, kind)
    check(path, found.parts, kind)
    names, label, split, classes = [], [], {}, []
    for part in PARTS:
        split[part] = list(range(len(names), len(names) + len(found.parts[part])))
        for name in sorted(found.parts[part]):
            label += [len(names)] * found.parts[part][name].count
            names.append(name)
            classes.append(found.parts[part][name])
    images = np.empty((len(label), 3, size, size), np.uint8)
    row = 0
    seen: dict[int, tuple[str, Found]] = {}
    twice: dict[bool, list[str]] = {True: [], False: []}  # whether in one class
    for one in classes:
        for number in range(one.count):
            images[row] = _pixels(one, number, size, lying.passed)
            place = one.where(number)
            first, its = seen.setdefault(hash(images[row].tobytes()), (place, one))
            if first is not place:
                twice[its is one].append(f"{place} is {first}")
            row += 1
    listing.tell(lying)
    for in_one, why in (
        (True, "another of their class, so that a task may be tested on images that it was trained on"),
        (False, "one of another class, so that a test class may contain training images"),
    ):
        if twice[in_one]:
            print(f"{path}: {len(twice[in_one]):,} images are the same as {why}: {twice[in_one][0]}", flush=True)
    return build(torch.from_numpy(images), torch.tensor(label), names, split, found.source or kind.source)


def check(path: Path, parts: dict[str, dict[str, Found]], kind: Kind) -> None:
    """Raise DataError unless the numbers of classes and images are right, and no class is in two parts."""
    counts = tuple(len(parts[part]) for part in PARTS)
    if kind.classes and counts != kind.classes:
        found, needed = ("/".join(map(str, each)) for each in (counts, kind.classes))
        raise DataError(f"{path}: found {found} train/validation/test classes, {kind.source} has {needed}.")
    if not all(counts):
        raise DataError(
            f"{path}: found {'/'.join(map(str, counts))} train/validation/test classes, needed some of each."
        )
    twice = [name for name, n in Counter(name for part in PARTS for name in parts[part]).items() if n > 1]
    if twice:
        raise DataError(f"{path}: {len(twice)} classes are in two parts of the split: {', '.join(twice[:3])}.")
    listing.check_apart([name for part in PARTS for name in parts[part]], str(path))
    low, high = kind.images
    for part in PARTS:
        for name, found in sorted(parts[part].items()):
            if not low <= found.count <= high:
                needed = f"{low}" if low == high else f"{low} to {high}"
                raise DataError(f"{found.place}: found {found.count} images of class {name}, needed {needed}.")


class Incomplete(DataError):
    """Some parts of a set exist and others are missing."""


def _layout(lying: Listing, kind: Kind) -> Set:
    """The set, in any of the layouts, at the top or in the single folder there."""
    here, incomplete = lying, None
    while here is not None:
        for layout in (_tiny, _csv, _arrays, _tiered, _folders):
            try:
                found = layout(here, kind)
            except Incomplete as error:  # of this layout; the set may have another
                incomplete = incomplete or error
                continue
            if found is not None:
                return found
        here = listing.only_folder(here)
    if incomplete is not None:
        raise incomplete
    there = sorted({name.partition("/")[0] for name in (*lying.files, *lying.folders)})[:10]
    raise DataError(
        f"{lying.place}: needed train/, val/ and test/ with a folder for each class, or train.csv, val.csv, test.csv "
        f"and images/, or one of the pickle caches; found {there}."
    )


def _parts(lying: Listing, names: list[str], patterns: tuple[str, ...]) -> dict[str, str] | None:
    """The file or folder of each part, of `names`: by the first of the patterns that all parts have.

    None if at most one part has a file. Raises Incomplete if two parts exist and one is missing.
    """
    # `train_phase_train` is the training part of mini-ImageNet beside `val` and `test`.
    exact = {name.casefold().replace("train_phase_train", "train"): name for name in names}
    incomplete = None
    for pattern in patterns:
        ways = {part: [pattern.format(word).casefold() for word in words] for part, words in WORDS.items()}
        found = {
            part: exact[next(way for way in each if way in exact)]
            for part, each in ways.items()
            if set(each) & exact.keys()
        }
        lost = [part for part in WORDS if part not in found]
        if not lost:
            return found
        if len(lost) == 1:
            incomplete = incomplete or Incomplete(
                f"{lying.place}: found {' and '.join(found.values())} and no {pattern.format(WORDS[lost[0]][0])}, "
                "needed all three of train, val and test."
            )
    if incomplete:
        raise incomplete
    return None


def _folders(lying: Listing, kind: Kind) -> Set | None:
    folders = _parts(lying, listing.tops(lying), ("{}",))
    if folders is None:
        return None
    return Set({part: _classes(listing.within(lying, folder)) for part, folder in folders.items()})


def _classes(lying: Listing) -> dict[str, Found]:
    return {name: _files(lying, files, lying.where(name)) for name, files in listing.classes(lying).items()}


def _files(lying: Listing, files: list[str], place: str) -> Found:
    return Found(place, len(files), lambda number: lying.read(files[number]), lambda number: lying.where(files[number]))


def _tiny(lying: Listing, kind: Kind) -> Set | None:
    """The official Tiny-ImageNet, also if val/ has been sorted into folders, as many programs do."""
    train = listing.within(lying, "train")
    sorted_out = kind is KINDS["tiny"] and set(listing.tops(train)) == set(listing.tops(listing.within(lying, "val")))
    if not listing.tops(train) or not (ANNOTATIONS in lying.files or sorted_out):
        return None
    files = {name: [f"train/{file}" for file in each] for name, each in listing.classes(train).items()}
    counts = [len(each) for each in files.values()]
    there = set(lying.files)
    if ANNOTATIONS in there:
        for line in tables.text(lying.read(ANNOTATIONS), lying.where(ANNOTATIONS)).splitlines():
            file, name = [*line.split("\t"), ""][:2]
            ways = (f"val/images/{file}", f"val/{name}/{file}", f"val/{name}/images/{file}")
            found = next((way for way in ways if way in there), None)
            if line.strip() and (found is None or name not in files):
                raise DataError(
                    f"{lying.where(ANNOTATIONS)}: names {file!r} of class {name!r}, needed an image in val/images/ and "
                    "a class of train/. Unpack the archive again."
                )
            if found is not None:
                files[name].append(found)
    else:
        for name, each in listing.classes(listing.within(lying, "val")).items():
            files[name] += [f"val/{file}" for file in each]
    lying.passed["images of test/, which have no labels"] += sum(
        name.startswith("test/") and listing.is_picture(name) for name in lying.files
    )
    whole = {(n, len(each) - n) for n, each in zip(counts, files.values(), strict=True)} == {OFFICIAL_TINY}
    parts: dict[str, dict[str, Found]] = {part: {} for part in PARTS}
    for place, name in enumerate(sorted(files)):
        part = PARTS[(place % 25 >= 16) + (place % 25 >= 20)]
        parts[part][name] = _files(lying, files[name], lying.where(f"train/{name}"))
    return Set(parts, "tiny-imagenet-200" if whole and len(files) == 200 else "tiny-imagenet-200-subset")


def _csv(lying: Listing, kind: Kind) -> Set | None:
    files = _parts(lying, [name for name in lying.files if "/" not in name], ("{}.csv",))
    if files is None:
        return None
    there, parts = set(lying.files), {}
    for part, table in files.items():
        place = lying.where(table)
        rows = tables.read(lying.read(table), place)
        wrong = next((row for row in rows if not (row.get("filename") and row.get("label"))), None)
        if not rows or wrong:
            raise DataError(
                f"{place}: needed rows with the columns filename and label, found {str(wrong or 'none')[:300]}."
            )
        classes: dict[str, list[str]] = {}
        for row in rows:
            name, file = listing.composed(row["label"]), listing.composed(row["filename"]).replace("\\", "/")
            file = posixpath.normpath(file)
            ways = (f"{folder}{way}" for folder in ("images/", "") for way in (file, f"{name}/{file}"))
            found = next((way for way in ways if way in there), None)
            if found is None:
                raise DataError(f"{place} names {file} of class {name}, which is neither in images/ nor beside it.")
            classes.setdefault(name, []).append(found)
        for name, each in classes.items():
            twice = [file for file, n in Counter(each).items() if n > 1]
            if twice:
                raise DataError(f"{place}: names {twice[0]} of class {name} twice, needed each image once.")
        parts[part] = {name: _files(lying, each, place) for name, each in classes.items()}
    return Set(parts)


def _arrays(lying: Listing, kind: Kind) -> Set | None:
    files = _parts(
        lying,
        [name for name in lying.files if "/" not in name],
        tuple(pattern + ending for pattern in ARRAYS for ending in ENDINGS),
    )
    if files is None:
        return None
    parts = {}
    for part, file in files.items():
        place = lying.where(file)
        with lying.open(file) as stream:
            wanted = (*IMAGES, *LABELS)
            content = caches.unzip(stream, place, wanted) if file.endswith(".npz") else caches.unpickle(stream, place)
        images, about = caches.take(content, IMAGES, place), caches.take(content, LABELS, place)
        rows = about if isinstance(about, dict) else _rows(caches.labels(about, place, part), images, place)
        parts[part] = _picked(images, rows, place)
    return Set(parts)


def _tiered(lying: Listing, kind: Kind) -> Set | None:
    top = [name for name in lying.files if "/" not in name]
    labels = _parts(lying, top, ("{}_labels.pkl",))
    images = _parts(lying, top, ("{}_images_png.pkl", "{}_images.npz"))
    if labels is None or images is None:
        return None
    parts = {}
    for part, file in images.items():
        about = lying.where(labels[part])
        with lying.open(labels[part]) as stream:
            found = caches.unpickle(stream, about)
        if isinstance(found, dict):
            names = found.get("label_specific_str")
            found = caches.take(found, ("label_specific", "labels", "label_specific_str"), about)
            if names is not None:  # of each class, with a number for each image; or of each image
                found = names if len(names) == len(found) else [names[int(number)] for number in found]
        place = lying.where(file)
        with lying.open(file) as stream:
            if file.endswith(".npz"):
                content = caches.take(caches.unzip(stream, place, ("images",)), ("images",), place)
            else:
                content = caches.unpickle(stream, place)
        parts[part] = _picked(content, _rows(caches.labels(found, about, part), content, place), place)
    return Set(parts)


def _rows(labels: list[str], images: Any, place: str) -> dict[str, list[int]]:
    """The rows of each class."""
    if not hasattr(images, "__len__") or len(images) != len(labels):
        found = len(images) if hasattr(images, "__len__") else type(images).__name__
        raise DataError(f"{place}: found {found} images and {len(labels)} labels.")
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(labels):
        rows.setdefault(name, []).append(row)
    return rows


def _picked(images: Any, classes: dict[str, Any], place: str) -> dict[str, Found]:
    """Classes from their rows of images. Raises DataError if a row does not exist, or is in two classes."""
    if not hasattr(images, "__len__"):
        raise DataError(f"{place}: needed images, found {type(images).__name__}.")
    one, taken, found = pictures.rows(images, place), {}, {}
    for name, given in classes.items():
        try:
            rows = [int(row) for row in given]
        except (TypeError, ValueError):
            raise DataError(f"{place}: class {name} has {given!r:.80}, needed numbers of images.") from None
        for row in rows:
            if not 0 <= row < len(images):
                raise DataError(
                    f"{place}: image number {row} of class {name} is missing, there are {len(images)}. It is damaged: "
                    "get it again."
                )
            if row in taken:
                raise DataError(f"{place}: image number {row} is in class {taken[row]} and again in {name}.")
            taken[row] = name
        found[str(name)] = Found(
            place,
            len(rows),
            lambda number, rows=rows: one(rows[number]),
            lambda number, rows=rows: f"{place}, image number {rows[number]}",
        )
    return found


def _pixels(one: Found, number: int, size: int, notes: Counter[str]) -> np.ndarray:
    """One image. -> uint8 [3, size, size]"""
    image = pictures.picture(one.read(number), one.where(number), "RGB", notes)
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.LANCZOS)
    return np.asarray(image).transpose(2, 0, 1)
