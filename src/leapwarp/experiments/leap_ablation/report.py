"""Leap's ablation of its objective: the table for its Figure 5, with held-out errors, which the paper does not show."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from leapwarp import catalogue
from leapwarp.catalogue import Look
from leapwarp.report import draw, looks
from leapwarp.report.document import Document, Text
from leapwarp.report.quantities import Quantity, percent
from leapwarp.report.select import each, end, of_most_tasks, smoothed
from leapwarp.report.stats import LEVEL, interval, summary
from leapwarp.report.table import summaries, summary_table

CONFIGURATIONS = [f"leap_{metric}{part}" for metric in ("energy", "length") for part in ("", "_loss", "_stabiliser")]
"""those of Figure 5. Reptile is one of them, and the ones with a larger meta learning rate serve another claim"""


def first_at(curve: np.ndarray, level: float) -> int:
    """Number of meta-steps until a curve is at `level` or below, or its length if it never is."""
    below = np.nonzero(curve <= level)[0]
    return int(below[0]) + 1 if len(below) else len(curve)


def half_way(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The share of meta-training, 0 to 1, after which a run's curve has made half of its largest fall."""

    def share(curve: np.ndarray) -> float:
        return first_at(curve, (curve[0] + curve.min()) / 2) / len(curve)

    return each(smoothed(frame, metric), share)


def median_end(frame: pd.DataFrame, metric: str) -> float:
    """The median over the six configurations of the mean over seeds of the last value of the curve."""
    ends = end(frame.loc[frame["method"].isin(CONFIGURATIONS)], metric)
    means = summary(ends, ["method", "n_tasks", "metric"])["mean"].to_numpy()
    return float(np.median(means)) if len(means) else math.nan


def to_median(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Meta-steps until a run reaches the final loss of the median configuration, or all of them if it never does."""
    found = smoothed(frame, metric)
    level = median_end(frame, metric)
    return found.iloc[:0] if math.isnan(level) else each(found, lambda curve: first_at(curve, level))


QUANTITIES = {
    "final_meta_loss": Quantity("meta_loss", "Loss at the end", "nats", 3, True, select=end),
    "half_way": Quantity("meta_loss", "Half-way", "percent of meta-training", 0, True, percent, half_way),
    "steps_to_median": Quantity("meta_loss", "Steps to the median's end", "meta-steps", 0, True, select=to_median),
    "mean_loss": Quantity("mean_loss", "Mean training loss along a held-out task", "nats", 3, True),
}
SHOWN = [*QUANTITIES, "error"]


def too_close(frame: pd.DataFrame, experiment: str) -> str:
    """The pairs of configurations whose difference at the end, paired by seed, has an interval that contains zero."""
    ends = end(frame.loc[frame["method"].isin(CONFIGURATIONS)], "meta_loss").pivot(
        index="seed", columns="method", values="value"
    )
    pairs = []
    for a, b in combinations(ends.mean().sort_values().index, 2):
        found = (ends[b] - ends[a]).dropna().to_numpy()[:, None]
        _, low, high = interval(list(found), LEVEL) if len(found) else (math.nan,) * 3
        if not (low > 0 or high < 0):
            pairs.append(f"{looks.look(a, experiment).name} and {looks.look(b, experiment).name}")
    return "; ".join(pairs) or "none"


def document(frame: pd.DataFrame, paper: pd.DataFrame) -> Document:
    """The document: one line for each configuration and quantity, at the largest number of tasks that was run."""
    frame, _ = of_most_tasks(frame)
    experiment, lines, level = looks.experiment(frame), summaries(frame, SHOWN), median_end(frame, "meta_loss")
    measured = frame.loc[frame["metric"] == "meta_loss", "step"].dropna()
    n_steps = int(measured.max()) + 1 if len(measured) else 0  # none where nothing is meta-trained
    least, late = each(smoothed(frame, "meta_loss"), np.min), {}
    for method, found in least.groupby("method")["value"]:
        n_late = int((found.to_numpy() > level).sum())
        if n_late:
            late[method, "steps_to_median"] = f" (not reached by {n_late} of {len(found)} runs)"
    text = f"""
- The paper shows curves and prints no numbers. It finds that the loss term halves the error but does not speed up
  convergence, that the stabiliser speeds it up, and that length does better than energy. Claims L6 to L9 test these
  statements on our runs.
- ± is the sample standard deviation over seeds. *Loss at the end* is the mean training loss along a task in the
  last tenth of {n_steps} meta-steps. *Half-way* is the share of meta-training after which it has made half of its
  fall. *Steps to the median's end* are meta-steps until it is {level:.3f}, the final loss of the median
  configuration. A run that never reaches it counts with all its steps.
- Pairs whose losses at the end cannot be distinguished (the {LEVEL:.0%} interval of their difference, paired by seed,
  contains zero, or there is one seed): {too_close(frame, experiment)}.
- *Mean loss* is the mean along training on held-out alphabets, and *error* the error at its end.
- Energy in parameter space only is Reptile, so the two rows must be equal.
"""
    shown = summary_table(lines, "Configuration", experiment, SHOWN, late)
    title = "Leap, Figure 5 in numbers: which parts of the objective matter"
    return Document(title, [Text(text), shown], lines)


def style(method: str, look: Look) -> dict[str, object]:
    """Reptile equals one of the configurations, so it is drawn as dots on that line."""
    kinds = (":", 2.2) if method == "reptile" else (draw.dashes(look), 1.4)
    return dict(zip(("linestyle", "linewidth"), kinds, strict=True))


def with_legend(figure: Figure, _: object, shown: dict[str, Look]) -> Figure:
    draw.legend(figure, [draw.handle(look, False, **style(method, look)) for method, look in shown.items()])
    return figure


def leap_ablation(frame: pd.DataFrame, *_) -> Figure:
    frame, _ = of_most_tasks(frame)
    smooth, metrics = smoothed(frame, "meta_loss"), {"meta_loss": ("mean task training loss [nats]", 1.0)}
    heading = f"{catalogue.find(looks.experiment(frame)).title}: meta-training"
    return with_legend(
        *draw.curve_panels(smooth if len(smooth) else frame, heading, metrics, "meta-steps", (7.0, 4.2), style)
    )


def leap_ablation_heldout(frame: pd.DataFrame, *_) -> Figure:
    frame, _ = of_most_tasks(frame)
    metrics = {"heldout_accuracy": ("held-out accuracy [%]", 100.0), "train_loss": ("training-batch loss [nats]", 1.0)}
    heading = f"{catalogue.find(looks.experiment(frame)).title}: learning held-out tasks"
    x_label = "gradient steps on a held-out task"
    return with_legend(*draw.curve_panels(frame, heading, metrics, x_label, (11.4, 4.2), style))
