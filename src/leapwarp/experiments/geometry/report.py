"""How close warped descent is to descent under the warp's metric: table and figure for Equation 6 of WarpGrad."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leapwarp.report import draw, looks
from leapwarp.report.document import Document, Text
from leapwarp.report.quantities import Quantity
from leapwarp.report.table import summaries, summary_table

FLOOR = 1e-17  # where a difference of exactly zero is drawn
GUIDE = {"color": "0.3", "linestyle": (0, (3, 2)), "linewidth": 1, "label": "slope 2: O(α²)"}
QUANTITIES = {
    "order": Quantity("order", "Order of the error", "power of the rate", 3),
    "largest_error": Quantity("largest_error", "Largest error", "of the loss", 3, True),
    "definite": Quantity("definite", "Least over largest eigenvalue of the metric", "ratio", 4),
}


def document(frame: pd.DataFrame, paper: pd.DataFrame) -> Document:
    """The document: one line for each warp and quantity."""
    lines = summaries(frame, list(QUANTITIES))
    n_draws = frame.loc[frame["task"] != "", ["seed", "task"]].drop_duplicates().groupby("seed").size().max()
    text = f"""
- One step of descent in θ under a random warp Ω, against one step of G⁻¹∇L in γ = Ω(θ), on random smooth losses;
  {n_draws} draws a seed, in float64. ± is the standard deviation over seeds of the mean over draws.
- The paper (claim W14) states that the two losses differ by O(α²). The order is fitted to the smallest rates. The claim
  is an upper bound: for a linear warp there is no difference except rounding, and so no order.
- G⁻¹ = [DΩ][DΩ]ᵀ is positive definite for every draw (the last column is above zero), so G is a metric.
"""
    shown = summary_table(lines, "Warp", looks.experiment(frame), list(QUANTITIES))
    return Document("WarpGrad, Equation 6 in numbers: warping and descent under its metric", [Text(text), shown], lines)


def geometry(frame: pd.DataFrame, *_) -> Figure:
    """The difference of the two losses against the rate, by warp, with its spread over random draws."""
    heading = "Warped descent against descent under the warp's metric"
    spread = "lines: medians; shading: 10 to 90 % of the random draws"
    figure, [axes] = draw.panels(frame, heading, (8.4, 4.8), spread=spread)
    rates = frame.loc[frame["metric"] == "rate"].groupby("step")["value"].first()
    rows, highest = frame.loc[frame["metric"] == "error"], None
    for method, look in looks.of(rows).items():
        by_step = rows.loc[rows["method"] == method].groupby("step")["value"]
        low, middle, high = (by_step.quantile(share).clip(lower=FLOOR) for share in (0.1, 0.5, 0.9))
        x = rates[middle.index].to_numpy(dtype=float)
        axes.plot(x, middle, color=look.colour, marker=look.marker, markersize=4.5, linewidth=1.3)
        axes.fill_between(x, low.to_numpy(), high.to_numpy(), color=look.colour, alpha=0.15, linewidth=0)
        highest = middle if highest is None or middle.iloc[-1] > highest.iloc[-1] else highest
    axes.set(xscale="log", yscale="log", xlabel="rate α", ylabel="|L(Ω(θ − αΔθ)) − L(γ − αΔγ)|")
    if highest is not None:
        x = rates.to_numpy(dtype=float)
        axes.plot(x, 4 * float(highest.iloc[-1]) * (x / x[-1]) ** 2, **GUIDE)
    axes.set_ylim(FLOOR / 3, 10)
    draw.legend(figure, [*map(draw.handle, looks.of(rows).values()), Line2D([], [], **GUIDE)])
    return figure
