"""How far Jacobians of training are from the identity: the table and figures for Leap's Figure 4."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leapwarp.report import draw, looks
from leapwarp.report.document import Block, Document, Heading, Table, Text
from leapwarp.report.quantities import Quantity
from leapwarp.report.stats import summary
from leapwarp.report.table import number

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
    """The names of the layers that were measured, from the first to the head."""
    found = {metric.removeprefix("rho.") for metric in frame["metric"] if metric.startswith("rho.")}
    return sorted(found, key=lambda name: (name == "head", name))


def document(frame: pd.DataFrame, paper: pd.DataFrame) -> Document:
    """The document: one line for each method, layer and step."""
    lines = curves(frame)
    rates = lines.loc[lines["metric"] == "rho"].assign(row=lines["method"])
    deep = lines.loc[lines["method"] == "layers"].assign(row=lines["metric"].str.removeprefix("rho."))
    text = """
- ρ = |I - J| / |J| in nuclear norms. J is the Jacobian of a layer's weights and bias after some steps of SGD with
  respect to their initial values, while all other parameters are trained too. ± is the standard deviation over seeds of
  the mean over alphabets. Batch norm uses the batches' own statistics, as in training.
- The paper states that the error is below the fourth decimal for the rates in use and below the third at 0.5, that it
  does not change with the number of steps except at the smallest rate, and that it is similar in all layers (claims L10
  to L12). It shows a plot of up to 20 steps. A ρ near 1 cannot grow, since then J is no longer close to the identity.
- *No batch norm* normalises by the initial running averages, mean 0 and variance 1, which has no effect. The network
  then hardly trains.
- Claim L12 compares the convolutions and the head. Scales and shifts of batch norm are not counted.
"""
    names = {key: name for key, name in looks.names(frame).items() if key in set(rates["method"])}
    blocks: list[Block] = [Text(text), Heading("First layer, by learning rate"), _grid(rates, names, "Rate")]
    if not deep.empty:
        blocks.append(Heading("Every layer, at rate 0.1"))
        blocks.append(_grid(deep, {name: f"`{name}`" for name in layers(frame)}, "Layer"))
    return Document("Leap, Figure 4 in numbers: how far Jacobians are from the identity", blocks, lines)


def _grid(lines: pd.DataFrame, names: dict[str, str], head: str) -> Table:
    """A row for each of `names` (key of column `row` -> heading) and a column for each step."""
    steps, rows = sorted(set(lines["step"])), []
    found = {(line["row"], line["step"]): (line["mean"], line["std"]) for line in lines.to_dict("records")}
    for key, name in names.items():
        cells = [found.get((key, step), (float("nan"), float("nan"))) for step in steps]
        rows.append([name, *(number(mean, std, 6 if mean < 0.001 else 4) for mean, std in cells)])
    return Table([head, *(f"{step} steps" for step in steps)], rows)


def jacobian(frame: pd.DataFrame, *_) -> Figure:
    figure, [axes] = draw.panels(frame, "Jacobian of the first layer against the identity", (8.4, 4.6))
    lines = curves(frame)
    lines = lines.loc[lines["metric"] == "rho"]
    axes.set(xlabel=STEPS, ylabel=RHO, yscale="log", xticks=sorted(set(lines["step"])))
    shown = {key: look for key, look in looks.of(frame).items() if key in set(lines["method"])}
    for key, look in shown.items():
        mine = lines.loc[lines["method"] == key]
        draw.band(axes, mine, "step", look.colour, marker=look.marker, markersize=5, linewidth=1.4)
    for level, text in ((1e-3, "paper, rates in use: below"), (1e-2, "paper, α = 0.5: below")):
        axes.plot([5, LAST], [level, level], **PAPER_LINE)
        axes.annotate(text, (5, level), (0, 3), textcoords="offset points", fontsize=7.5, color="0.25")
    stated = Line2D([], [], **PAPER_LINE, label="Leap paper, as stated")
    draw.legend(figure, [*map(draw.handle, shown.values()), stated])
    return figure


def jacobian_layers(frame: pd.DataFrame, *_) -> Figure:
    heading, mine = "Jacobian of every layer against the identity, α = 0.1", frame.loc[frame["method"] == "layers"]
    if mine.empty:
        figure, [axes] = draw.panels(frame, heading, (9.8, 4.6), spread="")
        draw.empty(axes, "the rows hold no method 'layers'")
        return figure
    figure, panels = draw.panels(mine, heading, (9.8, 4.6), n_columns=2, sharey=True)
    lines, names = curves(mine), layers(mine)
    blocks = list(dict.fromkeys(map(_block, names)))
    colours = dict(zip(blocks, BLOCKS, strict=False))
    for axes, text in zip(panels, ("weights and biases", "scales and shifts of batch norm"), strict=True):
        axes.set_title(text, fontsize=9, loc="left")
        axes.set(xlabel=STEPS, yscale="log", xticks=sorted(set(lines["step"])))
    panels[0].set_ylabel(RHO)
    for name in names:
        is_norm, of_layer = name.endswith("norm"), lines.loc[lines["metric"] == f"rho.{name}"]
        look = {"marker": "s" if is_norm else "o", "markersize": 5, "linewidth": 1.4}
        draw.band(panels[int(is_norm)], of_layer, "step", colours[_block(name)], **look)
    labels = ["linear head" if block == "head" else f"block {int(block.split('.')[1]) + 1}" for block in blocks]
    draw.legend(
        figure, [Line2D([], [], color=colours[block], label=text) for block, text in zip(blocks, labels, strict=True)]
    )
    return figure


def _block(layer: str) -> str:
    return layer.removesuffix(".norm").removesuffix(".conv")
