"""Table 3 of the WarpGrad paper: kinds of warps, objectives and meta-training, ours beside theirs."""

import math

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from leapwarp import catalogue
from leapwarp.report import draw, looks
from leapwarp.report.document import Document, Text
from leapwarp.report.quantities import Quantity
from leapwarp.report.select import of_most_tasks
from leapwarp.report.table import comparison, listing

QUANTITIES: dict[str, Quantity] = {}
HEADS = ("Architecture", "Meta-training", "Meta-objective")
ROWS = {  # in the words of the paper's table
    "leap": ("None (Leap)", "online", "none"),
    "warp_leap": ("3×3 conv (default)", "offline", "full (Eq. 3)"),
    "warp_leap_approx": ("3×3 conv", "offline", "approx, which is the released code's *full*"),
    "warp_leap_no_step": ("3×3 conv", "offline", "without the inner step, which is the released code's *approx*"),
    "warp_leap_online": ("3×3 conv", "online", "full"),
    "warp_leap_online_scaled": ("3×3 conv", "online, rate scaled to the terms of the sum", "full"),
    "warp_leap_summed": ("3×3 conv", "offline, λ times the number of tasks", "full"),
    "warp_leap_rates": ("3×3 conv", "offline", "full, learned rate and momentum"),
    "warp_scaling": ("Scaling", "offline", "full"),
    "warp_1x1": ("1×1 conv", "offline", "full"),
    "warp_relu": ("3×3 conv + ReLU", "offline", "full"),
    "warp_norm": ("3×3 conv + BN", "offline", "full"),
    "warp_norm_relu": ("3×3 conv + BN + ReLU", "offline", "full"),
    "warp_residual": ("3×3 conv + BN + Res + ReLU", "offline", "full"),
    "warp_two_layers": ("2-layer 3×3 conv + BN + Res", "offline", "full"),
    "warp_embedding": ("2-layer 3×3 conv + BN + Res + TA", "offline", "full"),
}


def document(frame: pd.DataFrame, paper: pd.DataFrame) -> Document:
    """Raises ValueError as `comparison` does."""
    frame, count = of_most_tasks(frame)
    lines = comparison(frame, "accuracy", paper.assign(n_tasks=count))
    spread, ours = lines["ours_std"].mean(), np.sort(lines["ours_mean"].dropna())
    gap = float(np.median(np.diff(ours))) if len(ours) > 1 else math.nan
    text = f"""
- {count} pretraining tasks here, 25 in the paper. ± is the sample standard deviation over seeds; the paper's ±
  is over 4 runs. The paper's caption says "error", but the numbers are accuracies.
- The spread over seeds is {spread:.1f} points on average, and the median difference between neighbouring rows is
  {gap:.1f}. So smaller differences may be chance. Claims W6 to W10 and W30 test orders, paired by seed and
  alphabet.
- TA: task embeddings, adapted from 0 on each task. The full objective of the released code lacks the second-order
  term, so it is the row *approx* (a test checks this). Its approximate objective lacks the inner step.
"""
    order = lines.set_index("method").loc[looks.ordered(lines["method"], looks.experiment(frame))].reset_index()
    shown = listing(order, looks.experiment(frame), HEADS, ROWS)
    title = "WarpGrad, Table 3: warps, objectives and meta-training; held-out accuracy in percent"
    return Document(title, [Text(text), shown], lines)


def warp_ablation(frame: pd.DataFrame, paper: pd.DataFrame, *_) -> Figure:
    """Table 3 as a figure."""
    frame, _ = of_most_tasks(frame)
    heading = f"{catalogue.find(looks.experiment(frame)).title}: held-out accuracy"
    figure, [axes] = draw.panels(frame, heading, (9.6, 5.2), spread=draw.BARS)
    draw.legend(figure, draw.dots(axes, frame, "accuracy", paper, "WarpGrad paper,\nTable 3 (25 tasks)"))
    axes.set_xlabel("held-out accuracy after the last step [%]")
    axes.axvline(5, **draw.DOTTED)
    return figure


def warp_ablation_curves(frame: pd.DataFrame, *_) -> Figure:
    """Learning held-out tasks: ways of meta-training on the left, kinds of warps on the right."""
    frame, _ = of_most_tasks(frame)
    heading = f"{catalogue.find(looks.experiment(frame)).title}: learning held-out tasks"
    figure, panels = draw.panels(frame, heading, (11.5, 4.6), n_columns=2, sharey=True)
    names = list(looks.of(frame))
    left = [name for name in names if name.startswith(("leap", "warp_leap"))]
    right = [name for name in names if name == "warp_leap" or name not in left]
    for axes, names, text in zip(panels, (left, right), ("meta-training, 3×3 conv", "kinds of warps"), strict=True):
        shown = draw.curves(axes, frame.loc[frame["method"].isin(names)], "heldout_accuracy", 100)
        axes.axhline(5, **draw.DOTTED)
        axes.set_title(text, fontsize=9)
        axes.set_xlabel("gradient steps on a held-out task")
        handles = [draw.handle(look, marker=False) for look in shown.values()]
        axes.legend(handles=handles, fontsize=7.5, frameon=False, loc="upper left")
    panels[0].set_ylabel("held-out accuracy [%]")
    return figure
