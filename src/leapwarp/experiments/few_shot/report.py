"""Table 1 of the WarpGrad paper, the few-shot parts: ours beside theirs, with five images of a class and with one.

Methods whose names end in `_1shot` learn from one image. All others learn from five, also a user's own states.
"""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from leapwarp import catalogue
from leapwarp.catalogue import Look
from leapwarp.report import draw, looks
from leapwarp.report.document import Block, Document, Heading, Table, Text
from leapwarp.report.quantities import Quantity, percent, quantities, quantity
from leapwarp.report.stats import summary
from leapwarp.report.table import number, signed

ONE_SHOT = "_1shot"
SHOTS = {"5-shot": False, "1-shot": True}
CHANCE = 20  # percent, of five classes
QUANTITIES = {
    "inductive_accuracy": Quantity("inductive_accuracy", "Inductive held-out accuracy", "percent", 1, convert=percent),
    "normalisation_gain": Quantity("normalisation_gain", "Transductive less inductive", "points", 1, convert=percent),
}
LATER = """Table 1 of the version of the paper that we reproduce has no 1-shot numbers. That of Warp-MAML is from the
later ICLR 2020 version; we know it from another source and did not verify it. Those of other methods are the best
reported results, which appendix I names."""


def of_shots(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Lines or rows by the number of images of a class that their method learns from. Others are left out."""
    is_one = frame["method"].str.endswith(ONE_SHOT)
    parts = {shots: frame.loc[is_one == one] for shots, one in SHOTS.items()}
    return {shots: part for shots, part in parts.items() if len(part)}


def heading(frame: pd.DataFrame) -> str:
    """The paper's data, which end the experiment's title, and the data that were used in their place."""
    theirs = catalogue.find(looks.experiment(frame)).title.rpartition(", ")[2]
    ours = frame["data_source"].iloc[0]
    return theirs if ours == theirs.lower() else f"{theirs} (here: {ours})"


def comparison(frame: pd.DataFrame, name: str, paper: pd.DataFrame) -> pd.DataFrame:
    """A line for each method: our mean, std over seeds and interval over tasks, and the paper's.

    An interval is half of that of 95 % over the evaluation tasks of a run, 1.96 standard errors, as a mean over seeds.
    """
    experiment, final = looks.experiment(frame), quantity(frame, name)
    lines = summary(final, ["method"]).assign(metric=name, unit=quantities(experiment)[name].unit)
    lines["shots"] = [1 if method.endswith(ONE_SHOT) else 5 for method in lines["method"]]
    per_run = final.groupby(["method", "seed"], as_index=False).agg({"value": "sem"})
    halves, theirs = 1.96 * per_run.groupby("method").agg({"value": "mean"}), paper.set_index("method")
    columns = {"interval": halves["value"], "paper": theirs["value"], "paper_interval": theirs["std"]}
    for column, found in columns.items():
        lines[column] = found.reindex(lines["method"]).to_numpy(dtype=float)
    return lines.set_index("method").loc[looks.ordered(lines["method"], experiment)].reset_index()


def block(lines: pd.DataFrame, inductive: pd.DataFrame, names: dict[str, str]) -> Table:
    """One row for each method."""
    other = inductive.set_index("method")
    rows = [
        [
            names[line["method"]],
            number(line["mean"], line["interval"]),
            number(line["std"]),
            number(line["paper"], line["paper_interval"]),
            signed(line["mean"] - line["paper"]),
            number(*other.loc[line["method"], ["mean", "interval"]]),
        ]
        for line in lines.to_dict("records")
    ]
    return Table(["Method", "Ours", "std over seeds", "Paper", "Difference", "Inductive"], rows)


def document(frame: pd.DataFrame, paper: pd.DataFrame) -> Document:
    """The document: a line for each method with accuracy, inductive accuracy and their difference."""
    none, names = paper.iloc[:0], looks.names(frame)
    accuracy, inductive = comparison(frame, "accuracy", paper), comparison(frame, "inductive_accuracy", none)
    text = f"""
- {quantity(frame, "accuracy").groupby(["method", "seed"]).size().max()} evaluation tasks a seed. ± is half the 95 %
  interval over them (a mean over seeds); the paper's ± is its own.
- Batch norm uses the held-out images' own statistics (*ours*: transductive, which is common in the field; the paper
  does not say), or those of the images that the task was learnt from (*inductive*). Meta-training is the same for both.
"""
    blocks: list[Block] = [Text(text)]
    for shots, lines in of_shots(accuracy).items():
        blocks += [Heading(shots), block(lines, inductive, names)]
    if paper["note"].str.contains("not verified").any() and accuracy["method"].str.endswith(ONE_SHOT).any():
        blocks.append(Text(LATER))
    lines = [accuracy, inductive, comparison(frame, "normalisation_gain", none)]
    title = f"WarpGrad, Table 1: 5-way few-shot classification, {heading(frame)}; accuracy in percent"
    return Document(title, blocks, pd.concat(lines, ignore_index=True))


def short(look: Look) -> str:
    """The name of a method without the part that the panel's title contains."""
    return look.name.replace(", 1-shot)", ")").replace(" (1-shot)", "")


def panel(axes: Axes, frame: pd.DataFrame, paper: pd.DataFrame) -> list[Line2D]:
    """Accuracy of each method and, below it, its inductive accuracy."""
    shown = looks.of(frame)
    labels = {key: short(look) for key, look in shown.items()}
    handles = draw.dots(axes, frame, "accuracy", paper, "WarpGrad paper", labels)
    other = summary(quantity(frame, "inductive_accuracy"), ["method"]).set_index("method")["mean"]
    for place, (key, look) in enumerate(reversed(shown.items())):
        axes.plot([other[key]], [place - 0.02], "s", color=look.colour, markerfacecolor="white", markersize=4.5)
    axes.axvline(CHANCE, **draw.DOTTED)
    axes.set_xlim(left=CHANCE - 3)
    axes.set_xlabel("held-out accuracy [%]")
    square = Line2D([], [], linestyle="none", marker="s", color="0.2", markerfacecolor="white", label="ours, inductive")
    return [handles[0], square, handles[1]]


def few_shot(frame: pd.DataFrame, paper: pd.DataFrame, *_) -> Figure:
    text, parts, handles = f"5-way few-shot classification, {heading(frame)}", of_shots(frame), []
    figure, panels = draw.panels(frame, text, (11.0, 4.6), n_columns=2, spread=draw.BARS)
    for axes, shots in zip(panels, SHOTS, strict=True):
        if shots not in parts:
            draw.empty(axes, f"no {shots} runs")
            continue
        handles = panel(axes, parts[shots], paper)
        axes.set_title(shots, fontsize=10)
    figure.legend(handles=handles, loc="outside upper right", ncols=3, frameon=False, fontsize=8)
    return figure


def few_shot_curves(frame: pd.DataFrame, *_) -> Figure:
    """Rows of panels: shots. Left: over the steps of a test task. Right: over meta-training."""
    parts, text = of_shots(frame), f"Learning to learn from few images, {heading(frame)}"
    figure, panels = draw.panels(frame, text, (11.0, 3.2 * len(parts) + 0.8), len(parts), 2)
    for (shots, mine), left, right in zip(parts.items(), panels[::2], panels[1::2], strict=True):
        draw.curves(left, mine, "heldout_accuracy", 100, style=draw.with_markers)
        draw.curves(right, mine, "validation_error", -100, 100, style=draw.with_markers)
        left.set(xlabel="gradient steps on a test task", ylabel=f"{shots}: accuracy on\nheld-out images [%]")
        right.set(xlabel="meta-updates", ylabel=f"{shots}: accuracy on\nvalidation tasks [%]")
        for axes in (left, right):
            axes.axhline(CHANCE, **draw.DOTTED)
    by_name = {short(look): look for look in looks.of(frame).values()}  # it looks the same from one image and from five
    handles = [Line2D([], [], color=look.colour, marker=look.marker, label=name) for name, look in by_name.items()]
    draw.legend(figure, handles)
    return figure
