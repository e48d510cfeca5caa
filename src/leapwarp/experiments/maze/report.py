"""WarpGrad's maze: what the curves of Figures 2 and 8 show, how many parameters each agent has, and one episode."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leapwarp.report import curves, draw, looks
from leapwarp.report.quantities import Quantity
from leapwarp.report.table import origin, summaries, summary_block


def height(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The mean of each run's curve: the area under it, divided by its length."""
    found = frame.loc[(frame["metric"] == metric) & frame["step"].notna()]
    mean = found.groupby(curves.RUN)["value"].transform("mean")
    return found.assign(value=mean, step=pd.NA).drop_duplicates(curves.RUN)


def off_median(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """How far each run's `height` is from the median over the seeds of its method, where it has at least four.

    With two seeds both are equally far from their median, so that the spread would look certain.
    """
    found = height(frame, metric)
    of_method = found.groupby(["method", "n_tasks"])["value"]
    spread = found.assign(value=(found["value"] - of_method.transform("median")).abs())
    return spread.loc[np.asarray(of_method.transform("size")) >= 4]


def quartile_width(frame: pd.DataFrame, metric: str) -> pd.Series:
    """The inter-quartile range over seeds, averaged over the curve, by method."""
    found = frame.loc[(frame["metric"] == metric) & frame["step"].notna()]
    quartiles = found.groupby(["method", "step"])["value"].quantile([0.25, 0.75]).unstack()
    return (quartiles[0.75] - quartiles[0.25]).groupby(level="method").mean()


QUANTITIES = {
    "final_return": Quantity("return", "Return at the end", "reward an episode", 1, select=curves.end),
    "return_height": Quantity("return", "Mean return over training", "reward an episode", 1, select=height),
    "return_spread": Quantity(
        "return", "That, off the median of seeds", "reward an episode", 1, True, select=off_median
    ),
    "task_parameters": Quantity("task_parameters", "Task parameters", "numbers", 0),
    "warp_parameters": Quantity("warp_parameters", "Warp parameters", "numbers", 0),
}
SHOWN = ["final_return", "return_height", "task_parameters", "warp_parameters"]
PICTURED = ("rnn", "warp_rnn")
FIRST, LATER = "#0072B2", "#D55E00"


def table(frame: pd.DataFrame, paper: pd.DataFrame, note: str) -> tuple[pd.DataFrame, str]:
    """One line an agent and quantity, and the text."""
    experiment = looks.experiment(frame)
    lines, widths = summaries(frame, SHOWN), quartile_width(frame, "return")
    spread = ["| Agent | Quartile width [reward an episode] |", "|---|---|"]
    for method in looks.ordered(widths.index, experiment):
        spread.append(f"| {looks.look(method, experiment).name} | {widths[method]:.1f} |")
    updates = int(frame.loc[frame["metric"] == "return", "step"].max())
    text = f"""# WarpGrad, the maze: cumulative reward of an episode (higher: better)

{origin(frame, note)}
- {updates} updates. ± is the sample standard deviation over seeds. The end is the mean over the last tenth of the
  updates. The paper prints curves and no numbers.
- All agents have the same task RNN; the Hebbian ones learn the plasticity of each of its weights beside it. The
  HyperRNN is the Warp-RNN with every parameter updated after every batch.

{summary_block(lines, SHOWN, "Agent", experiment)}

## Spread over seeds

The inter-quartile range over seeds, averaged over the updates: the height of the bands in the figure.

{chr(10).join(spread)}
"""
    return lines, text


def quartiles(frame: pd.DataFrame, method: str) -> pd.DataFrame:
    """Columns 0.25, 0.5 and 0.75 over seeds, by step; each run smoothed by a trailing mean over a twentieth."""
    found = frame.loc[(frame["metric"] == "return") & (frame["method"] == method)].astype({"step": "int64"})
    wide = found.pivot(index="step", columns="seed", values="value").sort_index()
    width = max(1, len(wide) // 20)
    return wide.rolling(width, min_periods=1).mean().quantile([0.25, 0.5, 0.75], axis=1).T


def returns(frame: pd.DataFrame) -> Figure:
    experiment = looks.experiment(frame)
    found = looks.ordered(frame.loc[frame["metric"] == "return", "method"], experiment)
    shown = {method: looks.look(method, experiment) for method in found}
    figure = Figure(figsize=(8.0, 4.4), layout="constrained")
    axes = figure.subplots()
    for method, look in shown.items():
        lines = quartiles(frame, method)
        x = lines.index.to_numpy(dtype=float)
        axes.plot(x, lines[0.5], color=look.colour, linestyle=draw.dashes(look), linewidth=1.5)
        axes.fill_between(x, lines[0.25], lines[0.75], color=look.colour, alpha=0.18, linewidth=0)
    axes.set_xlabel("updates (batches of episodes)")
    axes.set_ylabel("cumulative reward of an episode (10 a find)")
    axes.set_ylim(bottom=0)
    note = "each run smoothed over a twentieth of training; the paper's Figs. 2 and 8 are plots without printed numbers"
    text = draw.caption(frame, experiment, note).replace(
        "shading: ± 1 standard deviation", "lines: median, shading: inter-quartile range"
    )
    draw.title(figure, "Maze with a hidden goal: learning", text)
    draw.legend(figure, [draw.handle(look, marker=False) for look in shown.values()])
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
    experiment = looks.experiment(frame)
    figure = Figure(figsize=(8.4, 4.4), layout="constrained")
    for axes, method in zip(figure.subplots(1, 2), PICTURED, strict=True):
        mine = frame.loc[(frame["method"] == method) & (frame["seed"] == 0)]
        name = looks.look(method, experiment).name
        if mine.loc[mine["metric"] == "cell"].empty:
            draw.empty(axes, f"seed 0 of\n{name} was not run")
            continue
        episode(axes, mine, f"{name}, after training")
    note = "one episode of seed 0, the same goal for both agents, who do not see it and start at the centre"
    text = draw.caption(frame, experiment).splitlines()[0] + "\n" + note
    draw.title(figure, "One episode in the maze", text)
    handles = [
        Line2D([], [], color=FIRST, marker="o", linewidth=2.2, label="until the first find"),
        Line2D([], [], color=LATER, marker="o", linewidth=1.2, label="after a teleport"),
        Line2D([], [], color="#F0C808", marker="*", markeredgecolor="black", markersize=12, linestyle="", label="goal"),
    ]
    draw.legend(figure, handles)
    return figure


def figures(frame: pd.DataFrame, paper: pd.DataFrame, files: Sequence[Path]) -> dict[str, Figure]:
    return {"maze_return": returns(frame), "maze_picture": picture(frame)}
