"""Gradient paths under pulling forward: Theorem 1 of the Leap paper.

    python -m leapwarp.figures.theorem1 --experiment theorem1 \
        --rows results/quick/theorem1/rows.csv --out-dir results/quick/theorem1/figures

theorem1.png            path length over meta-steps by meta learning rate, and how often it rises and limit points move
theorem1_variants.png   path length over meta-steps of the variants: energy, identity, task rate, basins, batches
"""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from leapwarp import tables
from leapwarp.figures import draw, style

TITLE = "Pulling forward on tasks in the plane"
BASE = "beta_0.01"


def relative(frame: pd.DataFrame) -> pd.DataFrame:
    """Path lengths, each as a share of the first of its run."""
    rows = frame.loc[frame["metric"] == "path_length"].sort_values("step")
    first = rows.groupby(["method", "seed"])["value"].transform("first")
    return rows.assign(value=rows["value"] / first)


def paths(axes: Axes, frame: pd.DataFrame, keys: Sequence[str]) -> None:
    lines, _ = draw.curve(frame.loc[frame["method"].isin(keys)], "path_length")
    for key in keys:
        dashes = "--" if key == BASE and len(keys) > 5 else "-"
        draw.shaded(axes, lines.loc[lines["method"] == key], "step", key, linestyle=dashes, linewidth=1.4)
    axes.set(xlabel="meta-steps", ylabel="expected path length / the first", yscale="log")
    ticks = (0.1, 0.2, 0.5, 1)
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()


def dots(axes: Axes, frame: pd.DataFrame, name: str, keys: Sequence[str], label: str) -> None:
    """A quantity for each method, with every seed as a dot."""
    found = tables.quantity(frame, name)
    for place, key in enumerate(keys):
        look = style.method(key)
        seeds = found.loc[found["method"] == key].groupby("seed")["value"].mean().to_numpy()
        axes.plot(place, seeds.mean(), "_", color=look.colour, markersize=18, markeredgewidth=2)
        axes.plot([place] * len(seeds), seeds, marker="o", linestyle="", color=look.colour, alpha=0.6)
    axes.set_xticks(range(len(keys)), [style.method(key).name for key in keys], rotation=40, ha="right")
    axes.set_xlim(-0.6, len(keys) - 0.4)
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0, top=None if found["value"].to_numpy().max() > 1e-6 else 1)  # rounding is nought


def sweep(frame: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(13.2, 4.4), layout="constrained")
    here = set(frame["method"])
    rates = [key for key in style.ordered(here) if key.startswith("beta_")]
    if not rates:
        draw.empty(figure.add_subplot(), "the rows hold no meta learning rate")
        return figure
    panels = figure.subplots(1, 4, width_ratios=[1.6, 1, 1, 1])
    paths(panels[0], relative(frame), rates)
    dots(panels[1], frame, "rises", rates, "meta-steps with a longer path than before")
    dots(panels[2], frame, "criterion_broken", rates, "meta-steps whose frozen objective rose")
    dots(panels[3], frame, "limit_distance", [*rates, *({"many_basins"} & here)], "limit points moved, at most")
    heading = f"{TITLE}: size of the meta-step (α = 0.1)"
    extra = (
        "dots: seeds, bars: their means; of limit points the mean over tasks; the paper has the proof and no experiment"
    )
    draw.title(figure, heading, draw.caption(frame, "theorem1", extra))
    draw.legend(figure, [draw.handle(key, marker=False) for key in rates])
    return figure


def variants(frame: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(9.8, 4.4), layout="constrained")
    keys = [key for key in style.ordered(frame["method"]) if key == BASE or not key.startswith("beta_")]
    noise = [key for key in keys if key == BASE or key.startswith("batch_")]
    panels = figure.subplots(1, 2, sharey=True)
    paths(panels[0], relative(frame), [key for key in keys if key == BASE or key not in noise])
    paths(panels[1], relative(frame), noise)
    panels[0].set_title("other updates and tasks", fontsize=9, loc="left")
    panels[1].set_title("mini-batches in meta-training", fontsize=9, loc="left")
    panels[1].set_ylabel("")
    extra = "β = 0.01 and, where no other is named, α = 0.1; the path is always measured on all points"
    draw.title(figure, f"{TITLE}: variants", draw.caption(frame, "theorem1", extra))
    draw.legend(figure, [draw.handle(key, marker=False) for key in keys])
    return figure


def build(frame: pd.DataFrame, paper: pd.DataFrame, experiment: str) -> dict[str, Figure]:
    return {"theorem1": sweep(frame), "theorem1_variants": variants(frame)}


def main(arguments: Sequence[str] | None = None) -> None:
    description = "Draw gradient paths under pulling forward, by meta learning rate and variant."
    draw.main(build, {"theorem1": draw.Numbers("leap")}, "theorem1", description, arguments)


if __name__ == "__main__":
    main()
