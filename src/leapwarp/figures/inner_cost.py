"""Memory and time of a meta-update against the number of inner steps.

python -m leapwarp.figures.inner_cost --experiment inner_cost --rows results/quick/inner_cost/rows.csv \
    --out-dir results/quick/inner_cost/figures
"""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from leapwarp.figures import draw, style

PANELS = {  # metric: label, factor
    "memory": ("most memory in tensors at a time [MB]", 1e-6),
    "update_seconds": ("time of a meta-update [s]", 1.0),
}


def build(frame: pd.DataFrame, paper: pd.DataFrame, experiment: str) -> dict[str, Figure]:
    figure = Figure(figsize=(11.0, 4.0), layout="constrained")
    keys = style.ordered(frame["method"])
    for axes, (metric, (label, factor)) in zip(figure.subplots(1, 2), PANELS.items(), strict=True):
        lines, _ = draw.curve(frame, metric)
        for key in keys:
            mine = lines.loc[lines["method"] == key]
            mine = mine.assign(mean=factor * mine["mean"], std=factor * mine["std"])
            draw.shaded(axes, mine, "step", key, marker=style.method(key).marker, markersize=4.5)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("gradient steps on a task, K")
        axes.set_ylabel(label)
        ticks = sorted(set(frame.loc[frame["metric"] == metric, "step"].astype(int)))
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
    draw.legend(figure, [draw.handle(key) for key in keys])
    text = draw.caption(frame, experiment, "both axes logarithmic; the paper prints no numbers")
    draw.title(figure, "What a meta-update costs: memory and time against the inner steps", text)
    return {"inner_cost": figure}


def main(arguments: Sequence[str] | None = None) -> None:
    numbers = {"inner_cost": draw.Numbers("warpgrad")}
    draw.main(build, numbers, "inner_cost", "Draw memory and time against the number of inner steps.", arguments)


if __name__ == "__main__":
    main()
