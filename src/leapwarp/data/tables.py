"""CSV files of spreadsheets and other programs: with a byte order mark, and with commas, semicolons or tabs."""

import codecs
import csv
import io
import re

from leapwarp.data.store import DataError

SEPARATORS = ",;\t"
MARKS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


def text(data: bytes, place: str) -> str:
    """The text of a file in UTF-8 or the encoding of its byte order mark. Raises DataError with the file's name."""
    coding = next((coding for mark, coding in MARKS.items() if data.startswith(mark)), "utf-8")
    try:
        return data.decode(coding)
    except UnicodeDecodeError as error:
        raise DataError(f"{place}: is no CSV ({error}). Save it as UTF-8.") from None


def read(data: bytes, place: str) -> list[dict[str, str]]:
    """The rows below the header, by its names in lower case. Raises DataError if it is not a CSV file."""
    content = text(data, place)
    told = re.match(r"sep=([,;\t])\r?\n", content)  # a line that Excel adds
    content = content[told.end() :] if told else content
    header = content.partition("\n")[0]
    separator = max(SEPARATORS, key=header.count)
    try:
        lines = [line for line in csv.reader(io.StringIO(content, newline=""), delimiter=separator) if line]
    except csv.Error as error:
        raise DataError(f"{place}: is no CSV ({error}).") from None
    names = [name.strip().lower() for name in lines[0]] if lines else []
    return [dict(zip(names, map(str.strip, line), strict=False)) for line in lines[1:]]
