"""The tables of WarpGrad's experiment on random surfaces, the sweep of what the paper leaves open, and Figure 4."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from leapwarp.report import draw, looks, stats
from leapwarp.report.document import Document, Heading, Table, Text
from leapwarp.report.quantities import Quantity, percent, quantity
from leapwarp.report.table import number, signed, summaries

EDGE = 3.0  # of the domain
MARGIN = 0.01  # a learner wins on a surface where it ends lower than gradient descent by more than this gap
PATHS = {"gd": "gd", "warp": "warpgrad"}  # name in the rows: method
NAN = float("nan")


def baseline(method: str) -> str:
    """Gradient descent on the same reading of the formula."""
    return "gd_peaks" if method.endswith("_peaks") else "gd"


def where_descent_struggles(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The final rows of the third of each seed's surfaces on which gradient descent has the largest area of gaps.

    `_peaks` methods learn other surfaces. For them the third is chosen by gradient descent on those surfaces.
    """
    final = frame.loc[frame["step"].isna()].assign(plain=lambda rows: rows["method"].map(baseline))
    plain = final.loc[(final["method"] == final["plain"]) & (final["metric"] == "gap_area")]
    of_seed = plain.groupby(["plain", "seed"])["value"]
    hard = of_seed.rank(ascending=False, method="first") <= (of_seed.transform("size") / 3).clip(lower=1)
    key = ["plain", "seed", "task"]
    return final.loc[final["metric"] == metric].merge(plain.loc[hard, key], on=key).drop(columns="plain")


QUANTITIES = {
    "final_height": Quantity("final_height", "Final height", "height", 3, True),
    "height_area": Quantity("height_area", "Area of heights", "height", 3, True),
    "final_gap": Quantity("final_gap", "Final gap", "0 to 1", 3, True),
    "gap_area": Quantity("gap_area", "Area of gaps", "0 to 1", 3, True),
    "gap_area_struggling": Quantity(
        "gap_area", "Area of gaps, struggling", "0 to 1", 3, True, select=where_descent_struggles
    ),
    "left": Quantity("left", "Outside the domain at the end", "percent", 1, True, percent),
}
COMPARED = {name: about for name, about in QUANTITIES.items() if name != "left"}


def values_of(frame: pd.DataFrame, name: str) -> pd.Series:
    """A quantity by method, seed and task."""
    found = quantity(frame, name)
    keys = pd.MultiIndex.from_arrays([found[column] for column in ("method", "seed", "task")])
    return pd.Series(found["value"].to_numpy(), keys).sort_index()


def paired(frame: pd.DataFrame, name: str, method: str) -> list[np.ndarray]:
    """Gradient descent's value minus that of `method` on each surface: one array for each seed."""
    values = values_of(frame, name)
    gain = (values.loc[baseline(method)] - values.loc[method]).dropna()
    return [mine.to_numpy() for _, mine in gain.groupby(level="seed")]


def wins(frame: pd.DataFrame, method: str) -> tuple[float, float]:
    """Percent of surfaces on which a learner ends lower than gradient descent, and percent of these where it has left
    the domain (missing where there are none)."""
    gain = np.concatenate(paired(frame, "final_gap", method)) > MARGIN
    outside = values_of(frame, "left").loc[method].to_numpy()[gain]
    return 100 * float(gain.mean()), float(outside.mean()) if gain.any() else NAN


def cell(effect: float, low: float, high: float, decimals: int) -> str:
    shown = signed(effect, decimals)
    return shown if np.isnan(low) else f"{shown} [{signed(low, decimals)}, {signed(high, decimals)}]"


def sweep(frame: pd.DataFrame) -> pd.DataFrame:
    """By method, rate and seed: gradient descent's area minus the method's, and percentages (left, reached)."""
    found = frame.loc[frame["metric"].isin(["sweep_area", "sweep_left", "sweep_reached"])]
    found = found.assign(rate=found["task"].str.removeprefix("rate ").astype(float))
    wide = found.pivot_table(index=["method", "rate", "seed"], columns="metric", values="value")
    wide = wide.reindex(columns=["sweep_area", "sweep_left", "sweep_reached"]).reset_index()
    plain = wide.loc[wide["method"] == wide["method"].map(baseline), ["method", "seed", "sweep_area"]]
    wide = wide.assign(plain=wide["method"].map(baseline))
    wide = wide.merge(
        plain, left_on=["plain", "seed"], right_on=["method", "seed"], how="left", suffixes=("", "_plain")
    )
    below = wide["sweep_area_plain"] - wide["sweep_area"]
    return wide.assign(below=below, left=100 * wide["sweep_left"], reached=100 * wide["sweep_reached"])


def warped(frame: pd.DataFrame) -> dict[str, looks.Look]:
    return {method: look for method, look in looks.of(frame).items() if method.startswith("warpgrad")}


def sweep_table(frame: pd.DataFrame) -> Table:
    """By initial warp and meta learning rate: gradient descent's area minus the warp's, on validation surfaces."""
    found, methods, rows = sweep(frame), warped(frame), []
    for rate, mine in found.loc[found["method"].isin(methods)].groupby("rate"):
        cells = []
        for method in methods:
            of = mine.loc[mine["method"] == method]
            spread = f" ± {of['below'].std():.4f}" if len(of) > 1 else ""
            cells.append(f"{of['below'].mean():+.4f}{spread} ({of['left'].mean():.0f}, {of['reached'].mean():.0f})")
        rows.append([f"{rate:g}", *cells])
    return Table(["Meta learning rate", *(look.name for look in methods.values())], rows)


def document(frame: pd.DataFrame, paper: pd.DataFrame) -> Document:
    """The document: one line for each learner and quantity."""
    names = looks.names(frame)
    lines, order = summaries(frame, list(QUANTITIES)), list(names)
    lines = lines.sort_values("method", key=lambda column: column.map(order.index), kind="stable", ignore_index=True)
    others = [method for method in names if method != baseline(method) and baseline(method) in names]
    below = {
        (method, name): stats.interval(paired(frame, name, method), stats.LEVEL)
        for method in others
        for name in COMPARED
    }
    keys = list(zip(lines["method"], lines["metric"], strict=True))
    lines[["below_gd", "low", "high"]] = [below.get(key, (NAN, NAN, NAN)) for key in keys]

    found, level = dict(zip(keys, lines.to_dict("records"), strict=True)), []
    for method, name in names.items():
        rates = sorted(set(frame.loc[(frame["method"] == method) & (frame["metric"] == "rate"), "value"]))
        summary = {key: found.get((method, key), {"mean": NAN, "std": NAN}) for key in QUANTITIES}
        cells = [number(line["mean"], line["std"], QUANTITIES[key].decimals) for key, line in summary.items()]
        shares = wins(frame, method) if method in others else (NAN, NAN)
        cells += [number(share, decimals=0) for share in shares]
        level.append([name, ", ".join(f"{rate:g}" for rate in rates), *cells])
    differences = [
        [names[method], *(cell(*below[method, key], COMPARED[key].decimals + 1) for key in COMPARED)]
        for method in others
    ]
    heads = [f"{about.title} [{about.unit}]" for about in QUANTITIES.values()]
    text = f"""
- The paper shows three surfaces and prints no numbers.
- ± is the sample standard deviation over seeds. *Height* is the value of the formula. A *gap* is a height scaled so
  that 0 is the surface's lowest point in the domain [-3, 3]² and 1 its highest. *Area* is the mean along the path.
- *Struggling*: only the third of the surfaces on which gradient descent has the largest area of gaps.
- *Rate*: the learning rate that each seed chose on validation surfaces. It is a task learning rate, and for WarpGrad
  the meta learning rate. The task learning rate of WarpGrad is that of gradient descent.
- *Wins*: surfaces on which a learner ends lower than gradient descent by a gap of more than {MARGIN:g}. *Outside*: the
  share of these on which it ends outside the domain.
- *peaks*: the other reading of the misprinted formula, compared with gradient descent on the same surfaces.
"""
    of_sweep = """Gradient descent's area of gaps minus the warp's, on validation surfaces (positive: the warp helps).
In brackets: the percentage of runs that end outside the domain, and of starts that the warp can reach. Mean ± standard
deviation over seeds."""
    blocks = [
        Text(text),
        Table(["Learner", "Rate", *heads, "Wins [%]", "of them outside [%]"], level),
        Heading("Differences from gradient descent, paired by surface"),
        Text(
            "Gradient descent's value minus the learner's (positive: the learner is lower), with its 95 % interval. "
            "Learners without gradient descent on the same surfaces are left out."
        ),
        Table(["Learner", *(about.title for about in COMPARED.values())], differences),
        Heading("Effect of the initial warp and the meta learning rate"),
        Text(of_sweep),
        sweep_table(frame),
    ]
    n = quantity(frame, "left").groupby("seed")["task"].nunique().max()
    title = f"WarpGrad, appendix E and Figure 4 in numbers: learners on {n} random surfaces a seed"
    return Document(title, blocks, lines)


def along(mine: pd.DataFrame, metric: str) -> np.ndarray:
    return mine.loc[mine["metric"] == metric].sort_values("step")["value"].to_numpy()


def panel(axes: Axes, mine: pd.DataFrame, space: str, levels: np.ndarray, look_of: dict[str, looks.Look]) -> None:
    """Draw one surface as contours, with the paths of both learners from a common start."""
    centre = [along(mine, f"{space}_centre_{axis}")[0] for axis in (1, 2)]
    half = along(mine, f"{space}_half_width")[0]
    height = along(mine, f"{space}_height")
    size = round(len(height) ** 0.5)
    lines = [np.linspace(middle - half, middle + half, size) for middle in centre]
    axes.contourf(*lines, height.reshape(size, size), levels=levels, cmap="viridis", extend="both")
    axes.contour(*lines, height.reshape(size, size), levels=levels[::2], colors="white", linewidths=0.3, alpha=0.6)
    if space == "native":
        axes.add_patch(Rectangle((-EDGE, -EDGE), 2 * EDGE, 2 * EDGE, fill=False, edgecolor="white", linestyle=":"))
    for name, method in PATHS.items():
        x, y = (along(mine, f"{space}_{name}_{axis}") for axis in (1, 2))
        colour = look_of[method].colour
        axes.plot(x, y, color="white", linewidth=2.6, alpha=0.7)
        axes.plot(x, y, color=colour, linewidth=1.4, marker=".", markersize=3)
        axes.plot(x[-1:], y[-1:], color=colour, marker="o", markersize=7, markeredgecolor="white")
        axes.plot(x[:1], y[:1], color="white", marker="*", markersize=11, markeredgecolor="black", linestyle="")
    axes.set_aspect("equal")


def surfaces_paths(frame: pd.DataFrame, *_) -> Figure:
    found = frame.loc[(frame["method"] == "warpgrad") & (frame["seed"] == 0)]
    shown = list(found.loc[found["metric"] == "example"].sort_values("value")["task"])
    heading = "WarpGrad, Figure 4: surfaces on which gradient descent struggles"
    size, n = (2.7 * max(len(shown), 2) + 2.2, 6.6), len(shown)
    figure, panels = draw.panels(frame, heading, size, 2 if n else 1, n or 1, spread="seed 0")
    if not shown:
        draw.empty(panels[0], "the rows hold no paths")
        return figure
    ends, look_of = values_of(frame, "final_gap"), looks.of(frame, PATHS.values())
    for column, task in enumerate(shown):
        mine, upper, lower = found.loc[found["task"] == task], panels[column], panels[n + column]
        native = along(mine, "native_height")
        low, high = native.min(), native.max()
        levels = np.linspace(low, high if high > low else low + 1, 25)
        panel(upper, mine, "warped", levels, look_of)
        panel(lower, mine, "native", levels, look_of)
        gd, warp = (ends.get((method, 0, task), NAN) for method in PATHS.values())
        upper.set_title(f"surface {int(task.removeprefix('surface'))}", fontsize=9)
        upper.set_xlabel(r"$\theta_1$")
        lower.set_xlabel(f"$x_1$\nfinal gap: GD {gd:.2f}, WarpGrad {warp:.2f}")
    panels[0].set_ylabel("under the warp\n" + r"$\theta_2$")
    panels[n].set_ylabel("as it is\n$x_2$")
    start = Line2D([], [], color="white", marker="*", markersize=11, markeredgecolor="black", label="start")
    both = (look_of[method] for method in PATHS.values())
    draw.legend(figure, [*(Line2D([], [], color=look.colour, marker="o", label=look.name) for look in both), start])
    return figure


def surfaces_curves(frame: pd.DataFrame, *_) -> Figure:
    """Mean gap over the steps, with a panel for each reading of the formula."""
    heading = "Random surfaces: learning from random starts"
    figure, panels = draw.panels(frame, heading, (11.5, 4.4), n_columns=2, sharey=True)

    def style(method: str, look: looks.Look) -> dict[str, Any]:
        return {"linestyle": ":" if method.startswith("gd_tuned") else "-", "linewidth": 1.5}

    handles = []
    for axes, other in zip(panels, (False, True), strict=True):
        shown = draw.curves(axes, frame.loc[frame["method"].str.endswith("_peaks") == other], "gap", style=style)
        handles += [
            Line2D([], [], color=look.colour, label=look.name, **style(method, look)) for method, look in shown.items()
        ]
        axes.set_title("the formula as " + ("peaks" if other else "printed"), fontsize=9)
        axes.set_xlabel("gradient steps")
    panels[0].set_ylabel("mean gap to the lowest\npoint of the domain [0 to 1]")
    panels[0].set_ylim(bottom=0)
    draw.legend(figure, handles)
    return figure


def surfaces_sweep(frame: pd.DataFrame, *_) -> Figure:
    """Area compared with gradient descent, runs that leave the domain and starts reached, against the meta rate."""
    figure, panels = draw.panels(frame, "Random surfaces: does the warp help?", (11.0, 4.2), n_columns=3)
    labels = {
        "below": "area of gaps below gradient descent's\n(above 0: the warp helps)",
        "left": "runs that end\noutside the domain [%]",
        "reached": "starts that\nthe warp can reach [%]",
    }
    found = sweep(frame)
    if found.loc[found["method"].isin(warped(frame))].empty:
        for axes in panels:
            draw.empty(axes, "no warp was run")
        return figure
    for axes, (column, label) in zip(panels, labels.items(), strict=True):
        if found.loc[found["method"].isin(warped(frame)), column].isna().all():
            draw.empty(axes, "gradient descent was not run")
            continue
        for method, look in warped(frame).items():
            mine = found.loc[found["method"] == method].groupby("rate")[column].agg(["mean", "std"]).reset_index()
            draw.band(axes, mine, "rate", look.colour, marker=look.marker, markersize=5)
        axes.set(xscale="log", xlabel="meta learning rate of Adam", ylabel=label)
        if column != "below":
            axes.set_ylim(-3, 103)
    panels[0].axhline(0, color="0.5", linewidth=0.9, linestyle=":")
    panels[0].set_yscale("symlog", linthresh=0.002)
    plain = found.loc[found["method"] == "gd", "left"].mean()
    panels[1].axhline(plain, color="black", linewidth=0.9, linestyle=":")
    draw.legend(figure, warped(frame), markers=True)
    return figure
