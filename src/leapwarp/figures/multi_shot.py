"""Figure 7 of the WarpGrad paper: multi-shot tiered-ImageNet.

    python -m leapwarp.figures.multi_shot --experiment multi_shot --paper paper/warpgrad.csv \
        --rows results/quick/multi_shot/rows.csv --out-dir results/quick/multi_shot/figures

multi_shot.png          held-out accuracy over the steps on test tasks, and that at the last step beside the paper's
multi_shot_meta.png     over meta-training: accuracy on test tasks, the criterion of early stopping, the training loss
"""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from leapwarp import tables
from leapwarp.figures import draw, style
from leapwarp.tables.multi_shot import heading

CHANCE = 10  # percent, of ten classes


def learning(frame: pd.DataFrame, paper: pd.DataFrame, experiment: str) -> Figure:
    figure = Figure(figsize=(11.0, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[3, 2])
    lines, _ = draw.curve(frame, "heldout_accuracy")
    for key in style.ordered(lines["method"]):
        one = lines.loc[lines["method"] == key]
        dashes = "-" if style.method(key).pretrained else "-."
        draw.shaded(left, one.assign(mean=100 * one["mean"], std=100 * one["std"]), "step", key, linestyle=dashes)
    left.axhline(CHANCE, color="0.6", linewidth=0.9, linestyle=":")
    left.set_xlabel("gradient steps on a test task")
    left.set_ylabel("accuracy on held-out images [%]")
    left.legend(handles=[draw.handle(key, marker=False) for key in style.ordered(lines["method"])], frameon=False)
    labels = {key: style.method(key).name for key in style.ordered(frame["method"])}
    handles = draw.dots(right, tables.quantity(frame, "accuracy"), paper, labels, "WarpGrad paper (ICLR version)")
    right.set_ylim(-0.6, len(labels) - 0.4)
    right.axvline(CHANCE, color="0.6", linewidth=0.9, linestyle=":")
    right.set_xlabel("held-out accuracy after the last step [%]")
    right.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=8)
    text = "strokes: seeds; dotted: chance"
    draw.title(
        figure,
        f"10-way multi-shot classification, {heading(frame)}",
        draw.caption(frame, experiment, text, spread="shading and bars"),
    )
    return figure


def meta(frame: pd.DataFrame, experiment: str) -> Figure:
    figure = Figure(figsize=(12.5, 3.9), layout="constrained")
    panels = {
        "meta_test_accuracy": (0, 100, "accuracy on test tasks\nafter the last step [%]"),
        "validation_error": (100, -100, "mean accuracy along the steps\nof validation tasks [%]"),
        "meta_loss": (0, 1, "mean training loss along the steps\nof the meta-batch's tasks [nats]"),
    }
    for axes, (metric, (level, sign, label)) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        lines, _ = draw.curve(frame, metric)
        for key in style.ordered(lines["method"]):
            one = lines.loc[lines["method"] == key]
            one = one.assign(mean=level + sign * one["mean"], std=abs(sign) * one["std"])
            marker = "" if metric == "meta_loss" else style.method(key).marker
            draw.shaded(axes, one, "step", key, marker=marker, markersize=4)
        axes.set_xlabel("meta-updates")
        axes.set_ylabel(label)
    draw.legend(figure, [draw.handle(key) for key in style.ordered(lines["method"])])
    text = "early stopping looks at validation tasks, of other classes; what test tasks show on the way decides nothing"
    draw.title(
        figure,
        f"Meta-training, 10-way multi-shot classification, {heading(frame)}",
        draw.caption(frame, experiment, text),
    )
    return figure


def build(frame: pd.DataFrame, paper: pd.DataFrame, experiment: str) -> dict[str, Figure]:
    return {"multi_shot": learning(frame, paper, experiment), "multi_shot_meta": meta(frame, experiment)}


def main(arguments: Sequence[str] | None = None) -> None:
    numbers = {"multi_shot": draw.Numbers("warpgrad", "multi")}
    draw.main(build, numbers, "multi_shot", "Draw Figure 7 of the WarpGrad paper.", arguments)


if __name__ == "__main__":
    main()
