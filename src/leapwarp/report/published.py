"""How far the numbers of a size are from those in the papers' tables, and whether the methods come in the same order.

    python -m leapwarp.report.published --folder results/quick --experiments omniglot_warp few_shot \
        --out results/quick/published.json

It reads the tables that `python -m leapwarp.report table` has written, and writes, beside a document for the page and
the snapshot, published.csv with every number in print that has one of ours, and a figure. Nothing here imports torch.
"""

import argparse
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from leapwarp import catalogue
from leapwarp.catalogue import Experiment
from leapwarp.files import atomic, one_line
from leapwarp.report import document, looks, origin
from leapwarp.report.document import Document, Table, Text
from leapwarp.report.quantities import quantities

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "published"
SETTINGS = ["n_tasks", "heldout", "shots"]
"""columns that say in which setting a number was measured; methods are compared within one"""
COLUMNS = ["experiment", "metric", *SETTINGS, "method", "ours", "ours_std", "n_seeds", "paper", "paper_std", "unit"]
ABOUT = """The table compares every number in the papers' tables that we have measured with ours. Two methods *come in
order* if the one that is ahead in print is ahead here, at the same number of pretraining tasks, held-out set and shots.
In ablations and beside natural gradient descent the paper has 25 tasks, and ours may have fewer.
By chance half of the pairs come in order. This is not a verdict: verdicts are about claims, and a claim is tested only
where the methods have learnt."""
CAPTION = """Numbers printed in the papers against ours. Each panel shows one quantity of an experiment. Each colour and
marker is a method, and each point is one number. Strokes are one standard deviation over seeds for ours, and the
paper's own ± for its numbers.
Larger points have more pretraining tasks. On the dotted line both numbers are equal; above it ours are larger."""


def read(folder: Path, about: Experiment) -> pd.DataFrame:
    """The numbers of an experiment that are in print and were measured, with COLUMNS; none where it has no table."""
    path = folder / about.name / f"{about.table}.csv"
    if not (about.printed and path.exists()):
        return pd.DataFrame(columns=COLUMNS)
    lines = pd.read_csv(path).rename(columns={"ours_mean": "ours", "mean": "ours", "std": "ours_std"})
    lines = lines.assign(experiment=about.name).reindex(columns=COLUMNS)
    return lines.dropna(subset=["paper", "ours"])


def apart(lines: pd.DataFrame) -> list[tuple[str, str, pd.DataFrame]]:
    """Experiment, quantity and their lines."""
    pairs = lines[["experiment", "metric"]].drop_duplicates().to_numpy(dtype=str)
    keyed = lines.set_index(["experiment", "metric"]).sort_index()
    return [(name, metric, keyed.loc[[(name, metric)]]) for name, metric in pairs]


def in_order(lines: pd.DataFrame) -> tuple[int, int]:
    """Pairs of methods of one setting that come in the order in print, and all that print tells apart."""
    right = total = 0
    for _, group in lines.groupby(SETTINGS, dropna=False):
        for one, other in itertools.combinations(group[["paper", "ours"]].to_numpy(dtype=float), 2):
            theirs, ours = np.sign(one - other)
            total += theirs != 0
            right += theirs != 0 and theirs == ours
    return int(right), int(total)


def build(lines: pd.DataFrame, short: str) -> Document:
    """The document, with a row for each quantity of an experiment. `short` says size and data."""
    rows = []
    for name, metric, mine in apart(lines):
        right, total = in_order(mine)
        more = mine["ours"] - mine["paper"]
        rows.append(
            [
                catalogue.find(name).title,
                quantities(name)[metric].title,
                f"{right} of {total}",
                str(len(mine)),
                f"{more.median():+.1f}",
                f"{more.min():+.1f} to {more.max():+.1f}",
            ]
        )
    head = ["Experiment", "Quantity", "Pairs in order", "Numbers", "Ours minus the paper's, median", "from, to"]
    caption = " ".join(CAPTION.split())
    blocks = [
        Text(" ".join(ABOUT.split())),
        Table(head, rows),
        document.Figure(f"{NAME}.png", f"{caption} Made at {short}."),
    ]
    return Document("Published numbers beside ours", blocks)


def draw(lines: pd.DataFrame, short: str) -> "Figure":
    """A panel for each quantity of an experiment, each with its own legend."""
    from matplotlib.figure import Figure

    from leapwarp.report.draw import DOTTED, title

    panels = apart(lines)
    n_rows = max(1, -(-len(panels) // 2))
    figure = Figure(figsize=(11, 0.8 + 3 * n_rows), layout="constrained")
    every = list(figure.subplots(n_rows, 2, squeeze=False).flat)
    for axes in every[len(panels) :]:
        axes.set_axis_off()
    for axes, (name, metric, mine) in zip(every, panels, strict=False):
        about = quantities(name)[metric]
        for method, points in mine.groupby("method", sort=False):
            look = looks.look(str(method), name)
            counts = points["n_tasks"].fillna(1).clip(lower=1)
            style = {"color": look.colour, "linestyle": "", "alpha": 0.8, "linewidth": 0.8}
            axes.errorbar(points["paper"], points["ours"], points["ours_std"], points["paper_std"], **style)
            sizes = 16 * (1 + np.log2(counts.to_numpy(dtype=float)))
            style = {"color": look.colour, "marker": look.marker, "label": look.name, "alpha": 0.8}
            axes.scatter(points["paper"], points["ours"], sizes, **style)
        both = mine[["paper", "ours"]].to_numpy()
        ends = [both.min(), both.max()]
        axes.plot(ends, ends, **DOTTED)
        axes.set_title(f"{catalogue.find(name).title}:\n{about.title.lower()}", fontsize=9, loc="left")
        axes.set_xlabel(f"in print, {about.unit}")
        axes.set_ylabel(f"here, {about.unit}")
        legend = axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, fontsize=7.5)
        for handle in filter(None, legend.legend_handles):
            handle.set(sizes=[24])
    title(
        figure,
        "Published numbers against ours",
        f"{short}; strokes: ± 1 standard deviation over seeds; the paper's own ±",
    )
    return figure


def read_all(folder: Path, abouts: Sequence[Experiment]) -> pd.DataFrame:
    """The numbers of several experiments, as `read` has them."""
    found = [lines for about in abouts if len(lines := read(folder, about))]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=COLUMNS)


def write(lines: pd.DataFrame, size: str, sources: Mapping[str, Iterable[str]], out: Path) -> Document:
    """Write the document to `out`, and the numbers and the figure beside it.

    Args:
        sources: the data sources of each experiment in `lines`, by its name.
    """
    from leapwarp.report import draw as drawing

    used = sorted({source for name in lines["experiment"].unique() for source in sources[str(name)]})
    short = f"size {size}, data {', '.join(used)}"
    made = build(lines, short)
    with atomic(out.with_suffix(".csv")) as path:
        lines.to_csv(path, index=False, lineterminator="\n")
    with drawing.styled():
        drawing.save(draw(lines, short), out.with_suffix(".png"))
    with atomic(out) as path:
        path.write_text(document.dumps(made), encoding="utf-8")
    return made


def make(folder: Path, abouts: Sequence[Experiment], out: Path) -> int:
    """Write the document, the numbers and the figure beside each other; returns how many numbers there are."""
    lines = read_all(folder, abouts)
    runs = {about.name: origin.read(folder / about.name / "runs.json") for about in abouts}
    write(lines, folder.name, {name: {str(run["data_source"]) for run in each} for name, each in runs.items()}, out)
    return len(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m leapwarp.report.published", description="Compare tables with the numbers in print."
    )
    parser.add_argument("--folder", required=True, type=Path, help="results of one size, such as results/quick")
    parser.add_argument("--experiments", required=True, nargs="+", help="names of experiments, or paths")
    parser.add_argument("--out", required=True, type=Path, metavar="JSON", help="the document to write")
    options = parser.parse_args(arguments)
    with one_line(parser):
        n = make(options.folder, [catalogue.find(where) for where in options.experiments], options.out)
    print(f"{options.out}: {n} numbers")


if __name__ == "__main__":
    main()
