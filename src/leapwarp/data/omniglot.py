"""Omniglot (Lake et al., 2015): find it, check that it is complete, and read it.

The layout is that of torchvision, `omniglot-py/images_background/<alphabet>/<character>/<drawing>.png`, and the same in
`images_evaluation`. Each of the two is a folder or a zip file, which is read without unpacking it. Both may be up to
two folders deeper (a git clone of brendenlake/omniglot has them in `python/`), and the alphabets one folder deeper
still (as in Kaggle's archive).
"""

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from leapwarp.data import listing, pictures
from leapwarp.data.alphabets import DRAWINGS, SIZE, Alphabets, build
from leapwarp.data.store import DataError

PARTS = ("images_background", "images_evaluation")
ALPHABETS = 50
CHARACTERS = 1623
SIDE = 105
LICENCE = "MIT, Brenden Lake, https://github.com/brendenlake/omniglot"
NETWORK_SECONDS = 10  # seconds without an answer until the download is abandoned


class Part(NamedTuple):
    """One of the two parts of Omniglot on the disk."""

    name: str  # where it was found, for messages
    characters: dict[str, list[str]]  # "Greek/character01" -> sorted names of its drawings
    read: Callable[[str], bytes]  # bytes of "Greek/character01/0394_01.png"


def find(folder: Path) -> Path | None:
    """The folder of the two parts: `folder/omniglot-py`, or else the first with a part among `folder` and the folders
    up to two levels below it; None if there is none."""
    if os.path.lexists(folder / "omniglot-py"):
        return folder / "omniglot-py"
    here = [folder]
    for _ in range(3):
        found = next((each for each in here if any(has(each, part) for part in PARTS)), None)
        if found is not None:
            return found
        here = [inside for each in here for inside in _folders(each)]
    return None


def has(folder: Path, part: str) -> bool:
    return any(os.path.lexists(folder / name) for name in (part, f"{part}.zip"))


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(each for each in folder.iterdir() if each.is_dir() and not listing.left_by(each.name))
    except OSError:  # a folder of another user, which cannot be read
        return []


def download(folder: Path) -> Path:
    """Have torchvision download both parts into `folder`.

    Raises:
        OSError, RuntimeError: there is no network, or the file is not the one that torchvision expects.
    """
    from torchvision.datasets import Omniglot  # takes seconds to import and is needed nowhere else

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(NETWORK_SECONDS)  # a network that drops packets would block this for minutes
    try:
        for background in (True, False):
            Omniglot(str(folder), background=background, download=True)
    finally:
        socket.setdefaulttimeout(before)
    return folder / "omniglot-py"


def read(root: Path) -> Alphabets:
    """Read and check all of Omniglot.

    Raises:
        DataError: something is missing, damaged or of the wrong size. The message names the file.
    """
    parts = [_open(root, part) for part in PARTS]
    _check(root, parts)
    # Sorted by alphabet and character over both parts, so that splits do not depend on the order of a listing.
    rows = sorted((character, part) for part in parts for character in part.characters)
    names = sorted({_alphabet(character) for character, _ in rows})
    images = np.empty((len(rows), DRAWINGS, SIZE, SIZE), np.uint8)
    for row, (character, part) in enumerate(rows):
        for column, drawing in enumerate(part.characters[character]):
            images[row, column] = _ink(part, f"{character}/{drawing}")
    alphabet = torch.tensor([names.index(_alphabet(character)) for character, _ in rows])
    return build(torch.from_numpy(images), alphabet, names, "omniglot")


def _open(root: Path, part: str) -> Part:
    """A part from its zip or its folder.

    If both exist the zip file is read, since interrupted unpacking leaves an incomplete folder beside it.
    """
    path = next((path for path in (root / f"{part}.zip", root / part) if os.path.lexists(path)), None)
    if path is None:
        there = sorted(entry.name for entry in root.iterdir())[:10] if root.is_dir() else "no folder"
        raise DataError(
            f"{root}: found neither {part}/ nor {part}.zip, Omniglot needs {' and '.join(PARTS)}; found {there}."
        )
    found = listing.of(path)
    deeper = listing.only_folder(found)
    if deeper is not None and any(name.count("/") == 2 for name in deeper.folders) | (listing.tops(found) == [part]):
        found = deeper
    characters: dict[str, list[str]] = {name: [] for name in found.folders if name.count("/") == 1}
    for file in listing.pictures(found):
        character, _, drawing = file.rpartition("/")
        if character.count("/") == 1 and drawing.lower().endswith(".png"):
            characters.setdefault(character, []).append(drawing)
        else:
            found.passed["pictures elsewhere than in <alphabet>/<character>/"] += 1
    listing.tell(found)
    return Part(found.place, characters, found.read)


def _check(root: Path, parts: list[Part]) -> None:
    """Raise DataError unless there are 50 alphabets of 1,623 characters in all, 20 drawings each."""
    characters = [character for part in parts for character in part.characters]
    alphabets = {_alphabet(character) for character in characters}
    if len(alphabets) != ALPHABETS:
        each = [(len({_alphabet(character) for character in part.characters}), part.name) for part in parts]
        counts = " + ".join(f"{count} in {name}" for count, name in each)
        raise DataError(f"{root}: found {len(alphabets)} alphabets ({counts}), Omniglot has {ALPHABETS}.")
    if len(characters) != CHARACTERS or len(set(characters)) != CHARACTERS:
        missing = _missing_characters(parts)
        raise DataError(f"{root}: found {len(characters):,} characters, Omniglot has {CHARACTERS:,}{missing}.")
    for part in parts:
        for character, drawings in part.characters.items():
            if len(drawings) != DRAWINGS:
                raise DataError(
                    f"{part.name}/{character}: found {len(drawings)} drawings, each character has {DRAWINGS}"
                    f"{_missing_drawings(drawings)}."
                )


def _missing_characters(parts: list[Part]) -> str:
    """A text that names missing characters, from Omniglot's numbers of drawings; empty if these do not tell."""
    gaps = []
    for part in parts:
        numbers: dict[str, set[int]] = {}
        for character in part.characters:
            numbers.setdefault(_alphabet(character), set()).add(_number(character))
        for alphabet, there in sorted(numbers.items()):
            missing = sorted(set(range(1, max(there) + 1)) - there)
            gaps += [f"{part.name}/{alphabet}/character{n:02d}" for n in missing]
    if not gaps:  # the last of an alphabet: drawings are numbered 1 to 1,623 through both parts
        drawings = [drawing for part in parts for names in part.characters.values() for drawing in names]
        drawn = {_number(drawing.split("_")[0]) for drawing in drawings}
        missing = sorted(set(range(1, CHARACTERS + 1)) - drawn)
        gaps = [f"the one of {n:04d}_01.png to {n:04d}_{DRAWINGS}.png" for n in missing]
    if not 0 < len(gaps) < CHARACTERS:
        return ""
    return f": missing {', '.join(gaps[:3])}" + (f" and {len(gaps) - 3} more" if len(gaps) > 3 else "")


def _missing_drawings(drawings: list[str]) -> str:
    there = {drawing[-6:-4] for drawing in drawings}
    missing = [f"*_{n:02d}.png" for n in range(1, DRAWINGS + 1) if f"{n:02d}" not in there]
    return f": missing {', '.join(missing[:3])}" if 0 < len(missing) < DRAWINGS else ""


def _alphabet(character: str) -> str:
    return character.split("/")[0]


def _number(name: str) -> int:
    """The number at the end of a name, or 0 if there is none."""
    match = re.search(r"(\d+)$", name)
    return int(match[1]) if match else 0


def _ink(part: Part, name: str) -> np.ndarray:
    """One drawing, ink 255 on background 0. -> uint8 [28, 28]"""
    path = f"{part.name}/{name}"
    image = pictures.decode(part.read(name), path, "L")
    if image.size != (SIDE, SIDE):
        raise DataError(f"{path}: found an image of {image.width} x {image.height}, needed {SIDE} x {SIDE}.")
    # Converted to grey before resizing. Pillow resizes 1-bit images by NEAREST with every filter, which loses thin
    # strokes, and this happened in the authors' code. LANCZOS is the filter that they asked for. Of Pillow's filters
    # it keeps the strokes, here less than a pixel wide, darkest. BOX would cover 3 or 4 pixels in turn, since 105 / 28
    # is not a whole number.
    return 255 - np.asarray(image.resize((SIZE, SIZE), Image.Resampling.LANCZOS))
