"""WarpGrad against natural gradient descent as figures: Table 4 as a picture, and Figure 6 of the WarpGrad paper.

    python -m leapwarp.figures.natural_gradient --experiment natural_gradient --paper paper/warpgrad.csv \
        --rows results/quick/natural_gradient/rows.csv --out-dir results/quick/natural_gradient/figures

natural_gradient.png   held-out accuracy of each row, ours and the paper's; learning held-out tasks
activations.png        mean and covariance of the activations before and after each warp layer
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leapwarp import tables
from leapwarp.figures import draw, style
from leapwarp.tables.activations import by_layer
from leapwarp.tables.natural_gradient import ROWS

SIDES = {  # name, colour, marker, place beside the others of a layer
    "pre": ("before the warp", "#0072B2", "s", -0.12),
    "post": ("after the warp", "#D55E00", "o", 0.0),
    "white": ("after it, whitened by\ntraining images", "#7F7F7F", "d", 0.12),
}


def table(frame: pd.DataFrame, paper: pd.DataFrame) -> Figure:
    """Table 4 on the left, how the same methods learn held-out tasks on the right."""
    frame = frame.loc[frame["method"].isin(ROWS)]
    names = [name for name in ROWS if name in set(frame["method"])]
    figure = Figure(figsize=(11.0, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
    labels = {name: style.method(name).name for name in names}
    final = tables.quantity(frame, "accuracy")
    handles = draw.dots(left, final, paper, labels, "WarpGrad paper, Table 4 (25 tasks)")
    left.set_xlabel("held-out accuracy after the last step [%]")
    left.axvline(5, color="0.6", linewidth=0.9, linestyle=":")
    left.legend(handles=handles, frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    lines, _ = draw.curve(frame, "train_accuracy")
    for name in names:
        mine = lines.loc[lines["method"] == name]
        draw.shaded(right, mine.assign(mean=100 * mine["mean"], std=100 * mine["std"]), "step", name)
    right.axhline(5, color="0.6", linewidth=0.9, linestyle=":")
    right.set_ylim(0, 1.35 * right.get_ylim()[1])  # room for the legend
    right.set_xlabel("gradient steps on a held-out task")
    right.set_ylabel("training-batch accuracy [%]")
    handles = [Line2D([], [], color=style.method(name).colour, label=style.method(name).name) for name in names]
    right.legend(handles=handles, frameon=False, fontsize=8, loc="upper left")
    text = draw.caption(frame, "natural_gradient", "strokes: seeds; dotted: chance", spread="bars and bands")
    draw.title(figure, "Warps and natural gradient from a random initialisation, Omniglot", text)
    return figure


def activations(frame: pd.DataFrame) -> Figure:
    """Figure 6: means on the left, distances from the identity on the right, before and after each warp."""
    figure = Figure(figsize=(11.0, 4.2), layout="constrained")
    frame = frame.loc[frame["method"] == "warp_leap"]
    labels = {
        "mean": "mean activation $E[h(x)]$",
        "cov": r"Schatten-1 norm of $\mathrm{Cov}(h(x), h(x)) - I$",
    }
    for axes, (what, label) in zip(figure.subplots(1, 2), labels.items(), strict=True):
        for side, (name, colour, marker, shift) in SIDES.items():
            values = by_layer(frame, f"{what}_{side}")
            if values.empty:
                draw.empty(axes, f"the rows hold no\n{what}_{side}")
                break
            means = values.groupby("seed").agg("mean").to_numpy()  # [seed, layer]
            place = np.arange(means.shape[1]) + 1
            spread = means.std(0, ddof=1) if len(means) > 1 else None
            look = {"color": colour, "marker": marker, "capsize": 3, "linestyle": "none", "label": name}
            axes.errorbar(place + shift, means.mean(0), yerr=spread, **look)
            axes.set_xticks(place)
        axes.set_xlabel("block, from the image on")
        axes.set_ylabel(label)
        axes.axhline(0, color="0.6", linewidth=0.9, zorder=0)
    draw.legend(
        figure,
        [
            Line2D([], [], color=colour, marker=marker, linestyle="none", label=name)
            for name, colour, marker, _ in SIDES.values()
        ],
    )
    extra = (
        "on held-out images of held-out tasks, averaged over five points of adaptation; "
        "the paper shows a plot and prints no numbers"
    )
    heading = "Activations around the warps of Warp-Leap, Omniglot"
    text = draw.caption(frame, "natural_gradient", extra, spread="bars") if len(frame) else extra
    draw.title(figure, heading, text)
    return figure


def build(frame: pd.DataFrame, paper: pd.DataFrame, experiment: str) -> dict[str, Figure]:
    count = int(frame["n_tasks"].to_numpy().max())
    frame = frame.loc[frame["n_tasks"].isin([0, count])]
    return {"natural_gradient": table(frame, paper), "activations": activations(frame)}


def main(arguments: Sequence[str] | None = None) -> None:
    numbers = {"natural_gradient": draw.Numbers("warpgrad", "4")}
    draw.main(build, numbers, "natural_gradient", "Draw Table 4 and Figure 6 of the WarpGrad paper.", arguments)


if __name__ == "__main__":
    main()
