"""WarpGrad's synthetic experiment in numbers, what its untold choices decide, and Figure 4."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from leapwarp.report import draw, looks, rows
from leapwarp.report.quantities import Quantity, percent, quantity
from leapwarp.report.table import number, origin, summaries

EDGE = 3.0  # of the domain
MARGIN = 0.01  # a learner wins on a surface where it ends lower than gradient descent by more than this gap
DRAWS = 10_000
PATHS = {"gd": "gd", "warp": "warpgrad"}  # name in the rows: method


def baseline(method: str) -> str:
    """Gradient descent on the same reading of the formula."""
    return "gd_peaks" if method.endswith("_peaks") else "gd"


def where_descent_struggles(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The final rows of the third of the surfaces where gradient descent has the largest area of gaps, seed by seed.

    `_peaks` methods learn other surfaces, and gradient descent is chosen by there on its own.
    """
    final = frame.loc[frame["step"].isna()].assign(plain=lambda rows: rows["method"].map(baseline))
    plain = final.loc[(final["method"] == final["plain"]) & (final["metric"] == "gap_area")]
    of_seed = plain.groupby(["plain", "seed"])["value"]
    hard = of_seed.rank(ascending=False, method="first") <= of_seed.transform("size") / 3
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
    """By how much `method` is below gradient descent on each surface: one array a seed."""
    values = values_of(frame, name)
    gain = (values.loc[baseline(method)] - values.loc[method]).dropna()
    return [mine.to_numpy() for _, mine in gain.groupby(level="seed")]


def interval(values: list[np.ndarray]) -> tuple[float, float, float]:
    """Mean over seeds of the mean over surfaces, and its 95 % interval; the interval is missing with one seed.

    The bootstrap of docs/claims.md, but that the means over a seed's surfaces, of which there are many, are drawn from
    the normal distribution that they have.
    """
    means = np.array([value.mean() for value in values])
    n, effect = len(means), float(means.mean())
    if n < 2:
        return effect, float("nan"), float("nan")
    errors = np.array([value.std(ddof=1) / len(value) ** 0.5 if len(value) > 1 else 0.0 for value in values])
    stream = np.random.default_rng(0)
    seeds = stream.integers(n, size=(DRAWS, n))
    samples = (means[seeds] + errors[seeds] * stream.standard_normal((DRAWS, n))).mean(1)
    low, high = np.quantile(samples - effect, [0.025, 0.975]) * (n / (n - 1)) ** 0.5
    return effect, effect + float(low), effect + float(high)


def wins(frame: pd.DataFrame, method: str) -> tuple[float, float]:
    """Percent of surfaces on which a learner ends lower than gradient descent, and percent of these where it has left
    the domain (missing where there are none)."""
    gain = np.concatenate(paired(frame, "final_gap", method)) > MARGIN
    outside = values_of(frame, "left").loc[method].to_numpy()[gain]
    return 100 * float(gain.mean()), float(outside.mean()) if gain.any() else float("nan")


def cell(effect: float, low: float, high: float, decimals: int) -> str:
    if np.isnan(low):
        return f"{effect:+.{decimals}f}"
    return f"{effect:+.{decimals}f} [{low:+.{decimals}f}, {high:+.{decimals}f}]"


def markdown(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(line) + " |" for line in (heads, *cells)]
    return "\n".join([lines[0], "|---" * len(heads) + "|", *lines[1:]])


def sweep(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows of the sweeps: columns method, seed, rate, metric, value."""
    found = frame.loc[frame["metric"].isin(["sweep_area", "sweep_left", "sweep_reached"])]
    return found.assign(rate=found["task"].str.removeprefix("rate ").astype(float))


def warped(frame: pd.DataFrame, experiment: str) -> list[str]:
    return [method for method in looks.ordered(frame["method"], experiment) if method.startswith("warpgrad")]


def sweep_text(frame: pd.DataFrame, experiment: str) -> str:
    """Warps by initialisation and meta learning rate: area below that of gradient descent on validation surfaces."""
    found = sweep(frame).set_index(["metric", "method", "rate", "seed"])["value"].sort_index()
    methods, lines = warped(frame, experiment), []
    rates = sorted({rate for key in methods for rate in found.loc["sweep_area", key].index.get_level_values("rate")})
    for rate in rates:
        cells = []
        for method in methods:
            plain = found.loc["sweep_area", baseline(method)].droplevel("rate")
            gain = plain - found.loc["sweep_area", method, rate]
            left, reached = (100 * found.loc[metric, method, rate].mean() for metric in ("sweep_left", "sweep_reached"))
            spread = f" ± {gain.std():.4f}" if len(gain) > 1 else ""
            cells.append(f"{gain.mean():+.4f}{spread} ({left:.0f}, {reached:.0f})")
        lines.append([f"{rate:g}", *cells])
    return markdown(["Meta learning rate", *(looks.look(method, experiment).name for method in methods)], lines)


def table(frame: pd.DataFrame, paper: pd.DataFrame, note: str) -> tuple[pd.DataFrame, str]:
    """One line a learner and quantity, and the text; raises ValueError where rows are of several sizes."""
    experiment = looks.experiment(frame)
    rows.provenance(frame, experiment)
    methods = looks.ordered(frame["method"], experiment)
    missing = sorted({baseline(method) for method in methods} - set(methods))
    if missing:
        raise ValueError(f"found no rows of {', '.join(missing)}, needed gradient descent to compare the others with.")
    lines = summaries(frame, list(QUANTITIES))
    lines = lines.sort_values("method", key=lambda column: column.map(methods.index), kind="stable", ignore_index=True)
    below = {
        (method, name): interval(paired(frame, name, method))
        for method in methods
        if method != baseline(method)
        for name in COMPARED
    }
    unknown = (float("nan"),) * 3
    keys = list(zip(lines["method"], lines["metric"], strict=True))
    lines[["below_gd", "low", "high"]] = [below.get(key, unknown) for key in keys]

    found, level, differences = dict(zip(keys, lines.to_dict("records"), strict=True)), [], []
    for method in methods:
        name, mine = looks.look(method, experiment).name, frame.loc[frame["method"] == method]
        rates = sorted(set(mine.loc[mine["metric"] == "rate", "value"]))
        summary = {key: found[method, key] for key in QUANTITIES}
        cells = [number(line["mean"], line["std"], QUANTITIES[key].decimals) for key, line in summary.items()]
        shares = unknown[:2] if method == baseline(method) else wins(frame, method)
        cells += [number(share, float("nan"), 0) for share in shares]
        level.append([name, ", ".join(f"{rate:g}" for rate in rates), *cells])
        if method != baseline(method):
            differences.append([name, *(cell(*below[method, key], COMPARED[key].decimals + 1) for key in COMPARED)])
    heads = [f"{about.title} [{about.unit}]" for about in QUANTITIES.values()]
    n = quantity(frame, "left").groupby("seed")["task"].nunique().max()
    text = f"""# WarpGrad, appendix E and Figure 4 in numbers: learners on {n} random surfaces a seed

{origin(frame, note)}
- The paper shows three surfaces and prints no numbers.
- ± is the sample standard deviation over seeds. *Height* is the loss as the formula has it; a *gap* is a height
  between 0, the surface's lowest point in the domain [-3, 3]², and 1, its highest. *Area* is the mean along the path.
- *Struggling*: on the third of the surfaces where gradient descent has the largest area, whatever the others do there.
- *Rate*: what each seed chose on validation surfaces: a task learning rate, for WarpGrad the meta learning rate.
  The task learning rate of WarpGrad is that of gradient descent.
- *Wins*: surfaces on which a learner ends lower than gradient descent by a gap of more than {MARGIN:g}; *outside*: the
  share of those on which it ends beyond the domain.
- *peaks*: the other reading of the misprinted formula, compared with gradient descent on the same.

{markdown(["Learner", "Rate", *heads, "Wins [%]", "of them outside [%]"], level)}

## Below gradient descent, surface by surface

Gradient descent's value less the learner's (positive: the learner is lower), with its 95 % interval.

{markdown(["Learner", *(about.title for about in COMPARED.values())], differences)}

## What initial warp and meta learning rate decide

Area of gaps below that of gradient descent on validation surfaces (positive: the warp helps); in brackets
the percentage of runs that end outside the domain and that of starts which the warp can reach. Mean ±
standard deviation over seeds.

{sweep_text(frame, experiment)}
"""
    return lines, text


# ---------------------------------------------------------------- figures


def along(mine: pd.DataFrame, metric: str) -> np.ndarray:
    return mine.loc[mine["metric"] == metric].sort_values("step")["value"].to_numpy()


def panel(axes: Axes, mine: pd.DataFrame, space: str, levels: np.ndarray) -> None:
    """One surface as contours, with the paths of both learners from a common start."""
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
        colour = looks.look(method, looks.experiment(mine)).colour
        axes.plot(x, y, color="white", linewidth=2.6, alpha=0.7)
        axes.plot(x, y, color=colour, linewidth=1.4, marker=".", markersize=3)
        axes.plot(x[-1:], y[-1:], color=colour, marker="o", markersize=7, markeredgecolor="white")
        axes.plot(x[:1], y[:1], color="white", marker="*", markersize=11, markeredgecolor="black", linestyle="")
    axes.set_aspect("equal")


def caption(frame: pd.DataFrame, extra: str) -> str:
    """As everywhere, but that the smaller size has fewer seeds only."""
    text = draw.caption(frame, looks.experiment(frame), extra)
    return text.replace("sizes smaller than published", "fewer seeds than at paper")


def paths(frame: pd.DataFrame) -> Figure:
    found = frame.loc[(frame["method"] == "warpgrad") & (frame["seed"] == 0)]
    shown = list(found.loc[found["metric"] == "example"].sort_values("value")["task"])
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
    panels, ends = figure.subplots(2, len(shown), squeeze=False), values_of(frame, "final_gap")
    for column, task in enumerate(shown):
        mine = found.loc[found["task"] == task]
        native = along(mine, "native_height")
        low, high = native.min(), native.max()
        levels = np.linspace(low, high if high > low else low + 1, 25)
        for row, space in enumerate(("warped", "native")):
            panel(panels[row, column], mine, space, levels)
        panels[0, column].set_title(f"surface {int(task.removeprefix('surface'))}", fontsize=9)
        gd, warp = (ends.loc[method, 0, task] for method in PATHS.values())
        panels[1, column].set_xlabel(f"$x_1$\nfinal gap: GD {gd:.2f}, WarpGrad {warp:.2f}")
        panels[0, column].set_xlabel(r"$\theta_1$")
    panels[0, 0].set_ylabel("under the warp\n" + r"$\theta_2$")
    panels[1, 0].set_ylabel("as it is\n$x_2$")
    handles = [
        Line2D([], [], color=look.colour, marker="o", label=look.name)
        for look in (looks.look(method, looks.experiment(frame)) for method in PATHS.values())
    ]
    handles.append(Line2D([], [], color="white", marker="*", markersize=11, markeredgecolor="black", label="start"))
    draw.legend(figure, handles)
    return figure


def gap_curves(frame: pd.DataFrame) -> Figure:
    """Mean gap over the steps; one panel for each reading."""
    experiment, figure = looks.experiment(frame), Figure(figsize=(11.5, 4.4), layout="constrained")
    lines, _ = draw.curve(frame, "gap")
    panels, handles = figure.subplots(1, 2, sharey=True), []
    for axes, other in zip(panels, (False, True), strict=True):
        for method in looks.ordered(lines["method"], experiment):
            if method.endswith("_peaks") != other:
                continue
            look, dashes = looks.look(method, experiment), ":" if method.startswith("gd_tuned") else "-"
            mine = lines.loc[lines["method"] == method]
            draw.shaded(axes, mine, "step", look, linestyle=dashes, linewidth=1.5)
            handles.append(Line2D([], [], color=look.colour, label=look.name, linestyle=dashes))
        axes.set_title("the formula as " + ("peaks" if other else "printed"), fontsize=9)
        axes.set_xlabel("gradient steps")
    panels[0].set_ylabel("mean gap to the lowest point of the domain [0 to 1]")
    panels[0].set_ylim(bottom=0)
    n = frame.loc[frame["metric"] == "final_gap"].groupby(["method", "seed"]).size().max()
    note = f"means over {n:,} held-out surfaces a seed; learners that run off the domain count like all"
    draw.title(figure, "Random surfaces: learning from random starts", caption(frame, note))
    draw.legend(figure, handles)
    return figure


def sweep_figure(frame: pd.DataFrame) -> Figure:
    """Area below that of gradient descent, and what share of runs leaves the domain, against the meta learning rate."""
    experiment, figure = looks.experiment(frame), Figure(figsize=(11.0, 4.2), layout="constrained")
    found, methods = sweep(frame), warped(frame, experiment)
    areas = found.loc[found["metric"] == "sweep_area"].set_index(["method", "rate", "seed"])["value"]
    left, middle, right = figure.subplots(1, 3)
    for method in methods:
        look = looks.look(method, experiment)
        options = {"marker": look.marker, "markersize": 5}
        mine, plain = areas.loc[method].reset_index(), areas.loc[baseline(method)].droplevel("rate")
        gain = mine.assign(value=plain.reindex(mine["seed"]).to_numpy() - mine["value"])
        draw.shaded(left, over_seeds(gain), "rate", look, **options)
        for axes, metric in ((middle, "sweep_left"), (right, "sweep_reached")):
            shares = found.loc[(found["metric"] == metric) & (found["method"] == method)]
            draw.shaded(axes, over_seeds(shares.assign(value=100 * shares["value"])), "rate", look, **options)
    left.axhline(0, color="0.5", linewidth=0.9, linestyle=":")
    left.set_yscale("symlog", linthresh=0.002)
    left.set_ylabel("area of gaps below gradient descent's\n(above 0: the warp helps)")
    middle.set_ylabel("runs that end outside the domain [%]")
    right.set_ylabel("starts that the warp can reach [%]")
    plain_left = 100 * found.loc[(found["metric"] == "sweep_left") & (found["method"] == "gd"), "value"].mean()
    middle.axhline(plain_left, color="black", linewidth=0.9, linestyle=":")
    for axes in (left, middle, right):
        axes.set_xscale("log")
        axes.set_xlabel("meta learning rate of Adam")
    for axes in (middle, right):
        axes.set_ylim(-3, 103)
    note = "on validation surfaces; dotted: gradient descent. Ordinate of the left panel: linear within ±0.002"
    draw.title(figure, "Random surfaces: the sign of the result", caption(frame, note))
    draw.legend(figure, [draw.handle(looks.look(method, experiment)) for method in methods])
    return figure


def over_seeds(found: pd.DataFrame) -> pd.DataFrame:
    return found.groupby("rate")["value"].agg(mean="mean", std="std").reset_index()


def figures(frame: pd.DataFrame, paper: pd.DataFrame, files: Sequence[Path]) -> dict[str, Figure]:
    return {"surfaces_paths": paths(frame), "surfaces_curves": gap_curves(frame), "surfaces_sweep": sweep_figure(frame)}
