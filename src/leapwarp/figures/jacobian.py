"""Figure 4 of the Leap paper, further on: how far training's Jacobians are from the identity.

    python -m leapwarp.figures.jacobian --experiment jacobian \
        --rows results/quick/jacobian/rows.csv --out-dir results/quick/jacobian/figures

jacobian.png          rho of the first layer over steps, by learning rate, with what the paper says of them
jacobian_layers.png   rho of every layer of a narrower network
"""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leapwarp.figures import draw, style
from leapwarp.tables import jacobian as table

RHO = "ρ = |I − J| / |J|, nuclear norms"
STEPS = "gradient steps"
LAST = 20  # steps, in the paper
LAYERS = ("#D55E00", "#E69F00", "#009E73", "#0072B2", "#882255")


def by_rate(frame: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(8.4, 4.6), layout="constrained")
    axes = figure.add_subplot()
    lines = table.curves(frame)
    lines = lines.loc[lines["metric"] == "rho"]
    keys, handles = style.ordered(lines["method"]), []
    for key in keys:
        look = style.method(key)
        _line(axes, lines.loc[lines["method"] == key], look.colour, look.marker)
        handles.append(Line2D([], [], color=look.colour, marker=look.marker, label=look.name))
    for level, text in ((1e-3, "paper, rates in use: below"), (1e-2, "paper, α = 0.5: below")):
        axes.plot([5, LAST], [level, level], color="0.25", linestyle=(0, (3, 2)), linewidth=1)
        axes.annotate(text, (5, level), (0, 3), textcoords="offset points", fontsize=7.5, color="0.25")
    axes.set(xlabel=STEPS, ylabel=RHO, yscale="log", xticks=sorted(set(lines["step"])))
    handles.append(Line2D([], [], color="0.25", linestyle=(0, (3, 2)), linewidth=1, label="Leap paper, as stated"))
    draw.legend(figure, handles)
    extra = "the paper's Fig. 4 is a plot without printed numbers and ends at 20 steps"
    draw.title(figure, "Jacobian of the first layer against the identity", draw.caption(frame, "jacobian", extra))
    return figure


def by_layer(frame: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(9.8, 4.6), layout="constrained")
    heading = "Jacobian of every layer against the identity, α = 0.1"
    mine = frame.loc[frame["method"] == "layers"]
    if mine.empty:
        draw.empty(figure.add_subplot(), "the rows hold no method 'layers'")
        draw.title(figure, heading, draw.caption(frame, "jacobian"))
        return figure
    lines, handles = table.curves(mine), []
    blocks = list(dict.fromkeys(_block(name) for name in table.layers(mine)))
    colours = dict(zip(blocks, LAYERS, strict=False))
    panels = figure.subplots(1, 2, sharey=True)
    for name in table.layers(mine):
        norm, colour = name.endswith("norm"), colours[_block(name)]
        _line(panels[int(norm)], lines.loc[lines["metric"] == f"rho.{name}"], colour, "s" if norm else "o")
    for block in blocks:
        label = "linear head" if block == "head" else f"block {int(block.split('.')[1]) + 1}"
        handles.append(Line2D([], [], color=colours[block], label=label))
    panels[0].set_title("weights and biases", fontsize=9, loc="left")
    panels[1].set_title("scales and shifts of batch norm", fontsize=9, loc="left")
    for axes in panels:
        axes.set(xlabel=STEPS, yscale="log", xticks=sorted(set(lines["step"])))
    panels[0].set_ylabel(RHO)
    draw.legend(figure, handles)
    draw.title(figure, heading, draw.caption(mine, "jacobian", "a narrower network than that of the other figure"))
    return figure


def _block(name: str) -> str:
    return name.removesuffix(".norm").removesuffix(".conv")


def _line(axes: Axes, lines: pd.DataFrame, colour: str, marker: str) -> None:
    lines = lines.sort_values("step")
    step, mean, std = (lines[column].to_numpy(dtype=float) for column in ("step", "mean", "std"))
    axes.plot(step, mean, color=colour, marker=marker, markersize=5, linewidth=1.4)
    axes.fill_between(step, (mean - std).clip(min=mean / 10), mean + std, color=colour, alpha=0.15, linewidth=0)


def build(frame: pd.DataFrame, paper: pd.DataFrame, experiment: str) -> dict[str, Figure]:
    return {"jacobian": by_rate(frame), "jacobian_layers": by_layer(frame)}


def main(arguments: Sequence[str] | None = None) -> None:
    description = "Draw how far Jacobians are from the identity, by learning rate and by layer."
    draw.main(build, {"jacobian": draw.Numbers("leap")}, "jacobian", description, arguments)


if __name__ == "__main__":
    main()
