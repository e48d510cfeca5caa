"""A report as data: headings, text, tables, figures, settings and verdicts.

An experiment's report.py builds a `Document`, and so do the claims and every random search. It is stored as JSON, and
rendered as Markdown (document.md.j2) and as a part of the page (page.html.j2). Text is Markdown without links and
tables. Paths are relative to the document's folder.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined


class Cell(NamedTuple):
    """A cell of a table: our number, with the paper's and the difference if there is one."""

    ours: str
    paper: str = ""
    difference: str = ""
    mark: str = ""
    """a word that says whether ours is better or worse than the paper's"""
    best: bool = False
    """whether ours is the best of its group"""
    best_paper: bool = False
    """whether the paper's is the best of the paper's numbers in the group"""

    def __str__(self) -> str:
        shown = [(self.ours, self.best), (self.paper, self.best_paper)]
        return " / ".join(f"**{text}**" if best else text for text, best in shown if text)


class Heading(NamedTuple):
    text: str


class Text(NamedTuple):
    text: str


class Table(NamedTuple):
    head: Sequence[str]
    rows: Sequence[Sequence[str | Cell]]
    caption: str = ""


class Figure(NamedTuple):
    path: str
    caption: str


class Settings(NamedTuple):
    """The settings that most methods share, and those of single methods that differ."""

    common: dict[str, str]
    departures: dict[str, dict[str, str]]


class Details(NamedTuple):
    """Blocks that the page shows when a reader opens them."""

    title: str
    blocks: "Sequence[Block]"


class Verdicts(NamedTuple):
    """The claims of a paper: each has id, section, claim, verdict and parts (`leapwarp.report.claims.document`)."""

    paper: str
    counts: dict[str, int]
    claims: Sequence[dict[str, Any]]


Block = Heading | Text | Table | Figure | Settings | Details | Verdicts
KINDS = {kind.__name__: kind for kind in (Heading, Text, Table, Figure, Settings, Details, Verdicts)}


class Document(NamedTuple):
    title: str
    blocks: Sequence[Block]
    lines: pd.DataFrame | None = None
    """the numbers of its tables, one row each, for the CSV; not stored in the JSON"""

    def of(self, kind: type) -> list[Any]:
        """The blocks of one kind."""
        return [block for block in self.blocks if isinstance(block, kind)]


def dumps(document: Document) -> str:
    kinds = {*KINDS, "Cell"}

    def plain(value: Any) -> Any:
        if type(value).__name__ in kinds or isinstance(value, Document):
            return {"kind": type(value).__name__} | {key: plain(each) for key, each in value._asdict().items()}
        return [plain(each) for each in value] if isinstance(value, (list, tuple)) else value

    found = plain(document._replace(lines=None))
    return json.dumps({"title": found["title"], "blocks": found["blocks"]}, indent=1, ensure_ascii=False) + "\n"


def loads(text: str, name: str) -> Document:
    """The document that `dumps` wrote. Raises ValueError with `name` if it is damaged."""
    kinds = KINDS | {"Cell": Cell}

    def known(value: dict[str, Any]) -> Any:
        return kinds[value.pop("kind")](**value) if "kind" in value else value

    try:
        return Document(**json.loads(text, object_hook=known))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{name}: found no readable document ({error}). Delete it and run its rule again.") from None


# ---------------------------------------------------------------- rendering


def environment(autoescape: bool, **filters: Callable) -> Environment:
    """The environment of the templates of this package, with their filters and tests."""
    made = Environment(
        loader=PackageLoader("leapwarp.report", "."),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters |= {"kind": lambda block: type(block).__name__} | filters
    return made


def grid(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table in Markdown."""
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return pd.DataFrame(cells, columns=list(head)).to_markdown(index=False, disable_numparse=True)


def _verdicts(block: Verdicts) -> str:
    """Verdicts as a list and not as a table, since claims are long and a list can be read on a phone."""
    lines = []
    for claim in block.claims:
        each = [part["part_verdict"] for part in claim["parts"]]
        counts = ", ".join(f"{each.count(verdict)} {verdict}" for verdict in block.counts if verdict in each)
        lines.append(
            f"- {claim['id']}, **{claim['verdict']}**: {claim['claim']} *{claim['section']}* (parts: {counts})"
        )
    return "\n".join(lines)


def markdown(document: Document, level: int = 1) -> str:
    """The document with its title as a heading of a level."""
    filters = {"grid": lambda table: grid(table.head, table.rows), "verdicts": _verdicts}
    template = environment(False, **filters).get_template("document.md.j2")
    return template.render(document=document, level=level).strip() + "\n"
