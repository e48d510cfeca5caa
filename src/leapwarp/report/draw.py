"""What the figures share: captions, lines with their spread over seeds, legends, files."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leapwarp.catalogue import Look
from leapwarp.files import atomic
from leapwarp.report import looks
from leapwarp.report.rows import PUBLISHED, provenance, summary
from leapwarp.report.table import REAL

PAPER_LINE: dict[str, Any] = {
    "linestyle": (0, (3, 2)),
    "linewidth": 1.0,
    "markersize": 5,
    "markerfacecolor": "white",
}


def smaller(size: str, data_source: str) -> str:
    """What a reader must know before comparing with the paper, or ""."""
    text = [] if size == PUBLISHED else ["sizes smaller than published"]
    other = "parts of the data sets" if data_source == "multicv-subsets" else "stand-in data, not the paper's"
    return "; ".join(text + ([] if data_source in REAL else [other]))


def caption(frame: pd.DataFrame, experiment: str, extra: str = "", spread: str = "shading") -> str:
    """Two lines: size, data and seeds; then what shows the spread over seeds, and `extra`."""
    size, data_source = provenance(frame, experiment)
    counts = sorted(set(frame.groupby(["method", "n_tasks"])["seed"].nunique()))
    n_seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    warning = smaller(size, data_source)
    first = f"size {size}, data {data_source}, {n_seeds} seed{'' if counts == [1] else 's'}"
    shading = f"one seed: no {spread}" if counts == [1] else f"{spread}: ± 1 standard deviation over seeds"
    return first + (f" ({warning})" if warning else "") + "\n" + "; ".join(filter(None, [shading, extra]))


def title(figure: Figure, heading: str, text: str) -> None:
    """A bold heading at the top left and the caption at the bottom left."""
    figure.suptitle(heading, fontsize=11, fontweight="bold", x=0.01, ha="left")
    width = int(14 * figure.get_figwidth())  # characters of this size that fit into a line
    text = "\n".join(textwrap.fill(line, width) for line in text.splitlines())
    figure.supxlabel(text, fontsize=8, color="0.3", x=0.01, ha="left")


def shaded(axes: Axes, lines: pd.DataFrame, x: str, look: Look, **options) -> None:
    """One line of mean against column `x`, with ± std where there is one, in the colours of a method."""
    lines = lines.sort_values(x)
    position, mean, std = (lines[column].to_numpy(dtype=float) for column in (x, "mean", "std"))
    axes.plot(position, mean, color=look.colour, **options)
    axes.fill_between(position, mean - std, mean + std, color=look.colour, alpha=0.15, linewidth=0)


def empty(axes: Axes, text: str) -> None:
    """An empty panel that says why."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="0.4")


def legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    figure.legend(handles=handles, loc="outside right center", frameon=False, handlelength=2.6, fontsize=8.5)


def dashes(look: Look) -> Literal["-", "-."]:
    """How the line of a method is drawn."""
    return "-." if look.dashed else "-"


def handle(look: Look, marker: bool = True) -> Line2D:
    shown = look.marker if marker and not look.dashed else ""
    return Line2D([], [], color=look.colour, marker=shown, linestyle=dashes(look), label=look.name)


def curve(frame: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, bool]:
    """Mean and std over seeds at each step (columns method, step, mean, std), and whether a run ended early.

    A run that stopped before the others of its method keeps its last value, so that the mean is over the same
    tasks and seeds at every step; between two measurements of a run the line is straight.
    """
    rows = frame.loc[(frame["metric"] == metric) & frame["step"].notna()]
    parts, early = [], False
    for key, mine in rows.groupby("method"):
        mine = mine.astype({"step": "int64"})
        wide = mine.pivot(index="step", columns=["seed", "task"], values="value").sort_index()
        early = early or bool(np.isnan(wide.to_numpy()[-1]).any())
        whole = wide.interpolate(method="index", limit_area="inside").ffill()
        per_seed = whole.T.groupby(level="seed").mean().T
        lines = pd.DataFrame({"mean": per_seed.mean(axis=1), "std": per_seed.std(axis=1)})
        parts.append(lines.assign(method=key))
    if not parts:
        return pd.DataFrame(columns=["method", "step", "mean", "std"]), False
    result = pd.concat(parts).rename_axis("step").reset_index()
    return result, early


def dots(axes: Axes, final: pd.DataFrame, paper: pd.DataFrame, names: dict[str, str], table: str) -> list[Line2D]:
    """A method a row: mean, standard deviation and seeds of ours, the paper's likewise and hollow. -> for a legend

    Args:
        final: one row a held-out task, as `quantity` has them. names: labels by method, from the top.
        table: what the legend calls the paper's.
    """
    ours, theirs = summary(final, ["method"]).set_index("method"), paper.set_index("method")
    for place, name in enumerate(reversed(names)):
        colour = looks.look(name, looks.experiment(final)).colour
        mean, std = ours.loc[name, ["mean", "std"]].astype(float)
        seeds = final.loc[final["method"] == name].groupby("seed")["value"].mean()
        axes.errorbar(mean, place + 0.12, xerr=None if np.isnan(std) else std, color=colour, marker="o", capsize=3)
        axes.plot(seeds, [place + 0.12] * len(seeds), "|", color=colour, markersize=11, alpha=0.7)
        if name in theirs.index:
            value, spread = theirs.loc[name, ["value", "std"]].astype(float)
            look = {"color": "0.45", "marker": "o", "markerfacecolor": "white", "capsize": 3}
            axes.errorbar(value, place - 0.16, xerr=spread, **look)
    axes.set_yticks(range(len(names)), list(reversed(names.values())))
    axes.set_xlim(left=0)
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    return [
        Line2D([], [], color="0.2", marker="o", label="ours"),
        Line2D([], [], color="0.45", marker="o", markerfacecolor="white", label=table),
    ]


def save(figure: Figure, path: Path) -> None:
    """Write a PNG atomically, the same bytes for the same rows."""
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})
