"""Table 2 of the WarpGrad paper: held-out accuracy on Omniglot after 100 steps, ours beside theirs."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from leapwarp.report import counts, looks
from leapwarp.report.kfac import dampings, times
from leapwarp.report.quantities import Quantity
from leapwarp.report.table import block, by_tasks, comparison, preamble

QUANTITIES: dict[str, Quantity] = {}


def table(frame: pd.DataFrame, paper: pd.DataFrame, note: str) -> tuple[pd.DataFrame, str]:
    """The lines of the CSV (accuracy, then area) and the text; raises ValueError as `comparison`."""
    experiment = looks.experiment(frame)
    lines = comparison(frame, "accuracy", paper, experiment)
    text = f"""# WarpGrad, Table 2: held-out accuracy on Omniglot after 100 steps, in percent (higher: better)

{preamble(frame, lines, paper, note)}
- The paper's caption says "mean test error" but its numbers are accuracies; its column WarpGrad is Warp-Leap.
"""
    if "kfac" in set(frame["method"]):
        text += (
            "- KFAC has the batch and rate of SGD beside it, and a damping chosen on validation alphabets (below).\n"
        )
    extra = [method for method in dict.fromkeys(lines["method"]) if method not in set(paper["method"])]
    if extra:
        names = ", ".join(looks.look(method, experiment).name for method in extra)
        text += f"- Of ours only, not in the paper's table: {names}.\n"
    text += f"""
{block(lines, experiment)}

## Area under the accuracy curve (the paper's Fig. 5, bottom)

Area under the curve of training-batch accuracy over the steps on a held-out task, between 0 and 1; ours ± std
as above. The paper shows this as a plot and prints no numbers.

"""
    if by_tasks(frame, "auc").empty:
        return lines, text + "The rows hold no area (metric `auc`).\n"
    areas = comparison(frame, "auc", None, experiment)
    text += block(areas, experiment) + "\n"
    measured = times(frame, ("warp_leap", "sgd10x", "kfac"), "warp_leap")
    if measured:
        text += f"""
## Time on a held-out task

"2x and 4x longer" than Warp-Leap, says the paper of SGD and KFAC (App. F). Times are of the machine that made the rows
and hold what the curves took to measure.

{measured}
"""
    found = dampings(frame)
    if found:
        text += f"""
## KFAC's damping

Accuracy in percent on validation alphabets, by damping; the best is taken to the held-out alphabets.

{found}
"""
    return pd.concat([lines, areas], ignore_index=True), text


def figures(frame: pd.DataFrame, paper: pd.DataFrame, files: Sequence[Path]) -> dict[str, Figure]:
    return counts.figures(frame, paper, "accuracy", "replay_loss")
