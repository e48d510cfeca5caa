"""Make the data file of the Omniglot experiments: Omniglot if it is available, else synthetic glyphs.

    python -m leapwarp.data.prepare --source auto --out results/data/alphabets.safetensors

With `auto` it uses the first available of these: the folder of --dir or, if that is not given, of the environment
variable LEAPWARP_DATA; torchvision's download; glyphs, with a warning. A damaged folder is an error, and other data are
not used in its place. This takes about 10 seconds.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

from leapwarp.data import alphabets, glyphs, omniglot
from leapwarp.data.alphabets import Alphabets
from leapwarp.data.store import DataError
from leapwarp.files import said

LOWER = "Needed more memory, or fewer or smaller images"  # where it runs out
VARIABLE = "LEAPWARP_DATA"
BAR = "!" * 100


def prepare(source: str, folder: str | None, download_folder: str) -> tuple[Alphabets, str, str]:
    """Find and read the data: alphabets, licence, and a sentence that says which data are used.

    Args:
        source: auto, omniglot, or glyphs.
        folder: folder with Omniglot, see `omniglot.find`; None or "" for that of LEAPWARP_DATA.
        download_folder: the folder for torchvision's download.

    Raises:
        DataError: a named folder is missing or damaged, or `omniglot` was asked for and not found.
    """
    if source == "glyphs":
        return glyphs.make(), glyphs.LICENCE, "glyphs, the procedural stand-in, as asked"
    root, tried = _folder(folder)
    if root is not None:
        return omniglot.read(root), omniglot.LICENCE, f"Omniglot from {root}"
    print(f"prepare: {tried}; trying torchvision's download", flush=True)
    try:
        root = omniglot.download(Path(download_folder))
    except (OSError, RuntimeError, HTTPException) as error:
        tried += f"; the download failed ({error})"
    else:
        return omniglot.read(root), omniglot.LICENCE, f"Omniglot, downloaded to {root}"
    if source == "omniglot":
        raise DataError(
            f"Omniglot was asked for and not found: {tried}. Put a folder that holds omniglot-py/ into "
            f"data.dir (--dir) or {VARIABLE}, or connect to the internet, or set data.source to glyphs."
        )
    print(_warning(tried), file=sys.stderr, flush=True)
    return glyphs.make(), glyphs.LICENCE, "glyphs, the procedural stand-in, because there is no Omniglot"


def _folder(folder: str | None) -> tuple[Path | None, str]:
    """Omniglot's folder in the one that the user has named, or None; and a text that says where it was looked for."""
    name, value = ("--dir", folder) if folder else (VARIABLE, os.environ.get(VARIABLE))
    if not value:
        return None, f"no folder given (neither --dir nor {VARIABLE})"
    path = Path(value).expanduser()
    if not path.is_dir():
        raise DataError(f"{name} is {value}, and there is no such folder. Correct it or leave it out.")
    root = omniglot.find(path)
    if root is None and folder:
        found = sorted(entry.name for entry in path.iterdir())[:10]
        raise DataError(
            f"{name} is {value}, and there is no Omniglot in it: needed omniglot-py/ or "
            f"{' and '.join(omniglot.PARTS)} (folders or .zip), found {found}."
        )
    return root, f"{name} is {value}, with no omniglot-py in it"


def _warning(tried: str) -> str:
    return "\n".join(
        [
            BAR,
            "WARNING: THIS IS NOT OMNIGLOT.",
            "Real Omniglot was not found: everything that follows uses GLYPHS, made-up characters.",
            "Results will not match the papers'; every row, table and figure will say 'glyphs'.",
            f"What was tried: {tried}.",
            f"To use Omniglot, set data.dir or {VARIABLE} to a folder that holds omniglot-py/,",
            "and call snakemake --forcerun prepare.",
            "To use glyphs without this warning, set data.source to glyphs.",
            BAR,
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m leapwarp.data.prepare",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    sources = ["auto", "omniglot", "glyphs"]
    parser.add_argument("--source", choices=sources, default="auto", help="default: auto")
    parser.add_argument("--dir", metavar="DIR", help=f"folder that holds omniglot-py/; default: ${VARIABLE}")
    parser.add_argument(
        "--download-dir",
        metavar="DIR",
        default="results/data/download",
        help="where to download to; default: results/data/download",
    )
    parser.add_argument("--out", metavar="FILE", required=True, help="the file to write")
    options = parser.parse_args(arguments)
    try:
        data, licence, taken = prepare(options.source, options.dir, options.download_dir)
        alphabets.save(options.out, data, licence)
    except Exception as error:
        parser.exit(1, f"prepare: error: {said(error, LOWER)}\n")
    characters, drawings = data.images.shape[:2]
    print(f"prepare: took {taken}")
    print(
        f"prepare: {len(data.names)} alphabets, {characters:,} characters, {drawings} drawings each, "
        f"checksum {data.checksum[:12]} -> {options.out}"
    )


if __name__ == "__main__":
    main()
