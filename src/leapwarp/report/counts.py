"""Figures by number of pretraining tasks, for the Omniglot experiments of both papers."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leapwarp import catalogue
from leapwarp.report import draw, looks
from leapwarp.report.quantities import quantities
from leapwarp.report.select import of_most_tasks
from leapwarp.report.table import by_tasks as over_seeds

LABELS = {
    "accuracy": "held-out accuracy [%]",
    "error": "held-out error [%]",
    "auc": "area under training-accuracy curve [0 to 1]",
    "heldout_accuracy": "held-out accuracy [%]",
    "train_loss": "training-batch loss [nats]",
    "meta_loss": "mean training loss over the steps [nats]",
    "meta_accuracy": "mean training-batch accuracy\nover the steps [%]",
    "validation_error": "error on validation tasks [%]",
    "replay_loss": "mean warp objective in the replay [nats]",
}
PERCENT = {"heldout_accuracy", "meta_accuracy", "validation_error"}  # rows hold a fraction, axes show percent
CHANCE = {"error": 95.0, "accuracy": 5.0, "heldout_accuracy": 5.0}  # 20-way classification


def chance(axes: Axes, metric: str) -> list[Line2D]:
    """Draw the line of chance if the quantity has one, and return its entry for the legend."""
    if metric not in CHANCE:
        return []
    axes.axhline(CHANCE[metric], zorder=1, **draw.DOTTED)
    return [Line2D([], [], label="chance (20 classes)", **draw.DOTTED)]


def by_tasks(frame: pd.DataFrame, paper: pd.DataFrame, *_, name: str) -> Figure:
    """A quantity by number of pretraining tasks: ours solid, the paper's (no lines: none) dashed, hollow markers."""
    about = catalogue.find(looks.experiment(frame))
    figure, [axes] = draw.panels(frame, f"{about.title}: {LABELS[name].split(' [')[0]}", (8.4, 4.8))
    ours = over_seeds(frame, name)
    if ours.empty:
        draw.empty(axes, f"the rows hold no metric {quantities(about.name)[name].metric!r}")
        return figure
    counts = set(ours["n_tasks"]) - {0} | set(paper["n_tasks"])
    left, right = min(counts, default=0), max(counts, default=1)
    if left == right:  # a line needs two ends
        left, right = left - 1, right + 1
    handles: list[Line2D] = []
    for key, look in looks.of(frame, paper["method"]).items():
        mine, theirs = (lines.loc[lines["method"] == key] for lines in (ours, paper))
        if mine.empty and theirs.empty:
            continue
        if 0 in set(mine["n_tasks"]):  # without pretraining there is one run for all numbers of tasks
            flat = pd.concat([mine.assign(n_tasks=left), mine.assign(n_tasks=right)])
            draw.band(axes, flat, "n_tasks", look.colour, linestyle=draw.dashes(look))
        elif len(mine):
            draw.band(axes, mine, "n_tasks", look.colour, marker=look.marker, markersize=6)
        options = {**draw.PAPER_LINE, "color": look.colour, "marker": look.marker, "alpha": 0.75}
        if len(theirs):
            axes.plot(*theirs.sort_values("n_tasks")[["n_tasks", "value"]].to_numpy().T, zorder=1.5, **options)
        handles.append(draw.handle(look) if len(mine) else Line2D([], [], label=f"{look.name}, paper only", **options))
    if len(paper):
        printed = f"{looks.PAPERS[about.paper]}, Table {about.printed}"
        handles.append(Line2D([], [], label="ours", color="0.3", marker="o"))
        handles.append(Line2D([], [], label=printed, color="0.3", marker="o", **draw.PAPER_LINE))
    draw.legend(figure, handles + chance(axes, name))
    axes.set(xlabel="number of pretraining tasks (alphabets)", ylabel=LABELS[name], xticks=sorted(counts))
    axes.set_ylim(bottom=0)
    return figure


def auc_by_tasks(frame: pd.DataFrame, paper: pd.DataFrame, *_) -> Figure:
    """The area under the training-accuracy curve. The papers print no numbers for it."""
    return by_tasks(frame, paper.iloc[:0], name="auc")


def curves(frame: pd.DataFrame, metrics: list[str], x_label: str, what: str) -> Figure:
    """One panel for each metric and one line for each method. A panel without rows says so."""
    heading, size = f"{catalogue.find(looks.experiment(frame)).title}: {what}", (3.6 * len(metrics) + 2.4, 4.2)
    scales = {metric: (LABELS[metric], 100.0 if metric in PERCENT else 1.0) for metric in metrics}
    figure, panels, shown = draw.curve_panels(frame, heading, scales, x_label, size)
    guess = [line for axes, metric in zip(panels, metrics, strict=True) for line in chance(axes, metric)]
    for axes in panels:
        axes.set_ylim(bottom=0)
    draw.legend(figure, [*(draw.handle(look, marker=False) for look in shown.values()), *guess])
    return figure


def heldout_curves(frame: pd.DataFrame, *_) -> Figure:
    """Accuracy and loss during training on held-out tasks, at the largest number of pretraining tasks."""
    frame, n = of_most_tasks(frame)
    what = f"learning held-out tasks after {n} task{'s' * (n != 1)} of pretraining"
    return curves(frame, ["heldout_accuracy", "train_loss"], "gradient steps on a held-out task", what)


def meta_curves(frame: pd.DataFrame, *_, watched: str) -> Figure:
    """Loss and accuracy in meta-training at the largest number of tasks, and one more metric."""
    frame, n = of_most_tasks(frame)
    what = f"meta-training on {n} task{'s' * (n != 1)}"
    return curves(frame, ["meta_loss", "meta_accuracy", watched], "meta-steps", what)
