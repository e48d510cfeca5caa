"""Make the data file of Multi-CV: all available image data sets, checked, with 32 x 32 pixels, in one file.

    python -m leapwarp.data.prepare_images --out results/data/images.safetensors

A set is read from <name>.npz or a folder <name> in the folder of --dir or, if that is not given, of the environment
variable LEAPWARP_DATA; else from torchvision's download. A missing set is skipped, with a message that says why. A
damaged set is an error. If fewer than three sets are found, synthetic characters replace all of them, with a warning.
This takes some seconds without downloads.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from leapwarp.data import images
from leapwarp.data.images import ImageSet, Missing
from leapwarp.data.prepare import BAR, LOWER, VARIABLE
from leapwarp.data.store import DataError
from leapwarp.files import said


def prepare(source: str, names: Sequence[str], folder: Path | None, download: Path) -> tuple[dict[str, ImageSet], str]:
    """The available sets, and the name of the data source.

    Raises:
        DataError: a set is damaged.
    """
    if source == "glyphs":
        return images.glyph_sets(), images.GLYPHS
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise DataError(f"--sets has {twice[0]} twice, needed each set once.")
    sets, fetch = {}, partial(images.download, folder=download)
    for name in names:
        try:
            sets[name] = images.find(name, folder, fetch)
        except Missing as reason:
            print(f"prepare_images: {name} is left out: {reason}", flush=True)
            other = images.STAND_INS.get(name)
            if other and folder and os.path.lexists(folder / f"{other}.npz"):
                sets[other] = images.find(other, folder, fetch)
                print(f"prepare_images: {other} is taken beside the others; it is not {name}", flush=True)
    if len(sets) < images.FEWEST:
        print(warning(list(sets)), file=sys.stderr, flush=True)
        return images.glyph_sets(), images.GLYPHS
    return sets, images.source_of(sets)


def warning(found: list[str]) -> str:
    return "\n".join(
        [
            BAR,
            "WARNING: THESE ARE NOT THE DATA SETS OF MULTI-CV.",
            f"Needed at least {images.FEWEST} image data sets, found {len(found)} ({', '.join(found) or 'none'}):",
            "the transfer between data sets that follows uses GLYPHS, made-up characters in four styles.",
            "Results will not match the paper's; every row, table and figure will say 'glyph-sets'.",
            f"To use real images, set data.dir or {VARIABLE} to a folder that holds <name>.npz,",
            "and call snakemake --forcerun prepare_images.",
            BAR,
        ]
    )


def folder_of(given: str | None) -> Path | None:
    """The folder of --dir, else of LEAPWARP_DATA. Raises DataError if it does not exist."""
    name, value = ("--dir", given) if given else (VARIABLE, os.environ.get(VARIABLE))
    if not value:
        return None
    path = Path(value).expanduser()
    if not path.is_dir():
        raise DataError(f"{name} is {value}, and there is no such folder. Correct it or leave it out.")
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m leapwarp.data.prepare_images",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument(
        "--source",
        choices=["auto", "omniglot", "glyphs"],
        default="auto",
        help="glyphs: no real images; omniglot is as auto",
    )
    parser.add_argument("--dir", metavar="DIR", help=f"folder of the sets; default: ${VARIABLE}")
    parser.add_argument("--sets", metavar="NAME", nargs="+", default=list(images.OFFICIAL), help="default: the paper's")
    parser.add_argument("--download-dir", metavar="DIR", default="results/data/download", type=Path)
    parser.add_argument("--out", metavar="FILE", required=True, help="the file to write")
    options = parser.parse_args(arguments)
    try:
        found, source = prepare(options.source, options.sets, folder_of(options.dir), options.download_dir)
        checksum = images.save(options.out, found, source)
    except Exception as error:
        parser.exit(1, f"prepare_images: error: {said(error, LOWER)}\n")
    for name, each in found.items():
        counts = f"{len(each.train_labels):,} + {len(each.test_labels):,} images, {each.classes} classes"
        print(f"prepare_images: {name}: {counts}, from {each.origin}")
    print(f"prepare_images: {len(found)} sets, source {source}, checksum {checksum[:12]} -> {options.out}")


if __name__ == "__main__":
    main()
