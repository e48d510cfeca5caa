"""Table 2 of the WarpGrad paper: held-out accuracy on Omniglot after 100 steps, ours beside theirs.

    python -m leapwarp.tables.omniglot_warp --paper paper/warpgrad.csv \
        --rows results/quick/omniglot_warp/rows.csv --out-dir results/quick/omniglot_warp
"""

import pandas as pd

from leapwarp import tables
from leapwarp.tables.natural_gradient import dampings, times


def build(frame: pd.DataFrame, paper: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The lines of the CSV (accuracy, then area) and the text; raises ValueError as `tables.comparison`."""
    lines = tables.comparison(frame, "accuracy", paper, "omniglot_warp")
    text = f"""# WarpGrad, Table 2: held-out accuracy on Omniglot after 100 steps, in percent (higher: better)

{tables.preamble(frame, lines, paper)}
- The paper's caption says "mean test error" but its numbers are accuracies; its column WarpGrad is Warp-Leap.
"""
    if "kfac" in set(frame["method"]):
        text += (
            "- KFAC has the batch and rate of SGD beside it, and a damping chosen on validation alphabets (below).\n"
        )
    extra = [method for method in dict.fromkeys(lines["method"]) if method not in set(paper["method"])]
    if extra:
        names = ", ".join(tables.style.method(method).name for method in extra)
        text += f"- Of ours only, not in the paper's table: {names}.\n"
    text += f"""
{tables.block(lines)}

## Area under the accuracy curve (the paper's Fig. 5, bottom)

Area under the curve of training-batch accuracy over the steps on a held-out task, between 0 and 1; ours ± std
as above. The paper shows this as a plot and prints no numbers.

"""
    if tables.by_tasks(frame, "auc").empty:
        return lines, text + "The rows hold no area (metric `auc`).\n"
    areas = tables.comparison(frame, "auc", None, "omniglot_warp")
    text += tables.block(areas) + "\n"
    if not tables.by_tasks(frame, "adapt_seconds").empty:
        text += f"""
## Time on a held-out task

"2x and 4x longer" than Warp-Leap, says the paper of SGD and KFAC (App. F). Times are of the machine that made the rows
and hold what the curves took to measure.

{times(frame, ("warp_leap", "sgd10x", "kfac"), "warp_leap")}
"""
    found = dampings(frame)
    if found:
        text += f"""
## KFAC's damping

Accuracy in percent on validation alphabets, by damping; the best is taken to the held-out alphabets.

{found}
"""
    return pd.concat([lines, areas], ignore_index=True), text


if __name__ == "__main__":
    tables.main(
        build,
        module="omniglot_warp",
        description="Make Table 2 of the WarpGrad paper from result rows: ours beside theirs, and the areas.",
        paper="warpgrad",
        table="2",
    )
