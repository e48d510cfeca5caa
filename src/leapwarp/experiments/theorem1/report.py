"""Theorem 1 of the Leap paper: table and figures of the lengths and limit points of gradient paths in meta-training."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leapwarp.report import draw, looks
from leapwarp.report.document import Document, Text
from leapwarp.report.quantities import Quantity, percent, quantity
from leapwarp.report.select import steps
from leapwarp.report.table import summaries, summary_table

TITLE = "Pulling forward on tasks in the plane"
BASE = "beta_0.01"
QUANTITIES = {
    "shortening": Quantity("shortening", "Last path", "of the first", 3, True),
    "overshoot": Quantity("overshoot", "Last path above the shortest", "percent", 3, True, percent),
    "rises": Quantity("rises", "Longer than before", "meta-steps", 1, True),
    "criterion_broken": Quantity("criterion_broken", "Frozen objective rose", "meta-steps", 1, True),
    "uphill": Quantity("uphill", "Frozen objective's descent lengthens the path", "percent of steps", 1, True, percent),
    "half_steps": Quantity("half_steps", "Above half of the first path", "meta-steps", 1, True),
    "limit_distance": Quantity("limit_distance", "Limit points moved, at most", "units of the plane", 4, True),
}


def document(frame: pd.DataFrame, paper: pd.DataFrame) -> Document:
    """The document: one line for each method and quantity."""
    lines = summaries(frame, list(QUANTITIES))
    text = f"""
- The expected length of the gradient paths of a few tasks in the plane (for *energy*, their energy), over
  {steps(frame, "path_length")["step"].max()} meta-steps. Expectations and gradients are exact, and so are Jacobians
  except for *identity Jacobians*. Unless a row says otherwise α = 0.1, β = 0.01, p = 1, each task has one basin, and
  batches have all points. ± is the standard deviation over seeds. Each seed draws its own tasks.
- Claim L13, a reading of the theorem: with small enough steps no path is *longer than before* and no *limit point
  moves*. The *frozen objective* is Leap's pull-forward objective, in which the end of each segment is held fixed. The
  theorem requires β to be so small that this objective falls. *Frozen objective rose* counts the meta-steps where it
  did not fall. After a divergence every meta-step counts as a rise.
- *Frozen objective's descent lengthens the path*: the share of the checked meta-steps where the gradient of the frozen
  objective and that of the path length have a negative inner product. There a step along the first makes the path
  longer, however small it is. Meta-steps are checked until the first of these gradients has fallen to a millionth. The
  proof bounds α for a given β, while here β goes to zero at a given α.
- Of the values of β that were run at α = 0.1: {breaking(frame)}.
- *Last path above the shortest*: by how much the last path is longer than the shortest one of its run. *Limit points
  moved*: the largest distance between the limit point of a task's path and its first one, as a mean over tasks.
"""
    shown = summary_table(lines, "Variant", looks.experiment(frame), list(QUANTITIES))
    return Document("Leap, Theorem 1 in numbers: gradient paths under pulling forward", [Text(text), shown], lines)


def breaking(frame: pd.DataFrame) -> str:
    """For the objective and the path, the meta step sizes at which they rise in some seed and in none."""
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


def theorem1(frame: pd.DataFrame, *_) -> Figure:
    """Path length over meta-steps by meta learning rate, how often it rises, and how far limit points move."""
    heading, spread = f"{TITLE}: size of the meta-step (α = 0.1)", f"{draw.SPREAD}; dots: seeds"
    rates = [key for key in looks.of(frame) if key.startswith("beta_")]
    if not rates:
        figure, [axes] = draw.panels(frame, heading, (13.2, 4.4), spread="")
        draw.empty(axes, "the rows hold no meta learning rate")
        return figure
    options = {"n_columns": 4, "width_ratios": [1.6, 1, 1, 1], "spread": spread}
    figure, panels = draw.panels(frame, heading, (13.2, 4.4), **options)
    draw.legend(figure, _paths(panels[0], frame, rates))
    _dots(panels[1], frame, "rises", rates, "meta-steps with\na longer path than before")
    _dots(panels[2], frame, "criterion_broken", rates, "meta-steps whose\nfrozen objective rose")
    basins = [*rates, *({"many_basins"} & set(frame["method"]))]
    _dots(panels[3], frame, "limit_distance", basins, "limit points moved, at most")
    return figure


def theorem1_variants(frame: pd.DataFrame, *_) -> Figure:
    """Path length over meta-steps of the variants: energy, identity, task learning rate, basins; and mini-batches."""
    figure, panels = draw.panels(frame, f"{TITLE}: variants", (9.8, 4.4), n_columns=2, sharey=True)
    keys = {key: look for key, look in looks.of(frame).items() if key == BASE or not key.startswith("beta_")}
    noise = [key for key in keys if key == BASE or key.startswith("batch_")]
    _paths(panels[0], frame, [key for key in keys if key == BASE or key not in noise])
    _paths(panels[1], frame, noise)
    for axes, title in zip(panels, ("other updates and tasks", "mini-batches in meta-training"), strict=True):
        axes.set_title(title, fontsize=9, loc="left")
    panels[1].set_ylabel("")
    draw.legend(figure, keys)
    return figure


def _paths(axes: Axes, frame: pd.DataFrame, keys: Sequence[str]) -> dict[str, looks.Look]:
    """Path lengths, each as a share of the first of its run."""
    rows = steps(frame.loc[frame["method"].isin(keys)], "path_length")
    first = rows.groupby(["method", "seed"])["value"].transform("first")

    def style(method: str, look: looks.Look) -> dict[str, object]:
        return {"linestyle": "--" if method == BASE and len(keys) > 5 else "-", "linewidth": 1.4}

    axes.set(xlabel="meta-steps", ylabel="expected path length / the first", yscale="log")
    shown = draw.curves(axes, rows.assign(value=rows["value"] / first), "path_length", style=style)
    ticks = (0.1, 0.2, 0.5, 1)
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    return shown


def _dots(axes: Axes, frame: pd.DataFrame, name: str, keys: Sequence[str], label: str) -> None:
    """A quantity for each method, with every seed as a dot."""
    found = quantity(frame, name)
    shown = [looks.of(frame)[key] for key in keys]
    for place, (key, look) in enumerate(zip(keys, shown, strict=True)):
        seeds = found.loc[found["method"] == key].groupby("seed")["value"].mean().to_numpy()
        axes.plot(place, seeds.mean(), "_", color=look.colour, markersize=18, markeredgewidth=2)
        axes.plot([place] * len(seeds), seeds, marker="o", linestyle="", color=look.colour, alpha=0.6)
    axes.set_xticks(range(len(keys)), [look.name for look in shown], rotation=40, ha="right")
    axes.set_xlim(-0.6, len(keys) - 0.4)
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0, top=None if found["value"].to_numpy().max() > 1e-6 else 1)  # rounding is shown as zero
