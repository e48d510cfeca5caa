"""WarpGrad's maze in numbers: what the curves of Figures 2 and 8 show, and how many parameters each agent has.

python -m leapwarp.tables.maze --rows results/quick/maze/rows.csv --out-dir results/quick/maze
"""

import pandas as pd

from leapwarp import results, tables
from leapwarp.figures import style
from leapwarp.tables import curves
from leapwarp.tables.summaries import markdown, summaries

SHOWN = ["final_return", "return_height", "task_parameters", "warp_parameters"]
SIZES = {
    "smoke": "Nothing can be read from this size.",
    "quick": "Here the maze is 5 x 5, episodes have 40 steps and the RNN 32 hidden units, and agents learn for a "
    "fiftieth of the published updates, with one of the warps for every 10.",
    "paper": "The published sizes.",
}


def build(frame: pd.DataFrame, paper: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """One line an agent and quantity, and the text; raises ValueError where rows are of several sizes."""
    results.provenance(frame, "maze")
    lines = summaries(frame, SHOWN)
    widths = curves.quartile_width(frame, "return").set_index("method")["width"]
    text = ["| Agent | Quartile width [reward an episode] |", "|---|---|"]
    for method in style.ordered(widths.index):
        text.append(f"| {style.method(method).name} | {widths[method]:.1f} |")
    updates = int(frame.loc[frame["metric"] == "return", "step"].max())
    document = f"""# WarpGrad, the maze: cumulative reward of an episode (higher: better)

{tables.origin(frame)}
- {SIZES.get(frame["profile"].iloc[0], "")} {updates} updates.
- ± is the sample standard deviation over seeds. The end is the mean over the last tenth of the updates. The paper
  prints curves and no numbers.
- All agents have the same task RNN; the Hebbian ones learn the plasticity of each of its weights beside it. The
  HyperRNN is the Warp-RNN with every parameter updated after every batch.

{markdown(lines, SHOWN, "Agent")}

## Spread over seeds

The inter-quartile range over seeds, averaged over the updates: the height of the bands in the figure.

{chr(10).join(text)}
"""
    return lines, document


if __name__ == "__main__":
    tables.main(
        build,
        module="maze",
        description="Write what the curves of the maze show.",
        paper="warpgrad",
        name="table_maze",
    )
