"""Leap's ablation of its objective in numbers: what its Figure 5 shows, and the held-out error it does not."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from leapwarp import catalogue
from leapwarp.report import curves, draw, looks, rows
from leapwarp.report.quantities import Quantity, percent
from leapwarp.report.table import origin, summaries, summary_block


def first_at(curve: np.ndarray, level: float) -> int:
    """Number of meta-steps until a curve is at `level` or below; the length of the curve where it never is."""
    below = np.nonzero(curve <= level)[0]
    return int(below[0]) + 1 if len(below) else len(curve)


def half_way(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The share of meta-training after which a run's curve has fallen half as far as it ever does, 0 to 1."""

    def share(curve: np.ndarray) -> float:
        return first_at(curve, (curve[0] + curve.min()) / 2) / len(curve)

    return curves.each(frame, metric, share)


def median_end(frame: pd.DataFrame, metric: str) -> float:
    """The median over configurations (Reptile is none) of the mean over seeds of where curves end."""
    ends = curves.end(frame.loc[frame["method"] != "reptile"], metric)
    return float(np.median(rows.summary(ends, ["method", "n_tasks", "metric"])["mean"].to_numpy()))


def to_median(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Meta-steps until a run is where the median configuration ends; all of its meta-steps where it never is."""
    level = median_end(frame, metric) if curves.runs(frame, metric) else 0.0
    return curves.each(frame, metric, lambda curve: first_at(curve, level))


QUANTITIES = {
    "final_meta_loss": Quantity("meta_loss", "Loss at the end", "nats", 3, True, select=curves.end),
    "half_way": Quantity("meta_loss", "Half-way", "percent of meta-training", 0, True, percent, half_way),
    "steps_to_median": Quantity("meta_loss", "Steps to the median's end", "meta-steps", 0, True, select=to_median),
    "mean_loss": Quantity("mean_loss", "Mean training loss along a held-out task", "nats", 3, True),
}
SHOWN = [*QUANTITIES, "error"]


def too_close(lines: pd.DataFrame, experiment: str) -> str:
    """The pairs of configurations that the loss at the end does not tell apart: their standard deviations overlap."""
    ends = lines.loc[(lines["metric"] == "final_meta_loss") & (lines["method"] != "reptile")].sort_values("mean")
    pairs = [
        " and ".join(looks.look(each["method"], experiment).name for each in (a, b))
        for a, b in combinations(ends.to_dict("records"), 2)
        if not b["mean"] - a["mean"] > a["std"] + b["std"]
    ]
    return "; ".join(pairs) or "none"


def table(frame: pd.DataFrame, paper: pd.DataFrame, note: str) -> tuple[pd.DataFrame, str]:
    """One line a configuration and quantity, and the text; raises ValueError where rows are of several sizes."""
    experiment = looks.experiment(frame)
    rows.provenance(frame, experiment)
    lines, level = summaries(frame, SHOWN), median_end(frame, "meta_loss")
    n_steps = int(frame.loc[frame["metric"] == "meta_loss", "step"].max()) + 1
    late = {}
    for method, mine in frame.groupby("method"):
        found = [curve.min() > level for _, curve in curves.runs(mine, "meta_loss")]
        if any(found):
            late[method, "steps_to_median"] = f" (not reached by {sum(found)} of {len(found)} runs)"
    text = f"""# Leap, Figure 5 in numbers: which parts of the objective matter

{origin(frame, note)}
- The paper shows curves and prints no numbers. Its findings: with the loss the error is cut in half, though not
  sooner; the stabiliser speeds convergence up; length does better than energy. What of it holds here, with
  intervals: claims L6 to L9.
- ± is the sample standard deviation over seeds. *Loss at the end* is the mean training loss along a task in the
  last tenth of {n_steps} meta-steps. *Half-way* is the share of meta-training after which it has fallen half as
  far as it ever does. *Steps to the median's end* are meta-steps until it is {level:.3f}, where the median
  configuration ends; a run that never is counts with all its steps.
- Pairs that the loss at the end does not tell apart at this budget (standard deviations overlap, or there is one seed):
  {too_close(lines, experiment)}.
- *Mean loss* and *error* are those of held-out alphabets, along their training and at its end.
- Energy in parameter space alone is Reptile: the two rows must be equal.

{summary_block(lines, SHOWN, "Configuration", experiment, late)}
"""
    return lines, text


def panels(frame: pd.DataFrame, metrics: dict[str, str], x_label: str, what: str, extra: str = "") -> Figure:
    """A panel for each metric, a line for each configuration."""
    about = catalogue.find(looks.experiment(frame))
    figure = Figure(figsize=(4.4 * len(metrics) + 2.6, 4.2), layout="constrained")
    shown: set[str] = set()
    for axes, (metric, label) in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics.items(), strict=True):
        lines, _ = draw.curve(frame, metric)
        if lines.empty:
            draw.empty(axes, f"the rows hold no\n{metric}")
            continue
        if metric == "heldout_accuracy":
            lines[["mean", "std"]] *= 100
        for method in looks.ordered(lines["method"], about.name):
            mine, look = lines.loc[lines["method"] == method], looks.look(method, about.name)
            # Reptile lies on the configuration that equals it: dots on its line.
            dashes, width = (":", 2.2) if method == "reptile" else (draw.dashes(look), 1.4)
            draw.shaded(axes, mine, "step", look, linestyle=dashes, linewidth=width)
        axes.set_xlabel(x_label)
        axes.set_ylabel(label)
        shown |= set(lines["method"])
    draw.title(figure, f"{about.title}: {what}", draw.caption(frame, about.name, extra))
    handles = [draw.handle(looks.look(method, about.name), marker=False) for method in looks.ordered(shown, about.name)]
    for handle in handles:
        if handle.get_label() == looks.look("reptile", about.name).name:
            handle.set(linestyle=":", linewidth=2.2)
    draw.legend(figure, handles)
    return figure


def figures(frame: pd.DataFrame, paper: pd.DataFrame, files: Sequence[Path]) -> dict[str, Figure]:
    note = "trailing mean over a tenth of meta-training; the paper's Fig. 5 is a plot without printed numbers"
    loss = {"meta_loss": "mean task training loss [nats]"}
    heldout = {"heldout_accuracy": "held-out accuracy [%]", "train_loss": "training-batch loss [nats]"}
    smoothed = curves.smoothed(frame, "meta_loss")
    return {
        "leap_ablation": panels(smoothed, loss, "meta-steps", "meta-training", note),
        "leap_ablation_heldout": panels(frame, heldout, "gradient steps on a held-out task", "learning held-out tasks"),
    }
