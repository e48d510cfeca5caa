"""Make the data file of the few-shot experiments: a subset of ImageNet if one is available, else synthetic textures.

    python -m leapwarp.data.prepare_imagenet --set mini --source auto --out results/data/mini_imagenet.safetensors

With `auto` it uses the first available of these in the folder of --dir or, if that is not given, of the environment
variable LEAPWARP_DATA: the set itself (mini-imagenet/ or tiered-imagenet/, see leapwarp.data.imagenet for the layouts);
tiny-imagenet or the official tiny-imagenet-200, a folder or a zip file; textures, with a warning. Nothing is
downloaded. A damaged or incomplete set is an error, and other data are not used in its place. If the source is a
folder, it is a data set of your own: train/, val/ and test/ with a folder of images for each class.

Tiny-ImageNet takes 15 seconds, textures 3. tiered-ImageNet has 779,165 images, 16.5 GB at 84 pixels, and needs twice
that memory while it is written. Runs map the file into memory and read only the parts that they use.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from leapwarp.data import classes, imagenet, textures
from leapwarp.data.classes import PARTS, Classes
from leapwarp.data.imagenet import KINDS, Kind
from leapwarp.data.prepare import BAR, LOWER, VARIABLE
from leapwarp.data.store import DataError
from leapwarp.files import said

RESERVED = (  # names of other data sources
    *("omniglot", "glyphs", "textures", "simulated", "multicv", "multicv-subsets", "glyph-sets", "atari"),
    "tiny-imagenet-200-subset",
)


def prepare(which: str, source: str, folder: str | None, size: int | None = None) -> tuple[Classes, str, str]:
    """Find and read the data: classes, licence, and a sentence that says which data are used.

    Args:
        which: mini or tiered.
        source: auto, real (the set itself), tiny, textures, or a folder with a data set of one's own.
        folder: the folder of the sets; None or "" for that of LEAPWARP_DATA.
        size: pixels along a side; None for the usual size of the set.

    Raises:
        DataError: a named folder is missing or damaged, or the requested set was not found.
    """
    if source == "textures":
        return textures.make(), textures.LICENCE, "textures, the procedural stand-in, as asked"
    if source not in ("auto", "real", "tiny"):
        path = Path(source).expanduser()
        if not path.exists():
            raise DataError(f"--source is {source}: needed auto, real, tiny, textures or a folder, which is not there.")
        name = name_of(path)
        own = next((kind for kind in KINDS.values() if imagenet.plain(name) in map(imagenet.plain, kind.folders)), None)
        found = imagenet.read(path, own or Kind(name, ()), size)
        return found, "of the folder's owner", f"your own data set in {path}, which rows call {found.source}"
    name, value = ("--dir", folder) if folder else (VARIABLE, os.environ.get(VARIABLE))
    tried = f"no folder given (neither --dir nor {VARIABLE})"
    wanted = {"auto": (which, "tiny"), "real": (which,), "tiny": ("tiny",)}[source]
    if value:
        root = Path(value).expanduser()
        if not root.is_dir():
            raise DataError(f"{name} is {value}, and there is no such folder. Correct it or leave it out.")
        for kind in (KINDS[one] for one in wanted):
            path = imagenet.find(root, kind)
            if path is not None:
                found = imagenet.read(path, kind, size)
                return found, imagenet.LICENCE, f"{found.source} from {path}"
        tried = f"{name} is {value}, with neither " + " nor ".join(KINDS[one].folders[0] for one in wanted) + " in it"
    if source != "auto":
        raise DataError(f"{KINDS[wanted[0]].source} was asked for and not found: {tried}.")
    print(_warning(which, tried), file=sys.stderr, flush=True)
    return textures.make(), textures.LICENCE, "textures, the procedural stand-in, because there are no photographs"


def name_of(path: Path) -> str:
    """The name of a user's data set in rows: that of its folder, with links resolved, or of its zip without the suffix.

    Raises:
        DataError: it has no name, or the name of other data.
    """
    name = os.path.basename(os.path.abspath(path))
    name = name.removesuffix(".zip") if path.is_file() else name
    if not name.strip() or not name.isprintable():
        raise DataError(f"--source is {path}: rows would call the data {name!r}. Put them into a folder with a name.")
    if name.casefold() in RESERVED:
        raise DataError(
            f"--source is {path}: rows would call the data {name}, as other data are called. Rename the folder."
        )
    return name


def _warning(which: str, tried: str) -> str:
    source = KINDS[which].source
    return "\n".join(
        [
            BAR,
            f"WARNING: THIS IS NOT {source.upper()}.",
            f"Neither {source} nor Tiny-ImageNet was found: what follows uses TEXTURES, made-up coloured shapes.",
            "Results will not match the paper's; every row, table and figure will say 'textures'.",
            f"What was tried: {tried}.",
            f"To use photographs, set data.dir or {VARIABLE} to a folder that holds {source}/ or tiny-imagenet.zip,",
            "and call snakemake --forcerun prepare_imagenet.",
            f"To use textures without this warning, set data.{which}_imagenet to textures.",
            BAR,
        ]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m leapwarp.data.prepare_imagenet",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--set", choices=["mini", "tiered"], required=True, help="the set of the experiment")
    parser.add_argument(
        "--source", default="auto", help="auto, real, tiny, textures, or a folder of your own; default: auto"
    )
    parser.add_argument("--dir", metavar="DIR", help=f"folder that holds the sets; default: ${VARIABLE}")
    parser.add_argument("--size", type=int, help="pixels along a side; default: 84, 64 for Tiny-ImageNet")
    parser.add_argument("--out", metavar="FILE", required=True, help="the file to write")
    options = parser.parse_args(arguments)
    try:
        data, licence, taken = prepare(options.set, options.source, options.dir, options.size)
        classes.save(options.out, data, licence)
    except Exception as error:
        parser.exit(1, f"prepare_imagenet: error: {said(error, LOWER)}\n")
    counts = "/".join(str(len(data.split[part])) for part in PARTS)
    n_images, _, side, _ = data.images.shape
    print(f"prepare_imagenet: took {taken}")
    print(
        f"prepare_imagenet: {counts} train/validation/test classes, {n_images:,} images of {side} x {side}, "
        f"checksum {data.checksum[:12]} -> {options.out}"
    )


if __name__ == "__main__":
    main()
