"""WarpGrad's ablation as figures: Table 3 as a picture, and how each warp learns held-out tasks.

    python -m leapwarp.figures.warp_ablation --experiment warp_ablation --paper paper/warpgrad.csv \
        --rows results/quick/warp_ablation/rows.csv --out-dir results/quick/warp_ablation/figures

warp_ablation.png          held-out accuracy of each row: ours with every seed, and the paper's
warp_ablation_curves.png   held-out accuracy over the steps of a held-out task
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leapwarp import results, tables
from leapwarp.figures import draw, style
from leapwarp.tables.warp_ablation import ROWS

TITLE = "Warps, objectives and meta-training, Omniglot"


def _order(frame: pd.DataFrame) -> list[str]:
    return [name for name in ROWS if name in set(frame["method"])]


def _label(name: str) -> str:
    return style.method(name).name if name.startswith(("leap", "warp_leap")) else ROWS[name][0]


def dots(frame: pd.DataFrame, paper: pd.DataFrame) -> Figure:
    """Each row of Table 3: ours as mean, standard deviation and seeds; the paper's likewise, hollow."""
    figure = Figure(figsize=(9.6, 5.2), layout="constrained")
    axes = figure.add_subplot()
    final, names = tables.quantity(frame, "accuracy"), _order(frame)
    ours = results.summary(final, ["method"]).set_index("method")
    theirs = paper.set_index("method")
    for place, name in enumerate(reversed(names)):
        look = style.method(name)
        mean, std = ours.loc[name, ["mean", "std"]].astype(float)
        seeds = final.loc[final["method"] == name].groupby("seed")["value"].mean()
        axes.errorbar(mean, place + 0.12, xerr=None if np.isnan(std) else std, color=look.colour, marker="o", capsize=3)
        axes.plot(seeds, [place + 0.12] * len(seeds), "|", color=look.colour, markersize=11, alpha=0.7)
        if name in theirs.index:
            value, spread = theirs.loc[name, ["value", "std"]].astype(float)
            axes.errorbar(
                value, place - 0.16, xerr=spread, color="0.45", marker="o", markerfacecolor="white", capsize=3
            )
    axes.set_yticks(range(len(names)), [_label(name) for name in reversed(names)])
    axes.set_xlabel("held-out accuracy after 100 steps [%]" if frame["profile"].iloc[0] != "smoke" else "accuracy [%]")
    axes.set_xlim(left=0)
    axes.axvline(5, color="0.6", linewidth=0.9, linestyle=":")
    axes.grid(axis="y", color="0.92")
    axes.set_axisbelow(True)
    bars = "strokes: seeds; dotted: chance"
    draw.title(figure, f"{TITLE}: held-out accuracy", draw.caption(final, "warp_ablation", bars, spread="bars"))
    handles = [
        Line2D([], [], color="0.2", marker="o", label="ours"),
        Line2D([], [], color="0.45", marker="o", markerfacecolor="white", label="WarpGrad paper,\nTable 3 (25 tasks)"),
    ]
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
    return {"warp_ablation": dots(frame, paper), "warp_ablation_curves": curves(frame)}


def main(arguments: Sequence[str] | None = None) -> None:
    numbers = {"warp_ablation": draw.Numbers("warpgrad", "3")}
    draw.main(build, numbers, "warp_ablation", "Draw Table 3 and its held-out curves.", arguments)


if __name__ == "__main__":
    main()
