"""Figures by number of pretraining tasks, which the Omniglot experiments of both papers have.

by_tasks         a quantity of the end by number of pretraining tasks, ours and the paper's
auc_by_tasks     the area under the training-accuracy curve by number of pretraining tasks
heldout_curves   accuracy and loss while learning held-out tasks, at the largest number
meta_curves      loss and accuracy during meta-training, and what else the protocol follows, at the largest number
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leapwarp import catalogue
from leapwarp.report import draw, looks
from leapwarp.report.quantities import quantities, quantity
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
    """Draw the line of a random guess where the quantity has one, and return its entry for the legend."""
    if metric not in CHANCE:
        return []
    style: dict[str, Any] = {"color": "0.6", "linewidth": 0.9, "linestyle": ":", "label": "chance (20 classes)"}
    axes.axhline(CHANCE[metric], zorder=1, **style)
    return [Line2D([], [], **style)]


def by_tasks(frame: pd.DataFrame, name: str, paper: pd.DataFrame) -> Figure:
    """A quantity by number of pretraining tasks: ours solid, the paper's (no lines: none) dashed, hollow markers."""
    about = catalogue.find(looks.experiment(frame))
    figure = Figure(figsize=(8.4, 4.8), layout="constrained")
    axes = figure.add_subplot()
    heading = f"{about.title}: {LABELS[name].split(' [')[0]}"
    ours = over_seeds(frame, name)
    if ours.empty:
        draw.empty(axes, f"the rows hold no metric {quantities(about.name)[name].metric!r}")
        draw.title(figure, heading, draw.caption(frame, about.name))
        return figure
    counts = set(ours["n_tasks"]) - {0} | set(paper["n_tasks"])
    left, right = min(counts, default=0), max(counts, default=1)
    handles: list[Line2D] = []
    for key in looks.ordered([*ours["method"], *paper["method"]], about.name):
        look, mine = looks.look(key, about.name), ours.loc[ours["method"] == key]
        if 0 in set(mine["n_tasks"]):  # run once without pretraining: holds at every count
            mine = pd.concat([mine.assign(n_tasks=left), mine.assign(n_tasks=right)])
            draw.shaded(axes, mine, "n_tasks", look, linestyle=draw.dashes(look))
        elif len(mine):
            draw.shaded(axes, mine, "n_tasks", look, marker=look.marker, markersize=6)
        if len(mine):
            handles.append(draw.handle(look))
    for key in looks.ordered(paper["method"], about.name):
        look, theirs = looks.look(key, about.name), paper.loc[paper["method"] == key].sort_values("n_tasks")
        options = {**draw.PAPER_LINE, "color": look.colour, "marker": look.marker, "alpha": 0.75}
        axes.plot(theirs["n_tasks"], theirs["value"], zorder=1.5, **options)
        if key not in set(ours["method"]):
            handles.append(Line2D([], [], label=f"{look.name}, paper only", **options))
    if len(paper):
        printed = f"{looks.PAPERS[about.paper]}, Table {about.printed}"
        handles.append(Line2D([], [], label="ours", color="0.3", marker="o"))
        handles.append(Line2D([], [], label=printed, color="0.3", marker="o", **draw.PAPER_LINE))
    handles += chance(axes, name)
    axes.set_xlabel("number of pretraining tasks (alphabets)")
    axes.set_ylabel(LABELS[name])
    axes.set_xticks(sorted(counts))
    axes.set_ylim(bottom=0)
    extra = []
    if 0 in set(ours["n_tasks"]):
        extra.append("horizontal lines: no pretraining, so the count does not matter")
    if paper.empty:
        extra.append("the paper prints no numbers for this")
    draw.title(figure, heading, draw.caption(quantity(frame, name), about.name, "; ".join(extra)))
    draw.legend(figure, handles)
    return figure


def curves(frame: pd.DataFrame, metrics: Sequence[str], x_label: str, what: str, note: str = "") -> Figure:
    """One panel for each metric, one line for each method; a panel without rows says so. `note` ends the caption."""
    about = catalogue.find(looks.experiment(frame))
    figure = Figure(figsize=(3.6 * len(metrics) + 2.4, 4.2), layout="constrained")
    shown, guess, any_early = set(), [], False
    panels = figure.subplots(1, len(metrics), squeeze=False, sharex=True)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        lines, early = draw.curve(frame, metric)
        if metric in PERCENT:
            lines[["mean", "std"]] *= 100
        any_early = any_early or early
        if lines.empty:
            draw.empty(axes, f"the rows hold no\n{metric}\nfor these runs")
            continue
        for key in looks.ordered(lines["method"], about.name):
            look = looks.look(key, about.name)
            mine = lines.loc[lines["method"] == key]
            draw.shaded(axes, mine, "step", look, linestyle=draw.dashes(look), linewidth=1.3)
        guess += chance(axes, metric)
        axes.set_xlabel(x_label)
        axes.set_ylabel(LABELS[metric])
        axes.set_ylim(bottom=0)
        shown |= set(lines["method"])
    early_text = "a run that stopped early keeps its last value" if any_early else ""
    text = draw.caption(frame, about.name, "; ".join(filter(None, [early_text, note])))
    draw.title(figure, f"{about.title}: {what}", text)
    handles = [draw.handle(looks.look(key, about.name), marker=False) for key in looks.ordered(shown, about.name)]
    draw.legend(figure, handles + guess)
    return figure


def figures(frame: pd.DataFrame, paper: pd.DataFrame, name: str, watched: str) -> dict[str, Figure]:
    """All four.

    Args:
        name: the quantity that `by_tasks` shows.
        watched: the metric of meta-training that `meta_curves` has beside loss and accuracy.
    """
    count = int(frame["n_tasks"].to_numpy().max())
    most = frame.loc[frame["n_tasks"].isin([0, count])]
    tasks = f"{count} task{'' if count == 1 else 's'}"
    steps = "means over the steps of a training task, of which MAML takes at most 5"
    return {
        "by_tasks": by_tasks(frame, name, paper),
        "auc_by_tasks": by_tasks(frame, "auc", paper.iloc[:0]),
        "heldout_curves": curves(
            most,
            ["heldout_accuracy", "train_loss"],
            "gradient steps on a held-out task",
            f"learning held-out tasks after {tasks} of pretraining",
        ),
        "meta_curves": curves(
            most,
            ["meta_loss", "meta_accuracy", watched],
            "meta-steps",
            f"meta-training on {tasks}",
            steps if "maml" in set(most["method"]) else "",
        ),
    }
