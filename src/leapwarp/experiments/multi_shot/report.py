"""Multi-shot tiered-ImageNet (Figure 7 of the WarpGrad paper): ours beside the later version's numbers."""

import pandas as pd
from matplotlib.figure import Figure

from leapwarp.report import draw, looks
from leapwarp.report.document import Document, Table, Text
from leapwarp.report.quantities import Quantity, percent, quantity
from leapwarp.report.select import steps
from leapwarp.report.table import number, signed, summaries

BASELINE = "sgd_large"
DATA = "tiered-ImageNet"
CHANCE = 10  # percent, of ten classes
ROUNDING = 1e-9  # of means of accuracies that are equal
QUANTITIES = {
    "heldout_area": Quantity("heldout_area", "Area under the held-out accuracy curve", "percent", 1, convert=percent)
}


def heading(frame: pd.DataFrame) -> str:
    """The paper's data, and the data that were used in their place."""
    ours = frame["data_source"].iloc[0]
    return DATA if ours == DATA.lower() else f"{DATA} (here: {ours})"


def steps_to_baseline(frame: pd.DataFrame) -> dict[str, float]:
    """Gradient steps until a method's mean curve reaches the last value of the baseline's, as the mean over seeds.

    A method that does not get there in a seed has no number.
    """
    curves = steps(frame, "heldout_accuracy")
    wide = curves.pivot_table(index="step", columns=["method", "seed"], values="value", aggfunc="mean")
    reached: dict[str, list[float]] = {}
    for method, seed in wide.columns:
        if (BASELINE, seed) in wide.columns:
            there = wide.index[wide[(method, seed)] >= wide[(BASELINE, seed)].dropna().iloc[-1] - ROUNDING]
            reached.setdefault(method, []).append(float(there[0]) if len(there) else float("nan"))
    return {method: sum(steps) / len(steps) for method, steps in reached.items()}


def document(frame: pd.DataFrame, paper: pd.DataFrame) -> Document:
    """The document: one line for each method and quantity; those of accuracy have the paper's number."""
    lines = summaries(frame, ["accuracy", "heldout_area", "adapt_seconds"]).drop(columns="n_tasks")
    theirs = paper.set_index("method")[["value", "std"]].astype(float)
    extra = {
        "paper": theirs["value"],
        "paper_std": theirs["std"],
        "steps_to_baseline_end": pd.Series(steps_to_baseline(frame), dtype="float64"),
    }
    for column, values in extra.items():
        lines[column] = lines["method"].map(values).where(lines["metric"] == "accuracy")
    ours, rows = lines.set_index(["metric", "method"]), []
    for method, name in looks.names(frame).items():
        of, area, seconds = (ours.loc[(metric, method)] for metric in ("accuracy", "heldout_area", "adapt_seconds"))
        rows.append([
            name,
            number(of["mean"], of["std"]),
            number(of["paper"], of["paper_std"]),
            signed(of["mean"] - of["paper"]),
            number(area["mean"], area["std"]),
            number(of["steps_to_baseline_end"], decimals=0),
            number(seconds["mean"], decimals=2),
        ])  # fmt: skip
    text = f"""
- {quantity(frame, "accuracy").groupby(["method", "seed"]).size().max()} held-out tasks a seed. ± is the sample standard
  deviation over seeds of the mean over them.
- *Area*: the mean height of the learning curve (held-out accuracy over the gradient steps), which is higher for a
  faster learner. *Steps*: gradient steps until the curve reaches the last value of SGD with large batches (– if it does
  not in some seed). No pretraining differs from Leap and Reptile only in having no meta-training.
- The version of the paper that we reproduce prints no numbers for Figure 7. The paper's numbers are from the later ICLR
  2020 version; we know them from another source and did not verify them.
"""
    head = ["Method", "Accuracy", "Paper (ICLR)", "Difference", "Area", "Steps", "Seconds a task"]
    title = f"WarpGrad, Figure 7: 10-way multi-shot classification, {heading(frame)}; accuracy in percent"
    return Document(title, [Text(text), Table(head, rows)], lines)


def multi_shot(frame: pd.DataFrame, paper: pd.DataFrame, *_) -> Figure:
    text, spread = f"10-way multi-shot classification, {heading(frame)}", f"shading and {draw.BARS}"
    figure, [left, right] = draw.panels(frame, text, (11.0, 4.4), n_columns=2, width_ratios=[3, 2], spread=spread)
    shown = draw.curves(left, frame, "heldout_accuracy", 100)
    left.set(xlabel="gradient steps on a test task", ylabel="accuracy on held-out images [%]")
    left.legend(handles=[draw.handle(look, marker=False) for look in shown.values()], frameon=False)
    handles = draw.dots(right, frame, "accuracy", paper, "WarpGrad paper (ICLR version)")
    right.set_ylim(-0.6, len(looks.of(frame)) - 0.4)
    right.set_xlabel("held-out accuracy after the last step [%]")
    right.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=8)
    left.axhline(CHANCE, **draw.DOTTED)
    right.axvline(CHANCE, **draw.DOTTED)
    return figure


def multi_shot_meta(frame: pd.DataFrame, *_) -> Figure:
    metrics = {
        "meta_test_accuracy": ("accuracy on test tasks\nafter the last step [%]", 100.0),
        "validation_error": ("mean accuracy along the steps\nof validation tasks [%]", -100.0, 100.0),
        "meta_loss": ("mean training loss along the steps\nof the meta-batch's tasks [nats]", 1.0),
    }
    text = f"Meta-training, 10-way multi-shot classification, {heading(frame)}"
    figure, _, shown = draw.curve_panels(frame, text, metrics, "meta-updates", (12.5, 3.9), draw.with_markers)
    draw.legend(figure, shown, markers=True)
    return figure
