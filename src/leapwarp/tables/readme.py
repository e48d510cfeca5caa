"""Put finished tables into a page, between its two markers.

python -m leapwarp.tables.readme --page README.md TABLE.md [TABLE.md ...]
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from leapwarp.files import atomic

BEGIN, END = "<!-- results: written by `make readme` -->", "<!-- end of results -->"


def fill(page: str, tables: Sequence[str]) -> str:
    """`page` with the tables between its markers, their headings two levels down; ValueError without markers."""
    if page.count(BEGIN) != 1 or page.count(END) != 1:
        raise ValueError(f"the page needs the lines {BEGIN!r} and {END!r}, each once.")
    lowered = ["\n".join(f"##{line}" if line.startswith("#") else line for line in t.splitlines()) for t in tables]
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    return before + "\n\n".join([BEGIN, *lowered, END]) + after


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m leapwarp.tables.readme", description="Put tables into a page.")
    parser.add_argument("--page", type=Path, required=True, help="the page to fill, in place")
    parser.add_argument("tables", type=Path, nargs="+", metavar="TABLE", help="markdown of finished tables, in order")
    options = parser.parse_args(arguments)
    missing = [str(path) for path in options.tables if not path.exists()]
    if missing:
        parser.exit(1, f"error: found no {', '.join(missing)}. Make them first: make reproduce.\n")
    try:
        text = fill(options.page.read_text(), [path.read_text() for path in options.tables])
    except ValueError as error:
        parser.exit(1, f"error: {options.page}: {error}\n")
    with atomic(options.page) as temporary:
        temporary.write_text(text)


if __name__ == "__main__":
    main()
