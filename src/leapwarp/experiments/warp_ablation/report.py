"""Table 3 of the WarpGrad paper: kinds of warps, objectives and meta-training, ours beside theirs."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from leapwarp import catalogue
from leapwarp.report import draw, looks
from leapwarp.report.quantities import Quantity, quantity
from leapwarp.report.table import comparison, number, origin

QUANTITIES: dict[str, Quantity] = {}
# method: architecture, meta-training, objective, as the paper's table has them
ROWS = {
    "leap": ("None (Leap)", "online", "none"),
    "warp_leap": ("3×3 conv (default)", "offline", "full (Eq. 3)"),
    "warp_leap_approx": ("3×3 conv", "offline", "approx, which is the released code's *full*"),
    "warp_leap_no_step": ("3×3 conv", "offline", "without the inner step, which is the released code's *approx*"),
    "warp_leap_online": ("3×3 conv", "online", "full"),
    "warp_leap_rates": ("3×3 conv", "offline", "full, learned rate and momentum"),
    "warp_scaling": ("Scaling", "offline", "full"),
    "warp_1x1": ("1×1 conv", "offline", "full"),
    "warp_relu": ("3×3 conv + ReLU", "offline", "full"),
    "warp_norm": ("3×3 conv + BN", "offline", "full"),
    "warp_norm_relu": ("3×3 conv + BN + ReLU", "offline", "full"),
    "warp_residual": ("3×3 conv + BN + Res + ReLU", "offline", "full"),
    "warp_two_layers": ("2-layer 3×3 conv + BN + Res", "offline", "full"),
    "warp_embedding": ("2-layer 3×3 conv + BN + Res + TA", "offline", "full"),
}


def table(frame: pd.DataFrame, paper: pd.DataFrame, note: str) -> tuple[pd.DataFrame, str]:
    """The lines of the CSV and the text; raises ValueError as `comparison` does."""
    experiment, count = looks.experiment(frame), int(frame["n_tasks"].to_numpy().max())
    frame = frame.loc[frame["n_tasks"].isin([0, count])]
    lines = comparison(frame, "accuracy", paper.assign(n_tasks=count), experiment)
    spread, ours = lines["ours_std"].mean(), np.sort(lines["ours_mean"].dropna())
    gap = float(np.median(np.diff(ours))) if len(ours) > 1 else math.nan
    rows = [
        "| Architecture | Meta-training | Meta-objective | Ours | Paper | Difference |",
        "|---|---|---|---|---|---|",
    ]
    found = {line["method"]: line for line in lines.to_dict("records")}
    for method in looks.ordered(found, experiment):
        line = found[method]
        difference = line["ours_mean"] - line["paper"]
        cells = [
            *ROWS.get(method, (looks.look(method, experiment).name, "", "")),
            number(line["ours_mean"], line["ours_std"], 1),
            number(line["paper"], line["paper_std"], 1),
            "–" if math.isnan(difference) else f"{difference:+.1f}",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    text = f"""# WarpGrad, Table 3: warps, objectives and meta-training; held-out accuracy in percent

{origin(frame, note)}
- {count} pretraining tasks here, 25 in the paper. ± is the sample standard deviation over seeds, the paper's
  its own over 4 runs. The paper's caption says "error" of what are accuracies.
- How far two rows can be told apart: the spread over seeds is {spread:.1f} points on average, the median step
  between neighbouring rows {gap:.1f}. Which orders are decided, with intervals that pair seeds and alphabets:
  claims W6 to W10.
- TA: task embeddings, adapted from 0 on each task. The released code asked for the full objective leaves out
  its second-order part, so that it computes the row *approx* (a test holds the two equal); asked for the
  approximation it leaves out the step.

""" + "\n".join(rows)
    return lines, text + "\n"


def picture(frame: pd.DataFrame, paper: pd.DataFrame) -> Figure:
    """Table 3 as a picture."""
    about = catalogue.find(looks.experiment(frame))
    figure = Figure(figsize=(9.6, 5.2), layout="constrained")
    axes = figure.add_subplot()
    final = quantity(frame, "accuracy")
    names = {name: looks.look(name, about.name).name for name in looks.ordered(frame["method"], about.name)}
    handles = draw.dots(axes, final, paper, names, "WarpGrad paper,\nTable 3 (25 tasks)")
    axes.set_xlabel("held-out accuracy after the last step [%]")
    axes.axvline(5, color="0.6", linewidth=0.9, linestyle=":")
    text = draw.caption(final, about.name, "strokes: seeds; dotted: chance", spread="bars")
    draw.title(figure, f"{about.title}: held-out accuracy", text)
    draw.legend(figure, handles)
    return figure


def curves(frame: pd.DataFrame) -> Figure:
    """Learning held-out tasks: ways of meta-training on the left, kinds of warps on the right."""
    about = catalogue.find(looks.experiment(frame))
    figure = Figure(figsize=(11.5, 4.6), layout="constrained")
    lines, _ = draw.curve(frame, "heldout_accuracy")
    lines[["mean", "std"]] *= 100
    names = looks.ordered(frame["method"], about.name)
    left = [name for name in names if name.startswith(("leap", "warp_leap"))]
    right = [name for name in names if name == "warp_leap" or name not in left]
    panels = figure.subplots(1, 2, sharey=True)
    for axes, names, heading in zip(panels, (left, right), ("meta-training, 3×3 conv", "kinds of warps"), strict=True):
        for name in names:
            draw.shaded(axes, lines.loc[lines["method"] == name], "step", looks.look(name, about.name))
        axes.axhline(5, color="0.6", linewidth=0.9, linestyle=":")
        axes.set_title(heading, fontsize=9)
        axes.set_xlabel("gradient steps on a held-out task")
        handles = [draw.handle(looks.look(name, about.name), marker=False) for name in names]
        axes.legend(handles=handles, fontsize=7.5, frameon=False, loc="upper left")
    panels[0].set_ylabel("held-out accuracy [%]")
    draw.title(figure, f"{about.title}: learning held-out tasks", draw.caption(frame, about.name, "dotted: chance"))
    return figure


def figures(frame: pd.DataFrame, paper: pd.DataFrame, files: Sequence[Path]) -> dict[str, Figure]:
    return {"warp_ablation": picture(frame, paper), "warp_ablation_curves": curves(frame)}
