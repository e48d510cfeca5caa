"""Figures of the Omniglot experiments of both papers, from the gathered rows.

    python -m leapwarp.figures.omniglot --experiment omniglot_warp --paper paper/warpgrad.csv \
        --rows results/quick/omniglot_warp/rows.csv --out-dir results/quick/omniglot_warp/figures

by_tasks.png        final error (omniglot_leap) or accuracy (omniglot_warp) by number of pretraining tasks
auc_by_tasks.png    area under the training-accuracy curve by number of pretraining tasks
heldout_curves.png  accuracy and loss while learning held-out tasks, at the largest number
meta_curves.png     loss and accuracy during meta-training, and what else the protocol follows, at the largest number
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leapwarp import tables
from leapwarp.figures import draw, style


class Experiment(NamedTuple):
    paper: str  # which file of paper/
    table: str
    quantity: str  # what by_tasks.png shows, a key of tables.QUANTITIES
    title: str
    watched: str  # the metric of meta-training beside loss and accuracy


EXPERIMENTS = {
    "omniglot_leap": Experiment("leap", "1", "error", "Omniglot, Leap protocol", "validation_error"),
    "omniglot_warp": Experiment("warpgrad", "2", "accuracy", "Omniglot, WarpGrad protocol", "replay_loss"),
}
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
    look: dict[str, Any] = {
        "color": "0.6",
        "linewidth": 0.9,
        "linestyle": ":",
        "label": "chance (20 classes)",
    }
    axes.axhline(CHANCE[metric], zorder=1, **look)
    return [Line2D([], [], **look)]


def by_tasks(frame: pd.DataFrame, name: str, paper: pd.DataFrame | None, experiment: str) -> Figure:
    """A quantity by number of pretraining tasks: ours solid, the paper's dashed with hollow markers."""
    figure = Figure(figsize=(8.4, 4.8), layout="constrained")
    axes = figure.add_subplot()
    heading = f"{EXPERIMENTS[experiment].title}: {LABELS[name].split(' [')[0]}"
    ours = tables.by_tasks(frame, name)
    if ours.empty:
        draw.empty(axes, f"the rows hold no metric {tables.QUANTITIES[name].metric!r}")
        draw.title(figure, heading, draw.caption(frame, experiment))
        return figure
    counts = set(ours["n_tasks"]) - {0} | (set(paper["n_tasks"]) if paper is not None else set())
    left, right = min(counts, default=0), max(counts, default=1)
    handles: list[Line2D] = []
    keys = style.ordered([*ours["method"], *(paper["method"] if paper is not None else [])])
    for key in keys:
        look, mine = style.method(key), ours.loc[ours["method"] == key]
        if 0 in set(mine["n_tasks"]):  # run once without pretraining: holds at every count
            mine = pd.concat([mine.assign(n_tasks=left), mine.assign(n_tasks=right)])
            draw.shaded(axes, mine, "n_tasks", key, linestyle="-.")
        elif len(mine):
            draw.shaded(axes, mine, "n_tasks", key, marker=look.marker, markersize=6)
        if len(mine):
            handles.append(draw.handle(key))
    if paper is not None:
        for key in keys:
            look, theirs = style.method(key), paper.loc[paper["method"] == key].sort_values("n_tasks")
            options: dict[str, Any] = {
                **draw.PAPER_LINE,
                "color": look.colour,
                "marker": look.marker,
                "alpha": 0.75,
            }
            axes.plot(theirs["n_tasks"], theirs["value"], zorder=1.5, **options)
            if len(theirs) and key not in set(ours["method"]):
                handles.append(Line2D([], [], label=f"{look.name}, paper only", **options))
        name_of = f"{style.PAPERS[EXPERIMENTS[experiment].paper]}, Table {EXPERIMENTS[experiment].table}"
        handles.append(Line2D([], [], label="ours", color="0.3", marker="o"))
        handles.append(Line2D([], [], label=name_of, color="0.3", marker="o", **draw.PAPER_LINE))
    handles += chance(axes, name)
    axes.set_xlabel("number of pretraining tasks (alphabets)")
    axes.set_ylabel(LABELS[name])
    axes.set_xticks(sorted(counts))
    axes.set_ylim(bottom=0)
    extra = []
    if 0 in set(ours["n_tasks"]):
        extra.append("horizontal lines: no pretraining, so the count does not matter")
    if paper is None:
        extra.append("the paper prints no numbers for this")
    draw.title(figure, heading, draw.caption(tables.quantity(frame, name), experiment, "; ".join(extra)))
    draw.legend(figure, handles)
    return figure


def largest(frame: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The rows of the largest number of pretraining tasks and those without pretraining, and that number."""
    count = int(frame["n_tasks"].to_numpy().max())
    return frame.loc[frame["n_tasks"].isin([0, count])], count


def curves(
    frame: pd.DataFrame, metrics: Sequence[str], x_label: str, heading: str, experiment: str, note: str = ""
) -> Figure:
    """One panel for each metric, one line for each method; a panel without rows says so. `note` ends the caption."""
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
        for key in style.ordered(lines["method"]):
            dashes = "-" if style.method(key).pretrained else "-."
            draw.shaded(axes, lines.loc[lines["method"] == key], "step", key, linestyle=dashes, linewidth=1.3)
        guess += chance(axes, metric)
        axes.set_xlabel(x_label)
        axes.set_ylabel(LABELS[metric])
        axes.set_ylim(bottom=0)
        shown |= set(lines["method"])
    early_text = "a run that stopped early keeps its last value" if any_early else ""
    draw.title(figure, heading, draw.caption(frame, experiment, "; ".join(filter(None, [early_text, note]))))
    draw.legend(figure, [draw.handle(key, marker=False) for key in style.ordered(shown)] + guess)
    return figure


def plural(count: int) -> str:
    return f"{count} task{'' if count == 1 else 's'}"


def heldout_curves(frame: pd.DataFrame, experiment: str) -> Figure:
    frame, count = largest(frame)
    heading = f"{EXPERIMENTS[experiment].title}: learning held-out tasks after {plural(count)} of pretraining"
    metrics = ["heldout_accuracy", "train_loss"]
    return curves(frame, metrics, "gradient steps on a held-out task", heading, experiment)


def meta_curves(frame: pd.DataFrame, experiment: str) -> Figure:
    frame, count = largest(frame)
    metrics = ["meta_loss", "meta_accuracy", EXPERIMENTS[experiment].watched]
    heading = f"{EXPERIMENTS[experiment].title}: meta-training on {plural(count)}"
    note = (
        "means over the steps of a training task, of which MAML takes at most 5"
        if "maml" in set(frame["method"])
        else ""
    )
    return curves(frame, metrics, "meta-steps", heading, experiment, note)


def build(frame: pd.DataFrame, paper: pd.DataFrame, experiment: str) -> dict[str, Figure]:
    return {
        "by_tasks": by_tasks(frame, EXPERIMENTS[experiment].quantity, paper, experiment),
        "auc_by_tasks": by_tasks(frame, "auc", None, experiment),
        "heldout_curves": heldout_curves(frame, experiment),
        "meta_curves": meta_curves(frame, experiment),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    numbers = {name: draw.Numbers(about.paper, about.table) for name, about in EXPERIMENTS.items()}
    draw.main(build, numbers, "omniglot", "Draw by_tasks, auc_by_tasks, heldout_curves and meta_curves.", arguments)


if __name__ == "__main__":
    main()
