"""How near warped descent is to descent under the warp's metric: Equation 6 of the WarpGrad paper.

    python -m leapwarp.figures.geometry --experiment geometry \
        --rows results/quick/geometry/rows.csv --out-dir results/quick/geometry/figures

geometry.png   difference of the two losses over the rate, by warp, with its spread over random draws
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leapwarp.figures import draw, style

FLOOR = 1e-17  # where a difference of exactly nought is drawn


def errors(frame: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(8.4, 4.8), layout="constrained")
    axes = figure.add_subplot()
    rates = frame.loc[frame["metric"] == "rate"].groupby("step")["value"].first()
    rows = frame.loc[frame["metric"] == "error"]
    handles, highest = [], None
    for key in style.ordered(rows["method"]):
        look = style.method(key)
        by_step = rows.loc[rows["method"] == key].groupby("step")["value"]
        low, middle, high = (by_step.quantile(share).clip(lower=FLOOR) for share in (0.1, 0.5, 0.9))
        x = rates[middle.index].to_numpy(dtype=float)
        axes.plot(x, middle, color=look.colour, marker=look.marker, markersize=4.5, linewidth=1.3)
        axes.fill_between(x, low.to_numpy(), high.to_numpy(), color=look.colour, alpha=0.15, linewidth=0)
        handles.append(Line2D([], [], color=look.colour, marker=look.marker, label=look.name))
        highest = middle if highest is None or middle.iloc[-1] > highest.iloc[-1] else highest
    axes.set(xscale="log", yscale="log", xlabel="rate α", ylabel="|L(Ω(θ − αΔθ)) − L(γ − αΔγ)|")
    if highest is not None:
        x = rates.to_numpy(dtype=float)
        guide = 4 * float(highest.iloc[-1]) * (x / x[-1]) ** 2
        axes.plot(x, guide, color="0.3", linestyle=(0, (3, 2)), linewidth=1)
        handles.append(Line2D([], [], color="0.3", linestyle=(0, (3, 2)), linewidth=1, label="slope 2: O(α²)"))
    axes.set_ylim(FLOOR / 3, 10)
    draw.legend(figure, handles)
    n_draws = len(rows[["seed", "task"]].drop_duplicates())
    zero = f"; differences of nought stand at {FLOOR:g}" if bool(np.any(rows["value"] == 0)) else ""
    caption = draw.caption(frame, "geometry", f"lines: medians{zero}", spread="shading")
    caption = caption.replace("± 1 standard deviation over seeds", f"10 to 90 % of {n_draws} random draws of all seeds")
    caption = caption.replace("one seed: no shading", f"shading: 10 to 90 % of {n_draws} random draws")
    draw.title(figure, "Warped descent against descent under the warp's metric", caption)
    return figure


def build(frame: pd.DataFrame, paper: pd.DataFrame, experiment: str) -> dict[str, Figure]:
    return {"geometry": errors(frame)}


def main(arguments: Sequence[str] | None = None) -> None:
    description = "Draw the error of Equation 6 over the rate, by warp."
    draw.main(build, {"geometry": draw.Numbers("warpgrad")}, "geometry", description, arguments)


if __name__ == "__main__":
    main()
