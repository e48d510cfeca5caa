"""Memory and time of a meta-update against the number of inner steps (WarpGrad, section 2).

python -m leapwarp.tables.inner_cost --rows results/quick/inner_cost/rows.csv --out-dir results/quick/inner_cost
"""

import pandas as pd

from leapwarp import results, tables
from leapwarp.figures import style
from leapwarp.tables.summaries import markdown, summaries

SHOWN = ("memory_growth", "time_growth")
UNITS = {"memory": ("Memory [MB]", 1e-6, 1), "update_seconds": ("Time [ms]", 1e3, 0)}


def by_steps(frame: pd.DataFrame, metric: str) -> str:
    """A markdown table of one measurement: methods as rows, numbers of steps as columns."""
    heading, scale, decimals = UNITS[metric]
    means = frame.loc[frame["metric"] == metric].groupby(["method", "step"])["value"].mean().unstack() * scale
    text = [f"| {heading} | " + " | ".join(f"{step}" for step in means.columns) + " |"]
    text.append("|---" * (len(means.columns) + 1) + "|")
    for method in style.ordered(means.index):
        cells = " | ".join(f"{value:.{decimals}f}" for value in means.loc[method])
        text.append(f"| {style.method(method).name} | {cells} |")
    return "\n".join(text)


def build(frame: pd.DataFrame, paper: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """One line a learner and quantity, and the text; raises ValueError where rows are of several sizes."""
    results.provenance(frame, "inner_cost")
    lines = summaries(frame, SHOWN)
    text = f"""# What a meta-update costs against the number of inner steps (WarpGrad, section 2)

{tables.origin(frame)}
- One task of random images a meta-update. Memory: the most bytes in tensors alive at a time, counted as operations make
  and drop them (not what kernels borrow), the same on every machine. Time: the fastest of a few, that of
  the process on a CPU.
- MAML keeps the graph of every step. Warp-MAML's warp objective does not; its C is MAML's, and grows by less for each
  step because the first block, with the largest activations, is among the warps that no task adapts.
- The paper prints no numbers: it says that memory is constant and time linear in the number of steps.

{markdown(lines, SHOWN, "Learner")}

## Memory by number of inner steps

{by_steps(frame, "memory")}

## Time by number of inner steps

{by_steps(frame, "update_seconds")}
"""
    return lines, text


if __name__ == "__main__":
    tables.main(
        build,
        module="inner_cost",
        description="Make the table of memory and time from result rows.",
        paper="warpgrad",
        name="table_inner_cost",
    )
