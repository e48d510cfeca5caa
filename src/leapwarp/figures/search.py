"""A random search as a figure: the score of every trial against each setting that was drawn.

python -m leapwarp.figures.search --trials results/quick/search/multi_shot/leap/trials.csv \
    --out results/quick/search/multi_shot/leap/search.png
"""

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import matplotlib.style
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from leapwarp import tables
from leapwarp.figures import draw, style
from leapwarp.files import one_line
from leapwarp.tables.search import drawn


def panel(axes: Axes, frame: pd.DataFrame, name: str) -> None:
    values, look = frame[name], style.method(frame["method"].iloc[0])
    if not pd.api.types.is_numeric_dtype(values):
        values = values.astype(str)
    elif min(values) > 0 and max(values) >= 10 * min(values):
        axes.set_xscale("log")
        axes.xaxis.set_minor_formatter(NullFormatter())
    failed = frame["score"].isna()
    axes.plot(values[~failed], frame.loc[~failed, "score"], "o", color=look.colour, alpha=0.7)
    axes.plot(values.iloc[0], frame["score"].iloc[0], "*", color="black", markersize=13)
    for value in values[failed]:
        axes.axvline(value, color="0.7", linewidth=0.9, linestyle=":")
    axes.set_xlabel(name)


def build(frame: pd.DataFrame) -> Figure:
    names, about = drawn(frame), tables.QUANTITIES[frame["criterion"].iloc[0]]
    figure = Figure(figsize=(max(2.7 * len(names), 6.5), 3.8), layout="constrained")
    row = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for axes, name in zip(row, names, strict=True):
        panel(axes, frame, name)
    unit = "%" if about.unit == "percent" else about.unit
    row[0].set_ylabel(textwrap.fill(f"{about.title}, validation classes [{unit}]", 28))
    first = frame.iloc[0]
    warning = draw.smaller(first["profile"], first["data_source"])
    text = f"profile {first['profile']}, data {first['data_source']}, {len(frame)} trials of one seed each"
    text += f" ({warning})" if warning else ""
    text += "\nstar: the winner; dotted lines: trials that diverged; no trial sees test classes"
    draw.title(figure, f"Random search: {style.method(first['method']).name}, {first['experiment']}", text)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m leapwarp.figures.search", description="Draw a random search.")
    parser.add_argument("--trials", required=True, metavar="CSV", help="what leapwarp.tables.search made")
    parser.add_argument("--out", required=True, type=Path, metavar="PNG")
    options = parser.parse_args(arguments)
    matplotlib.use("Agg")
    with one_line(parser), matplotlib.style.context("default"):
        matplotlib.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9})
        draw.save(build(pd.read_csv(options.trials)), options.out)


if __name__ == "__main__":
    main()
