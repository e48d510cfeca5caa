"""Table 4 and Figure 6 of the WarpGrad paper: gradient descent, KFAC and warps from one random initialisation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leapwarp.report import draw, looks
from leapwarp.report.kfac import dampings, times
from leapwarp.report.quantities import Quantity, quantity
from leapwarp.report.table import comparison, listing, origin

MEASURED = "warp_leap"  # whose activations are measured; it has no row in Table 4
KEY = ["experiment", "method", "n_tasks", "seed", "task"]
SIDES = {  # name, colour, marker, place beside the others of a layer
    "pre": ("before the warp", "#0072B2", "s", -0.12),
    "post": ("after the warp", "#D55E00", "o", 0.0),
    "white": ("after it, whitened by\ntraining images", "#7F7F7F", "d", 0.12),
}


def by_layer(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The values of `metric` (such as mean_pre): an index of KEY, a column for each layer (0, 1, ...)."""
    mine = frame.loc[frame["metric"].str.startswith(f"{metric}.") & frame["step"].isna()]
    layers = mine["metric"].str.rsplit(".", n=1).str[1].astype("int64")
    return mine.assign(layer=layers).pivot(index=KEY, columns="layer", values="value")


def _rows(frame: pd.DataFrame, values: pd.Series) -> pd.DataFrame:
    """One row of `frame` for each entry of `values`, with its value."""
    first = frame.loc[frame["step"].isna()].drop_duplicates(KEY).set_index(KEY)
    return first.loc[values.index].assign(value=values).reset_index()[frame.columns]


def offset(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """How far from zero the mean is, as a share of the root of the mean square: its size, averaged over layers.

    `metric` is "pre" or "post". A layer that is silent throughout has no share and is left out.
    """
    share = by_layer(frame, f"mean_{metric}").abs() / by_layer(frame, f"rms_{metric}")
    return _rows(frame, share.mean(axis=1).dropna())


def excess(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """How much farther than the whitened control's the covariance is from I, averaged over layers."""
    return _rows(frame, (by_layer(frame, f"cov_{metric}") - by_layer(frame, "cov_white")).mean(axis=1))


QUANTITIES = {
    "offset_pre": Quantity("pre", "Offset before warps", "of the root mean square", 3, select=offset),
    "offset_post": Quantity("post", "Offset after warps", "of the root mean square", 3, True, select=offset),
    "excess_post": Quantity("post", "Distance from I beyond the control's", "norm", 2, True, select=excess),
}


def table(frame: pd.DataFrame, paper: pd.DataFrame, note: str) -> tuple[pd.DataFrame, str]:
    """The lines of the CSV (accuracy, then area) and the text; raises ValueError as `comparison` does."""
    experiment, count = looks.experiment(frame), int(frame["n_tasks"].to_numpy().max())
    frame = frame.loc[frame["n_tasks"].isin([0, count])]
    rows = frame.loc[frame["method"] != MEASURED]
    lines = comparison(rows, "accuracy", paper.assign(n_tasks=count), experiment)
    areas = comparison(rows, "auc", None, experiment)
    kfac, exact = (looks.look(name, experiment).name for name in ("kfac", "kfac_exact"))
    text = f"""# WarpGrad, Table 4: warps and natural gradient; held-out accuracy in percent (higher: better)

{origin(frame, note)}
- All rows of a seed start from the same random initialisation, which no meta-training moves. {count} pretraining tasks
  for the warps here, 25 in the paper. ± is the sample standard deviation over seeds, the paper's its own over 4 runs.
- "{kfac}" takes the Fisher matrix of the batch's own labels, as the code that the authors used
  does; "{exact}" that of the labels the network predicts, in expectation, which is the
  matrix that theory asks for. It is not in the paper.
- The paper's Table 2 has SGD and KFAC at the same batch and rate, with 51.0 and 56.0.

{listing(lines, experiment)}

## Area under the accuracy curve

Of training-batch accuracy over the steps of a held-out task, between 0 and 1; not in the paper.

{listing(areas, experiment)}
"""
    found = dampings(frame)
    if found:
        text += f"""
## KFAC's damping

Accuracy in percent on the validation alphabets of each seed, by damping; the best is taken to the held-out alphabets.
The paper does not say its own.

{found}
"""
    measured = times(rows, looks.ordered(rows["method"], experiment), "sgd")
    if measured:
        text += f"""
## Time

{measured}
"""
    return pd.concat([lines, areas], ignore_index=True), text


def picture(frame: pd.DataFrame, paper: pd.DataFrame) -> Figure:
    """Table 4 on the left, how the same methods learn held-out tasks on the right."""
    frame, experiment = frame.loc[frame["method"] != MEASURED], looks.experiment(frame)
    known = {name: looks.look(name, experiment) for name in looks.ordered(frame["method"], experiment)}
    figure = Figure(figsize=(11.0, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.1, 1))
    labels = {name: look.name for name, look in known.items()}
    handles = draw.dots(left, quantity(frame, "accuracy"), paper, labels, "WarpGrad paper, Table 4 (25 tasks)")
    left.set_xlabel("held-out accuracy after the last step [%]")
    left.axvline(5, color="0.6", linewidth=0.9, linestyle=":")
    left.legend(handles=handles, frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    lines, _ = draw.curve(frame, "train_accuracy")
    lines[["mean", "std"]] *= 100
    for name, look in known.items():
        draw.shaded(right, lines.loc[lines["method"] == name], "step", look)
    right.axhline(5, color="0.6", linewidth=0.9, linestyle=":")
    right.set_ylim(0, 1.35 * right.get_ylim()[1])  # room for the legend
    right.set_xlabel("gradient steps on a held-out task")
    right.set_ylabel("training-batch accuracy [%]")
    handles = [Line2D([], [], color=look.colour, label=look.name) for look in known.values()]
    right.legend(handles=handles, frameon=False, fontsize=8, loc="upper left")
    text = draw.caption(frame, experiment, "strokes: seeds; dotted: chance", spread="bars and bands")
    draw.title(figure, "Warps and natural gradient from a random initialisation, Omniglot", text)
    return figure


def activations(frame: pd.DataFrame) -> Figure:
    """Figure 6: means on the left, distances from the identity on the right, before and after each warp."""
    experiment, frame = looks.experiment(frame), frame.loc[frame["method"] == MEASURED]
    figure = Figure(figsize=(11.0, 4.2), layout="constrained")
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
            style = {"color": colour, "marker": marker, "capsize": 3, "linestyle": "none", "label": name}
            axes.errorbar(place + shift, means.mean(0), yerr=spread, **style)
            axes.set_xticks(place)
        axes.set_xlabel("block, from the image on")
        axes.set_ylabel(label)
        axes.axhline(0, color="0.6", linewidth=0.9, zorder=0)
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="none", label=name)
        for name, colour, marker, _ in SIDES.values()
    ]
    draw.legend(figure, handles)
    extra = (
        "on held-out images of held-out tasks, averaged over five points of adaptation; "
        "the paper shows a plot and prints no numbers"
    )
    text = draw.caption(frame, experiment, extra, spread="bars") if len(frame) else extra
    draw.title(figure, "Activations around the warps of Warp-Leap, Omniglot", text)
    return figure


def figures(frame: pd.DataFrame, paper: pd.DataFrame, files: Sequence[Path]) -> dict[str, Figure]:
    frame = frame.loc[frame["n_tasks"].isin([0, frame["n_tasks"].max()])]
    return {"natural_gradient": picture(frame, paper), "activations": activations(frame)}
