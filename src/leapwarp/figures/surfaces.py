"""Figure 4 of the WarpGrad paper, and what it leaves out: learning on random surfaces of the plane.

    python -m leapwarp.figures.surfaces --experiment surfaces \
        --rows results/quick/surfaces/rows.csv --out-dir results/quick/surfaces/figures

surfaces_paths.png    surfaces on which gradient descent struggles, warped above and native below, with both paths
surfaces_curves.png   mean gap on the held-out surfaces over the steps, for both readings of the formula
surfaces_sweep.png    what initial warp and meta learning rate decide, on validation surfaces
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from leapwarp.figures import draw, style
from leapwarp.tables import surfaces

EDGE = 3.0  # of the domain
PATHS = {"gd": "gd", "warp": "warpgrad"}  # name in the rows: method


def _values(mine: pd.DataFrame, metric: str) -> np.ndarray:
    return mine.loc[mine["metric"] == metric].sort_values("step")["value"].to_numpy()


def panel(axes: Axes, mine: pd.DataFrame, space: str, levels: np.ndarray) -> None:
    """One surface as contours, with the paths of both learners from a common start."""
    centre = [_values(mine, f"{space}_centre_{axis}")[0] for axis in (1, 2)]
    half = _values(mine, f"{space}_half_width")[0]
    height = _values(mine, f"{space}_height")
    size = round(len(height) ** 0.5)
    lines = [np.linspace(middle - half, middle + half, size) for middle in centre]
    axes.contourf(*lines, height.reshape(size, size), levels=levels, cmap="viridis", extend="both")
    axes.contour(*lines, height.reshape(size, size), levels=levels[::2], colors="white", linewidths=0.3, alpha=0.6)
    if space == "native":
        axes.add_patch(Rectangle((-EDGE, -EDGE), 2 * EDGE, 2 * EDGE, fill=False, edgecolor="white", linestyle=":"))
    for name, key in PATHS.items():
        x, y = (_values(mine, f"{space}_{name}_{axis}") for axis in (1, 2))
        axes.plot(x, y, color="white", linewidth=2.6, alpha=0.7)
        axes.plot(x, y, color=style.method(key).colour, linewidth=1.4, marker=".", markersize=3)
        axes.plot(x[-1:], y[-1:], color=style.method(key).colour, marker="o", markersize=7, markeredgecolor="white")
        axes.plot(x[:1], y[:1], color="white", marker="*", markersize=11, markeredgecolor="black", linestyle="")
    axes.set_aspect("equal")


def caption(frame: pd.DataFrame, extra: str) -> str:
    """As everywhere, but that the smaller size has fewer seeds only."""
    return draw.caption(frame, "surfaces", extra).replace("sizes smaller than published", "fewer seeds than at paper")


def paths(frame: pd.DataFrame) -> Figure:
    rows = frame.loc[(frame["method"] == "warpgrad") & (frame["seed"] == 0)]
    shown = list(rows.loc[rows["metric"] == "example"].sort_values("value")["task"])
    figure = Figure(figsize=(2.7 * max(len(shown), 2) + 2.2, 6.6), layout="constrained")
    heading = "WarpGrad, Figure 4: surfaces on which gradient descent struggles"
    note = (
        "seed 0; chosen by gradient descent alone, in the domain (dotted): left half, where it ends highest although it"
        " has moved by more than 1; right half, where it comes the longest way. Dark is low; the levels of a column are"
        " the same above and below"
    )
    draw.title(figure, heading, caption(frame, "").splitlines()[0] + "\n" + note)
    if not shown:
        draw.empty(figure.subplots(), "the rows hold no paths")
        return figure
    panels = figure.subplots(2, len(shown), squeeze=False)
    for column, task in enumerate(shown):
        mine = rows.loc[rows["task"] == task]
        native = _values(mine, "native_height")
        low, high = native.min(), native.max()
        levels = np.linspace(low, high if high > low else low + 1, 25)
        for row, space in enumerate(("warped", "native")):
            panel(panels[row, column], mine, space, levels)
        panels[0, column].set_title(f"surface {int(task.removeprefix('surface'))}", fontsize=9)
        ends = {name: _end(frame, key, task) for name, key in PATHS.items()}
        panels[1, column].set_xlabel(f"$x_1$\nfinal gap: GD {ends['gd']:.2f}, WarpGrad {ends['warp']:.2f}")
        panels[0, column].set_xlabel(r"$\theta_1$")
    panels[0, 0].set_ylabel("under the warp\n" + r"$\theta_2$")
    panels[1, 0].set_ylabel("as it is\n$x_2$")
    handles = [
        Line2D([], [], color=style.method(key).colour, marker="o", label=style.method(key).name)
        for key in PATHS.values()
    ]
    handles.append(Line2D([], [], color="white", marker="*", markersize=11, markeredgecolor="black", label="start"))
    draw.legend(figure, handles)
    return figure


def _end(frame: pd.DataFrame, method: str, task: str) -> float:
    chosen = frame.loc[(frame["method"] == method) & (frame["seed"] == 0) & (frame["task"] == task)]
    return float(chosen.loc[chosen["metric"] == "final_gap", "value"].iloc[0])


def gap_curves(frame: pd.DataFrame) -> Figure:
    """Mean gap over the steps; one panel for each reading."""
    figure = Figure(figsize=(11.5, 4.4), layout="constrained")
    lines, _ = draw.curve(frame, "gap")
    panels, shown = figure.subplots(1, 2, sharey=True), []
    for axes, other in zip(panels, (False, True), strict=True):
        keys = [key for key in style.ordered(lines["method"]) if key.endswith("_peaks") == other]
        for key in keys:
            dashes = ":" if key.startswith("gd_tuned") else "-"
            draw.shaded(axes, lines.loc[lines["method"] == key], "step", key, linestyle=dashes, linewidth=1.5)
        shown += keys
        axes.set_title("the formula as " + ("peaks" if other else "printed"), fontsize=9)
        axes.set_xlabel("gradient steps")
    panels[0].set_ylabel("mean gap to the lowest point of the domain [0 to 1]")
    panels[0].set_ylim(bottom=0)
    note = "means over 1,000 held-out surfaces a seed; learners that run off the domain count like all"
    n = frame.loc[frame["metric"] == "final_gap"].groupby(["method", "seed"]).size().max()
    note = note.replace("1,000", f"{n:,}")
    draw.title(figure, "Random surfaces: learning from random starts", caption(frame, note))
    handles = [Line2D([], [], color=style.method(key).colour, label=style.method(key).name,
                      linestyle=":" if key.startswith("gd_tuned") else "-") for key in shown]  # fmt: skip
    draw.legend(figure, handles)
    return figure


def sweep(frame: pd.DataFrame) -> Figure:
    """Area below that of gradient descent, and what share of runs leaves the domain, against the meta learning rate."""
    figure = Figure(figsize=(11.0, 4.2), layout="constrained")
    rows = surfaces.sweep(frame)
    areas = rows.loc[rows["metric"] == "sweep_area"].set_index(["method", "rate", "seed"])["value"]
    keys = [key for key in style.ordered(frame["method"]) if key.startswith("warpgrad")]
    left, middle, right = figure.subplots(1, 3)
    for key in keys:
        plain = areas.loc[surfaces.baseline(key)].droplevel("rate")
        draw.shaded(left, _gain(plain, areas.loc[key]), "rate", key, marker=style.method(key).marker, markersize=5)
        for axes, metric in ((middle, "sweep_left"), (right, "sweep_reached")):
            shares = rows.loc[(rows["metric"] == metric) & (rows["method"] == key)].assign(value=100 * rows["value"])
            draw.shaded(axes, _over_seeds(shares), "rate", key, marker=style.method(key).marker, markersize=5)
    left.axhline(0, color="0.5", linewidth=0.9, linestyle=":")
    left.set_yscale("symlog", linthresh=0.002)
    left.set_ylabel("area of gaps below gradient descent's\n(above 0: the warp helps)")
    middle.set_ylabel("runs that end outside the domain [%]")
    right.set_ylabel("starts that the warp can reach [%]")
    plain_left = 100 * rows.loc[(rows["metric"] == "sweep_left") & (rows["method"] == "gd"), "value"].mean()
    middle.axhline(plain_left, color="black", linewidth=0.9, linestyle=":")
    for axes in (left, middle, right):
        axes.set_xscale("log")
        axes.set_xlabel("meta learning rate of Adam")
    for axes in (middle, right):
        axes.set_ylim(-3, 103)
    note = "on validation surfaces; dotted: gradient descent. Ordinate of the left panel: linear within ±0.002"
    draw.title(figure, "Random surfaces: the sign of the result", caption(frame, note))
    draw.legend(figure, [draw.handle(key) for key in keys])
    return figure


def _over_seeds(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.groupby("rate")["value"].agg(mean="mean", std="std").reset_index()


def _gain(plain: pd.Series, warped: pd.Series) -> pd.DataFrame:
    """Columns rate, mean, std of gradient descent's area less the warps', seed by seed."""
    rows = warped.rename("value").reset_index()
    return _over_seeds(rows.assign(value=plain.reindex(rows["seed"]).to_numpy() - rows["value"]))


def build(frame: pd.DataFrame, paper: pd.DataFrame, experiment: str) -> dict[str, Figure]:
    return {"surfaces_paths": paths(frame), "surfaces_curves": gap_curves(frame), "surfaces_sweep": sweep(frame)}


def main(arguments: Sequence[str] | None = None) -> None:
    description = "Draw Figure 4 of the WarpGrad paper, learning curves, and the sweep."
    draw.main(build, {"surfaces": draw.Numbers("warpgrad")}, "surfaces", description, arguments)


if __name__ == "__main__":
    main()
