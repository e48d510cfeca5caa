"""Figures 9 and 10 of the WarpGrad paper: continual regression of sine mixtures.

    python -m leapwarp.figures.sine --experiment sine --rows results/quick/sine/rows.csv \
        --out-dir results/quick/sine/figures

sine_losses.png        log-loss of each sub-task over the 100 steps, in both orders (Figure 9)
sine_predictions.png   what the learners predict after each sub-task (Figure 10)
sine_meta.png          the losses of meta-training
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leapwarp.figures import draw, style
from leapwarp.tables import SHUFFLED

SUBTASKS = 5
ORDERS = {"": [0, 1, 2, 3, 4], SHUFFLED: [1, 3, 4, 2, 0]}
TITLES = {"": "order of meta-training", SHUFFLED: "order [1, 3, 4, 2, 0]"}
LOW, HIGH = -5.0, 5.0
# Of the sub-tasks: Okabe and Ito's without the yellow.
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"]
LINES = ["warpgrad", "no_warp_fast", "no_warp", "replay", "multitask"]
PREDICTED = ["warpgrad", "no_warp_fast"]


def shown(frame: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    return [key for key in keys if key in set(frame["method"])]


def when(axes: Axes, order: Sequence[int], steps: int) -> None:
    """Grey lines where the sub-task changes, and above each part the number of the sub-task learnt in it."""
    for position, subtask in enumerate(order):
        axes.axvspan(position * steps, (position + 1) * steps, color=COLOURS[subtask], alpha=0.08, linewidth=0)
        axes.text(
            (position + 0.5) * steps, 1.0, f"{subtask}", transform=axes.get_xaxis_transform(), ha="center", va="bottom",
            fontsize=8, color=COLOURS[subtask], fontweight="bold",
        )  # fmt: skip


def losses(frame: pd.DataFrame) -> Figure:
    """Rows: orders; columns: learners; lines: sub-tasks."""
    keys = shown(frame, LINES)
    figure = Figure(figsize=(2.6 * max(len(keys), 1) + 1.6, 6.0), layout="constrained")
    panels = figure.subplots(2, max(len(keys), 1), squeeze=False, sharex=True, sharey=True)
    for row, (suffix, order) in enumerate(ORDERS.items()):
        for column, key in enumerate(keys):
            axes = panels[row, column]
            rows = frame.loc[(frame["method"] == key) & (frame["metric"] == f"log_loss{suffix}")]
            for subtask in range(SUBTASKS):
                mine = rows.loc[rows["task"] == f"subtask{subtask}"]
                line = mine.groupby("step")["value"].agg(["mean", "std"])
                step, mean, std = (np.asarray(part, dtype=float) for part in (line.index, line["mean"], line["std"]))
                axes.plot(step, mean, color=COLOURS[subtask], linewidth=1.3)
                axes.fill_between(step, mean - std, mean + std, color=COLOURS[subtask], alpha=0.2, linewidth=0)
            when(axes, order, int(rows["step"].max()) // SUBTASKS)
            if row == 0:
                axes.set_title(style.method(key).name.replace(" (", "\n("), fontsize=9, pad=14)
            else:
                axes.set_xlabel("gradient steps")
        panels[row, 0].set_ylabel(f"{TITLES[suffix]}\nmean of log held-out loss [nats]")
    note = (
        "means over held-out functions; the number above and the tint say which sub-task is being learnt, at"
        ' "All sub-tasks at once" all of them; 0 is the leftmost interval'
    )
    draw.title(figure, "WarpGrad, Figure 9: losses of five sub-tasks learnt in turn", draw.caption(frame, "sine", note))
    draw.legend(figure, [Line2D([], [], color=COLOURS[i], label=f"sub-task {i}") for i in range(SUBTASKS)])
    return figure


def predictions(frame: pd.DataFrame) -> Figure:
    """One function of seed 0: rows are learners and orders, columns the sub-task that has just been learnt."""
    rows = frame.loc[(frame["seed"] == 0) & frame["metric"].str.startswith(("prediction", "target"))]
    keys = shown(rows, PREDICTED)
    lines = [(key, suffix) for key in keys for suffix in ORDERS]
    figure = Figure(figsize=(12.5, 2.0 * max(len(lines), 1) + 1.2), layout="constrained")
    heading = "WarpGrad, Figure 10: predictions after each sub-task"
    text = draw.caption(frame, "sine").splitlines()[0] + "\n"
    if not lines:
        draw.title(figure, heading, text)
        draw.empty(figure.subplots(), "the rows hold no predictions")
        return figure
    task = sorted(set(rows["task"]))[0]
    text += f"seed 0, the first held-out function ({task}); tinted: the interval just learnt, grey: those learnt before"
    draw.title(figure, heading, text)
    panels = figure.subplots(len(lines), SUBTASKS, squeeze=False, sharex=True, sharey=True)
    mine = rows.loc[rows["task"] == task]
    for row, (key, suffix) in enumerate(lines):
        of_method = mine.loc[mine["method"] == key]
        target = of_method.loc[of_method["metric"] == "target"].sort_values("step")["value"].to_numpy()
        x, width = np.linspace(LOW, HIGH, len(target)), (HIGH - LOW) / SUBTASKS
        for t, subtask in enumerate(ORDERS[suffix]):
            axes = panels[row, t]
            for earlier in ORDERS[suffix][:t]:
                axes.axvspan(LOW + earlier * width, LOW + (earlier + 1) * width, color="0.5", alpha=0.15, linewidth=0)
            axes.axvspan(
                LOW + subtask * width, LOW + (subtask + 1) * width, color=COLOURS[subtask], alpha=0.25, linewidth=0
            )
            predicted = of_method.loc[of_method["metric"] == f"prediction{t}{suffix}"].sort_values("step")["value"]
            axes.plot(x, target, color="0.4", linestyle="--", linewidth=1.2)
            axes.plot(x, predicted.to_numpy(), color=style.method(key).colour, linewidth=1.6)
            axes.set_title(f"after sub-task {subtask}", fontsize=9)
            if row == len(lines) - 1:
                axes.set_xlabel("x")
        short = "seen order" if not suffix else "other order"
        panels[row, 0].set_ylabel(f"{style.method(key).name.split(' (')[0]}\n{short}\ny")
    spread = np.abs(mine.loc[mine["metric"] == "target", "value"].to_numpy()).max()
    panels[0, 0].set_ylim(-1.8 * spread, 1.8 * spread)
    handles = [
        Line2D([], [], color=style.method(key).colour, label=style.method(key).name.replace(" (", "\n("))
        for key in keys
    ]
    draw.legend(figure, [*handles, Line2D([], [], color="0.4", linestyle="--", label="target")])
    return figure


def meta(frame: pd.DataFrame) -> Figure:
    """Losses along the paths of meta-training, and the meta-objective's."""
    labels = {
        "meta_loss": "mean training loss along the path\n[half squared error]",
        "replay_loss": "meta-objective, mean over the path\n[half squared error, weighted]",
    }
    figure = Figure(figsize=(10.0, 4.0), layout="constrained")
    keys: set[str] = set()
    for axes, (metric, label) in zip(figure.subplots(1, 2), labels.items(), strict=True):
        rows = frame.loc[(frame["metric"] == metric) & frame["step"].notna()].sort_values("step")
        width = max(1, rows["step"].nunique() // 20)
        smooth = rows.groupby(["method", "seed"])["value"].rolling(width, min_periods=1).mean()
        smooth = smooth.droplevel([0, 1]).reindex(rows.index)
        lines, _ = draw.curve(rows.assign(value=smooth), metric)
        for key in style.ordered(lines["method"]):
            draw.shaded(axes, lines.loc[lines["method"] == key], "step", key, linewidth=1.4)
        keys |= set(lines["method"])
        axes.set_yscale("log")
        axes.set_xlabel("meta-steps")
        axes.set_ylabel(label)
    note = "trailing mean over a twentieth of meta-training; the printed weights sum to more than the others"
    draw.title(figure, "Continual sine regression: meta-training", draw.caption(frame, "sine", note))
    draw.legend(figure, [draw.handle(key, marker=False) for key in style.ordered(keys)])
    return figure


def build(frame: pd.DataFrame, paper: pd.DataFrame, experiment: str) -> dict[str, Figure]:
    return {"sine_losses": losses(frame), "sine_predictions": predictions(frame), "sine_meta": meta(frame)}


def main(arguments: Sequence[str] | None = None) -> None:
    description = "Draw Figures 9 and 10 of the WarpGrad paper, and meta-training."
    draw.main(build, {"sine": draw.Numbers("warpgrad")}, "sine", description, arguments)


if __name__ == "__main__":
    main()
