"""Multi-shot tiered-ImageNet (Figure 7 of the WarpGrad paper): ours beside the later version's numbers."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from leapwarp.report import draw, looks
from leapwarp.report.quantities import Quantity, percent, quantity
from leapwarp.report.rows import provenance
from leapwarp.report.table import number, origin, summaries

BASELINE = "sgd_large"
DATA = "tiered-ImageNet"
CHANCE = 10  # percent, of ten classes
QUANTITIES = {
    "heldout_area": Quantity("heldout_area", "Area under the held-out accuracy curve", "percent", 1, convert=percent),
}


def heading(frame: pd.DataFrame) -> str:
    """The paper's data, and what stands in for them here."""
    ours = frame["data_source"].iloc[0]
    return DATA if ours == DATA.lower() else f"{DATA} (here: {ours})"


def steps_to_baseline(frame: pd.DataFrame) -> dict[str, float]:
    """Gradient steps until a method's mean curve is where the baseline's ends, as the mean over seeds.

    A method that does not get there in a seed has no number.
    """
    curves = frame.loc[(frame["metric"] == "heldout_accuracy") & frame["step"].notna()]
    wide = curves.pivot_table(index="step", columns=["method", "seed"], values="value", aggfunc="mean")
    reached: dict[str, list[float]] = {}
    for method, seed in wide.columns:
        if (BASELINE, seed) in wide.columns:
            there = wide.index[wide[(method, seed)] >= wide[(BASELINE, seed)].dropna().iloc[-1]]
            reached.setdefault(method, []).append(float(there[0]) if len(there) else float("nan"))
    return {method: sum(steps) / len(steps) for method, steps in reached.items()}


def table(frame: pd.DataFrame, paper: pd.DataFrame, note: str) -> tuple[pd.DataFrame, str]:
    """The lines of the CSV and the text; raises ValueError where rows are of several sizes or experiments."""
    experiment = looks.experiment(frame)
    provenance(frame, experiment)
    lines = summaries(frame, ["accuracy", "heldout_area", "adapt_seconds"]).drop(columns="n_tasks")
    theirs = paper.set_index("method")[["value", "std"]].astype(float)
    extra = {
        "paper": theirs["value"],
        "paper_std": theirs["std"],
        "steps_to_baseline_end": pd.Series(steps_to_baseline(frame), dtype="float64"),
    }
    for column, values in extra.items():
        lines[column] = lines["method"].map(values).where(lines["metric"] == "accuracy")
    ours = lines.set_index(["metric", "method"])
    text = [
        "| Method | Accuracy | Paper (ICLR) | Difference | Area | Steps | Seconds a task |",
        "|---|---|---|---|---|---|---|",
    ]
    for method in looks.ordered(lines["method"], experiment):
        of, area, seconds = (ours.loc[(name, method)] for name in ("accuracy", "heldout_area", "adapt_seconds"))
        difference = of["mean"] - of["paper"]
        cells = [
            looks.look(method, experiment).name,
            number(of["mean"], of["std"], 1),
            number(of["paper"], of["paper_std"], 1),
            "–" if pd.isna(difference) else f"{difference:+.1f}",
            number(area["mean"], area["std"], 1),
            number(of["steps_to_baseline_end"], float("nan"), 0),
            number(seconds["mean"], float("nan"), 2),
        ]
        text.append("| " + " | ".join(cells) + " |")
    n_tests = quantity(frame, "accuracy").groupby(["method", "seed"]).size()
    return (
        lines,
        f"""# WarpGrad, Figure 7: 10-way multi-shot classification, {heading(frame)}; accuracy in percent

{origin(frame, note)}
- {n_tests.max()} held-out tasks a seed. ± is the sample standard deviation over seeds of the mean over them.
- *Area*: the mean height of the learning curve (held-out accuracy over the gradient steps), which is higher for a
  faster learner. *Steps*: gradient steps until the curve is where that of SGD with large batches ends (– where it is
  not, in some seed). No pretraining differs from Leap and Reptile by meta-training alone.
- The paper at hand prints no number for Figure 7: these are of its later ICLR 2020 version, second-hand and not
  verified.

{chr(10).join(text)}
""",
    )


def learning(frame: pd.DataFrame, paper: pd.DataFrame) -> Figure:
    experiment = looks.experiment(frame)
    figure = Figure(figsize=(11.0, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    shown = {key: looks.look(key, experiment) for key in looks.ordered(frame["method"], experiment)}
    lines, _ = draw.curve(frame, "heldout_accuracy")
    lines[["mean", "std"]] *= 100
    for key, look in shown.items():
        draw.shaded(left, lines.loc[lines["method"] == key], "step", look, linestyle=draw.dashes(look))
    left.axhline(CHANCE, color="0.6", linewidth=0.9, linestyle=":")
    left.set_xlabel("gradient steps on a test task")
    left.set_ylabel("accuracy on held-out images [%]")
    left.legend(handles=[draw.handle(look, marker=False) for look in shown.values()], frameon=False)
    labels = {key: look.name for key, look in shown.items()}
    handles = draw.dots(right, quantity(frame, "accuracy"), paper, labels, "WarpGrad paper (ICLR version)")
    right.set_ylim(-0.6, len(labels) - 0.4)
    right.axvline(CHANCE, color="0.6", linewidth=0.9, linestyle=":")
    right.set_xlabel("held-out accuracy after the last step [%]")
    right.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=8)
    caption = draw.caption(frame, experiment, "strokes: seeds; dotted: chance", spread="shading and bars")
    draw.title(figure, f"10-way multi-shot classification, {heading(frame)}", caption)
    return figure


def meta(frame: pd.DataFrame) -> Figure:
    experiment = looks.experiment(frame)
    figure = Figure(figsize=(12.5, 3.9), layout="constrained")
    panels = {
        "meta_test_accuracy": (0, 100, "accuracy on test tasks\nafter the last step [%]"),
        "validation_error": (100, -100, "mean accuracy along the steps\nof validation tasks [%]"),
        "meta_loss": (0, 1, "mean training loss along the steps\nof the meta-batch's tasks [nats]"),
    }
    shown: set[str] = set()
    for axes, (metric, (level, sign, label)) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        lines, _ = draw.curve(frame, metric)
        for key in looks.ordered(lines["method"], experiment):
            one, look = lines.loc[lines["method"] == key], looks.look(key, experiment)
            one = one.assign(mean=level + sign * one["mean"], std=abs(sign) * one["std"])
            marker = "" if metric == "meta_loss" else look.marker
            draw.shaded(axes, one, "step", look, marker=marker, markersize=4)
        axes.set_xlabel("meta-updates")
        axes.set_ylabel(label)
        shown |= set(lines["method"])
    draw.legend(figure, [draw.handle(looks.look(key, experiment)) for key in looks.ordered(shown, experiment)])
    text = "early stopping looks at validation tasks, of other classes; what test tasks show on the way decides nothing"
    caption = draw.caption(frame, experiment, text)
    draw.title(figure, f"Meta-training, 10-way multi-shot classification, {heading(frame)}", caption)
    return figure


def figures(frame: pd.DataFrame, paper: pd.DataFrame, files: Sequence[Path]) -> dict[str, Figure]:
    return {"multi_shot": learning(frame, paper), "multi_shot_meta": meta(frame)}
