"""Reads arrays that other programs have written: pickles of every protocol, from Python 2 and 3, and .npz files.

A pickle can run any program when it is read. So only pickles of arrays and plain values are accepted.
"""

import pickle
from collections.abc import Iterable
from typing import IO, Any

import numpy as np

from leapwarp.data.store import DataError, beginning

_OF_NUMPY = {
    ("multiarray", "_reconstruct"),  # protocols 0 to 4
    ("multiarray", "scalar"),
    ("numeric", "_frombuffer"),  # protocol 5, Python's own since 3.14
}
ADMITTED = {f"numpy.{core}.{module}.{name}" for core in ("core", "_core") for module, name in _OF_NUMPY}
ADMITTED |= {"numpy.ndarray", "numpy.dtype", "_codecs.encode", "collections.OrderedDict", "collections.defaultdict"}
ADMITTED |= {
    f"{module}.{name}"
    for module in ("builtins", "__builtin__")  # the second is what Python 2 called it
    for name in ("set", "frozenset", "list", "dict", "tuple", "int", "str", "bytes", "bytearray", "range", "xrange")
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in ADMITTED:
            raise pickle.UnpicklingError(f"it holds {module}.{name}, which is neither an array nor a plain value")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def unpickle(file: IO[bytes], place: str) -> Any:
    """The content of a pickle, with text for the keys of dictionaries.

    Raises:
        DataError: it is damaged, or contains anything but arrays and plain values. The message names the file.
    """
    first = file.read(16)
    file.seek(0)
    try:
        content = _Unpickler(file, encoding="latin1").load()
    except MemoryError:
        raise
    except Exception as error:  # a damaged pickle can raise almost any error
        said = " ".join(str(error).split())
        raise DataError(f"{place}: damaged, or not a cache of images ({said}; {beginning(first)}).") from None
    return with_text(content)


def with_text(content: Any) -> Any:
    """The same, with text in place of bytes for the keys of nested dictionaries."""
    if not isinstance(content, dict):
        return content
    return {name.decode("latin1") if isinstance(name, bytes) else name: with_text(v) for name, v in content.items()}


def unzip(file: IO[bytes], place: str, wanted: Iterable[str]) -> dict[str, np.ndarray]:
    """The wanted arrays of an .npz file that exist in it.

    Raises:
        DataError: it is damaged, or a wanted array contains pickled objects. The message names the file.
    """
    first = file.read(16)
    file.seek(0)
    if not first.startswith(b"PK"):
        raise DataError(f"{place}: damaged, or no .npz ({beginning(first)}).")
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] if name in wanted else np.empty(0) for name in archive.files}
    except MemoryError:
        raise
    except Exception as error:  # as above
        if "Object arrays" in str(error):
            raise DataError(
                f"{place}: holds arrays of objects, which can run any program when they are read. Save it again with "
                "arrays of numbers: images [n, height, width, channel], labels [n]."
            ) from None
        raise DataError(f"{place}: damaged ({(str(error).splitlines() or ['no reason given'])[0]}).") from None


def take(content: Any, names: tuple[str, ...], place: str) -> Any:
    """The value of the first of `names` in a dictionary. Raises DataError with its keys if there is none."""
    there = content if isinstance(content, dict) else {}
    found = next((name for name in names if name in there), None)
    if found is None:
        has = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise DataError(f"{place}: needed {' or '.join(names)}, found {has}.")
    return there[found]


def labels(found: Any, place: str, part: str) -> list[str]:
    """The class of each image. Text is kept. A number gets the name of its part, since numbers count within a part.

    Raises:
        DataError: the labels are neither text nor whole numbers, or not one for each image.
    """
    values = np.asarray(found) if not isinstance(found, list) else found
    if isinstance(values, np.ndarray):
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        if values.ndim != 1:
            raise DataError(f"{place}: found labels of shape {list(values.shape)}, needed one for each image.")
        values = values.tolist()
    return [_label(value, place, part) for value in values]


def _label(value: Any, place: str, part: str) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value
    try:
        if int(value) == value and int(value) >= 0:
            return f"{part}_{int(value):03d}"
    except (TypeError, ValueError, OverflowError):
        pass
    raise DataError(f"{place}: found the label {value!r}, needed text or whole numbers from 0.")
