"""WarpGrad's ablation as figures: Table 3 as a picture, and how each warp learns held-out tasks.

    python -m leapwarp.figures.warp_ablation --experiment warp_ablation --paper paper/warpgrad.csv \
        --rows results/quick/warp_ablation/rows.csv --out-dir results/quick/warp_ablation/figures

warp_ablation.png          held-out accuracy of each row: ours with every seed, and the paper's
warp_ablation_curves.png   held-out accuracy over the steps of a held-out task
"""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leapwarp import tables
from leapwarp.figures import draw, style
from leapwarp.tables.warp_ablation import ROWS

TITLE = "Warps, objectives and meta-training, Omniglot"


def _order(frame: pd.DataFrame) -> list[str]:
    return [name for name in ROWS if name in set(frame["method"])]


def _label(name: str) -> str:
    return style.method(name).name if name.startswith(("leap", "warp_leap")) else ROWS[name][0]


def table(frame: pd.DataFrame, paper: pd.DataFrame) -> Figure:
    """Table 3 as a picture."""
    figure = Figure(figsize=(9.6, 5.2), layout="constrained")
    axes = figure.add_subplot()
    final = tables.quantity(frame, "accuracy")
    names = {name: _label(name) for name in _order(frame)}
    handles = draw.dots(axes, final, paper, names, "WarpGrad paper,\nTable 3 (25 tasks)")
    axes.set_xlabel("held-out accuracy after the last step [%]")
    axes.axvline(5, color="0.6", linewidth=0.9, linestyle=":")
    extra = "strokes: seeds; dotted: chance"
    draw.title(figure, f"{TITLE}: held-out accuracy", draw.caption(final, "warp_ablation", extra, spread="bars"))
    draw.legend(figure, handles)
    return figure


def curves(frame: pd.DataFrame) -> Figure:
    """Learning held-out tasks: ways of meta-training on the left, kinds of warps on the right."""
    figure = Figure(figsize=(11.5, 4.6), layout="constrained")
    lines, _ = draw.curve(frame, "heldout_accuracy")
    left = [name for name in _order(frame) if name.startswith(("leap", "warp_leap"))]
    right = ["warp_leap", *(name for name in _order(frame) if name not in left)]
    panels = figure.subplots(1, 2, sharey=True)
    for axes, names, heading in zip(panels, (left, right), ("meta-training, 3×3 conv", "kinds of warps"), strict=True):
        for name in names:
            mine = lines.loc[lines["method"] == name].sort_values("step")
            if len(mine):
                draw.shaded(axes, mine.assign(mean=100 * mine["mean"], std=100 * mine["std"]), "step", name)
        axes.axhline(5, color="0.6", linewidth=0.9, linestyle=":")
        axes.set_title(heading, fontsize=9)
        axes.set_xlabel("gradient steps on a held-out task")
        handles = [Line2D([], [], color=style.method(name).colour, label=_label(name)) for name in names]
        axes.legend(handles=handles, fontsize=7.5, frameon=False, loc="upper left")
    panels[0].set_ylabel("held-out accuracy [%]")
    draw.title(figure, f"{TITLE}: learning held-out tasks", draw.caption(frame, "warp_ablation", "dotted: chance"))
    return figure


def build(frame: pd.DataFrame, paper: pd.DataFrame, experiment: str) -> dict[str, Figure]:
    return {"warp_ablation": table(frame, paper), "warp_ablation_curves": curves(frame)}


def main(arguments: Sequence[str] | None = None) -> None:
    numbers = {"warp_ablation": draw.Numbers("warpgrad", "3")}
    draw.main(build, numbers, "warp_ablation", "Draw Table 3 and its held-out curves.", arguments)


if __name__ == "__main__":
    main()
