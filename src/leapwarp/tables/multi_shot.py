"""Multi-shot tiered-ImageNet (Figure 7 of the WarpGrad paper) as a table: ours beside the later version's numbers.

python -m leapwarp.tables.multi_shot --paper paper/warpgrad.csv --rows results/quick/multi_shot/rows.csv \
    --out-dir results/quick/multi_shot
"""

import math

import pandas as pd

from leapwarp import results, tables
from leapwarp.figures import style

EXPERIMENT = "multi_shot"
BASELINE = "sgd_large"
DATA = "tiered-ImageNet"
SIZES = {
    "smoke": "Nothing can be read from this size.",
    "quick": "Tens of meta-updates on narrow networks, small images and tens of images a class, where the published "
    "2,000 are on 640 images of 84 pixels with up to 256 filters: the meta-learners have hardly begun.",
    "paper": "The published settings; where the paper is silent, docs/deviations.md says what was taken.",
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
            there = wide.index[wide[(method, seed)] >= wide[(BASELINE, seed)].iloc[-1]]
            reached.setdefault(method, []).append(float(there[0]) if len(there) else math.nan)
    return {method: sum(steps) / len(steps) for method, steps in reached.items()}


def build(frame: pd.DataFrame, paper: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The lines of the CSV and the text; raises ValueError where rows are of several sizes or experiments."""
    results.provenance(frame, EXPERIMENT)
    parts = []
    for name in ("accuracy", "heldout_area", "adapt_seconds"):
        lines = results.summary(tables.quantity(frame, name), ["method"])
        parts.append(lines.assign(metric=name, unit=tables.QUANTITIES[name].unit))
    lines = pd.concat(parts, ignore_index=True)
    extra = {
        "paper": dict(zip(paper["method"], paper["value"], strict=True)),
        "paper_std": dict(zip(paper["method"], paper["std"], strict=True)),
        "steps_to_baseline_end": steps_to_baseline(frame),
    }
    of_accuracy = lines["metric"] == "accuracy"
    for column, values in extra.items():
        found = [values.get(method, math.nan) for method in lines["method"]]
        lines[column] = pd.Series(found, index=lines.index, dtype="float64").where(of_accuracy)
    ours = lines.set_index(["metric", "method"])
    text = [
        "| Method | Accuracy | Paper (ICLR) | Difference | Area | Steps | Seconds a task |",
        "|---|---|---|---|---|---|---|",
    ]
    for method in style.ordered(lines["method"]):
        of, area, seconds = (ours.loc[(name, method)] for name in ("accuracy", "heldout_area", "adapt_seconds"))
        difference = float(of["mean"] - of["paper"])
        cells = [
            style.method(method).name,
            tables.number(of["mean"], of["std"], 1),
            tables.number(of["paper"], of["paper_std"], 1),
            "–" if math.isnan(difference) else f"{difference:+.1f}",
            tables.number(area["mean"], area["std"], 1),
            tables.number(of["steps_to_baseline_end"], math.nan, 0),
            tables.number(seconds["mean"], math.nan, 2),
        ]
        text.append("| " + " | ".join(cells) + " |")
    n_tests = tables.quantity(frame, "accuracy").groupby(["method", "seed"]).size()
    return (
        lines,
        f"""# WarpGrad, Figure 7: 10-way multi-shot classification, {heading(frame)}; accuracy in percent

{tables.origin(frame)}
- {SIZES.get(frame["profile"].iloc[0], "")}
- {n_tests.max()} held-out tasks a seed. ± is the sample standard deviation over seeds of the mean over them.
- *Area*: the mean height of the learning curve (held-out accuracy over the gradient steps), which is higher for a
  faster learner. *Steps*: gradient steps until the curve is where that of SGD with large batches ends (– where it is
  not, in some seed). No pretraining differs from Leap and Reptile by meta-training alone.
- The paper at hand prints no number for Figure 7: these are of its later ICLR 2020 version, second-hand and not
  verified.

{chr(10).join(text)}
""",
    )


if __name__ == "__main__":
    tables.main(
        build,
        module="multi_shot",
        description="Make the multi-shot table of the WarpGrad paper from result rows.",
        paper="warpgrad",
        table="multi",
        name="table_multi_shot",
    )
