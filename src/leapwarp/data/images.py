"""Image data sets as tasks, for transfer between them: Leap's Multi-CV (appendix G).

Each set has images of 32 x 32 pixels (smaller ones are padded, larger ones resized) and labels from 0, which are
checked when it is read. A substitute for a set has its own name. A set comes from torchvision's download, or from one
of these in the data folder:

    <name>.npz             train_images, train_labels, test_images and test_labels, or Keras' x_train, y_train, ...;
                           images [n, height, width, channels] or [n, channels, height, width]
    <name>/ or <name>.zip  train/<class>/ and test/<class>/ (or training/ and testing/); or <class>/, of which every
                           tenth image is for tests. Images of several sizes are all resized
    traffic-signs/         also as GTSRB has it: a folder for each class, and for the test images a CSV with ClassId
    notmnist/              also as published (notMNIST_small), with its two empty files; see NOTMNIST
"""

import json
import os
import socket
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from leapwarp.data import caches, glyphs, listing, pictures, store, tables
from leapwarp.data.listing import Listing
from leapwarp.data.store import DataError
from leapwarp.rng import generator

SIZE = 32  # Leap App. G
FEWEST = 3  # sets: one to hold out, and more than one to pretrain on
NETWORK_SECONDS = 5  # seconds without an answer until a download is abandoned
FULL, SUBSETS, GLYPHS = "multicv", "multicv-subsets", "glyph-sets"  # sources


class Official(NamedTuple):
    """A set of the papers: its normalisation, from HAT's code, which Leap used too, and its size."""

    classes: int
    n_train: int
    n_test: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    loader: str | None = None
    """its class in torchvision.datasets"""


_CIFAR = (tuple(v / 255 for v in (125.3, 123.0, 113.9)), tuple(v / 255 for v in (63.0, 62.1, 66.7)))
OFFICIAL = {  # sizes are those of torchvision, or those that HAT's paper gives
    "facescrub": Official(100, 20_600, 2_289, (0.5163, 0.5569, 0.4695), (0.2307, 0.2272, 0.2479)),
    "notmnist": Official(10, 16_853, 1_873, (0.4254,), (0.4501,)),
    "mnist": Official(10, 60_000, 10_000, (0.1,), (0.2752,), "MNIST"),  # of padded images, as the next but one
    "fashion-mnist": Official(10, 60_000, 10_000, (0.2190,), (0.3318,), "FashionMNIST"),
    "cifar10": Official(10, 50_000, 10_000, *_CIFAR, "CIFAR10"),
    "svhn": Official(10, 73_257, 26_032, (0.4377, 0.4438, 0.4728), (0.198, 0.201, 0.197), "SVHN"),
    "cifar100": Official(100, 50_000, 10_000, *_CIFAR, "CIFAR100"),
    "traffic-signs": Official(43, 26_640, 12_630, (0.3398, 0.3117, 0.3210), (0.2755, 0.2647, 0.2712), "GTSRB"),
}
STAND_INS = {"svhn": "chars74k"}  # used if the set is not available and an .npz of the other name exists
ALSO = {"notmnist": ("notMNIST", "notMNIST_small"), "traffic-signs": ("GTSRB", "gtsrb")}  # folders and zips
NOTMNIST = 18_724
"""Images of notMNIST as published: 18,726 files, of which two are empty. HAT's 16,853 + 1,873 include these two, and
its split was never published. All images in our own split, with every tenth of a class for tests, are the whole set."""
TRAFFIC_SIGNS = 39_209
"""Training images of GTSRB's final archive. Its readme says that they are the training and test sets of the online
competition (torchvision has the first, 26,640). The number is the one that users report; we had no archive to check it.
With another number the set is called a subset, which is not an error."""
PARTS = ("train", "test")
WORDS = {"train": ("train", "training"), "test": ("test", "testing")}
KERAS = {
    f"{part}_{what}": (f"{part}_{what}", f"{x}_{part}")
    for part in PARTS
    for what, x in (("images", "x"), ("labels", "y"))
}
SVHN_DIGITS = {  # numbers of images of the digits 0 to 9; they are uneven, so that shifted labels can be detected
    "train": (4_948, 13_861, 10_585, 8_497, 7_458, 6_882, 5_727, 5_595, 5_045, 4_659),
    "test": (1_744, 5_099, 4_149, 2_882, 2_523, 2_384, 1_977, 2_019, 1_660, 1_595),
}
SURE = 12.0  # difference of log-likelihoods above which one explanation of a part's labels is accepted


class ImageSet(NamedTuple):
    train_images: Tensor
    """uint8 [n, 1 or 3, 32, 32]"""
    train_labels: Tensor
    """int64 [n]"""
    test_images: Tensor
    test_labels: Tensor
    classes: int
    mean: list[float]
    """means and deviations that normalise pixels in [0, 1], one for each channel"""
    std: list[float]
    origin: str
    """its provenance, and how it differs from the official set"""


class ImageSets(NamedTuple):
    sets: dict[str, ImageSet]
    source: str
    checksum: str
    """checksum of the prepared file"""


Arrays = dict[str, np.ndarray]


def check(name: str, arrays: Arrays) -> int:
    """The number of classes. Raises DataError if labels or counts are impossible for a set called `name`."""
    classes = 0
    for part in PARTS:
        images, labels = arrays[f"{part}_images"], arrays[f"{part}_labels"]
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3) or len(images) == 0:
            raise DataError(
                f"{name}: {part} images are {images.dtype} {list(images.shape)}, "
                "needed uint8 [n, height, width, 1 or 3], n at least 1."
            )
        if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
            raise DataError(
                f"{name}: found {list(labels.shape)} {part} labels of {len(images)} images, needed one each."
            )
        found = sorted(set(labels.tolist()))
        if part == "train":
            classes = len(found)
        if found[0] < 0 or found[-1] >= classes or (part == "train" and found[-1] != classes - 1):
            of_svhn = (
                " (SVHN's files call the digit 0 ten; torchvision has mapped that to 0 already, and subtracting 1 "
                "again gives -1.)"
            )
            raise DataError(
                f"{name}: {part} labels run from {found[0]} to {found[-1]} in {len(found)} classes, needed 0 to "
                f"{classes - 1}.{of_svhn if name == 'svhn' else ''}"
            )
    channels = [arrays[f"{part}_images"].shape[3] for part in PARTS]
    if len(set(channels)) > 1:
        raise DataError(f"{name}: found {channels[0]} channels in training and {channels[1]} in test images.")
    about = OFFICIAL.get(name)
    if about and classes > about.classes:
        raise DataError(f"{name}: found {classes} classes, the set has {about.classes}: leave the others out.")
    return classes


def check_official(name: str, arrays: Arrays) -> None:
    """Raise DataError if a download is not the whole official set."""
    about = OFFICIAL[name]
    found = len(set(arrays["train_labels"].tolist())), len(arrays["train_labels"]), len(arrays["test_labels"])
    needed = about.classes, about.n_train, about.n_test
    if found != needed:
        raise DataError(f"{name}: found {found} classes, training and test images, the official set has {needed}.")


def check_digits(part: str, labels: np.ndarray) -> bool:
    """Whether the labels of a part of SVHN certainly mean the digits. Raises DataError if they are shifted.

    A complete part must have the published counts. For fewer images, the likelihoods of the published distribution, in
    every shift, and of equal counts are compared. 400 images drawn at random nearly always decide; equal numbers of
    each digit never do.
    """
    known, found = np.array(SVHN_DIGITS[part]), np.bincount(labels, minlength=10)
    shifts = np.stack([np.roll(known, shift) for shift in range(10)])
    if len(labels) == known.sum():
        fits = (shifts == found).all(1)
        if not fits.any():
            raise DataError(
                f"svhn: found {found.tolist()} {part} images of the labels 0 to 9, needed {known.tolist()} of the "
                "digits: take the labels from SVHN's own files."
            )
        shift = int(fits.argmax())
    else:
        likelihood = np.log(np.vstack([shifts / known.sum(), np.full(10, 0.1)])) @ found
        second, best = np.argsort(likelihood)[-2:]
        if best == 10 or likelihood[best] - likelihood[second] < SURE:
            return False
        shift = int(best)
    if shift:
        raise DataError(
            f"svhn: found {part} labels shifted by {shift} (most images have label {(1 + shift) % 10}; in SVHN "
            f"most show 1), needed each digit as its label: make them (label - {shift}) % 10."
        )
    return True


def build(name: str, arrays: Arrays, origin: str) -> ImageSet:
    """A set from its arrays: checked, 32 x 32, with its normalisation. `origin` says what is missing."""
    classes, about = check(name, arrays), OFFICIAL.get(name)
    tensors = {}
    for part in PARTS:
        tensors[f"{part}_images"] = fit(torch.from_numpy(np.ascontiguousarray(arrays[f"{part}_images"])))
        tensors[f"{part}_labels"] = torch.from_numpy(arrays[f"{part}_labels"].astype(np.int64))
    channels = tensors["train_images"].shape[1]
    if about:
        counts = len(tensors["train_labels"]), len(tensors["test_labels"])
        if (classes, *counts) != (about.classes, about.n_train, about.n_test):
            found = f"{classes} classes with {counts[0]:,} + {counts[1]:,} images where the set has"
            whole = _whole(name, classes, counts)
            origin += f", {whole or 'a subset'}: {found} {about.classes} with {about.n_train:,} + {about.n_test:,}"
        if name == "svhn" and classes == about.classes:
            unsure = [part for part in PARTS if not check_digits(part, arrays[f"{part}_labels"])]
            if unsure:
                origin += f"; too few or too even {' and '.join(unsure)} labels to tell whether they are shifted"
        mean, std = list(about.mean), list(about.std)
    else:
        pixels = tensors["train_images"].float().div(255).transpose(0, 1).flatten(1)
        mean, std = pixels.mean(1).tolist(), pixels.std(1).clamp_min(1e-3).tolist()
    both = seen(tensors["train_images"], tensors["test_images"])
    if both:
        origin += f"; {both:,} of {len(tensors['test_images']):,} test images are training images too"
    if len(mean) != channels:
        raise DataError(f"{name}: found images of {channels} channels, the set has {len(mean)}.")
    return ImageSet(**tensors, classes=classes, mean=mean, std=std, origin=origin)


def _whole(name: str, classes: int, counts: tuple[int, int]) -> str | None:
    """Why a set counts as whole although its numbers differ from OFFICIAL, or None if it does not."""
    if name == "notmnist" and classes == 10 and sum(counts) == NOTMNIST:
        return "whole, in our own split"
    if name == "traffic-signs" and (classes, *counts) == (43, TRAFFIC_SIGNS, OFFICIAL[name].n_test):
        return "whole, with the training images of GTSRB's own archive"
    return None


def fit(images: Tensor) -> Tensor:
    """[n, height, width, channel] -> [n, channel, 32, 32]: smaller images are padded with zeros, others resized."""
    images = images.permute(0, 3, 1, 2)
    height, width = images.shape[2:]
    if height <= SIZE and width <= SIZE:
        top, left = (SIZE - height) // 2, (SIZE - width) // 2
        return F.pad(images, (left, SIZE - width - left, top, SIZE - height - top)).contiguous()
    return _resize(images)


def _resize(images: Tensor) -> Tensor:
    """[n, channel, height, width] -> [n, channel, 32, 32]"""
    resized = F.interpolate(images.float(), (SIZE, SIZE), mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).byte()


def _resized(image: np.ndarray) -> np.ndarray:
    """[height, width, channel] -> [32, 32, channel]"""
    return _resize(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()


def seen(train: Tensor, test: Tensor) -> int:
    """The number of test images that are equal to a training image, uint8 [n, channel, height, width]."""
    known = {image.tobytes() for image in train.numpy()}
    return sum(image.tobytes() in known for image in test.numpy())


# ---------------------------------------------------------------- where sets come from


def read_npz(path: Path) -> Arrays:
    """The arrays of an .npz file, checked and converted to 8 bits. Raises DataError with its name."""
    try:
        with open(path, "rb") as file:
            content = caches.unzip(file, str(path), {way for ways in KERAS.values() for way in ways})
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from None
    missing = [name for name, ways in KERAS.items() if not set(ways) & content.keys()]
    if missing:
        raise DataError(f"{path}: lacks the arrays {', '.join(missing)}; found {', '.join(sorted(content))}.")
    arrays = {name: next(content[way] for way in ways if way in content) for name, ways in KERAS.items()}
    for part in PARTS:
        arrays[f"{part}_labels"] = _labels(arrays[f"{part}_labels"], f"{path}: {part}_labels")
    # The meaning of a value is determined from both parts together, since one program wrote them.
    both = {arrays[f"{part}_images"].dtype for part in PARTS}
    if len(both) > 1:
        raise DataError(f"{path}: found images of {' and '.join(sorted(map(str, both)))}, needed one dtype.")
    for part in PARTS:
        arrays[f"{part}_images"] = pictures.stack(arrays[f"{part}_images"], f"{path}: {part}_images")
    return arrays


def _labels(labels: np.ndarray, place: str) -> np.ndarray:
    """int64 [n] from whole numbers of any dtype, as [n] or [n, 1]."""
    flat = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    if flat.ndim != 1 or flat.dtype.kind not in "iuf" or not np.isfinite(flat).all() or (flat != np.floor(flat)).any():
        raise DataError(
            f"{place} are {labels.dtype} {list(labels.shape)}, needed whole numbers from 0, one for each image."
        )
    return flat.astype(np.int64)


def read_folder(path: Path, name: str | None = None) -> Arrays:
    """Images by class, from a folder or a zip file, in one of the layouts above.

    Raises:
        DataError: an image is damaged, or a class or a part is missing. The message names it.
    """
    lying = listing.of(path)
    if name == "notmnist":
        lying = _without_empty(lying)
    here, files = lying, None
    while here is not None and files is None:
        files = _split(here)
        here = listing.only_folder(here) if files is None else here
    if here is None or files is None:
        raise DataError(f"{path}: found no images to train on or none to test on, {NEEDED}.")
    about = OFFICIAL.get(name or "")
    mode = {1: "L", 3: "RGB"}[len(about.mean)] if about else None
    classes = sorted({each for part in files.values() for each in part})
    listing.check_apart(classes, here.place)
    found: dict[str, list[Any]] = {f"{part}_{what}": [] for part in PARTS for what in ("images", "labels")}
    for label, one in enumerate(classes):
        for part in PARTS:
            for file in files[part].get(one, []):
                found[f"{part}_images"].append(_image(here, file, mode))
                found[f"{part}_labels"].append(label)
    if not found["train_images"] or not found["test_images"]:
        raise DataError(f"{path}: found no images to train on or none to test on, {NEEDED}.")
    if len({image.shape[:2] for part in PARTS for image in found[f"{part}_images"]}) > 1:
        for part in PARTS:  # of several sizes: large ones were resized above, so small ones must be too
            found[f"{part}_images"] = [_resized(image) for image in found[f"{part}_images"]]
    deepest = max(image.shape[2] for part in PARTS for image in found[f"{part}_images"])
    for part in PARTS:
        images = found[f"{part}_images"]
        found[f"{part}_images"] = [np.repeat(i, deepest // i.shape[2], 2) for i in images]
    listing.tell(lying)
    return {name: np.stack(v) if "images" in name else np.array(v, dtype=np.int64) for name, v in found.items()}


def _without_empty(lying: Listing) -> Listing:
    """notMNIST without the two empty files with which it is published. A third empty file would be damage."""
    empty = [name for name in lying.files if listing.is_picture(name) and not lying.read(name)]
    if len(empty) > 2:
        return lying
    lying.passed.update(f"{name} (empty, as two files of notMNIST are published)" for name in empty)
    return lying._replace(files=[name for name in lying.files if name not in empty])


NEEDED = "needed train/ and test/ in it, or folders of classes with ten images or more (every tenth is for tests)"

Split = dict[str, dict[str, list[str]]]
"""part -> class -> names of its images"""


def _split(lying: Listing) -> Split | None:
    """Which images are for training and for tests, or None if no layout fits."""
    signs = _gtsrb(lying)
    if signs is not None:
        return signs
    tops = {name.casefold(): name for name in listing.tops(lying)}
    given = {part: tops[word] for part, words in WORDS.items() for word in words if word in tops}
    if len(given) == 1:
        there = next(iter(given.values()))
        raise DataError(f"{lying.where(there)}: found no folder for the other part beside it, needed train/ and test/.")
    if given:
        return {part: _within(lying, folder) for part, folder in given.items()}
    if not tops or listing.only_folder(lying) is not None:
        return None
    classes = listing.classes(lying)
    return {
        part: {
            name: [one for n, one in enumerate(each) if (n % 10 == 9) == (part == "test")]
            for name, each in classes.items()
        }
        for part in PARTS
    }


def _within(lying: Listing, folder: str) -> dict[str, list[str]]:
    classes = listing.classes(listing.within(lying, folder))
    return {name: [f"{folder}/{one}" for one in each] for name, each in classes.items()}


def _gtsrb(lying: Listing) -> Split | None:
    """GTSRB as its authors, torchvision and Kaggle distribute it: a folder of test images, and a CSV of ClassId."""
    table, rows = "", []
    for name in [name for name in lying.files if name.lower().endswith(".csv") and "test" in name.lower()]:
        rows = tables.read(lying.read(name), lying.where(name))
        if rows and "classid" in rows[0] and {"filename", "path"} & rows[0].keys():
            table = name
            break
    if not table:
        if any("final_test" in name.lower() for name in lying.folders):
            raise DataError(
                f"{lying.place}: found the test images of GTSRB and no GT-final_test.csv with their ClassId, needed "
                "both. It is in GTSRB_Final_Test_GT.zip."
            )
        return None
    numbered = [name for name in lying.folders if name.rpartition("/")[2].isdecimal() and "test" not in name.lower()]
    roots = {name.rpartition("/")[0].casefold(): name.rpartition("/")[0] for name in sorted(numbered, reverse=True)}
    if len(roots) != 1:
        raise DataError(f"{lying.place}: found {len(roots)} folders with numbered classes to train on, needed one.")
    (root,) = roots.values()
    train = {f"{int(name):05d}": each for name, each in _within(lying, root).items() if name.isdecimal()}
    above = table.rpartition("/")[0]
    there, by_name = set(lying.files), {}
    for file in lying.files:
        if listing.is_picture(file) and not file.startswith(f"{root}/"):
            by_name[file.rpartition("/")[2]] = file
    test: dict[str, list[str]] = {}
    for row in rows:
        given, label = (row.get("path") or row.get("filename") or "").replace("\\", "/"), row.get("classid", "")
        beside = f"{above}/{given}".removeprefix("/")
        file = beside if beside in there else by_name.get(given.rpartition("/")[2])
        if file is None or not label.isdecimal():
            raise DataError(
                f"{lying.where(table)}: names {given!r} of class {label!r}, needed an image that is there and a number."
            )
        test.setdefault(f"{int(label):05d}", []).append(file)
    return {"train": train, "test": test}


def _image(lying: Listing, name: str, mode: str | None) -> np.ndarray:
    """[height, width, 1 or 3], at most 32 along a side"""
    image = pictures.decode(lying.read(name), lying.where(name), mode, lying.passed)
    if max(image.size) > SIZE:
        image = image.resize((SIZE, SIZE), Image.Resampling.BOX)
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def download(name: str, folder: Path) -> Arrays:
    """Have torchvision download a set into `folder`.

    Raises:
        OSError, RuntimeError, HTTPException: there is no network, or the file is not the one that torchvision expects.
        DataError: torchvision has no such set.
    """
    about = OFFICIAL.get(name)
    if about is None or about.loader is None:
        raise DataError("torchvision has no loader for it")
    from torchvision import datasets  # takes seconds to import and is needed nowhere else

    loader, by_split = getattr(datasets, about.loader), about.loader in ("SVHN", "GTSRB")
    arrays, before = {}, socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_SECONDS)  # a network that drops packets would block this for minutes
    try:
        for part in PARTS:
            which: dict[str, Any] = {"split": part} if by_split else {"train": part == "train"}
            pairs = [(image, label) for image, label in loader(str(folder), download=True, **which)]
            pictures = [
                np.asarray(image.resize((SIZE, SIZE)) if name == "traffic-signs" else image) for image, _ in pairs
            ]
            stacked = np.stack(pictures)
            arrays[f"{part}_images"] = stacked[..., None] if stacked.ndim == 3 else stacked
            arrays[f"{part}_labels"] = np.array([label for _, label in pairs], dtype=np.int64)
    finally:
        socket.setdefaulttimeout(before)
    return arrays


def find(name: str, folder: Path | None, fetch: Callable[[str], Arrays]) -> ImageSet:
    """The set of that name, from `folder` or by `fetch`.

    Raises:
        DataError: it is damaged or not available. The message says why in one line.
    """
    if not name or name in (".", "..") or os.path.basename(name) != name or not name.isprintable():
        raise DataError(f"{name!r} is no name of a set: needed that of an .npz, a folder or a .zip in the data folder.")
    if folder and os.path.lexists(folder / f"{name}.npz"):
        return build(name, read_npz(folder / f"{name}.npz"), f"{name}.npz")
    ways = [way for one in (name, *ALSO.get(name, ())) for way in (one, f"{one}.zip")]
    there = next((way for way in ways if folder and os.path.lexists(folder / way)), None)
    if folder and there:
        return build(name, read_folder(folder / there, name), f"folder {there}")
    unread = [f"{one}{ending}" for one in (name, *ALSO.get(name, ())) for ending in listing.UNREAD]
    found = next((way for way in unread if folder and (folder / way).exists()), None)
    if folder and found:
        raise DataError(f"{folder / found}: found an archive that is not read, needed a folder or a .zip. Unpack it.")
    if folder and name not in OFFICIAL:
        raise DataError(
            f"{name}: no {name}.npz or {name}/ in {folder}, and it is none of the paper's sets: {', '.join(OFFICIAL)}."
        )
    try:
        arrays = fetch(name)
    except (OSError, RuntimeError, HTTPException, ImportError, DataError) as error:
        where = f"no {name}.npz or {name}/ in the data folder" if folder else "no data folder"
        reason = str(error).splitlines()[0]
        raise Missing(
            f"{where}; {reason if isinstance(error, DataError) else f'the download failed ({reason})'}"
        ) from None
    check_official(name, arrays)
    return build(name, arrays, "torchvision")


class Missing(DataError):
    """A set that is not available. It is skipped, and others are still read."""


# ---------------------------------------------------------------- stand-ins


def glyph_sets(n: int = 4) -> dict[str, ImageSet]:
    """Sets of synthetic characters in different styles, used if there are no images: 20 classes of 15 + 5 images."""
    return {f"glyphs-{number}": _glyph_set(number) for number in range(n)}


def _glyph_set(number: int) -> ImageSet:
    ink = F.pad(glyphs.draw(number, 20).float() / 255, (2, 2, 2, 2)).unsqueeze(2)  # [class, drawing, 1, 32, 32]
    stream = generator(glyphs.SEED, "glyph sets", number)
    looks = torch.rand(2, *ink.shape[:2], 3, 1, 1, generator=stream)
    texture = torch.rand(*ink.shape[:2], 3, 8, 8, generator=stream).flatten(0, 1)
    texture = F.interpolate(texture, SIZE, mode="bilinear").view(*ink.shape[:2], 3, SIZE, SIZE)
    plain = [
        lambda: ink,
        lambda: 1 - 0.8 * ink,
        lambda: ink * looks[0].clamp_min(0.5) + (1 - ink) * 0.4 * looks[1],
        lambda: 0.6 * ink + 0.4 * texture,
    ][number % 4]()
    images = (plain * 255).round().byte().permute(0, 1, 3, 4, 2)
    labels = torch.arange(20).repeat_interleave(images.shape[1]).view(20, -1)
    arrays = {
        f"{part}_{what}": values[:, rows].flatten(0, 1).numpy()
        for part, rows in (("train", slice(0, 15)), ("test", slice(15, None)))
        for what, values in (("images", images), ("labels", labels))
    }
    return build(f"glyphs-{number}", arrays, "drawn by code")


# ---------------------------------------------------------------- the prepared file

FIELDS = ("train_images", "train_labels", "test_images", "test_labels")
FACTS = ("classes", "mean", "std", "origin")


def source_of(sets: dict[str, ImageSet]) -> str:
    """The name of the data source: multicv if the sets are the eight official ones, and complete.

    With further sets the methods would be pretrained on more than in the paper, and claims would average over more.
    """
    whole = set(sets) == set(OFFICIAL) and not any("subset" in each.origin for each in sets.values())
    return FULL if whole else SUBSETS


def save(path: str | os.PathLike[str], sets: dict[str, ImageSet], source: str) -> str:
    tensors = {f"{name}/{field}": getattr(each, field) for name, each in sets.items() for field in FIELDS}
    facts = {name: {fact: getattr(each, fact) for fact in FACTS} for name, each in sets.items()}
    return store.write(path, tensors, {"source": source, "sets": json.dumps(facts), "licence": "see the sets"})


def load(path: str | os.PathLike[str]) -> ImageSets:
    """Read the prepared file. Raises DataError if it is missing or damaged, or contains other data."""
    tensors, metadata = store.read(path)
    if "sets" not in metadata:
        raise DataError(
            f"{path}: no image sets in it, it holds {sorted(tensors)[:4]}. Needed what prepare_images makes."
        )
    facts = json.loads(metadata["sets"])
    sets = {
        name: ImageSet(**{field: tensors[f"{name}/{field}"] for field in FIELDS}, **each)
        for name, each in facts.items()
    }
    return ImageSets(sets, metadata["source"], metadata["checksum"])
