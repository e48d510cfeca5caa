"""Figures 2 (right) and 8 of the WarpGrad paper: return against updates in the maze; and a picture of an episode.

    python -m leapwarp.figures.maze --experiment maze \
        --rows results/quick/maze/rows.csv --out-dir results/quick/maze/figures

maze_return.png    cumulative reward of an episode against updates, median and inter-quartile range
maze_picture.png   the maze, and one episode of a plain and of a warped agent after training
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leapwarp.figures import draw, style

PICTURED = ("rnn", "warp_rnn")
FIRST, LATER = "#0072B2", "#D55E00"


def quartiles(frame: pd.DataFrame, method: str) -> pd.DataFrame:
    """Columns 0.25, 0.5 and 0.75 over seeds, by step; each run smoothed by a trailing mean over a twentieth."""
    rows = frame.loc[(frame["metric"] == "return") & (frame["method"] == method)].astype({"step": "int64"})
    wide = rows.pivot(index="step", columns="seed", values="value").sort_index()
    width = max(1, len(wide) // 20)
    return wide.rolling(width, min_periods=1).mean().quantile([0.25, 0.5, 0.75], axis=1).T


def returns(frame: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(8.0, 4.4), layout="constrained")
    axes = figure.subplots()
    found = style.ordered(frame.loc[frame["metric"] == "return", "method"])
    for key in found:
        lines, look = quartiles(frame, key), style.method(key)
        x = lines.index.to_numpy(dtype=float)
        axes.plot(x, lines[0.5], color=look.colour, linestyle="-" if look.pretrained else "-.", linewidth=1.5)
        axes.fill_between(x, lines[0.25], lines[0.75], color=look.colour, alpha=0.18, linewidth=0)
    axes.set_xlabel("updates (batches of episodes)")
    axes.set_ylabel("cumulative reward of an episode (10 a find)")
    axes.set_ylim(bottom=0)
    note = "each run smoothed over a twentieth of training; the paper's Figs. 2 and 8 are plots without printed numbers"
    text = draw.caption(frame, "maze", note).replace(
        "shading: ± 1 standard deviation", "lines: median, shading: inter-quartile range"
    )
    draw.title(figure, "Maze with a hidden goal: learning", text)
    draw.legend(figure, [draw.handle(key, marker=False) for key in found])
    return figure


def episode(axes: Axes, mine: pd.DataFrame, heading: str) -> None:
    """One agent's way: until it finds the goal for the first time, and from then on."""

    def values(metric: str) -> np.ndarray:
        rows = mine.loc[mine["metric"] == metric].sort_values("step")
        return rows["value"].to_numpy(dtype=float).astype(int)

    walls, cells, found, goal = values("wall"), values("cell"), values("found"), int(values("goal")[0])
    side = math.isqrt(len(walls))
    axes.imshow(1 - walls.reshape(side, side), cmap="gray", vmin=-0.6, vmax=1, interpolation="nearest")
    rows, columns = np.divmod(cells, side)
    finds = np.nonzero(found)[0]
    # Ways that use a cell again are drawn a little to the side, so that they can be told apart.
    ends = [*finds.tolist(), len(cells) - 1]
    begin = 0
    for number, end in enumerate(ends):
        if begin >= len(cells):
            break
        way_y, way_x = rows[begin : end + 1].astype(float), columns[begin : end + 1].astype(float)
        if number < len(finds):  # the last step led to the goal, and from there elsewhere
            way_y, way_x = np.append(way_y, goal // side), np.append(way_x, goal % side)
        shift = 0.07 * ((number + 2) % 5 - 2)
        first = number == 0
        axes.plot(way_x + shift, way_y + shift, color=FIRST if first else LATER, linewidth=2.2 if first else 1.2)
        axes.plot(way_x[0] + shift, way_y[0] + shift, "o", color=FIRST if first else LATER, markersize=5)
        begin = end + 1
    axes.plot(goal % side, goal // side, marker="*", color="#F0C808", markeredgecolor="black", markersize=16)
    when = f"first after {finds[0] + 1} steps" if len(finds) else "never found"
    axes.set_title(f"{heading}\n{len(finds)} finds, {when}", fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def picture(frame: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(8.4, 4.4), layout="constrained")
    for axes, key in zip(figure.subplots(1, 2), PICTURED, strict=True):
        mine = frame.loc[(frame["method"] == key) & (frame["seed"] == 0)]
        if mine.loc[mine["metric"] == "cell"].empty:
            draw.empty(axes, f"seed 0 of\n{style.method(key).name} was not run")
            continue
        episode(axes, mine, f"{style.method(key).name}, after training")
    note = "one episode of seed 0, the same goal for both agents, who do not see it and start at the centre"
    text = draw.caption(frame, "maze", "").splitlines()[0] + "\n" + note
    draw.title(figure, "One episode in the maze", text)
    handles = [
        Line2D([], [], color=FIRST, marker="o", linewidth=2.2, label="until the first find"),
        Line2D([], [], color=LATER, marker="o", linewidth=1.2, label="after a teleport"),
        Line2D([], [], color="#F0C808", marker="*", markeredgecolor="black", markersize=12, linestyle="", label="goal"),
    ]
    draw.legend(figure, handles)
    return figure


def build(frame: pd.DataFrame, paper: pd.DataFrame, experiment: str) -> dict[str, Figure]:
    return {"maze_return": returns(frame), "maze_picture": picture(frame)}


def main(arguments: Sequence[str] | None = None) -> None:
    description = "Draw learning in the maze, and an episode."
    draw.main(build, {"maze": draw.Numbers("warpgrad")}, "maze", description, arguments)


if __name__ == "__main__":
    main()
