"""How far Jacobians of training are from the identity: what Leap's Figure 4 shows, in numbers and drawn."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leapwarp.report import draw, looks
from leapwarp.report.quantities import Quantity
from leapwarp.report.rows import summary
from leapwarp.report.table import number, origin

RHO = "ρ = |I − J| / |J|, nuclear norms"
STEPS = "gradient steps"
LAST = 20  # steps, in the paper
BLOCKS = ("#D55E00", "#E69F00", "#009E73", "#0072B2", "#882255")
PAPER_LINE = {"color": "0.25", "linestyle": (0, (3, 2)), "linewidth": 1}
QUANTITIES = {
    "rho_5": Quantity("rho_5", "ρ after 5 steps", "relative error", 4, True),
    "rho_20": Quantity("rho_20", "ρ after 20 steps", "relative error", 4, True),
    "rho_growth": Quantity("rho_growth", "Growth of ρ from 5 to 20 steps", "ratio", 2, True),
    "rho_late_growth": Quantity("rho_late_growth", "Growth of ρ from 20 steps to the last", "ratio", 2, True),
    "rho_spread_5": Quantity("rho_spread_5", "Largest over least ρ of all layers after 5 steps", "ratio", 1, True),
    "rho_spread_20": Quantity("rho_spread_20", "Largest over least ρ of all layers after 20 steps", "ratio", 1, True),
}


def curves(frame: pd.DataFrame) -> pd.DataFrame:
    """Mean and std over seeds of rho at each step: columns method, metric, step, mean, std, n_seeds."""
    rows = frame.loc[frame["metric"].str.match(r"rho(\..*)?$") & frame["step"].notna()]
    return summary(rows, ["method", "n_tasks", "metric", "step"])


def layers(frame: pd.DataFrame) -> list[str]:
    """The layers that were measured, from the first to the head."""
    found = {metric.removeprefix("rho.") for metric in frame["metric"] if metric.startswith("rho.")}
    return sorted(found, key=lambda name: (name == "head", name))


# ---------------------------------------------------------------- table


def table(frame: pd.DataFrame, paper: pd.DataFrame, note: str) -> tuple[pd.DataFrame, str]:
    """One line a method, layer and step, and the text."""
    experiment = looks.experiment(frame)
    lines = curves(frame)
    rates = lines.loc[lines["metric"] == "rho"].assign(row=lines["method"])
    deep = lines.loc[lines["method"] == "layers"].assign(row=lines["metric"].str.removeprefix("rho."))
    text = f"""# Leap, Figure 4 in numbers: how far Jacobians are from the identity

{origin(frame, note)}
- ρ = |I - J| / |J| in nuclear norms, where J is the Jacobian of a layer's weights and bias after some steps of SGD with
  respect to those before the first, all of training included. ± is the standard deviation over seeds of the mean over
  alphabets. Batch norm uses the batches' own statistics, as in training.
- The paper: accurate to at least the fourth decimal for the rates in use and to the third at 0.5, constant in the
  number of steps but for the smallest rate, and alike in all layers (claims L10 to L12). It shows a plot, which ends at
  20 steps. A ρ that no longer grows near 1 is constant because nothing of the identity is left.
- *No batch norm* keeps the running averages at their start, 0 and 1, which change nothing: the network then hardly
  trains.

## First layer, by learning rate

"""
    names = {key: looks.look(key, experiment).name for key in looks.ordered(rates["method"], experiment)}
    text += _grid(rates, names, "Rate") + "\n"
    if not deep.empty:
        text += "\n## Every layer of a narrower network, at rate 0.1\n\n"
        text += _grid(deep, {name: f"`{name}`" for name in layers(frame)}, "Layer") + "\n"
    return lines, text


def _grid(lines: pd.DataFrame, names: dict[str, str], head: str) -> str:
    """A markdown table with a row for each of `names` (key of column `row` -> heading) and a column for each step."""
    steps = sorted(set(lines["step"]))
    text = [f"| {head} | " + " | ".join(f"{step} steps" for step in steps) + " |", "|---" * (len(steps) + 1) + "|"]
    found = {(line["row"], line["step"]): line for line in lines.to_dict("records")}
    for key, name in names.items():
        cells = [found.get((key, step), {"mean": float("nan"), "std": float("nan")}) for step in steps]
        shown = [number(cell["mean"], cell["std"], 6 if cell["mean"] < 0.001 else 4) for cell in cells]
        text.append(f"| {name} | " + " | ".join(shown) + " |")
    return "\n".join(text)


# ---------------------------------------------------------------- figures


def figures(frame: pd.DataFrame, paper: pd.DataFrame, files: Sequence[Path]) -> dict[str, Figure]:
    return {"jacobian": by_rate(frame), "jacobian_layers": by_layer(frame)}


def by_rate(frame: pd.DataFrame) -> Figure:
    experiment = looks.experiment(frame)
    figure = Figure(figsize=(8.4, 4.6), layout="constrained")
    axes = figure.add_subplot()
    lines = curves(frame)
    lines = lines.loc[lines["metric"] == "rho"]
    handles = []
    for key in looks.ordered(lines["method"], experiment):
        look = looks.look(key, experiment)
        _line(axes, lines.loc[lines["method"] == key], look.colour, look.marker)
        handles.append(draw.handle(look))
    for level, text in ((1e-3, "paper, rates in use: below"), (1e-2, "paper, α = 0.5: below")):
        axes.plot([5, LAST], [level, level], **PAPER_LINE)
        axes.annotate(text, (5, level), (0, 3), textcoords="offset points", fontsize=7.5, color="0.25")
    axes.set(xlabel=STEPS, ylabel=RHO, yscale="log", xticks=sorted(set(lines["step"])))
    handles.append(Line2D([], [], **PAPER_LINE, label="Leap paper, as stated"))
    draw.legend(figure, handles)
    extra = "the paper's Fig. 4 is a plot without printed numbers and ends at 20 steps"
    draw.title(figure, "Jacobian of the first layer against the identity", draw.caption(frame, experiment, extra))
    return figure


def by_layer(frame: pd.DataFrame) -> Figure:
    experiment = looks.experiment(frame)
    figure = Figure(figsize=(9.8, 4.6), layout="constrained")
    heading = "Jacobian of every layer against the identity, α = 0.1"
    mine = frame.loc[frame["method"] == "layers"]
    if mine.empty:
        draw.empty(figure.add_subplot(), "the rows hold no method 'layers'")
        draw.title(figure, heading, draw.caption(frame, experiment))
        return figure
    lines, names = curves(mine), layers(mine)
    blocks = list(dict.fromkeys(map(_block, names)))
    colours = dict(zip(blocks, BLOCKS, strict=False))
    panels = figure.subplots(1, 2, sharey=True)
    for name in names:
        norm, colour = name.endswith("norm"), colours[_block(name)]
        _line(panels[int(norm)], lines.loc[lines["metric"] == f"rho.{name}"], colour, "s" if norm else "o")
    titles = ("weights and biases", "scales and shifts of batch norm")
    for axes, text in zip(panels, titles, strict=True):
        axes.set_title(text, fontsize=9, loc="left")
        axes.set(xlabel=STEPS, yscale="log", xticks=sorted(set(lines["step"])))
    panels[0].set_ylabel(RHO)
    labels = ["linear head" if block == "head" else f"block {int(block.split('.')[1]) + 1}" for block in blocks]
    handles = [Line2D([], [], color=colours[block], label=text) for block, text in zip(blocks, labels, strict=True)]
    draw.legend(figure, handles)
    draw.title(figure, heading, draw.caption(mine, experiment, "a narrower network than that of the other figure"))
    return figure


def _block(layer: str) -> str:
    return layer.removesuffix(".norm").removesuffix(".conv")


def _line(axes: Axes, lines: pd.DataFrame, colour: str, marker: str) -> None:
    lines = lines.sort_values("step")
    step, mean, std = (lines[column].to_numpy(dtype=float) for column in ("step", "mean", "std"))
    axes.plot(step, mean, color=colour, marker=marker, markersize=5, linewidth=1.4)
    # The axis is logarithmic: a band that reaches down to nought would fill it.
    axes.fill_between(step, (mean - std).clip(min=mean / 10), mean + std, color=colour, alpha=0.15, linewidth=0)
