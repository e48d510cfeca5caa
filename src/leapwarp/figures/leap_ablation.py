"""Figure 5 of the Leap paper: task training loss over meta-training for each configuration of its objective.

    python -m leapwarp.figures.leap_ablation --experiment leap_ablation \
        --rows results/quick/leap_ablation/rows.csv --out-dir results/quick/leap_ablation/figures

leap_ablation.png           mean training loss of the tasks over meta-steps
leap_ablation_heldout.png   learning held-out tasks from the initialisation that each configuration has found
"""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from leapwarp.figures import draw, style

TITLE = "Leap's objective, Omniglot"


def panels(frame: pd.DataFrame, metrics: dict[str, str], x_label: str, heading: str, extra: str) -> Figure:
    """A panel for each metric, a line for each configuration."""
    figure = Figure(figsize=(4.4 * len(metrics) + 2.6, 4.2), layout="constrained")
    shown: set[str] = set()
    for axes, (metric, label) in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics.items(), strict=True):
        lines, _ = draw.curve(frame, metric)
        if lines.empty:
            draw.empty(axes, f"the rows hold no\n{metric}")
            continue
        if metric == "heldout_accuracy":
            lines[["mean", "std"]] *= 100
        for key in style.ordered(lines["method"]):
            # Reptile lies on the configuration that equals it: dots on its line.
            dashes = {"reptile": ":", "scratch": "-."}.get(key, "-")
            mine = lines.loc[lines["method"] == key]
            draw.shaded(axes, mine, "step", key, linestyle=dashes, linewidth=2.2 if key == "reptile" else 1.4)
        axes.set_xlabel(x_label)
        axes.set_ylabel(label)
        shown |= set(lines["method"])
    draw.title(figure, heading, draw.caption(frame, "leap_ablation", extra))
    handles = [draw.handle(key, marker=False) for key in style.ordered(shown)]
    for handle in handles:
        if handle.get_label() == style.method("reptile").name:
            handle.set(linestyle=":", linewidth=2.2)
    draw.legend(figure, handles)
    return figure


def smoothed(frame: pd.DataFrame) -> pd.DataFrame:
    """Meta-training curves as a trailing mean over a tenth of their length: a point is one small meta-batch only."""
    rows = frame.loc[frame["metric"] == "meta_loss"].sort_values("step")
    width = max(1, int(rows["step"].max() + 1) // 10) if len(rows) else 1
    mean = rows.groupby(["method", "n_tasks", "seed"])["value"].transform(
        lambda values: values.rolling(width, min_periods=1).mean()
    )
    return rows.assign(value=mean)


def build(frame: pd.DataFrame, paper: pd.DataFrame, experiment: str) -> dict[str, Figure]:
    meta = smoothed(frame)
    note = "trailing mean over a tenth of meta-training; the paper's Fig. 5 is a plot without printed numbers"
    heldout = {"heldout_accuracy": "held-out accuracy [%]", "train_loss": "training-batch loss [nats]"}
    return {
        "leap_ablation": panels(
            meta, {"meta_loss": "mean task training loss [nats]"}, "meta-steps", f"{TITLE}: meta-training", note
        ),
        "leap_ablation_heldout": panels(
            frame, heldout, "gradient steps on a held-out task", f"{TITLE}: learning held-out tasks", ""
        ),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    description = "Draw meta-training and held-out curves of Leap's ablation."
    draw.main(build, {"leap_ablation": draw.Numbers("leap")}, "leap_ablation", description, arguments)


if __name__ == "__main__":
    main()
