"""Table 1 of the WarpGrad paper, the few-shot parts: ours beside theirs, from five images of a class and from one.

Methods whose names end in `_1shot` learn from one image, all others from five, a user's own states included.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leapwarp import catalogue
from leapwarp.catalogue import Look
from leapwarp.report import draw, looks
from leapwarp.report.quantities import Quantity, percent, quantities, quantity
from leapwarp.report.rows import provenance, summary
from leapwarp.report.table import number, origin

ONE_SHOT = "_1shot"
SHOTS = {"5-shot": False, "1-shot": True}
CHANCE = 20  # percent, of five classes
QUANTITIES = {
    "inductive_accuracy": Quantity("inductive_accuracy", "Inductive held-out accuracy", "percent", 1, convert=percent),
    "normalisation_gain": Quantity("normalisation_gain", "Transductive less inductive", "points", 1, convert=percent),
}


def of_shots(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Lines or rows that have a method, by the images of a class that it learns from; those of none are left out."""
    is_one = frame["method"].str.endswith(ONE_SHOT)
    parts = {shots: frame.loc[is_one == one] for shots, one in SHOTS.items()}
    return {shots: part for shots, part in parts.items() if len(part)}


def heading(frame: pd.DataFrame) -> str:
    """The paper's data, which end the experiment's title, and what stands in for them here."""
    theirs = catalogue.find(looks.experiment(frame)).title.rpartition(", ")[2]
    ours = frame["data_source"].iloc[0]
    return theirs if ours == theirs.lower() else f"{theirs} (here: {ours})"


def comparison(frame: pd.DataFrame, name: str, paper: pd.DataFrame) -> pd.DataFrame:
    """A line a method: ours in mean, std over seeds and interval over tasks, and the paper's.

    An interval is half of that of 95 % over the evaluation tasks of a run, 1.96 standard errors, as a mean over seeds.
    """
    experiment, final = looks.experiment(frame), quantity(frame, name)
    lines = summary(final, ["method"]).assign(metric=name, unit=quantities(experiment)[name].unit)
    per_run = final.groupby(["method", "seed"], as_index=False).agg({"value": "sem"})
    halves, theirs = 1.96 * per_run.groupby("method").agg({"value": "mean"}), paper.set_index("method")
    columns = {"interval": halves["value"], "paper": theirs["value"], "paper_interval": theirs["std"]}
    for column, found in columns.items():
        lines[column] = found.reindex(lines["method"]).to_numpy(dtype=float)
    return lines.set_index("method").loc[looks.ordered(lines["method"], experiment)].reset_index()


def block(lines: pd.DataFrame, inductive: pd.DataFrame, experiment: str) -> str:
    """A markdown table with a method a row."""
    other = inductive.set_index("method")
    text = ["| Method | Ours | std over seeds | Paper | Difference | Inductive |", "|---|---|---|---|---|---|"]
    for line in lines.to_dict("records"):
        difference, of_other = line["mean"] - line["paper"], other.loc[line["method"]]
        cells = [
            looks.look(line["method"], experiment).name,
            number(line["mean"], line["interval"], 1),
            number(line["std"], float("nan"), 1),
            number(line["paper"], line["paper_interval"], 1),
            "–" if pd.isna(difference) else f"{difference:+.1f}",
            number(of_other["mean"], of_other["interval"], 1),
        ]
        text.append("| " + " | ".join(cells) + " |")
    return "\n".join(text)


def table(frame: pd.DataFrame, paper: pd.DataFrame, note: str) -> tuple[pd.DataFrame, str]:
    """The lines of the CSV and the text; raises ValueError where rows are of several sizes or experiments."""
    experiment = looks.experiment(frame)
    provenance(frame, experiment)
    none = paper.iloc[:0]
    accuracy, inductive = comparison(frame, "accuracy", paper), comparison(frame, "inductive_accuracy", none)
    n_tests = quantity(frame, "accuracy").groupby(["method", "seed"]).size()
    text = f"""# WarpGrad, Table 1: 5-way few-shot classification, {heading(frame)}; accuracy in percent

{origin(frame, note)}
- {n_tests.max()} evaluation tasks a seed. ± is half the 95 % interval over them (a mean over seeds); the paper's ± is
  its own.
- Held-out images are normalised by their own statistics (*ours*: transductive, the field's habit; the paper does not
  say) or by those of the images that the task was learnt from (*inductive*). Meta-training is the same for both.
"""
    for shots, lines in of_shots(accuracy).items():
        text += f"\n## {shots}\n\n{block(lines, inductive, experiment)}\n"
    if paper["note"].str.contains("not verified").any():
        text += (
            "\nThe paper at hand prints no 1-shot row: Warp-MAML's is that of the later ICLR 2020 version, second-hand "
            "and not verified; those of MAML and T-Nets are the best reported results that its appendix I names.\n"
        )
    gain = comparison(frame, "normalisation_gain", none)
    return pd.concat([accuracy, inductive, gain], ignore_index=True), text


# ---------------------------------------------------------------- figures


def short(look: Look) -> str:
    """The name without what a panel's title says."""
    return look.name.replace(", 1-shot)", ")").replace(" (1-shot)", "")


def panel(axes: Axes, frame: pd.DataFrame, paper: pd.DataFrame) -> list[Line2D]:
    """Accuracy of each method, and, below it, accuracy with the other way of normalising."""
    experiment = looks.experiment(frame)
    shown = {key: looks.look(key, experiment) for key in looks.ordered(frame["method"], experiment)}
    labels = {key: short(look) for key, look in shown.items()}
    handles = draw.dots(axes, quantity(frame, "accuracy"), paper, labels, "WarpGrad paper")
    other = summary(quantity(frame, "inductive_accuracy"), ["method"]).set_index("method")["mean"]
    for place, (key, look) in enumerate(reversed(shown.items())):
        axes.plot([other[key]], [place - 0.02], "s", color=look.colour, markerfacecolor="white", markersize=4.5)
    axes.axvline(CHANCE, color="0.6", linewidth=0.9, linestyle=":")
    axes.set_xlim(left=CHANCE - 3)
    square = Line2D([], [], linestyle="none", marker="s", color="0.2", markerfacecolor="white", label="ours, inductive")
    return [handles[0], square, handles[1]]


def accuracies(frame: pd.DataFrame, paper: pd.DataFrame) -> Figure:
    figure = Figure(figsize=(11.0, 4.6), layout="constrained")
    handles: list[Line2D] = []
    parts = of_shots(frame)
    for axes, shots in zip(figure.subplots(1, 2), SHOTS, strict=True):
        if shots not in parts:
            draw.empty(axes, f"no {shots} runs")
            continue
        handles = panel(axes, parts[shots], paper)
        axes.set_title(shots, fontsize=10)
        axes.set_xlabel("held-out accuracy [%]")
    figure.legend(handles=handles, loc="outside upper right", ncols=3, frameon=False, fontsize=8)
    text = (
        "strokes: seeds; squares: held-out images normalised by those learnt from, and not by their own statistics; "
        "dotted: chance; the paper's bar is its own ±"
    )
    caption = draw.caption(frame, looks.experiment(frame), text, spread="bars")
    draw.title(figure, f"5-way few-shot classification, {heading(frame)}", caption)
    return figure


def curves(frame: pd.DataFrame) -> Figure:
    """Rows of panels: shots. Left: over the steps of a test task. Right: over meta-training."""
    experiment, parts = looks.experiment(frame), of_shots(frame)
    figure = Figure(figsize=(11.0, 3.2 * len(parts) + 0.8), layout="constrained")
    for row, (shots, mine) in zip(figure.subplots(len(parts), 2, squeeze=False), parts.items(), strict=True):
        for axes, metric in zip(row, ("heldout_accuracy", "validation_error"), strict=True):
            level, sign = (100, -100) if metric == "validation_error" else (0, 100)
            lines, _ = draw.curve(mine, metric)
            for key in looks.ordered(lines["method"], experiment):
                one, look = lines.loc[lines["method"] == key], looks.look(key, experiment)
                one = one.assign(mean=level + sign * one["mean"], std=100 * one["std"])
                draw.shaded(axes, one, "step", look, marker=look.marker, markersize=4)
            axes.axhline(CHANCE, color="0.6", linewidth=0.9, linestyle=":")
        row[0].set_ylabel(f"{shots}: accuracy on\nheld-out images [%]")
        row[1].set_ylabel("on validation tasks [%]")
        row[0].set_xlabel("gradient steps on a test task")
        row[1].set_xlabel("meta-updates")
    shown = (looks.look(key, experiment) for key in looks.ordered(frame["method"], experiment))
    by_name = {short(look): look for look in shown}  # a learner looks the same from one image and from five
    handles = [Line2D([], [], color=look.colour, marker=look.marker, label=name) for name, look in by_name.items()]
    draw.legend(figure, handles)
    text = draw.caption(frame, experiment, "held-out images normalised by their own statistics; dotted: chance")
    draw.title(figure, f"Learning to learn from few images, {heading(frame)}", text)
    return figure


def figures(frame: pd.DataFrame, paper: pd.DataFrame, files: Sequence[Path]) -> dict[str, Figure]:
    return {"few_shot": accuracies(frame, paper), "few_shot_curves": curves(frame)}
