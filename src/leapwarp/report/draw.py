"""Functions that all figures share: panels with heading and caption, lines with their spread, legends, files."""

import textwrap
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import matplotlib
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from matplotlib.text import Text

from leapwarp.catalogue import Look
from leapwarp.files import atomic
from leapwarp.report import looks, stats
from leapwarp.report.origin import in_short
from leapwarp.report.quantities import quantity
from leapwarp.report.rows import provenance
from leapwarp.report.select import steps

STYLE = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 9, "pdf.fonttype": 42}
PAPER_LINE: dict[str, Any] = {"linestyle": (0, (3, 2)), "linewidth": 1.0, "markersize": 5, "markerfacecolor": "white"}
DOTTED: dict[str, Any] = {"color": "0.6", "linewidth": 0.9, "linestyle": ":"}
SPREAD = "shading: ± 1 standard deviation over seeds"
BARS = "bars: ± 1 standard deviation over seeds; strokes: seeds"


def caption(frame: pd.DataFrame, spread: str = SPREAD) -> str:
    """The caption: size, data and number of seeds, and how the spread is shown if there are several seeds."""
    provenance(frame, looks.experiment(frame))
    if "over seeds" in spread and len(set(frame["seed"])) == 1:
        spread = f"one seed: no {spread.partition(':')[0]}"
    return "\n".join(filter(None, [in_short(frame), spread]))


def panels(
    frame: pd.DataFrame,
    heading: str,
    size: tuple[float, float],
    n_rows: int = 1,
    n_columns: int = 1,
    spread: str = SPREAD,
    **options,
) -> tuple[Figure, list[Axes]]:
    """A figure with heading and caption, and its panels row by row."""
    figure = Figure(figsize=size, layout=ConstrainedLayoutEngine(w_pad=0.07))  # inches between panels
    axes = list(figure.subplots(n_rows, n_columns, squeeze=False, **options).flat)
    title(figure, heading, caption(frame, spread))
    return figure, axes


def title(figure: Figure, heading: str, text: str) -> None:
    """A bold heading at the top left and a caption at the bottom left."""
    figure.suptitle(heading, fontsize=11, fontweight="bold", x=0.01, ha="left")
    width = int(14 * figure.get_figwidth())  # the number of characters of this size in a line
    text = "\n".join(textwrap.fill(line, width) for line in text.splitlines())
    figure.supxlabel(text, fontsize=8, color="0.3", x=0.01, ha="left")


def band(axes: Axes, lines: pd.DataFrame, x: str, colour: str, **options) -> None:
    """Draw the mean against column `x`, with a band of ± std if there is one, above 0 on a logarithmic axis.

    A single point has a stroke in place of the band.
    """
    lines = lines.sort_values(x)
    position, mean, std = (lines[column].to_numpy(dtype=float) for column in (x, "mean", "std"))
    low = mean - std
    if axes.get_yscale() == "log":
        low = np.maximum(low, mean / 10)
    axes.plot(position, mean, color=colour, **options)
    if len(lines) == 1:
        axes.vlines(position, low, mean + std, color=colour, alpha=0.5)
    axes.fill_between(position, low, mean + std, color=colour, alpha=0.15, linewidth=0)


def curves(
    axes: Axes,
    frame: pd.DataFrame,
    metric: str,
    factor: float = 1.0,
    level: float = 0.0,
    style: Callable[[str, Look], dict[str, Any]] = lambda method, look: {"linestyle": dashes(look)},
) -> dict[str, Look]:
    """Draw a line for each method: `level + factor * metric` at each step, mean and std over seeds.
    -> the methods drawn, in order

    Args:
        style: further options of a method's line.
    """
    rows = steps(frame, metric)
    if rows.empty:
        empty(axes, f"the rows hold no\n{metric}")
    lines = stats.curve(rows)
    lines = lines.assign(mean=level + factor * lines["mean"], std=abs(factor) * lines["std"])
    for method, look in looks.of(rows).items():
        mine = lines.loc[lines["method"] == method]
        point = {"marker": look.marker, "markersize": 5}  # a line of one point is invisible without a marker
        how = point if len(mine) == 1 else style(method, look)
        band(axes, mine, "step", look.colour, **how)
    return looks.of(rows)


def curve_panels(
    frame: pd.DataFrame,
    heading: str,
    metrics: Mapping[str, tuple[str, float] | tuple[str, float, float]],
    x_label: str,
    size: tuple[float, float],
    style: Callable[[str, Look], dict[str, Any]] = lambda method, look: {"linestyle": dashes(look)},
) -> tuple[Figure, list[Axes], dict[str, Look]]:
    """A panel of `curves` for each metric (label, factor, level): the figure, its panels, and the methods drawn.

    The caption counts the seeds that have such curves, which may be fewer than those of other quantities.
    """
    drawn = frame.loc[frame["metric"].isin(list(metrics)) & frame["step"].notna()]
    figure, panels_ = panels(frame if drawn.empty else drawn, heading, size, n_columns=len(metrics))
    shown: set[str] = set()
    for axes, (metric, (label, *scale)) in zip(panels_, metrics.items(), strict=True):
        shown |= curves(axes, frame, metric, *scale, style=style).keys()
        axes.set(xlabel=x_label, ylabel=label)
    return figure, panels_, {method: look for method, look in looks.of(frame).items() if method in shown}


def with_markers(method: str, look: Look) -> dict[str, Any]:
    """A style for `curves`: a marker at each point if there are few."""
    return {"marker": look.marker, "markersize": 4, "markevery": 0.04, "linestyle": dashes(look)}


def empty(axes: Axes, text: str) -> None:
    """Write in an empty panel why it is empty."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="0.4")


def legend(figure: Figure, handles: Iterable[Line2D] | Mapping[str, Look], markers: bool = False) -> None:
    """Draw a legend on the right with these lines, or with one for each method."""
    if isinstance(handles, Mapping):
        handles = [handle(look, markers) for look in handles.values()]
    handles = list(handles)
    figure.legend(handles=handles, loc="outside right center", frameon=False, handlelength=2.6, fontsize=8.5)


def dashes(look: Look) -> str:
    """The line style of a method."""
    return "-." if look.dashed else "-"


def handle(look: Look, marker: bool = True, **style) -> Line2D:
    shown: dict[str, Any] = {"marker": look.marker if marker and not look.dashed else "", "linestyle": dashes(look)}
    return Line2D([], [], color=look.colour, label=look.name, **(shown | style))


def dots(
    axes: Axes,
    frame: pd.DataFrame,
    name: str,
    paper: pd.DataFrame,
    table: str,
    labels: Mapping[str, str] = MappingProxyType({}),
) -> list[Line2D]:
    """Draw a row for each method: our mean, standard deviation and seeds, and the paper's in hollow markers.
    -> entries for a legend

    Args:
        table: the name of the paper's numbers in the legend.
        labels: labels of methods, if not their names.
    """
    final = quantity(frame, name)
    ours, theirs = stats.summary(final, ["method"]).set_index("method"), paper.set_index("method")
    shown = looks.of(frame)
    for place, (method, look) in enumerate(reversed(shown.items())):
        if method in ours.index:
            mean, std = ours.loc[method, ["mean", "std"]].astype(float)
            seeds = final.loc[final["method"] == method].groupby("seed")["value"].mean()
            spread = None if np.isnan(std) else std
            axes.errorbar(mean, place + 0.12, xerr=spread, color=look.colour, marker="o", capsize=3)
            axes.plot(seeds, [place + 0.12] * len(seeds), "|", color=look.colour, markersize=11, alpha=0.7)
        if method in theirs.index:
            value, spread = theirs.loc[method, ["value", "std"]].astype(float)
            hollow = {"color": "0.45", "marker": "o", "markerfacecolor": "white", "capsize": 3}
            axes.errorbar(value, place - 0.16, xerr=spread, **hollow)
    axes.set_yticks(range(len(shown)), [labels.get(key, look.name) for key, look in reversed(shown.items())])
    axes.set_xlim(left=0)
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    return [
        Line2D([], [], color="0.2", marker="o", label="ours"),
        Line2D([], [], color="0.45", marker="o", markerfacecolor="white", label=table),
    ]


def legible(text: str, known: Set[int]) -> str:
    """The text with code points, such as U+9CE5, for characters that are not `known` to a font."""
    parts = (c if ord(c) in known or c.isspace() else f" U+{ord(c):04X} " for c in text)
    return "".join(parts).replace("  ", " ").strip() if any(ord(c) not in known for c in text) else text


def make_legible(figure: Figure) -> None:
    """Replace characters that the font lacks by their code points. Otherwise they would all be empty boxes."""
    changed = set()

    def shown(label: Text) -> str:
        text = label.get_text()
        if text.isascii():
            return text
        made = legible(text, get_font(findfont(label.get_fontproperties())).get_charmap().keys())
        changed.update({text.strip()} - {made})
        return made

    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        ticks = axis.get_majorticklabels()
        texts = [shown(label) for label in ticks]
        if texts != [label.get_text() for label in ticks]:  # drawing resets their texts
            axis.set_ticks(axis.get_majorticklocs(), texts)
    for label in figure.findobj(Text):
        assert isinstance(label, Text)
        label.set_text(shown(label))
    for text in sorted(changed):
        print(f"figure: the font lacks characters of {text!r}, which are shown by their numbers", flush=True)


def save(figure: Figure, path: Path) -> None:
    """Write a PNG and, beside it, a PDF atomically, the same bytes for the same rows."""
    make_legible(figure)
    for ending, nothing in (
        ("png", {"Software": None}),
        ("pdf", {"CreationDate": None, "Creator": None, "Producer": None}),
    ):
        with atomic(path.with_suffix(f".{ending}")) as temporary:
            figure.savefig(temporary, format=ending, dpi=150, metadata=nothing)


def styled() -> AbstractContextManager[None]:
    """A context for drawing without a window, and with a style that does not depend on the user's files."""
    matplotlib.use("Agg")
    return matplotlib.style.context(["default", STYLE])
