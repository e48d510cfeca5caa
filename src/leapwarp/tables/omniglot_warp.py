"""Table 2 of the WarpGrad paper: held-out accuracy on Omniglot after 100 steps, ours beside theirs.

    python -m leapwarp.tables.omniglot_warp --paper paper/warpgrad.csv \
        --rows results/quick/omniglot_warp/rows.csv --out-dir results/quick/omniglot_warp
"""

import pandas as pd

from leapwarp import tables


def build(frame: pd.DataFrame, paper: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The lines of the CSV (accuracy, then area) and the text; raises ValueError as `tables.comparison`."""
    lines = tables.comparison(frame, "accuracy", paper, "omniglot_warp")
    text = f"""# WarpGrad, Table 2: held-out accuracy on Omniglot after 100 steps, in percent (higher: better)

{tables.preamble(frame, lines, paper)}
- The paper's caption says "mean test error" but its numbers are accuracies; its column WarpGrad is Warp-Leap.
"""
    if "kfac" not in set(frame["method"]):
        text += "- KFAC comes in a later version of this repository: its column holds the paper's number only.\n"
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
    return pd.concat([lines, areas], ignore_index=True), text + tables.block(areas) + "\n"


if __name__ == "__main__":
    tables.main(
        build,
        module="omniglot_warp",
        description="Make Table 2 of the WarpGrad paper from result rows: ours beside theirs, and the areas.",
        paper="warpgrad",
        table="2",
    )
