"""Reads images from files and arrays as 8-bit grey or colour images, or raises an error that names them.

All readers of images use this module, so that the meaning of a pixel's value is always checked:

    8 bits, palettes, CMYK, YCbCr, LAB, HSV  as Pillow converts them; transparent parts become white
    16 bits (a file's mode I;16, uint16)     65,535 becomes 255; refused if no value is above 4,095
    16 bits a channel (colours in a file)    as Pillow converts them, which is the same; refused likewise
    fractions (mode F, float arrays)         1 becomes 255; refused outside 0 to 1, and for nan
    other whole numbers                      unchanged from 0 to 255, else refused
    true and false                           255 and 0

An image is rotated according to its EXIF data. Of several frames or pages the first is used, and `notes` counts this.
"""

import io
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
from PIL import Image

from leapwarp.data.store import DataError, beginning

EXTENSIONS = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"),
    *(".pnm", ".webp", ".jp2", ".j2k", ".avif", ".tga", ".pcx"),
)
Image.init()
# Not all formats of Pillow: reading EPS starts another program.
FORMATS = [
    name
    for name in ("PNG", "JPEG", "MPO", "BMP", "DIB", "GIF", "TIFF", "PPM", "WEBP", "JPEG2000", "AVIF", "TGA", "PCX")
    if name in Image.OPEN
]
SIXTEEN = ("I;16", "I;16L", "I;16B", "I;16N")
DEEP = (*SIXTEEN, "I", "F")  # more than 8 bits a channel, which Pillow cuts off instead of scaling
GREY = ("1", "L", "LA", "La", *DEEP)
FLAT = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "LAB", "HSV")
SEE_THROUGH = ("LA", "La", "PA", "RGBA", "RGBa")
TWELVE = 4095  # largest value of 12 bits, which cameras and scanners write into files and arrays of 16 bits
UPPER = 16  # what Pillow makes of TWELVE in colours of 16 bits
PNG_END = b"IEND\xaeB`\x82"
ORIENTATION = 0x0112  # the EXIF tag, and how to undo its values
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
FIRST_FRAME = "of several frames, of which the first is taken"


def decode(data: bytes, place: str, mode: str | None = None, notes: Counter[str] | None = None) -> Image.Image:
    """The image in the bytes of a file, of mode L or RGB.

    Args:
        place: the file, for messages.
        mode: L or RGB; None for L if the image has no colours, and RGB otherwise.
        notes: counts things to report.

    Raises:
        DataError: it is damaged, not an image, or of an unknown mode or range. The message names the file.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=FORMATS)
            if image.format == "PNG":  # checks the checksum of every chunk, which load() skips
                image.verify()
                if PNG_END not in data:
                    raise EOFError("its end is missing")
                image = Image.open(io.BytesIO(data), formats=FORMATS)
            if notes is not None and getattr(image, "is_animated", False):
                notes[FIRST_FRAME] += 1
            cut_off = _is_deep_colour(image, data)
            image.load()
            if cut_off:
                _check_upper_bits(image, place)
            turn = TURNS.get(_orientation(image))
            image = convert(image, place, mode)
            return image if turn is None else image.transpose(turn)
    except (DataError, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{place}: {str(error).partition(',')[0]}, which Pillow keeps. Make it smaller.") from None
    except Exception as error:  # a damaged image can raise almost any error
        suffix = PurePath(place).suffix.lower()
        what = suffix[1:].upper() if suffix in EXTENSIONS else "picture"
        said = beginning(data) if "BytesIO" in str(error) else " ".join(str(error).split())
        raise DataError(f"{place}: truncated or damaged {what} of {len(data)} bytes ({said}).") from None


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged EXIF data are ignored, since the pixels are readable
        return 1


def convert(image: Image.Image, place: str, mode: str | None = None) -> Image.Image:
    """An image of any mode as L or RGB. Raises DataError if its mode or range is not known."""
    mode = mode or ("L" if image.mode in GREY else "RGB")
    if image.mode in DEEP:
        return _eight_bits(image, place).convert(mode)
    if image.mode not in (*FLAT, *SEE_THROUGH):
        raise DataError(f"{place}: found a picture of mode {image.mode}, needed one of {', '.join((*FLAT, *DEEP))}.")
    if image.mode in SEE_THROUGH or "transparency" in image.info:
        if image.mode in ("La", "PA", "RGBa"):
            image = image.convert({"La": "LA", "PA": "RGBA", "RGBa": "RGBA"}[image.mode])
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema() != (255, 255):
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode not in ("1", "L"):
        image = image.convert("RGB")
    return image.convert(mode)


def _is_deep_colour(image: Image.Image, data: bytes) -> bool:
    """Whether Pillow keeps the upper eight bits of an opened file's 16 a channel, as it does with colour or alpha."""
    if image.mode in DEEP:
        return False
    if image.format == "PNG":
        return data[24] == 16  # the depth in the header
    if image.format == "PPM":  # (mode, largest value) of a file of more than 8 bits
        tiles: Any = getattr(image, "tile", None)
        args = tiles[0][3] if tiles else None
        return isinstance(args, tuple) and isinstance(args[-1], int) and args[-1] > TWELVE
    return image.format == "TIFF" and 16 in tuple(getattr(image, "tag_v2", {}).get(258, ()))


def _check_upper_bits(image: Image.Image, place: str) -> None:
    """Raise DataError if a picture of 16 bits a channel, as Pillow gives it, has values of at most 12 bits."""
    colours = [np.asarray(image.getchannel(band)) for band in image.getbands() if band not in "Aa"]
    high = int(np.max(colours))
    if high <= UPPER:
        raise DataError(
            f"{place}: found a picture of mode {image.mode} and 16 bits a channel whose largest value is about "
            f"{high * 257:,}, needed some of more than {TWELVE:,}. It has 12 bits or less and would be nearly black. "
            "Save it with 8 bits, or multiply its values (16 for 12 bits, 256 for 8)."
        )


def _eight_bits(image: Image.Image, place: str) -> Image.Image:
    """A grey image of more than 8 bits, converted to mode L."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    what = f"{place}: found a picture of mode {image.mode} with values from {low} to {high}"
    if image.mode not in SIXTEEN and (image.mode == "F" or image.format not in ("PNG", "PPM")):
        return Image.fromarray(scaling(values.dtype, low, high, what)(values))
    tags = getattr(image, "tag_v2", {})
    full = TWELVE if tuple(tags.get(258, ())) == (12,) else 65535  # BitsPerSample of TIFF
    if not 0 <= low <= high <= full or 0 < high <= TWELVE < full:
        raise DataError(
            f"{what}, needed some of more than {TWELVE:,} and none of more than {full:,} in a file of 16 bits. If "
            "these are 8, 10 or 12 bits in a file of 16, save it with 8."
        )
    scaled = _from_sixteen(values, full)
    return Image.fromarray(255 - scaled if tags.get(262) == 0 else scaled)  # PhotometricInterpretation: white is 0


def _from_sixteen(values: np.ndarray, full: int = 65535) -> np.ndarray:
    return ((values.astype(np.uint32) * 255 + full // 2) // full).astype(np.uint8)


def scaling(dtype: np.dtype, low: Any, high: Any, what: str) -> Callable[[np.ndarray], np.ndarray]:
    """A function that converts values of a dtype, from `low` to `high`, to 8 bits. Raises DataError if unclear."""
    if dtype.kind == "b":
        return lambda values: values.astype(np.uint8) * 255
    if dtype.kind in "iu" and low >= 0 and high <= 255:
        return lambda values: values.astype(np.uint8)
    if dtype.kind == "u" and dtype.itemsize == 2 and high > TWELVE:
        return _from_sixteen
    if dtype.kind == "f" and low >= -1e-6 and high <= 1 + 1e-6:  # allows for rounding of float32; false for nan
        return lambda values: np.rint(values.clip(0, 1).astype(np.float32) * 255).astype(np.uint8)
    raise DataError(
        f"{what}, needed whole numbers (uint8 and the like) from 0 to 255, uint16 up to 65,535 or fractions from 0 to "
        "1. Bring them to one of these and save them again."
    )


Item = np.ndarray | bytes
"""pixels, uint8 [height, width, 1 to 4]; or the bytes of a file"""


def rows(pictures: Any, place: str) -> Callable[[int], Item]:
    """A function that gives image number i of an array, or of a list of arrays or encoded images.

    The meaning of the values is determined from all images together. The shapes [n, height, width], [n, height, width,
    channel] and [n, channel, height, width] are read, with every dtype of `scaling`.

    Raises:
        DataError: shape, dtype or range are not known.
    """
    if isinstance(pictures, np.ndarray) and pictures.dtype != object and pictures.ndim > 2:
        scale = _scaling_of([pictures], place) if pictures.size else scaling(pictures.dtype, 0, 0, place)
        return lambda number: _upright(scale(np.asarray(pictures[number])), place)
    plain = [item for one in pictures if not isinstance(item := _item(one, place), bytes)]
    scale = _scaling_of(plain, place) if plain else None

    def one(number: int) -> Item:
        item = _item(pictures[number], place)
        return item if isinstance(item, bytes) else _upright(scale(item), place)  # type: ignore[misc]

    return one


def _item(one: Any, place: str) -> Item:
    """An image of a list: an encoded one as bytes (text, if Python 2 wrote it), or an array unchanged."""
    if isinstance(one, str):
        one = one.encode("latin1", "replace")
    if isinstance(one, bytes | bytearray):
        return bytes(one)
    if not isinstance(one, np.ndarray | list | tuple):
        raise DataError(f"{place}: found a picture that is a {type(one).__name__}, needed an array or encoded bytes.")
    array = np.asarray(one)
    is_encoded = array.dtype == np.uint8 and array.ndim in (1, 2) and 1 in (array.ndim, *array.shape)
    return array.tobytes() if is_encoded else array


def _scaling_of(arrays: Sequence[np.ndarray], place: str) -> Callable[[np.ndarray], np.ndarray]:
    dtypes = {array.dtype for array in arrays}
    if len(dtypes) > 1 or any(array.dtype.kind not in "biuf" or not array.size for array in arrays):
        shapes = sorted({array.shape for array in arrays})[:3]
        found = " and ".join(sorted(map(str, dtypes)))
        raise DataError(f"{place}: found pictures of {found} of shapes {shapes}, needed numbers of one dtype.")
    dtype = dtypes.pop()
    low, high = np.min([array.min() for array in arrays]), np.max([array.max() for array in arrays])
    what = f"{place}: found pictures of {dtype} with values from {low} to {high}"
    if dtype.kind in "iu" and high == 1 and low == 0 and sum(array.size for array in arrays) > 1:
        raise DataError(f"{what}, which would all be black. Save them as true and false (bool), or times 255.")
    return scaling(dtype, low, high, what)


def _upright(array: np.ndarray, place: str) -> np.ndarray:
    """[height, width], [height, width, channel] or [channel, height, width] -> [height, width, channel]"""
    if array.ndim == 2:
        return array[..., None]
    if array.ndim == 3 and array.shape[2] in (1, 2, 3, 4):
        return array
    if array.ndim == 3 and array.shape[0] in (1, 2, 3, 4):
        return array.transpose(1, 2, 0)
    raise DataError(
        f"{place}: found a picture of shape {list(array.shape)}, needed [height, width], or these with 1 to 4 channels "
        "last or first."
    )


def picture(item: Item, place: str, mode: str | None = None, notes: Counter[str] | None = None) -> Image.Image:
    """A result of `rows` as an image of mode L or RGB. `place`, `mode`, `notes` and errors are as in `decode`."""
    if isinstance(item, bytes):
        return decode(item, place, mode, notes)
    channels = np.ascontiguousarray(item).squeeze(2) if item.shape[2] == 1 else np.ascontiguousarray(item)
    known = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[item.shape[2]]
    return convert(Image.frombytes(known, (item.shape[1], item.shape[0]), channels.tobytes()), place, mode)


def stack(pictures: np.ndarray, place: str) -> np.ndarray:
    """An array of images of a form that `rows` reads. -> uint8 [n, height, width, 1 or 3]"""
    if not isinstance(pictures, np.ndarray) or pictures.ndim not in (3, 4) or not pictures.size:
        raise DataError(
            f"{place}: found {pictures.dtype} {list(pictures.shape)}, needed pictures [n, height, width, channel]."
        )
    one = rows(pictures, place)
    first = one(0)
    assert isinstance(first, np.ndarray)
    if pictures.dtype == np.uint8 and first.shape == pictures.shape[1:] and first.shape[2] in (1, 3):
        return pictures  # already in the right form
    mode = "L" if first.shape[2] <= 2 else "RGB"
    made = [np.asarray(picture(one(number), place, mode)) for number in range(len(pictures))]
    return np.stack(made).reshape(len(pictures), *first.shape[:2], -1)
