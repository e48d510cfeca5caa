"""The table of WarpGrad's continual learning experiment (gain, forgetting, backward transfer), and Figures 9 and 10."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leapwarp.report import draw, looks
from leapwarp.report.document import Block, Document, Heading, Text
from leapwarp.report.quantities import Quantity, quantity
from leapwarp.report.select import RUN, steps, trailing
from leapwarp.report.table import summaries, summary_table

SUBTASKS = 5
LOW, HIGH = -5.0, 5.0  # of the functions' domain
SHUFFLED = "_shuffled"  # suffix of the metrics for the order that meta-training has not seen
ORDERS = {"": [0, 1, 2, 3, 4], SHUFFLED: [1, 3, 4, 2, 0]}
HEADINGS = {
    "": "Sub-tasks from left to right, as in meta-training",
    SHUFFLED: f"Order {ORDERS[SHUFFLED]}, not seen in meta-training",
}
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"]
"""of the sub-tasks: the palette of Okabe and Ito without yellow"""
LINES = ["warpgrad", "no_warp_fast", "no_warp", "replay", "multitask"]
PREDICTED = ["warpgrad", "no_warp_fast"]


def kept(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Half of what a sub-task gained, minus what it lost by the end: above 0 if more than half of the gain is kept.

    Gain and loss are changes of the mean logarithm of the sub-task's held-out loss. The result is a mean over all
    sub-tasks but the last, which is followed by none that could make the learner forget it.

    Args:
        metric: the curves of these logarithms, one for each sub-task, over all steps of an order.

    Returns:
        one row for each run.
    """
    order, points = ORDERS[metric.removeprefix("log_loss")], steps(frame, metric)
    if points.empty:
        return points
    curves = points.pivot(index=[*RUN, "step"], columns="task", values="value").unstack("step")
    at = np.unique(points["step"].to_numpy(int))
    at = at[:: (len(at) - 1) // SUBTASKS]  # before all sub-tasks, and after each
    ends = [[curves[f"subtask{i}", at[t]] for t in (s, s + 1, SUBTASKS)] for s, i in enumerate(order[:-1])]
    parts = pd.concat([(before + after) / 2 - end for before, after, end in ends], axis=1)
    runs = points.drop_duplicates(RUN).drop(columns="value")
    runs = runs.assign(step=pd.array([pd.NA] * len(runs), dtype="Int64"), task="")
    return runs.merge(parts.mean(axis=1, skipna=False).rename("value").reset_index(), on=RUN)


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
_kept = Quantity("log_loss", "Half of the gain minus the forgetting", "nats", 2, select=kept)
QUANTITIES |= {  # what claims W21 and W23 ask of "largely retaining"
    "kept" + suffix: _kept._replace(metric="log_loss" + suffix) for suffix in ORDERS
}


def document(frame: pd.DataFrame, paper: pd.DataFrame) -> Document:
    """The document: one line for each learner, quantity and order."""
    lines = summaries(frame, [name + suffix for suffix in ORDERS for name in SEEN])
    of_rates = frame.loc[frame["metric"] == "rate"].groupby("method")["value"]
    rates = {str(key): ", ".join(f"{rate:g}" for rate in sorted(set(found))) for key, found in of_rates}
    n = quantity(frame, "final_loss").groupby("seed")["task"].nunique().max()
    text = f"""
- Means over {n} functions a seed; ± is the sample standard deviation over seeds. The paper shows curves and prints no
  numbers. Losses are half the mean square error on held-out points, as in training.
- *Forgetting*: the loss of a sub-task at the end, minus its lowest loss at the end of any sub-task from its own to the
  last but one. *Backward transfer*: the loss of a sub-task right after it was learnt, minus its loss at the end (below
  0: later sub-tasks do harm). Both are means over the first four sub-tasks of the order.
- Four quantities are logarithms of ratios of losses, in nats. *Gain*: the loss before a sub-task is learnt, over that
  after it. *Relative forgetting*: the loss at the end, over that right after the sub-task was learnt. *Spike*: the loss
  of earlier sub-tasks in the first half of the steps after a switch, over that before the switch. *Recovery*: the loss
  of earlier sub-tasks in the same half, over that at the end of the current sub-task (above 0: it falls again).
- *Rate*: the task learning rate. 0.001 is the paper's. The others were chosen on other functions, by the criterion in
  the name (for replay and all sub-tasks at once: by the loss on all sub-tasks at the end).
- A learner that does not learn has nothing to forget. So compare the forgetting with the gain.
"""
    blocks: list[Block] = [Text(text)]
    for suffix, heading in HEADINGS.items():
        columns = {name + suffix: name for name in SEEN}
        table = summary_table(lines, "Learner", looks.experiment(frame), columns, beside={"Rate": rates})
        blocks += [Heading(heading), table]
    return Document("WarpGrad, appendix K in numbers: five sub-tasks, one after another", blocks, lines)


def shown(frame: pd.DataFrame, methods: Sequence[str]) -> dict[str, looks.Look]:
    found = looks.of(frame)
    return {method: found[method] for method in methods if method in found}


def in_two_lines(look: looks.Look) -> str:
    return look.name.replace(" (", "\n(")


def when(axes: Axes, order: Sequence[int], steps: int) -> None:
    """Draw a tint for each sub-task while it is learnt, and its number above."""
    for position, subtask in enumerate(order):
        axes.axvspan(position * steps, (position + 1) * steps, color=COLOURS[subtask], alpha=0.08, linewidth=0)
        axes.text(
            (position + 0.5) * steps, 1.0, f"{subtask}", transform=axes.get_xaxis_transform(), ha="center", va="bottom",
            fontsize=8, color=COLOURS[subtask], fontweight="bold",
        )  # fmt: skip


def sine_losses(frame: pd.DataFrame, *_) -> Figure:
    """Figure 9. Rows: orders; columns: learners; lines: sub-tasks."""
    methods, heading = shown(frame, LINES), "WarpGrad, Figure 9: losses of five sub-tasks learnt in turn"
    size = (2.6 * max(len(methods), 1) + 1.6, 6.0)
    figure, panels = draw.panels(frame, heading, size, 2, max(len(methods), 1), sharex=True, sharey=True)
    titles = {"": "order of meta-training", SHUFFLED: f"order {ORDERS[SHUFFLED]}"}
    for row, (suffix, order) in enumerate(ORDERS.items()):
        for column, (method, look) in enumerate(methods.items()):
            axes = panels[row * len(methods) + column]
            found = frame.loc[(frame["method"] == method) & (frame["metric"] == f"log_loss{suffix}")]
            for subtask in range(SUBTASKS):
                mine = found.loc[found["task"] == f"subtask{subtask}"]
                line = mine.groupby("step")["value"].agg(["mean", "std"]).reset_index()
                draw.band(axes, line, "step", COLOURS[subtask], linewidth=1.3)
            when(axes, order, int(found["step"].max()) // SUBTASKS)
            if row == 0:
                axes.set_title(in_two_lines(look), fontsize=9, pad=14)
            else:
                axes.set_xlabel("gradient steps")
        panels[row * len(methods)].set_ylabel(f"{titles[suffix]}\nmean of log held-out loss [nats]")
    draw.legend(figure, [Line2D([], [], color=COLOURS[i], label=f"sub-task {i}") for i in range(SUBTASKS)])
    return figure


def sine_predictions(frame: pd.DataFrame, *_) -> Figure:
    """Figure 10, first held-out function of seed 0. Rows: learners and orders; columns: the sub-task just learnt."""
    found = frame.loc[(frame["seed"] == 0) & frame["metric"].str.startswith(("prediction", "target"))]
    methods, heading = shown(found, PREDICTED), "WarpGrad, Figure 10: predictions after each sub-task"
    lines = [(method, suffix) for method in methods for suffix in ORDERS]
    size, spread = (12.5, 2.0 * max(len(lines), 1) + 1.2), "seed 0, the first held-out function"
    if not lines:
        figure, [axes] = draw.panels(frame, heading, size, spread=spread)
        draw.empty(axes, "the rows hold no predictions")
        return figure
    options = {"sharex": True, "sharey": True, "spread": spread}
    figure, panels = draw.panels(frame, heading, size, len(lines), SUBTASKS, **options)
    mine = found.loc[found["task"] == min(found["task"])]
    for row, (method, suffix) in enumerate(lines):
        of_method, look, of_row = mine.loc[mine["method"] == method], methods[method], panels[row * SUBTASKS :]
        target = of_method.loc[of_method["metric"] == "target"].sort_values("step")["value"].to_numpy()
        x, width = np.linspace(LOW, HIGH, len(target)), (HIGH - LOW) / SUBTASKS
        for t, (axes, subtask) in enumerate(zip(of_row, ORDERS[suffix], strict=False)):
            for part in ORDERS[suffix][: t + 1]:
                colour, alpha = (COLOURS[part], 0.25) if part == subtask else ("0.5", 0.15)
                axes.axvspan(LOW + part * width, LOW + (part + 1) * width, color=colour, alpha=alpha, linewidth=0)
            predicted = of_method.loc[of_method["metric"] == f"prediction{t}{suffix}"].sort_values("step")["value"]
            axes.plot(x, target, color="0.4", linestyle="--", linewidth=1.2)
            axes.plot(x, predicted.to_numpy(), color=look.colour, linewidth=1.6)
            axes.set_title(f"after sub-task {subtask}", fontsize=9)
            if row == len(lines) - 1:
                axes.set_xlabel("x")
        of_row[0].set_ylabel(f"{look.name.split(' (')[0]}\n{'other order' if suffix else 'seen order'}\ny")
    spread = np.abs(mine.loc[mine["metric"] == "target", "value"].to_numpy()).max()
    panels[0].set_ylim(-1.8 * spread, 1.8 * spread)
    handles = [Line2D([], [], color=look.colour, label=in_two_lines(look)) for look in methods.values()]
    draw.legend(figure, [*handles, Line2D([], [], color="0.4", linestyle="--", label="target")])
    return figure


def sine_meta(frame: pd.DataFrame, *_) -> Figure:
    """The loss along the paths in meta-training, and the meta-objective, against meta-steps."""
    metrics = {
        "meta_loss": ("mean training loss along the path\n[half squared error]", 1.0),
        "replay_loss": ("meta-objective, mean over the path\n[half squared error, weighted]", 1.0),
    }
    smooth = pd.concat([trailing(frame, metric, 20) for metric in metrics])
    heading = "Continual sine regression: meta-training"
    figure, panels, methods = draw.curve_panels(
        smooth if len(smooth) else frame, heading, metrics, "meta-steps", (10.0, 4.0)
    )
    for axes in panels:
        axes.set_yscale("log")
    draw.legend(figure, methods)
    return figure
