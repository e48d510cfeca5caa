"""Transfer between image data sets as figures: Table 3 of the Leap paper.

    python -m leapwarp.figures.multicv --experiment multicv --paper paper/leap.csv \
        --rows results/quick/multicv/rows.csv --out-dir results/quick/multicv/figures

multicv.png         test error of each method on each held-out set, ours and the paper's
multicv_map.png     what pretraining changes, set by set and method by method, ours and the paper's
multicv_curves.png  learning each held-out set
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leapwarp import results, tables
from leapwarp.figures import draw, style
from leapwarp.tables.multicv import sets_of
from leapwarp.tables.transfer import COMPARED, SETS

COLUMNS = 4


def panels(figure: Figure, n: int) -> list[Axes]:
    """At least `n` axes in rows of four; those beyond are empty."""
    rows = -(-max(n, 1) // COLUMNS)
    axes = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for extra in axes[n:]:
        extra.set_axis_off()
    return axes[: max(n, 1)]


def size(n: int, height: float) -> tuple[float, float]:
    return 12.0, height * -(-max(n, 1) // COLUMNS) + 1.0


def errors(frame: pd.DataFrame, paper: pd.DataFrame) -> Figure:
    """A panel for each set, a method a row."""
    sets, methods = sets_of(frame), [name for name in COMPARED if name in set(frame["method"])]
    figure = Figure(figsize=size(len(sets), 2.5), layout="constrained")
    final, handles = tables.quantity(frame, "error"), []
    for number, (axes, name) in enumerate(zip(panels(figure, len(sets)), sets, strict=False)):
        labels = {method: style.method(method).name if number % COLUMNS == 0 else "" for method in methods}
        printed = paper.loc[(paper["row"] == name) & (paper["metric"] == "error")]
        handles = draw.dots(axes, final.loc[final["task"] == name], printed, labels, "Leap paper, Table 3")
        axes.set_title(name if name in SETS else f"{name} (not in the paper)", fontsize=9)
        axes.set_xlabel("test error [%]")
    text = draw.caption(frame, "multicv", "strokes: seeds", spread="bars")
    draw.title(figure, "Transfer to the set held out: test error when training has stopped", text)
    draw.legend(figure, handles)
    return figure


def changes(final: pd.DataFrame, sets: Sequence[str], methods: Sequence[str]) -> np.ndarray:
    """Value less that without pretraining, nan where one is missing. columns task, method, value -> [set, method]"""
    wide = final.pivot_table(index="task", columns="method", values="value")
    wide = wide.reindex(index=list(sets), columns=[*methods, "scratch"])
    return wide[list(methods)].sub(wide["scratch"], axis=0).to_numpy(dtype=float)


def heat_map(frame: pd.DataFrame, paper: pd.DataFrame) -> Figure:
    """Ours on the left, the paper's on the right."""
    ours_sets = sets_of(frame)
    methods = [name for name in COMPARED if name != "scratch"]
    theirs = paper.loc[paper["metric"] == "error"].rename(columns={"row": "task"})
    figure = Figure(figsize=(11.0, 5.0), layout="constrained")
    pair = figure.subplots(1, 2)
    sides = [("ours", ours_sets, tables.quantity(frame, "error")), ("Leap paper, Table 3", SETS, theirs)]
    values = [changes(final, sets, methods) for _, sets, final in sides]
    for axes, (title, sets, _), cells in zip(pair, sides, values, strict=True):
        finite = np.abs(cells[np.isfinite(cells)])
        limit = max(float(np.quantile(finite, 0.9)) if len(finite) else 1.0, 1.0)  # few large ones would hide the rest
        image = axes.imshow(cells, cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
        for i, row in enumerate(cells):
            for j, value in enumerate(row):
                if np.isfinite(value):
                    colour = "white" if abs(value) > 0.55 * limit else "black"
                    axes.text(j, i, f"{value:+.1f}", ha="center", va="center", fontsize=8.5, color=colour)
                else:
                    axes.text(j, i, "not run", ha="center", va="center", fontsize=8, color="0.5")
        names = [
            style.method(method).name.replace(" (", "\n(").replace("sive Nets", "sive\nNets") for method in methods
        ]
        axes.set_xticks(range(len(methods)), names)
        axes.set_yticks(range(len(sets)), list(sets))
        axes.set_title(title, fontsize=9.5)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        figure.colorbar(image, ax=axes, label="change of test error [points]", shrink=0.85, extend="both")
    text = draw.caption(
        frame,
        "multicv",
        "below zero (violet) pretraining helps; colours are to scale on each side, up to nine in ten of its values",
        "range",
    )
    text = text.replace("range: ± 1 standard deviation over seeds", "means over seeds").replace(
        "one seed: no range", "one seed"
    )
    draw.title(figure, "What pretraining on the other sets changes, against no pretraining", text)
    return figure


def curves(frame: pd.DataFrame) -> Figure:
    """Held-out error against steps, a panel for each set."""
    sets, methods = sets_of(frame), [name for name in COMPARED if name in set(frame["method"])]
    figure = Figure(figsize=size(len(sets), 2.6), layout="constrained")
    any_early = False
    for number, (axes, name) in enumerate(zip(panels(figure, len(sets)), sets, strict=False)):
        mine = frame.loc[(frame["task"] == name) & frame["method"].isin(methods)]
        for metric, dashes in (("heldout_accuracy", "-"), ("train_batch_error", ":")):
            lines, early = draw.curve(mine, metric)
            any_early = any_early or early
            if metric == "heldout_accuracy":
                lines["mean"] = 1 - lines["mean"]
            lines[["mean", "std"]] *= 100
            for method in methods:
                part = lines.loc[lines["method"] == method]
                if metric == "train_batch_error":
                    axes.plot(part["step"], part["mean"], color=style.method(method).colour, linestyle=dashes, lw=1.0)
                else:
                    draw.shaded(axes, part, "step", method, linestyle=dashes, linewidth=1.3)
        axes.set_ylim(0, 100)
        axes.set_title(name if name in SETS else f"{name} (not in the paper)", fontsize=9)
        axes.set_xlabel("gradient steps")
        if number % COLUMNS == 0:
            axes.set_ylabel("error [%]")
    note = "bands around the test error only; a task that has stopped stays where it is"
    draw.title(
        figure, "Learning each held-out set after pretraining on the others", draw.caption(frame, "multicv", note)
    )
    handles = [Line2D([], [], color=style.method(m).colour, label=style.method(m).name) for m in methods]
    handles += [Line2D([], [], color="0.3", label="test")]
    handles += [Line2D([], [], color="0.3", linestyle=":", label="training batches")]
    draw.legend(figure, handles)
    return figure


def build(frame: pd.DataFrame, paper: pd.DataFrame, experiment: str) -> dict[str, Figure]:
    results.provenance(frame, experiment)
    return {"multicv": errors(frame, paper), "multicv_map": heat_map(frame, paper), "multicv_curves": curves(frame)}


def main(arguments: Sequence[str] | None = None) -> None:
    numbers = {"multicv": draw.Numbers("leap", "3")}
    draw.main(build, numbers, "multicv", "Draw Table 3 of the Leap paper.", arguments)


if __name__ == "__main__":
    main()
