"""The few-shot parts of Table 1 of the WarpGrad paper as figures.

    python -m leapwarp.figures.few_shot --experiment few_shot --paper paper/warpgrad.csv \
        --rows results/quick/few_shot/rows.csv --out-dir results/quick/few_shot/figures

few_shot.png          accuracy of each learner, ours in both ways of normalising held-out images, and the paper's
few_shot_curves.png   accuracy over the steps on a test task, and over meta-training
"""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leapwarp import results, tables
from leapwarp.figures import draw, style
from leapwarp.tables.few_shot import ONE_SHOT, heading, ordered

CHANCE = 20  # percent, of five classes
SHOTS = {"5-shot": False, "1-shot": True}


def of_shots(frame: pd.DataFrame, is_one: bool) -> pd.DataFrame:
    return frame.loc[frame["method"].str.endswith(ONE_SHOT) == is_one]


def short(key: str) -> str:
    return style.method(key).name.replace(", 1-shot)", ")").replace(" (1-shot)", "")


def panel(axes: Axes, frame: pd.DataFrame, paper: pd.DataFrame, table: str) -> list[Line2D]:
    """Accuracy of each method, and, below it, accuracy with the other way of normalising."""
    labels = {key: short(key) for key in ordered(frame["method"])}
    handles = draw.dots(axes, tables.quantity(frame, "accuracy"), paper, labels, table)
    other = results.summary(tables.quantity(frame, "inductive_accuracy"), ["method"]).set_index("method")["mean"]
    for place, key in enumerate(reversed(labels)):
        axes.plot(
            [other[key]], [place - 0.02], "s", color=style.method(key).colour, markerfacecolor="white", markersize=4.5
        )
    axes.axvline(CHANCE, color="0.6", linewidth=0.9, linestyle=":")
    axes.set_xlim(left=CHANCE - 3)
    square = Line2D([], [], linestyle="none", marker="s", color="0.2", markerfacecolor="white", label="ours, inductive")
    return [handles[0], square, handles[1]]


def accuracies(frame: pd.DataFrame, paper: pd.DataFrame, experiment: str) -> Figure:
    figure = Figure(figsize=(11.0, 4.6), layout="constrained")
    handles: list[Line2D] = []
    for axes, (shots, is_one) in zip(figure.subplots(1, 2), SHOTS.items(), strict=True):
        mine = of_shots(frame, is_one)
        if mine.empty:
            draw.empty(axes, f"no {shots} runs")
            continue
        handles = panel(axes, mine, paper, "WarpGrad paper")
        axes.set_title(shots, fontsize=10)
        axes.set_xlabel("held-out accuracy [%]")
    if handles:
        place = {"loc": "outside upper right", "ncols": 3, "frameon": False, "fontsize": 8}
        figure.legend(handles=handles, **place)
    draw.title(
        figure,
        f"5-way few-shot classification, {heading(frame)}",
        draw.caption(
            frame, experiment, "strokes: seeds; squares: held-out images normalised by those learnt from, and not by "
            "their own statistics; dotted: chance; the paper's bar is its own ±", spread="bars",
        ),
    )  # fmt: skip
    return figure


def curves(frame: pd.DataFrame, experiment: str) -> Figure:
    """Rows of panels: shots. Left: over the steps of a test task. Right: over meta-training."""
    chosen = {shots: of_shots(frame, is_one) for shots, is_one in SHOTS.items()}
    chosen = {shots: mine for shots, mine in chosen.items() if len(mine)}
    figure = Figure(figsize=(11.0, 3.2 * len(chosen) + 0.8), layout="constrained")
    for row, (shots, mine) in zip(figure.subplots(len(chosen), 2, squeeze=False), chosen.items(), strict=True):
        for axes, metric in zip(row, ("heldout_accuracy", "validation_error"), strict=True):
            lines, _ = draw.curve(mine, metric)
            sign = 100 if metric == "heldout_accuracy" else -100
            for key in ordered(lines["method"]):
                one = lines.loc[lines["method"] == key]
                level = 100 * (sign < 0)
                one = one.assign(mean=level + sign * one["mean"], std=100 * one["std"])
                draw.shaded(axes, one, "step", key, marker=style.method(key).marker, markersize=4)
            axes.axhline(CHANCE, color="0.6", linewidth=0.9, linestyle=":")
        row[0].set_ylabel(f"{shots}: accuracy on\nheld-out images [%]")
        row[1].set_ylabel("on validation tasks [%]")
        row[0].set_xlabel("gradient steps on a test task")
        row[1].set_xlabel("meta-updates")
    looks = {short(key): style.method(key) for key in ordered(frame["method"])}  # 5-shot and 1-shot have one look
    draw.legend(
        figure,
        [Line2D([], [], color=look.colour, marker=look.marker, label=name) for name, look in looks.items()],
    )
    text = draw.caption(frame, experiment, "held-out images normalised by their own statistics; dotted: chance")
    draw.title(figure, f"Learning to learn from few images, {heading(frame)}", text)
    return figure


def build(frame: pd.DataFrame, paper: pd.DataFrame, experiment: str) -> dict[str, Figure]:
    return {"few_shot": accuracies(frame, paper, experiment), "few_shot_curves": curves(frame, experiment)}


def main(arguments: Sequence[str] | None = None) -> None:
    numbers = {
        "few_shot": draw.Numbers("warpgrad", "1 mini"),
        "few_shot_tiered": draw.Numbers("warpgrad", "1 tiered"),
    }
    draw.main(build, numbers, "few_shot", "Draw the few-shot parts of Table 1 of the WarpGrad paper.", arguments)


if __name__ == "__main__":
    main()
