"""The table of WarpGrad's maze, the curves of Figures 2 and 8, and a picture of one episode of two agents."""

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leapwarp.report import draw, looks
from leapwarp.report.document import Document, Heading, Table, Text
from leapwarp.report.quantities import Quantity
from leapwarp.report.select import end, height, trailing
from leapwarp.report.table import number, summaries, summary_table


def quartile_width(frame: pd.DataFrame, metric: str) -> dict[str, float]:
    """The inter-quartile range over seeds of smoothed curves, averaged over the curve, by method."""
    of_step = trailing(frame, metric, SMOOTHED).groupby(["method", "step"])["value"]
    width = pd.DataFrame({"value": of_step.quantile(0.75) - of_step.quantile(0.25)})
    return width.groupby(level="method").agg({"value": "mean"}).to_dict()["value"]


EPISODE = "reward an episode"
SMOOTHED = 20  # curves are smoothed over this part of training
QUANTITIES = {
    "final_return": Quantity("return", "Return at the end", EPISODE, 1, select=end),
    "return_height": Quantity("return", "Mean return over training", EPISODE, 1, select=height),
    "task_parameters": Quantity("task_parameters", "Task parameters", "numbers", 0),
    "warp_parameters": Quantity("warp_parameters", "Warp parameters", "numbers", 0),
}
SHOWN = ["final_return", "return_height", "task_parameters", "warp_parameters"]
PICTURED = ("rnn", "warp_rnn")
WAYS: list[dict[str, Any]] = [  # until the first find, and later ones
    {"color": "#0072B2", "linewidth": 2.2, "label": "until the first find"},
    {"color": "#D55E00", "linewidth": 1.2, "label": "after a teleport"},
]
GOAL: dict[str, Any] = {"color": "#F0C808", "marker": "*", "markeredgecolor": "black", "linestyle": "", "label": "goal"}


def document(frame: pd.DataFrame, paper: pd.DataFrame) -> Document:
    """The table of all quantities of each agent, and the spread of returns over seeds. `frame` has the rows."""
    lines, widths = summaries(frame, SHOWN), quartile_width(frame, "return")
    spread = [[name, number(widths[method])] for method, name in looks.names(frame).items() if method in widths]
    updates = int(frame.loc[frame["metric"] == "return", "step"].max())
    text = f"""
- Training had {updates} updates. ± is the sample standard deviation over seeds. The end is the mean over the last tenth
  of the updates. The paper prints curves and no numbers.
- All agents have the same task RNN. The Hebbian agents also learn the plasticity of each weight of this RNN. The
  HyperRNN is the Warp-RNN with all parameters, including warps, updated after every batch.
"""
    blocks = [
        Text(text),
        summary_table(lines, "Agent", looks.experiment(frame), SHOWN),
        Heading("Spread over seeds"),
        Text("This is the inter-quartile range over seeds, averaged over the updates: the mean height of the bands."),
        Table(["Agent", "Quartile width [reward an episode]"], spread),
    ]
    return Document("WarpGrad, the maze: cumulative reward of an episode (higher: better)", blocks, lines)


def maze_return(frame: pd.DataFrame, *_) -> Figure:
    """Median and quartiles over seeds of each agent's return. Each run is smoothed over a twentieth of training."""
    spread = "lines: median, shading: inter-quartile range over seeds"
    figure, [axes] = draw.panels(frame, "Maze with a hidden goal: learning", (8.0, 4.4), spread=spread)
    smooth = trailing(frame, "return", SMOOTHED).astype({"step": "int64"})
    for method, look in looks.of(smooth).items():
        of_step = smooth.loc[smooth["method"] == method].groupby("step")["value"]
        low, middle, high = (of_step.quantile(share) for share in (0.25, 0.5, 0.75))
        axes.plot(middle.index, middle, color=look.colour, linestyle=draw.dashes(look), linewidth=1.5)
        axes.fill_between(middle.index, low, high, color=look.colour, alpha=0.18, linewidth=0)
    axes.set(xlabel="updates (batches of episodes)", ylabel="cumulative reward of an episode (10 for each find)")
    axes.set_ylim(bottom=0)
    draw.legend(figure, looks.of(smooth))
    return figure


def episode(axes: Axes, mine: pd.DataFrame, heading: str) -> None:
    """Draw one agent's way through the maze until it finds the goal for the first time, and its ways after that."""

    def values(metric: str) -> np.ndarray:
        rows = mine.loc[mine["metric"] == metric].sort_values("step")
        return rows["value"].to_numpy(dtype=float).astype(int)

    walls, cells, found, goal = values("wall"), values("cell"), values("found"), int(values("goal")[0])
    side = math.isqrt(len(walls))
    axes.imshow(1 - walls.reshape(side, side), cmap="gray", vmin=-0.6, vmax=1, interpolation="nearest")
    rows, columns = np.divmod(cells, side)
    finds = np.nonzero(found)[0]
    # Ways that use a cell again are drawn a little to the side, so that they can be told apart.
    begin = 0
    for way, last in enumerate([*finds.tolist(), len(cells) - 1]):
        if begin >= len(cells):
            break
        way_y, way_x = rows[begin : last + 1].astype(float), columns[begin : last + 1].astype(float)
        if way < len(finds):  # the last step led to the goal, and from there elsewhere
            way_y, way_x = np.append(way_y, goal // side), np.append(way_x, goal % side)
        shift, look = 0.07 * ((way + 2) % 5 - 2), WAYS[min(way, 1)]
        axes.plot(way_x + shift, way_y + shift, **look)
        axes.plot(way_x[0] + shift, way_y[0] + shift, "o", color=look["color"], markersize=5)
        begin = last + 1
    axes.plot(goal % side, goal // side, markersize=16, **GOAL)
    when = f"first after {finds[0] + 1} steps" if len(finds) else "never found"
    axes.set_title(f"{heading}\n{len(finds)} finds, {when}", fontsize=9)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def maze_picture(frame: pd.DataFrame, *_) -> Figure:
    figure, panels = draw.panels(frame, "One episode in the maze", (8.4, 4.4), n_columns=2, spread="seed 0")
    for axes, method in zip(panels, PICTURED, strict=True):
        mine = frame.loc[(frame["method"] == method) & (frame["seed"] == 0)]
        name = looks.look(method, looks.experiment(frame)).name
        if mine.loc[mine["metric"] == "cell"].empty:
            draw.empty(axes, f"seed 0 of\n{name} was not run")
        else:
            episode(axes, mine, f"{name}, after training")
    ways = [Line2D([], [], marker="o", **look) for look in WAYS]
    draw.legend(figure, [*ways, Line2D([], [], markersize=12, **GOAL)])
    return figure
