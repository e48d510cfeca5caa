"""What pulling forward does to gradient paths and their ends, in numbers and drawn: Theorem 1 of the Leap paper."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leapwarp.report import draw, looks
from leapwarp.report.quantities import Quantity, percent, quantity
from leapwarp.report.table import origin, summaries, summary_block

TITLE = "Pulling forward on tasks in the plane"
BASE = "beta_0.01"
QUANTITIES = {
    "shortening": Quantity("shortening", "Last path", "of the first", 3, True),
    "overshoot": Quantity("overshoot", "Last path above the shortest", "percent", 3, True, percent),
    "rises": Quantity("rises", "Longer than before", "meta-steps", 1, True),
    "criterion_broken": Quantity("criterion_broken", "Frozen objective rose", "meta-steps", 1, True),
    "half_steps": Quantity("half_steps", "Above half of the first path", "meta-steps", 1, True),
    "limit_distance": Quantity("limit_distance", "Limit points moved, at most", "units of the plane", 4, True),
}
SHOWN = list(QUANTITIES)


def table(frame: pd.DataFrame, paper: pd.DataFrame, note: str) -> tuple[pd.DataFrame, str]:
    """One line a method and quantity, and the text."""
    experiment = looks.experiment(frame)
    lines = summaries(frame, SHOWN)
    n_steps = int(frame.loc[frame["metric"] == "path_length", "step"].max())
    text = f"""# Leap, Theorem 1 in numbers: gradient paths under pulling forward

{origin(frame, note)}
- Expected length of the gradient paths of a few tasks in the plane (for *energy*, their energy), over {n_steps}
  meta-steps with exact expectations, gradients and, but for *identity Jacobians*, Jacobians. Unless a row says
  otherwise α = 0.1, β = 0.01, p = 1, one basin a task, all points in every batch. ± is the standard deviation over
  seeds, which draw tasks.
- The theorem (claim L13): with small enough steps no path is *longer than before* and no *limit point moves*. What it
  asks of β is that the objective with frozen far ends falls: *frozen objective rose* counts where it did not. After a
  divergence every meta-step counts as a rise.
- Where the guarantee breaks, of the swept β at α = 0.1: {breaking(frame)}.
- *Last path above the shortest*: how far it has crept back up. Limit points: the furthest that a task's path ever ended
  from where it first did, as a mean over tasks.

{summary_block(lines, SHOWN, "Variant", experiment)}
"""
    return lines, text


def breaking(frame: pd.DataFrame) -> str:
    """The swept meta step sizes up to which nothing rises and from which on something does, a sentence each."""
    sweep = frame.loc[frame["method"].str.startswith("beta_") & frame["step"].isna()]
    sentences = []
    for metric, what in (("criterion_broken", "the frozen objective"), ("rises", "the path")):
        worst = sweep.loc[sweep["metric"] == metric].groupby("method")["value"].max()
        rates = {float(name.removeprefix("beta_")): value for name, value in worst.items()}
        first = min((rate for rate, value in rates.items() if value > 0), default=None)
        if first is None:
            sentences.append(f"in no seed does {what} ever rise")
        else:
            below = max((rate for rate in rates if rate < first), default=None)
            quiet = f", at {below:g} in none" if below is not None else ""
            sentences.append(f"{what} rises in some seed from β = {first:g} on{quiet}")
    return "; ".join(sentences)


# ---------------------------------------------------------------- figures


def figures(frame: pd.DataFrame, paper: pd.DataFrame, files: Sequence[Path]) -> dict[str, Figure]:
    return {"theorem1": sweep(frame), "theorem1_variants": variants(frame)}


def sweep(frame: pd.DataFrame) -> Figure:
    """Path length over meta-steps by meta learning rate, and how often it rises and limit points move."""
    experiment, here = looks.experiment(frame), set(frame["method"])
    figure = Figure(figsize=(13.2, 4.4), layout="constrained")
    rates = [key for key in looks.ordered(here, experiment) if key.startswith("beta_")]
    if not rates:
        draw.empty(figure.add_subplot(), "the rows hold no meta learning rate")
        return figure
    panels = figure.subplots(1, 4, width_ratios=[1.6, 1, 1, 1])
    _paths(panels[0], frame, rates)
    _dots(panels[1], frame, "rises", rates, "meta-steps with a longer path than before")
    _dots(panels[2], frame, "criterion_broken", rates, "meta-steps whose frozen objective rose")
    _dots(panels[3], frame, "limit_distance", [*rates, *({"many_basins"} & here)], "limit points moved, at most")
    extra = (
        "dots: seeds, bars: their means; of limit points the mean over tasks; the paper has the proof and no experiment"
    )
    draw.title(figure, f"{TITLE}: size of the meta-step (α = 0.1)", draw.caption(frame, experiment, extra))
    draw.legend(figure, [draw.handle(looks.look(key, experiment), marker=False) for key in rates])
    return figure


def variants(frame: pd.DataFrame) -> Figure:
    """Path length over meta-steps of the variants: energy, identity, task rate, basins; and batches."""
    experiment = looks.experiment(frame)
    figure = Figure(figsize=(9.8, 4.4), layout="constrained")
    ordered = looks.ordered(frame["method"], experiment)
    keys = [key for key in ordered if key == BASE or not key.startswith("beta_")]
    noise = [key for key in keys if key == BASE or key.startswith("batch_")]
    panels = figure.subplots(1, 2, sharey=True)
    _paths(panels[0], frame, [key for key in keys if key == BASE or key not in noise])
    _paths(panels[1], frame, noise)
    panels[0].set_title("other updates and tasks", fontsize=9, loc="left")
    panels[1].set_title("mini-batches in meta-training", fontsize=9, loc="left")
    panels[1].set_ylabel("")
    extra = "β = 0.01 and, where no other is named, α = 0.1; the path is always measured on all points"
    draw.title(figure, f"{TITLE}: variants", draw.caption(frame, experiment, extra))
    draw.legend(figure, [draw.handle(looks.look(key, experiment), marker=False) for key in keys])
    return figure


def _relative(frame: pd.DataFrame) -> pd.DataFrame:
    """Path lengths, each as a share of the first of its run."""
    rows = frame.loc[frame["metric"] == "path_length"].sort_values("step")
    first = rows.groupby(["method", "seed"])["value"].transform("first")
    return rows.assign(value=rows["value"] / first)


def _paths(axes: Axes, frame: pd.DataFrame, keys: Sequence[str]) -> None:
    experiment = looks.experiment(frame)
    lines, _ = draw.curve(_relative(frame.loc[frame["method"].isin(keys)]), "path_length")
    for key in keys:
        look, dashes = looks.look(key, experiment), "--" if key == BASE and len(keys) > 5 else "-"
        draw.shaded(axes, lines.loc[lines["method"] == key], "step", look, linestyle=dashes, linewidth=1.4)
    axes.set(xlabel="meta-steps", ylabel="expected path length / the first", yscale="log")
    ticks = (0.1, 0.2, 0.5, 1)
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def _dots(axes: Axes, frame: pd.DataFrame, name: str, keys: Sequence[str], label: str) -> None:
    """A quantity for each method, with every seed as a dot."""
    experiment, found = looks.experiment(frame), quantity(frame, name)
    shown = [looks.look(key, experiment) for key in keys]
    for place, (key, look) in enumerate(zip(keys, shown, strict=True)):
        seeds = found.loc[found["method"] == key].groupby("seed")["value"].mean().to_numpy()
        axes.plot(place, seeds.mean(), "_", color=look.colour, markersize=18, markeredgewidth=2)
        axes.plot([place] * len(seeds), seeds, marker="o", linestyle="", color=look.colour, alpha=0.6)
    axes.set_xticks(range(len(keys)), [look.name for look in shown], rotation=40, ha="right")
    axes.set_xlim(-0.6, len(keys) - 0.4)
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0, top=None if found["value"].to_numpy().max() > 1e-6 else 1)  # rounding is nought
