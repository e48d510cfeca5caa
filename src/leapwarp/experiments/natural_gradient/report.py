"""Table 4 and Figure 6 of the WarpGrad paper: gradient descent, KFAC and warps from one random initialisation."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leapwarp.report import draw, kfac, looks
from leapwarp.report.document import Block, Document, Heading, Text
from leapwarp.report.quantities import Quantity
from leapwarp.report.select import of_most_tasks
from leapwarp.report.table import comparison, listing, summaries

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
    """The absolute mean activation divided by the root mean square, averaged over layers.

    `metric` is "pre" or "post". A layer whose activations are all zero is left out.
    """
    share = by_layer(frame, f"mean_{metric}").abs() / by_layer(frame, f"rms_{metric}")
    return _rows(frame, share.mean(axis=1).dropna())


def excess(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The covariance's distance from I minus that of the whitened control, averaged over layers."""
    return _rows(frame, (by_layer(frame, f"cov_{metric}") - by_layer(frame, "cov_white")).mean(axis=1))


def whitened(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """By what share the warps reduce the covariance's distance from I: 0 for no change, 1 for that of the control.

    Distances from I are averaged over layers first, so that a layer where the control is no closer has little weight.
    """
    before, after, control = (by_layer(frame, f"cov_{side}").mean(axis=1) for side in ("pre", metric, "white"))
    return _rows(frame, (before - after) / (before - control))


QUANTITIES = {
    "offset_pre": Quantity("pre", "Offset before warps", "of the root mean square", 3, select=offset),
    "offset_post": Quantity("post", "Offset after warps", "of the root mean square", 3, True, select=offset),
    "excess_post": Quantity("post", "Distance from I beyond the control's", "norm", 2, True, select=excess),
    "whitened": Quantity("post", "Way from before the warps to the control", "share", 2, select=whitened),
}
STEP = "Times are those of the processor that made the rows. The measurement of curves is not in them."


def document(frame: pd.DataFrame, paper: pd.DataFrame) -> Document:
    """Accuracy, then area; raises ValueError as `comparison` does."""
    experiment, (frame, count) = looks.experiment(frame), of_most_tasks(frame)
    rows = frame.loc[frame["method"] != MEASURED]
    title = "WarpGrad, Table 4: warps and natural gradient; held-out accuracy in percent (higher: better)"
    if rows.empty:
        text = f"{looks.look(MEASURED, experiment).name} has no row in the table; the figure shows its activations."
        return Document(title, [Text(text)], summaries(frame, list(QUANTITIES)))
    lines, areas = comparison(rows, "accuracy", paper.assign(n_tasks=count)), comparison(rows, "auc")
    empirical, exact = (looks.look(name, experiment).name for name in ("kfac", "kfac_exact"))
    text = f"""
- All rows of a seed start from the same random initialisation, which is not meta-trained. The warps have {count}
  pretraining tasks, and 25 in the paper. ± is the sample standard deviation over seeds; the paper's ± is over 4 runs.
- "{empirical}" uses the Fisher matrix of the batch's own labels, as the code that the authors used does. "{exact}" uses
  the expectation over the labels that the network predicts, which is the matrix of natural gradient descent. It is not
  in the paper.
- The paper's Table 2 also has SGD and KFAC with the same batch size and rate, with 51.0 and 56.0.
"""
    blocks: list[Block] = [
        Text(text),
        listing(lines, experiment),
        Heading("Area under the accuracy curve"),
        Text("The curve is accuracy on training batches over the steps of a held-out task. It is not in the paper."),
        listing(areas, experiment),
        *kfac.dampings(frame),
        *kfac.times(rows, list(looks.of(rows)), "sgd", STEP),
    ]
    return Document(title, blocks, pd.concat([lines, areas], ignore_index=True))


def natural_gradient(frame: pd.DataFrame, paper: pd.DataFrame, *_) -> Figure:
    """Table 4 on the left, and curves of the same methods on held-out tasks on the right."""
    whole, frame = frame, frame.loc[frame["method"] != MEASURED]
    heading, spread = "Warps and natural gradient from a random initialisation, Omniglot", f"bands and {draw.BARS}"
    options = {"n_columns": 2, "width_ratios": (1.1, 1), "spread": spread}
    figure, [left, right] = draw.panels(whole, heading, (11.0, 4.4), **options)
    if frame.empty:
        for axes in (left, right):
            draw.empty(axes, "no method of Table 4 was run")
        return figure
    frame, _ = of_most_tasks(frame)
    handles = draw.dots(left, frame, "accuracy", paper, "WarpGrad paper, Table 4 (25 tasks)")
    left.set_xlabel("held-out accuracy after the last step [%]")
    left.axvline(5, **draw.DOTTED)
    left.legend(handles=handles, frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    shown = draw.curves(right, frame, "train_accuracy", 100, style=lambda *_: {})
    right.axhline(5, **draw.DOTTED)
    right.set_ylim(0, 1.35 * right.get_ylim()[1])  # room for the legend
    right.set(xlabel="gradient steps on a held-out task", ylabel="training-batch accuracy [%]")
    handles = [Line2D([], [], color=look.colour, label=look.name) for look in shown.values()]
    right.legend(handles=handles, frameon=False, fontsize=8, loc="upper left")
    return figure


def activations(frame: pd.DataFrame, *_) -> Figure:
    """Figure 6: means on the left, distances from the identity on the right, before and after each warp."""
    mine = frame.loc[frame["method"] == MEASURED]
    spread = "bars: ± 1 standard deviation over seeds"
    heading, mine = "Activations around the warps of Warp-Leap, Omniglot", of_most_tasks(mine)[0] if len(mine) else mine
    options = {"n_columns": 2, "spread": spread}
    figure, panels = draw.panels(mine if len(mine) else frame, heading, (11.0, 4.2), **options)
    labels = {"mean": "mean activation $E[h(x)]$", "cov": r"Schatten-1 norm of $\mathrm{Cov}(h(x), h(x)) - I$"}
    for axes, (what, label) in zip(panels, labels.items(), strict=True):
        for side, (name, colour, marker, shift) in SIDES.items():
            values = by_layer(mine, f"{what}_{side}")
            if values.empty:
                draw.empty(axes, f"the rows hold no\n{what}_{side}")
                break
            means = values.groupby("seed").agg("mean").to_numpy()  # [seed, layer]
            place = np.arange(means.shape[1]) + 1
            spread = means.std(0, ddof=1) if len(means) > 1 else None
            style = {"color": colour, "marker": marker, "capsize": 3, "linestyle": "none", "label": name}
            axes.errorbar(place + shift, means.mean(0), yerr=spread, **style)
            axes.set_xticks(place)
        axes.set(xlabel="block, from the image on", ylabel=label)
        axes.axhline(0, color="0.6", linewidth=0.9, zorder=0)
    handles = [
        Line2D([], [], color=colour, marker=marker, linestyle="none", label=name)
        for name, colour, marker, _ in SIDES.values()
    ]
    draw.legend(figure, handles)
    return figure
