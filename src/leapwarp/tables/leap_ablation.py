"""Leap's ablation of its objective in numbers: what its Figure 5 shows, and the held-out error it does not.

    python -m leapwarp.tables.leap_ablation \
        --rows results/quick/leap_ablation/rows.csv --out-dir results/quick/leap_ablation
"""

from itertools import combinations

import pandas as pd

from leapwarp import results, tables
from leapwarp.figures import style
from leapwarp.tables import curves

SHOWN = ["final_meta_loss", "half_way", "steps_to_median", "mean_loss", "error"]


def too_close(lines: pd.DataFrame) -> str:
    """The pairs of configurations that the loss at the end does not tell apart: their standard deviations overlap."""
    ends = lines.loc[(lines["metric"] == "final_meta_loss") & (lines["method"] != "reptile")].sort_values("mean")
    pairs = [
        f"{style.method(a['method']).name} and {style.method(b['method']).name}"
        for a, b in combinations(ends.to_dict("records"), 2)
        if not b["mean"] - a["mean"] > a["std"] + b["std"]
    ]
    return "; ".join(pairs) or "none"


def build(frame: pd.DataFrame, paper: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """One line a configuration and quantity, and the text; raises ValueError where rows are of several sizes."""
    results.provenance(frame, "leap_ablation")
    lines = pd.concat(
        [results.summary(tables.quantity(frame, name), ["method", "n_tasks", "metric"]) for name in SHOWN],
        ignore_index=True,
    )
    lines["unit"] = [tables.QUANTITIES[name].unit for name in lines["metric"]]
    found = {(line["method"], line["metric"]): line for line in lines.to_dict("records")}
    configurations = frame.loc[frame["method"] != "reptile"]
    level = curves.median_end(configurations, "meta_loss")
    n_steps = int(frame.loc[frame["metric"] == "meta_loss", "step"].max()) + 1
    reached = tables.quantity(frame, "steps_to_median")
    ends = {
        key: sum(curve.min() > level for _, curve in curves.runs(mine, "meta_loss"))
        for key, mine in frame.groupby("method")
    }
    heads = [f"{tables.QUANTITIES[name].title} [{tables.QUANTITIES[name].unit}]" for name in SHOWN]
    text = ["| Configuration | " + " | ".join(heads) + " |", "|---" * (len(SHOWN) + 1) + "|"]
    for method in style.ordered(frame["method"]):
        cells = []
        for name in SHOWN:
            line = found.get((method, name))
            cell = "–" if line is None else tables.number(line["mean"], line["std"], tables.QUANTITIES[name].decimals)
            if name == "steps_to_median" and ends.get(method) and line is not None:
                cell += f" (not reached by {ends[method]} of {(reached['method'] == method).sum()} runs)"
            cells.append(cell)
        text.append(f"| {style.method(method).name} | " + " | ".join(cells) + " |")
    document = f"""# Leap, Figure 5 in numbers: which parts of the objective matter

{tables.origin(frame)}
- The paper shows curves and prints no numbers. Its findings: with the loss the error is cut in half, though not
  sooner; the stabiliser speeds convergence up; length does better than energy. What of it holds here, with
  intervals: claims L6 to L9.
- ± is the sample standard deviation over seeds. *Loss at the end* is the mean training loss along a task in the
  last tenth of {n_steps} meta-steps. *Half-way* is the share of meta-training after which it has fallen half as
  far as it ever does. *Steps to the median's end* are meta-steps until it is {level:.3f}, where the median
  configuration ends; a run that never is counts with all its steps.
- Pairs that the loss at the end does not tell apart at this budget (standard deviations overlap, or there is one seed):
  {too_close(lines)}.
- *Mean loss* and *error* are those of held-out alphabets, along their training and at its end.
- Energy in parameter space alone is Reptile: the two rows must be equal.

""" + "\n".join(text)
    return lines, document + "\n"


if __name__ == "__main__":
    tables.main(
        build,
        module="leap_ablation",
        description="Make the table of Leap's ablation from result rows.",
        paper="leap",
        name="table_leap_ablation",
    )
