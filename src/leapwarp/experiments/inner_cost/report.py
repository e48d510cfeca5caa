"""Memory and time of a meta-update against the number of inner steps (WarpGrad, section 2)."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from leapwarp.report import draw, looks
from leapwarp.report.quantities import Quantity
from leapwarp.report.table import origin, summaries, summary_block

QUANTITIES = {
    "memory_growth": Quantity("memory_growth", "Memory at the most steps over that at the fewest", "ratio", 2, True),
    "time_growth": Quantity(
        "time_growth", "Time a step at the most steps over that at the middle one", "ratio", 2, True
    ),
}
SHOWN = list(QUANTITIES)
PANELS = {  # metric: label, factor
    "memory": ("most memory in tensors at a time [MB]", 1e-6),
    "update_seconds": ("time of a meta-update [s]", 1.0),
}


def by_steps(frame: pd.DataFrame, metric: str, heading: str, factor: float, decimals: int) -> str:
    """A markdown table of one measurement: methods as rows, numbers of steps as columns."""
    experiment = looks.experiment(frame)
    means = frame.loc[frame["metric"] == metric].groupby(["method", "step"])["value"].mean().unstack() * factor
    text = [f"| {heading} | " + " | ".join(f"{step}" for step in means.columns) + " |"]
    text.append("|---" * (len(means.columns) + 1) + "|")
    for method in looks.ordered(means.index, experiment):
        cells = " | ".join(f"{value:.{decimals}f}" for value in means.loc[method])
        text.append(f"| {looks.look(method, experiment).name} | {cells} |")
    return "\n".join(text)


def table(frame: pd.DataFrame, paper: pd.DataFrame, note: str) -> tuple[pd.DataFrame, str]:
    """One line a learner and quantity, and the text."""
    experiment = looks.experiment(frame)
    lines = summaries(frame, SHOWN)
    text = f"""# What a meta-update costs against the number of inner steps (WarpGrad, section 2)

{origin(frame, note)}
- One task of random images a meta-update. Memory: the most bytes in tensors alive at a time, counted as operations make
  and drop them (not what kernels borrow), the same on every machine. Time: the fastest of a few, that of
  the process on a CPU.
- MAML keeps the graph of every step. Warp-MAML's warp objective does not; its C is MAML's, and grows by less for each
  step because the first block, with the largest activations, is among the warps that no task adapts.
- The paper prints no numbers: it says that memory is constant and time linear in the number of steps.

{summary_block(lines, SHOWN, "Learner", experiment)}

## Memory by number of inner steps

{by_steps(frame, "memory", "Memory [MB]", 1e-6, 1)}

## Time by number of inner steps

{by_steps(frame, "update_seconds", "Time [ms]", 1e3, 0)}
"""
    return lines, text


def figures(frame: pd.DataFrame, paper: pd.DataFrame, files: Sequence[Path]) -> dict[str, Figure]:
    experiment = looks.experiment(frame)
    shown = {method: looks.look(method, experiment) for method in looks.ordered(frame["method"], experiment)}
    figure = Figure(figsize=(11.0, 4.0), layout="constrained")
    for axes, (metric, (label, factor)) in zip(figure.subplots(1, 2), PANELS.items(), strict=True):
        lines, _ = draw.curve(frame, metric)
        lines[["mean", "std"]] *= factor
        for method, look in shown.items():
            draw.shaded(axes, lines.loc[lines["method"] == method], "step", look, marker=look.marker, markersize=4.5)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("gradient steps on a task, K")
        axes.set_ylabel(label)
        ticks = sorted(set(lines["step"].astype(int)))
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
    draw.legend(figure, [draw.handle(look) for look in shown.values()])
    text = draw.caption(frame, experiment, "both axes logarithmic; the paper prints no numbers")
    draw.title(figure, "What a meta-update costs: memory and time against the inner steps", text)
    return {"inner_cost": figure}
