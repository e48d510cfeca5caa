"""Figures of the Omniglot experiments of both papers, from the gathered rows.

    python -m leapwarp.figures.omniglot --experiment omniglot_warp --paper paper/warpgrad.csv \
        --rows results/quick/omniglot_warp/rows.csv --out-dir results/quick/omniglot_warp/figures

by_tasks.png        final error (omniglot_leap) or accuracy (omniglot_warp) by number of pretraining tasks
auc_by_tasks.png    area under the training-accuracy curve by number of pretraining tasks
heldout_curves.png  accuracy and loss while learning held-out tasks, at the largest number
meta_curves.png     loss and accuracy during meta-training, and what else the protocol follows, at the largest number
"""

import argparse
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import matplotlib.style
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leapwarp import results, tables
from leapwarp.figures import style
from leapwarp.files import atomic, one_line


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
PAPER_LINE: dict[str, Any] = {
    "linestyle": (0, (3, 2)),
    "linewidth": 1.0,
    "markersize": 5,
    "markerfacecolor": "white",
}
CHANCE = {"error": 95.0, "accuracy": 5.0, "heldout_accuracy": 5.0}  # 20-way classification


def smaller(profile: str, data_source: str) -> str:
    """What a reader must know before comparing with the paper, or ""."""
    text = [] if profile == "paper" else ["sizes smaller than published"]
    return "; ".join(text + ([] if data_source == "omniglot" else ["stand-in data, not Omniglot"]))


def caption(frame: pd.DataFrame, experiment: str, extra: str = "") -> str:
    """Two lines: profile, data and seeds; then what the shading is and `extra`."""
    profile, data_source = results.provenance(frame, experiment)
    counts = sorted(set(frame.groupby(["method", "n_tasks"])["seed"].nunique()))
    n_seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    warning = smaller(profile, data_source)
    first = f"profile {profile}, data {data_source}, {n_seeds} seed{'' if counts == [1] else 's'}"
    shading = "one seed: no shading" if counts == [1] else "shading: ± 1 standard deviation over seeds"
    return first + (f" ({warning})" if warning else "") + "\n" + "; ".join(filter(None, [shading, extra]))


def title(figure: Figure, heading: str, text: str) -> None:
    """A bold heading at the top left and the caption at the bottom left."""
    figure.suptitle(heading, fontsize=11, fontweight="bold", x=0.01, ha="left")
    width = int(14 * figure.get_figwidth())  # characters of this size that fit into a line
    text = "\n".join(textwrap.fill(line, width) for line in text.splitlines())
    figure.supxlabel(text, fontsize=8, color="0.3", x=0.01, ha="left")


def shaded(axes: Axes, lines: pd.DataFrame, x: str, key: str, **options) -> None:
    """One line of mean against column `x`, with ± std where there is one, in the colours of method `key`."""
    look = style.method(key)
    lines = lines.sort_values(x)
    position, mean, std = (lines[column].to_numpy(dtype=float) for column in (x, "mean", "std"))
    axes.plot(position, mean, color=look.colour, **options)
    axes.fill_between(position, mean - std, mean + std, color=look.colour, alpha=0.15, linewidth=0)


def empty(axes: Axes, text: str) -> None:
    """An empty panel that says why."""
    axes.set_axis_off()
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="0.4")


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


def legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    figure.legend(handles=handles, loc="outside right center", frameon=False, handlelength=2.6, fontsize=8.5)


def handle(key: str, marker: bool = True) -> Line2D:
    look = style.method(key)
    dashes = "-" if look.pretrained else "-."
    shown = look.marker if marker and look.pretrained else ""
    return Line2D([], [], color=look.colour, marker=shown, linestyle=dashes, label=look.name)


def by_tasks(frame: pd.DataFrame, name: str, paper: pd.DataFrame | None, experiment: str) -> Figure:
    """A quantity by number of pretraining tasks: ours solid, the paper's dashed with hollow markers."""
    figure = Figure(figsize=(8.4, 4.8), layout="constrained")
    axes = figure.add_subplot()
    heading = f"{EXPERIMENTS[experiment].title}: {LABELS[name].split(' [')[0]}"
    ours = tables.by_tasks(frame, name)
    if ours.empty:
        empty(axes, f"the rows hold no metric {tables.QUANTITIES[name][0]!r}")
        title(figure, heading, caption(frame, experiment))
        return figure
    counts = set(ours["n_tasks"]) - {0} | (set(paper["n_tasks"]) if paper is not None else set())
    left, right = min(counts, default=0), max(counts, default=1)
    handles: list[Line2D] = []
    keys = style.ordered([*ours["method"], *(paper["method"] if paper is not None else [])])
    for key in keys:
        look, mine = style.method(key), ours.loc[ours["method"] == key]
        if 0 in set(mine["n_tasks"]):  # run once without pretraining: holds at every count
            mine = pd.concat([mine.assign(n_tasks=left), mine.assign(n_tasks=right)])
            shaded(axes, mine, "n_tasks", key, linestyle="-.")
        elif len(mine):
            shaded(axes, mine, "n_tasks", key, marker=look.marker, markersize=6)
        if len(mine):
            handles.append(handle(key))
    if paper is not None:
        for key in keys:
            look, theirs = style.method(key), paper.loc[paper["method"] == key].sort_values("n_tasks")
            options: dict[str, Any] = {
                **PAPER_LINE,
                "color": look.colour,
                "marker": look.marker,
                "alpha": 0.75,
            }
            axes.plot(theirs["n_tasks"], theirs["value"], zorder=1.5, **options)
            if len(theirs) and key not in set(ours["method"]):
                handles.append(Line2D([], [], label=f"{look.name}, paper only", **options))
        name_of = f"{style.PAPERS[EXPERIMENTS[experiment].paper]}, Table {EXPERIMENTS[experiment].table}"
        handles.append(Line2D([], [], label="ours", color="0.3", marker="o"))
        handles.append(Line2D([], [], label=name_of, color="0.3", marker="o", **PAPER_LINE))
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
    title(figure, heading, caption(tables.quantity(frame, name), experiment, "; ".join(extra)))
    legend(figure, handles)
    return figure


def curve(frame: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, bool]:
    """Mean and std over seeds at each step (columns method, step, mean, std), and whether a run ended early.

    A run that stopped before the others of its method keeps its last value, so that the mean is over the same
    tasks and seeds at every step; between two measurements of a run the line is straight.
    """
    rows = frame.loc[(frame["metric"] == metric) & frame["step"].notna()]
    parts, early = [], False
    for key, mine in rows.groupby("method"):
        mine = mine.astype({"step": "int64"})
        wide = mine.pivot(index="step", columns=["seed", "task"], values="value").sort_index()
        early = early or bool(np.isnan(wide.to_numpy()[-1]).any())
        whole = wide.interpolate(method="index", limit_area="inside").ffill()
        per_seed = whole.T.groupby(level="seed").mean().T
        lines = pd.DataFrame({"mean": per_seed.mean(axis=1), "std": per_seed.std(axis=1)})
        parts.append(lines.assign(method=key))
    if not parts:
        return pd.DataFrame(columns=["method", "step", "mean", "std"]), False
    result = pd.concat(parts).rename_axis("step").reset_index()
    if metric in PERCENT:
        result[["mean", "std"]] *= 100
    return result, early


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
        lines, early = curve(frame, metric)
        any_early = any_early or early
        if lines.empty:
            empty(axes, f"the rows hold no\n{metric}\nfor these runs")
            continue
        for key in style.ordered(lines["method"]):
            dashes = "-" if style.method(key).pretrained else "-."
            shaded(axes, lines.loc[lines["method"] == key], "step", key, linestyle=dashes, linewidth=1.3)
        guess += chance(axes, metric)
        axes.set_xlabel(x_label)
        axes.set_ylabel(LABELS[metric])
        axes.set_ylim(bottom=0)
        shown |= set(lines["method"])
    early_text = "a run that stopped early keeps its last value" if any_early else ""
    title(figure, heading, caption(frame, experiment, "; ".join(filter(None, [early_text, note]))))
    legend(figure, [handle(key, marker=False) for key in style.ordered(shown)] + guess)
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


def save(figure: Figure, path: Path) -> None:
    """Write a PNG atomically, the same bytes for the same rows."""
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150, metadata={"Software": None})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m leapwarp.figures.omniglot",
        description="Draw by_tasks, auc_by_tasks, heldout_curves and meta_curves (PNG) from result rows.",
    )
    parser.add_argument("--experiment", required=True, choices=sorted(EXPERIMENTS))
    parser.add_argument("--rows", required=True, metavar="CSV", help="gathered rows of the experiment")
    parser.add_argument("--paper", metavar="CSV", help="the paper's numbers (default: in paper/)")
    parser.add_argument("--out-dir", required=True, type=Path, metavar="DIR", help="folder of the figures")
    options = parser.parse_args(arguments)
    name, experiment = options.experiment, EXPERIMENTS[options.experiment]
    matplotlib.use("Agg")
    with one_line(parser), matplotlib.style.context("default"):
        matplotlib.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9})
        numbers = options.paper or tables.default_paper(experiment.paper)
        paper = tables.read_paper(numbers, experiment.table)
        frame = results.read(options.rows)
        figures = {
            "by_tasks": by_tasks(frame, experiment.quantity, paper, name),
            "auc_by_tasks": by_tasks(frame, "auc", None, name),
            "heldout_curves": heldout_curves(frame, name),
            "meta_curves": meta_curves(frame, name),
        }
        for stem, figure in figures.items():
            save(figure, options.out_dir / f"{stem}.png")
            print(options.out_dir / f"{stem}.png")


if __name__ == "__main__":
    main()
