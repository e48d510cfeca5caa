"""Commands that gather the rows of an experiment, and make its document, table and figures.

    python -m leapwarp.report gather --out results/quick/maze/rows.csv --origins results/quick/maze/runs.json RUN.csv
    python -m leapwarp.report table maze --rows results/quick/maze/rows.csv --out-dir results/quick/maze
    python -m leapwarp.report figures maze --rows results/quick/maze/rows.csv --out-dir results/quick/maze/figures

`table` writes the table as CSV and Markdown, and the document as JSON, which the page and the snapshot render. It reads
runs.json beside the rows if it exists. An experiment is given by its name, or by the path of its folder.
"""

import argparse
import json
import textwrap
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from leapwarp import catalogue
from leapwarp.catalogue import Experiment
from leapwarp.files import atomic, is_told, one_line
from leapwarp.report import document, origin, rows
from leapwarp.report.document import Block, Document, Figure, Text
from leapwarp.report.table import PAPER_COLUMNS, default_paper, read_paper, summaries, summary_table


def printed(about: Experiment, path: Path | None) -> pd.DataFrame:
    """The paper's numbers that ours are compared with; empty if the paper prints none."""
    if not about.printed:
        return pd.DataFrame(columns=PAPER_COLUMNS)
    return read_paper(path or default_paper(about.paper), about.printed)


def rows_of(about: Experiment, path: Path) -> pd.DataFrame:
    """The gathered rows of an experiment. Raises ValueError if they belong to another one, or to several sizes."""
    frame = rows.read(path)
    rows.provenance(frame, about.name)
    return frame


def gather(options: argparse.Namespace) -> None:
    frame = rows.gather(options.csv)
    with atomic(options.origins) as path:
        path.write_text(json.dumps(rows.origins(options.csv), indent=1) + "\n", encoding="utf-8")
    rows.write(options.out, frame)
    print(f"{options.out}: {len(frame)} rows of {len(options.csv)} files")


def not_run(about: Experiment, frame: pd.DataFrame) -> list[str]:
    """The names of usual methods without rows."""
    ran = set(frame["method"])
    return [each.look.name for name, each in about.methods.items() if each.default and name not in ran]


def or_gap(about: Experiment, frame: pd.DataFrame, make: Callable[[], Any], gap: Callable[[str], Any]) -> Any:
    """The result of `make`, or of `gap` with the reason if `make` fails because a method was not run.

    A user may run any subset of the methods, and the rest of the page must still be made. If all methods were run, if
    a method that has rows is what was not found, or if report.py itself raises the error, the error is passed on.
    """
    missing = not_run(about, frame)
    if not missing:
        return make()
    try:
        return make()
    except (LookupError, TypeError, ValueError) as error:
        there = isinstance(error, KeyError) and any(str(name) in set(frame["method"]) for name in error.args)
        if is_told(error) or there:
            raise
        traceback.print_exception(error)  # into the log
        frames = [
            each for each in traceback.extract_tb(error.__traceback__) if Path(each.filename).parent == about.code
        ]
        where = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
        why = f"{type(error).__name__}{where}: {' '.join(str(error).split())[:200]}"
        return gap(f"Cannot be made of these methods alone ({why}). Not run: {', '.join(missing)}.")


def document_of(about: Experiment, frame: pd.DataFrame, paper: pd.DataFrame) -> Document:
    """What `document` of the experiment's report.py returns. Raises ValueError if it is no document, or is empty."""
    made, path = about.module("report").document(frame, paper), about.code / "report.py"
    if not isinstance(made, Document) or made.lines is None:
        found = "a Document without lines" if isinstance(made, Document) else type(made).__name__
        needed = "Document(title, blocks, lines), with lines of leapwarp.report.table.summaries"
        raise ValueError(f"{path}: document() returns {found}; needed {needed}.")
    if made.lines.empty and not not_run(about, frame):
        found = ", ".join(sorted(set(frame["metric"])))
        raise ValueError(f"{path}: the table has no lines. Needed quantities of the metrics in the rows: {found}.")
    return made


def bare(about: Experiment, frame: pd.DataFrame, why: str) -> Document:
    """A document with all quantities of the methods that were run, in place of the experiment's own table."""
    names = list(about.module("report").QUANTITIES)
    lines = summaries(frame, names) if names else frame.iloc[:0]
    shown = (
        [summary_table(lines, "Method", about.name, [n for n in names if n in set(lines["metric"])])] if names else []
    )
    return Document(about.title, [Text(why), *shown], lines)


def build(
    about: Experiment, frame: pd.DataFrame, paper: pd.DataFrame, note: str, runs: Sequence[origin.Run] = ()
) -> Document:
    """The document of the experiment's report.py, with the parts that all documents have.

    Raises:
        ValueError: rows of another experiment, or of several sizes or data.
    """
    rows.provenance(frame, about.name)
    made = or_gap(about, frame, lambda: document_of(about, frame, paper), lambda why: bare(about, frame, why))
    blocks: list[Block] = [origin.opening(frame, note), *made.blocks]
    short = origin.in_short(frame, origin.most_seeds)
    for name, caption in about.figures.items():
        blocks.append(Figure(f"figures/{name}.png", f"{caption} Made at {short}."))
    if runs:
        blocks += [origin.settings(runs), origin.details(runs)]
    return made._replace(blocks=blocks)


def table(options: argparse.Namespace) -> None:
    about, folder = catalogue.find(options.experiment), options.out_dir
    frame, paper = rows_of(about, options.rows), printed(about, options.paper)
    made = build(about, frame, paper, options.note, origin.read(options.rows.with_name("runs.json")))
    assert made.lines is not None
    with atomic(folder / f"{about.table}.csv") as path:
        made.lines.to_csv(path, index=False, lineterminator="\n")
    for name, text in ((f"{about.table}.md", document.markdown(made)), (f"{about.table}.json", document.dumps(made))):
        with atomic(folder / name) as path:
            path.write_text(text, encoding="utf-8")
    print(f"{folder / about.table}.md: {len(made.lines)} lines")


def draw_all(about: Experiment, frame: pd.DataFrame, paper: pd.DataFrame, files: Sequence[Path]) -> dict[str, Any]:
    """The figures of an experiment by name. Each caption in its yaml has a function of the same name in report.py."""
    from leapwarp.report import draw

    module = about.module("report")
    for name in about.figures:
        if not callable(getattr(module, name, None)):
            raise ValueError(f"{about.folder}: its yaml has the figure {name!r}, report.py no function of that name.")

    def gap(why: str) -> Any:
        figure, [axes] = draw.panels(frame, about.title, (8.4, 3.0), spread="")
        draw.empty(axes, "\n".join(textwrap.wrap(why, 80)))
        return figure

    def drawn(name: str) -> Any:
        figure = getattr(module, name)(frame, paper, files)
        if not hasattr(figure, "draw_without_rendering"):
            path = about.code / "report.py"
            raise ValueError(f"{path}: {name}() returns {type(figure).__name__}; needed a figure of matplotlib.")
        return laid_out(figure)

    return {name: or_gap(about, frame, partial(drawn, name), gap) for name in about.figures}


def laid_out(figure: Any) -> Any:
    """The figure after a first layout, where matplotlib raises some errors, such as for an empty logarithmic axis."""
    figure.draw_without_rendering()
    return figure


def figures(options: argparse.Namespace) -> None:
    from leapwarp.report import draw

    about = catalogue.find(options.experiment)
    with draw.styled():
        frame, paper = rows_of(about, options.rows), printed(about, options.paper)
        for name, figure in draw_all(about, frame, paper, options.files).items():
            draw.save(figure, options.out_dir / f"{name}.png")
            print(options.out_dir / f"{name}.png")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m leapwarp.report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("gather", help="check many CSVs of rows and write them as one, sorted")
    command.add_argument("--out", required=True, metavar="CSV", help="the file to write")
    command.add_argument("--origins", required=True, metavar="JSON", help="the provenance of all runs, to write")
    command.add_argument("csv", nargs="+", metavar="CSV", help="files to gather, in any order")
    command.set_defaults(run=gather)
    for name, run, what in (
        ("table", table, "the table of an experiment, ours beside the paper's"),
        ("figures", figures, "the figures of an experiment"),
    ):
        command = commands.add_parser(name, help=what)
        command.add_argument("experiment", help="the name of an experiment, or the path of its folder")
        command.add_argument("--rows", required=True, type=Path, metavar="CSV", help="the gathered rows")
        command.add_argument("--paper", type=Path, metavar="CSV", help="the paper's numbers (default: in paper/)")
        command.add_argument("--out-dir", required=True, type=Path, metavar="DIR", help="folder to write to")
        command.set_defaults(run=run)
        if name == "table":
            command.add_argument("--note", default="not one of the known sizes", help="a description of the size")
        else:
            command.add_argument("--files", type=Path, nargs="*", default=[], help="further files for figures")
    options = parser.parse_args(arguments)
    with one_line(parser):
        options.run(options)


if __name__ == "__main__":
    main()
