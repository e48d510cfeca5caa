"""The rows of an experiment gathered, its table and its figures.

    python -m leapwarp.report gather --out results/quick/maze/rows.csv --origins results/quick/maze/runs.json RUN.csv
    python -m leapwarp.report table maze --rows results/quick/maze/rows.csv --out-dir results/quick/maze
    python -m leapwarp.report figures maze --rows results/quick/maze/rows.csv --out-dir results/quick/maze/figures

An experiment is named by its name, or by the path of its folder.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from leapwarp import catalogue
from leapwarp.catalogue import Experiment
from leapwarp.files import atomic, one_line
from leapwarp.report import rows
from leapwarp.report.table import PAPER_COLUMNS, default_paper, read_paper


def printed(about: Experiment, path: Path | None) -> pd.DataFrame:
    """The paper's numbers that ours are compared with; no lines where it prints none."""
    if not about.printed:
        return pd.DataFrame(columns=PAPER_COLUMNS)
    return read_paper(path or default_paper(about.paper), about.printed)


def rows_of(about: Experiment, path: Path) -> pd.DataFrame:
    """Its gathered rows; raises ValueError where they are another experiment's, or of several sizes."""
    frame = rows.read(path)
    rows.provenance(frame, about.name)
    return frame


def gather(options: argparse.Namespace) -> None:
    frame = rows.gather(options.csv)
    with atomic(options.origins) as path:
        path.write_text(json.dumps(rows.origins(options.csv), indent=1) + "\n")
    rows.write(options.out, frame)
    print(f"{options.out}: {len(frame)} rows of {len(options.csv)} files")


def table(options: argparse.Namespace) -> None:
    about = catalogue.find(options.experiment)
    lines, text = about.module("report").table(
        rows_of(about, options.rows), printed(about, options.paper), options.note
    )
    with atomic(options.out_dir / f"{about.table}.csv") as path:
        lines.to_csv(path, index=False, lineterminator="\n")
    with atomic(options.out_dir / f"{about.table}.md") as path:
        path.write_text(text, encoding="utf-8")
    print(f"{options.out_dir / about.table}.md: {len(lines)} lines")


def figures(options: argparse.Namespace) -> None:
    import matplotlib
    import matplotlib.style

    from leapwarp.report import draw

    about = catalogue.find(options.experiment)
    matplotlib.use("Agg")
    with matplotlib.style.context("default"):
        matplotlib.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9})
        frame, paper = rows_of(about, options.rows), printed(about, options.paper)
        made = about.module("report").figures(frame, paper, options.files)
        if made.keys() != about.figures.keys():
            raise ValueError(f"{about.folder}: report.py draws {sorted(made)}, its yaml has {sorted(about.figures)}.")
        for name, figure in made.items():
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
        command.add_argument("experiment", help="its name, or the path of its folder")
        command.add_argument("--rows", required=True, metavar="CSV", help="its gathered rows")
        command.add_argument("--paper", type=Path, metavar="CSV", help="the paper's numbers (default: in paper/)")
        command.add_argument("--out-dir", required=True, type=Path, metavar="DIR", help="folder to write to")
        command.set_defaults(run=run)
        if name == "table":
            command.add_argument("--note", default="not one of the known sizes", help="what the size is")
        else:
            command.add_argument("--files", type=Path, nargs="*", default=[], help="what figures read beside the rows")
    options = parser.parse_args(arguments)
    with one_line(parser):
        options.run(options)


if __name__ == "__main__":
    main()
