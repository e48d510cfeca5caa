"""WarpGrad's continual learning experiment in numbers (what is learnt, forgotten, won back), and Figures 9 and 10."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leapwarp.catalogue import Look
from leapwarp.report import draw, looks, rows
from leapwarp.report.quantities import Quantity, quantity
from leapwarp.report.table import number, origin, summaries

SUBTASKS = 5
LOW, HIGH = -5.0, 5.0  # of the functions' domain
SHUFFLED = "_shuffled"  # ends the metrics of the order that meta-training has not seen
ORDERS = {"": [0, 1, 2, 3, 4], SHUFFLED: [1, 3, 4, 2, 0]}
HEADINGS = {
    "": "Sub-tasks from left to right, as in meta-training",
    SHUFFLED: f"Order {ORDERS[SHUFFLED]}, not seen in meta-training",
}
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"]
"""of the sub-tasks: Okabe and Ito's without the yellow"""
LINES = ["warpgrad", "no_warp_fast", "no_warp", "replay", "multitask"]
PREDICTED = ["warpgrad", "no_warp_fast"]

SEEN = {
    "final_loss": Quantity("final_loss", "Loss on all sub-tasks at the end", "half squared error", 3, True),
    "learnt_loss": Quantity("learnt_loss", "Loss on each when it was learnt", "half squared error", 3, True),
    "forgetting": Quantity("forgetting", "Forgetting", "half squared error", 3, True),
    "transfer": Quantity("transfer", "Backward transfer", "half squared error", 3),
    "log_gain": Quantity("log_gain", "Gain on the current sub-task", "nats", 2),
    "log_forgetting": Quantity("log_forgetting", "Relative forgetting", "nats", 2, True),
    "log_spike": Quantity("log_spike", "Spike after a switch", "nats", 2, True),
    "log_recovery": Quantity("log_recovery", "Recovery after the spike", "nats", 2),
}
QUANTITIES = SEEN | {
    name + SHUFFLED: about._replace(metric=name + SHUFFLED, title=f"{about.title}, other order")
    for name, about in SEEN.items()
}


def block(lines: pd.DataFrame, suffix: str, rates: dict[str, str], experiment: str) -> str:
    """A markdown table of one order: methods as rows."""
    heads = [f"{about.title} [{about.unit}]" for about in SEEN.values()]
    text = ["| Learner | Rate | " + " | ".join(heads) + " |", "|---" * (len(SEEN) + 2) + "|"]
    found = {(line["method"], line["metric"]): line for line in lines.to_dict("records")}
    for method in looks.ordered(lines["method"], experiment):
        cells = [looks.look(method, experiment).name, rates[method]]
        for name, about in SEEN.items():
            line = found.get((method, name + suffix))
            cells.append("–" if line is None else number(line["mean"], line["std"], about.decimals))
        text.append("| " + " | ".join(cells) + " |")
    return "\n".join(text)


def table(frame: pd.DataFrame, paper: pd.DataFrame, note: str) -> tuple[pd.DataFrame, str]:
    """One line a learner, quantity and order, and the text; raises ValueError where rows are of several sizes."""
    experiment = looks.experiment(frame)
    rows.provenance(frame, experiment)
    lines = summaries(frame, [name + suffix for suffix in ORDERS for name in SEEN])
    of_rates = frame.loc[frame["metric"] == "rate"]
    rates = {
        str(key): ", ".join(f"{rate:g}" for rate in sorted(set(mine["value"])))
        for key, mine in of_rates.groupby("method")
    }
    n = quantity(frame, "final_loss").groupby("seed")["task"].nunique().max()
    text = f"""# WarpGrad, appendix K in numbers: five sub-tasks, one after another

{origin(frame, note)}
- Means over {n} functions a seed; ± is the sample standard deviation over seeds. The paper shows curves and prints no
  numbers. Losses are half the mean square error on held-out points, as in training.
- *Forgetting*: the loss of a sub-task at the end, less the lowest that it had after it was learnt, at the end of any
  sub-task before the last. *Backward transfer*: its loss right after it was learnt, less that at the end (below 0:
  later sub-tasks hurt). Both are means over the first four of the order.
- In nats, as logarithms of ratios of losses: *gain*, before a sub-task to after it; *relative forgetting*, the end to
  right after it was learnt; *spike*, the first half of the steps after a switch to before the switch; *recovery*, the
  same half to the end of that sub-task (above 0: losses of earlier sub-tasks fall again while a later one is learnt).
- *Rate*: the task learning rate. 0.001 is the paper's; the others were chosen on other functions, by what the name
  says (replay and all sub-tasks at once: by the loss on all sub-tasks at the end).
- A learner that does not learn has nothing to forget: read forgetting beside the gain.
"""
    for suffix, heading in HEADINGS.items():
        text += f"\n## {heading}\n\n{block(lines, suffix, rates, experiment)}\n"
    return lines, text


# ---------------------------------------------------------------- figures


def shown(frame: pd.DataFrame, methods: Sequence[str]) -> list[str]:
    return [method for method in methods if method in set(frame["method"])]


def in_two_lines(look: Look) -> str:
    return look.name.replace(" (", "\n(")


def when(axes: Axes, order: Sequence[int], steps: int) -> None:
    """A tint for each sub-task while it is learnt, and its number above."""
    for position, subtask in enumerate(order):
        axes.axvspan(position * steps, (position + 1) * steps, color=COLOURS[subtask], alpha=0.08, linewidth=0)
        axes.text(
            (position + 0.5) * steps, 1.0, f"{subtask}", transform=axes.get_xaxis_transform(), ha="center", va="bottom",
            fontsize=8, color=COLOURS[subtask], fontweight="bold",
        )  # fmt: skip


def losses(frame: pd.DataFrame) -> Figure:
    """Rows: orders; columns: learners; lines: sub-tasks."""
    experiment, methods = looks.experiment(frame), shown(frame, LINES)
    figure = Figure(figsize=(2.6 * max(len(methods), 1) + 1.6, 6.0), layout="constrained")
    panels = figure.subplots(2, max(len(methods), 1), squeeze=False, sharex=True, sharey=True)
    titles = {"": "order of meta-training", SHUFFLED: f"order {ORDERS[SHUFFLED]}"}
    for row, (suffix, order) in enumerate(ORDERS.items()):
        for column, method in enumerate(methods):
            axes = panels[row, column]
            found = frame.loc[(frame["method"] == method) & (frame["metric"] == f"log_loss{suffix}")]
            for subtask in range(SUBTASKS):
                mine = found.loc[found["task"] == f"subtask{subtask}"]
                line = mine.groupby("step")["value"].agg(["mean", "std"])
                step, mean, std = (np.asarray(part, dtype=float) for part in (line.index, line["mean"], line["std"]))
                axes.plot(step, mean, color=COLOURS[subtask], linewidth=1.3)
                axes.fill_between(step, mean - std, mean + std, color=COLOURS[subtask], alpha=0.2, linewidth=0)
            when(axes, order, int(found["step"].max()) // SUBTASKS)
            if row == 0:
                axes.set_title(in_two_lines(looks.look(method, experiment)), fontsize=9, pad=14)
            else:
                axes.set_xlabel("gradient steps")
        panels[row, 0].set_ylabel(f"{titles[suffix]}\nmean of log held-out loss [nats]")
    note = (
        "means over held-out functions; the number above and the tint say which sub-task is being learnt, at"
        ' "All sub-tasks at once" all of them; 0 is the leftmost interval'
    )
    draw.title(
        figure, "WarpGrad, Figure 9: losses of five sub-tasks learnt in turn", draw.caption(frame, experiment, note)
    )
    draw.legend(figure, [Line2D([], [], color=COLOURS[i], label=f"sub-task {i}") for i in range(SUBTASKS)])
    return figure


def predictions(frame: pd.DataFrame) -> Figure:
    """One function of seed 0: rows are learners and orders, columns the sub-task that has just been learnt."""
    found = frame.loc[(frame["seed"] == 0) & frame["metric"].str.startswith(("prediction", "target"))]
    experiment, methods = looks.experiment(frame), shown(found, PREDICTED)
    lines = [(method, suffix) for method in methods for suffix in ORDERS]
    figure = Figure(figsize=(12.5, 2.0 * max(len(lines), 1) + 1.2), layout="constrained")
    heading = "WarpGrad, Figure 10: predictions after each sub-task"
    text = draw.caption(frame, experiment).splitlines()[0] + "\n"
    if not lines:
        draw.title(figure, heading, text)
        draw.empty(figure.subplots(), "the rows hold no predictions")
        return figure
    task = sorted(set(found["task"]))[0]
    text += f"seed 0, the first held-out function ({task}); tinted: the interval just learnt, grey: those learnt before"
    draw.title(figure, heading, text)
    panels = figure.subplots(len(lines), SUBTASKS, squeeze=False, sharex=True, sharey=True)
    mine = found.loc[found["task"] == task]
    for row, (method, suffix) in enumerate(lines):
        of_method, look = mine.loc[mine["method"] == method], looks.look(method, experiment)
        target = of_method.loc[of_method["metric"] == "target"].sort_values("step")["value"].to_numpy()
        x, width = np.linspace(LOW, HIGH, len(target)), (HIGH - LOW) / SUBTASKS
        for t, subtask in enumerate(ORDERS[suffix]):
            axes = panels[row, t]
            for part in ORDERS[suffix][: t + 1]:
                colour, alpha = (COLOURS[part], 0.25) if part == subtask else ("0.5", 0.15)
                axes.axvspan(LOW + part * width, LOW + (part + 1) * width, color=colour, alpha=alpha, linewidth=0)
            predicted = of_method.loc[of_method["metric"] == f"prediction{t}{suffix}"].sort_values("step")["value"]
            axes.plot(x, target, color="0.4", linestyle="--", linewidth=1.2)
            axes.plot(x, predicted.to_numpy(), color=look.colour, linewidth=1.6)
            axes.set_title(f"after sub-task {subtask}", fontsize=9)
            if row == len(lines) - 1:
                axes.set_xlabel("x")
        short = "other order" if suffix else "seen order"
        panels[row, 0].set_ylabel(f"{look.name.split(' (')[0]}\n{short}\ny")
    spread = np.abs(mine.loc[mine["metric"] == "target", "value"].to_numpy()).max()
    panels[0, 0].set_ylim(-1.8 * spread, 1.8 * spread)
    handles = [
        Line2D([], [], color=looks.look(method, experiment).colour, label=in_two_lines(looks.look(method, experiment)))
        for method in methods
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
    experiment, methods = looks.experiment(frame), set()
    for axes, (metric, label) in zip(figure.subplots(1, 2), labels.items(), strict=True):
        found = frame.loc[(frame["metric"] == metric) & frame["step"].notna()].sort_values("step")
        width = max(1, found["step"].nunique() // 20)
        smooth = found.groupby(["method", "seed"])["value"].transform(
            lambda values, width=width: values.rolling(width, min_periods=1).mean()
        )
        lines, _ = draw.curve(found.assign(value=smooth), metric)
        for method in looks.ordered(lines["method"], experiment):
            mine = lines.loc[lines["method"] == method]
            draw.shaded(axes, mine, "step", looks.look(method, experiment), linewidth=1.4)
        methods |= set(lines["method"])
        axes.set_yscale("log")
        axes.set_xlabel("meta-steps")
        axes.set_ylabel(label)
    note = "trailing mean over a twentieth of meta-training; the printed weights sum to more than the others"
    draw.title(figure, "Continual sine regression: meta-training", draw.caption(frame, experiment, note))
    draw.legend(
        figure,
        [draw.handle(looks.look(method, experiment), marker=False) for method in looks.ordered(methods, experiment)],
    )
    return figure


def figures(frame: pd.DataFrame, paper: pd.DataFrame, files: Sequence[Path]) -> dict[str, Figure]:
    return {"sine_losses": losses(frame), "sine_predictions": predictions(frame), "sine_meta": meta(frame)}
