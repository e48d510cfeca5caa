"""The image files in a folder or a zip file, without the files that operating systems and editors add.

All readers of folders use this module. Links are followed, except those that lead back to a folder that contains them.
Names are in Unicode's composed form, since macOS writes the same name in another form than other systems. Ignored files
are counted by kind, and `tell` reports them in one line.
"""

import os
import unicodedata
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import IO, NamedTuple

from leapwarp.data.pictures import EXTENSIONS, FIRST_FRAME
from leapwarp.data.store import DataError, beginning

# The errors of zipfile for archives that it cannot read: damaged, of a compression that it does not know
# (NotImplementedError), with invalid fields, or with a password.
BROKEN_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError, RuntimeError)
LEFT = (  # in any letter case: files that macOS, Windows, Linux, Synology, QNAP, editors and Python add
    *("._*", ".*", "__macosx", "icon\r", "thumbs.db", "ehthumbs*.db", "desktop.ini", "*zone.identifier"),
    *("$recycle.bin", "system volume information", "lost+found", "@eadir", "@tmp", "@recycle", "#recycle"),
    *("recycler", "recycled", "network trash folder", "temporary items", "cvs"),
    *("#snapshot", "~$*", "*~", "#*#", "*.swp", "*.swo", "__pycache__"),
)
UNREAD = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar", ".hdf5", ".h5")  # archives
LOOPS = "links that lead back"
OUTSIDE = "pictures outside of classes"


class Listing(NamedTuple):
    """Files by their names relative to a folder or zip file, such as `train/n01/3.png`."""

    place: str
    """for messages"""
    files: list[str]
    """sorted"""
    folders: list[str]
    open: Callable[[str], IO[bytes]]
    passed: Counter[str]
    """counts of ignored files, by kind, and of other things to report"""

    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises DataError with its name."""
        try:
            with self.open(name) as file:
                return file.read()
        except DataError:
            raise
        except OSError as error:
            raise DataError(f"{self.where(name)}: cannot be read ({error}).") from None
        except BROKEN_ZIP as error:
            raise DataError(f"{self.where(name)}: damaged in the zip ({error}). Get the zip again.") from None

    def where(self, name: str) -> str:
        return f"{self.place}/{name}" if name else self.place


def composed(name: str) -> str:
    """The name in Unicode's composed form."""
    return unicodedata.normalize("NFC", name)


def left_by(name: str) -> str | None:
    """The pattern of LEFT that the name of a file or folder matches, or None."""
    folded = name.casefold()
    found = next((pattern for pattern in LEFT if fnmatchcase(folded, pattern)), None)
    return name if found == ".*" else found


def of(path: Path) -> Listing:
    """The files in a folder or a zip file. Raises DataError if it cannot be read."""
    return _of_zip(path) if path.is_file() else _of_folder(path)


def _of_folder(root: Path) -> Listing:
    files: dict[str, str] = {}
    folders: list[str] = []
    passed: Counter[str] = Counter()

    def walk(folder: str, name: str, above: tuple[tuple[int, int], ...]) -> None:
        try:
            about = os.stat(folder)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"{folder}: cannot be read ({error.strerror}).") from None
        me = (about.st_dev, about.st_ino)
        if me in above:
            passed[LOOPS] += 1
            return
        if name:
            folders.append(name[:-1])
        for entry in entries:
            kind = left_by(entry.name)
            own = name + composed(entry.name)
            if kind:
                passed[kind] += 1
            elif own.encode("utf-8", "replace") != os.fsencode(own):
                raise DataError(f"{folder}: found the name {os.fsencode(entry.name)!r}, needed UTF-8. Rename it.")
            elif os.path.isdir(entry.path):
                walk(entry.path, f"{own}/", (*above, me))
            elif own in files:
                raise DataError(f"{entry.path}: there are two of this name, which differ in Unicode's normal form.")
            elif os.path.isfile(entry.path):
                files[own] = entry.path
            elif entry.is_symlink() and not os.path.exists(entry.path):
                raise DataError(f"{entry.path}: cannot be read: the link leads nowhere. Mend or delete it.")
            else:
                passed["things that are no files"] += 1

    walk(str(root), "", ())

    def read(name: str) -> IO[bytes]:
        try:
            return open(files[name], "rb")
        except OSError as error:
            raise DataError(f"{files[name]}: cannot be read ({error.strerror}).") from None

    return Listing(str(root), sorted(files), sorted(folders), read, passed)


def _of_zip(path: Path) -> Listing:
    try:
        archive = zipfile.ZipFile(path)
    except BROKEN_ZIP as error:
        with path.open("rb") as file:
            first = file.read(16)
        if first and not first.startswith(b"PK"):
            raise DataError(
                f"{path}: found a file that is no zip ({beginning(first)}), needed a folder or a .zip."
            ) from None
        raise DataError(f"{path}: truncated or damaged zip ({error}). Get the zip again.") from None
    files: dict[str, str] = {}
    folders: set[str] = set()
    passed: Counter[str] = Counter()
    left: set[str] = set()
    for entry in archive.namelist():
        parts = [composed(part) for part in entry.replace("\\", "/").split("/") if part not in ("", ".")]
        at = next((i for i, part in enumerate(parts) if left_by(part)), None)
        if at is not None:  # once for a folder with all its content
            name = "/".join(parts[: at + 1])
            passed[str(left_by(parts[at]))] += name not in left
            left.add(name)
            continue
        is_folder = entry.endswith(("/", "\\"))
        folders.update("/".join(parts[:end]) for end in range(1, len(parts) + is_folder))
        if not is_folder and "/".join(parts) in files:
            raise DataError(f"{path}/{'/'.join(parts)}: is in the zip twice. Make the zip anew.")
        if not is_folder:
            files["/".join(parts)] = entry

    def read(name: str) -> IO[bytes]:
        try:
            return archive.open(files[name])
        except BROKEN_ZIP as error:
            raise DataError(f"{path}/{name}: damaged in the zip ({error}). Get the zip again.") from None

    return Listing(str(path), sorted(files), sorted(folders), read, passed)


def within(listing: Listing, folder: str) -> Listing:
    """The part of a listing in one of its folders. Ignored files are counted in the whole listing."""
    start = f"{folder}/" if folder else ""
    cut = lambda names: [name.removeprefix(start) for name in names if name.startswith(start)]  # noqa: E731
    read = lambda name: listing.open(start + name)  # noqa: E731
    return Listing(listing.where(folder), cut(listing.files), cut(listing.folders), read, listing.passed)


def tops(listing: Listing) -> list[str]:
    """The folders at the top."""
    return [name for name in listing.folders if "/" not in name]


def only_folder(listing: Listing) -> Listing | None:
    """The listing of the single folder at the top, if there is one with folders in it, as in unpacked archives."""
    found = tops(listing)
    if len(found) != 1 or any(is_picture(name) for name in listing.files if "/" not in name):
        return None
    inside = within(listing, found[0])
    return inside if inside.folders or inside.files else None


def is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in EXTENSIONS


def pictures(listing: Listing) -> list[str]:
    """The files of a listing that are images by their names. Others are counted."""
    found = []
    for name in listing.files:
        if is_picture(name):
            found.append(name)
        else:
            listing.passed[os.path.splitext(name)[1].lower() or "without an extension"] += 1
    return found


def classes(listing: Listing) -> dict[str, list[str]]:
    """The images of each class. A class is a folder at the top, and may contain other folders.

    Raises:
        DataError: a class has no images, or the names of two classes differ only in letter case.
    """
    found: dict[str, list[str]] = {name: [] for name in tops(listing)}
    before = listing.passed.copy()
    for name in pictures(listing):
        top, _, rest = name.partition("/")
        if rest:
            found[top].append(name)
        else:
            listing.passed[OUTSIDE] += 1
    empty = [name for name, files in found.items() if not files]
    if empty:
        there = said(listing.passed - before)
        raise DataError(
            f"{listing.where(empty[0])}: found 0 images of class {empty[0]}{f' ({there} passed over)' if there else ''}"
            f"{f', and so of {len(empty) - 1} more classes' if len(empty) > 1 else ''}; needed at least 1. Fill the "
            "folder or delete it."
        )
    check_apart(found, listing.place)
    return found


def check_apart(names: Iterable[str], place: str) -> None:
    """Raise DataError if two names are equal on systems that ignore letter case or Unicode normalisation."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(composed(composed(name).casefold()), name)
        if other is not name:
            raise DataError(
                f"{place}: found two classes called {other} and {name}, which on many systems are one. Rename or join "
                "them."
            )


def said(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {kind!r}" for kind, count in sorted(counts.items()) if count > 0)


def tell(listing: Listing) -> None:
    """Print a line about ignored files, if there are any."""
    frames = listing.passed.pop(FIRST_FRAME, 0)
    over = said(listing.passed)
    parts = [f"passed over {over}"] * bool(over) + [f"{frames:,} pictures {FIRST_FRAME}"] * bool(frames)
    if parts:
        print(f"{listing.place}: {'; '.join(parts)}", flush=True)
    listing.passed.clear()
