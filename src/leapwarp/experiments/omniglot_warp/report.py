"""Table 2 of the WarpGrad paper: held-out accuracy on Omniglot after 100 steps, ours beside theirs."""

from functools import partial

import pandas as pd

from leapwarp.report import counts, kfac, looks
from leapwarp.report.document import Block, Document, Heading, Text
from leapwarp.report.quantities import Quantity, quantity
from leapwarp.report.select import height
from leapwarp.report.table import block, cells_explained, comparison

QUANTITIES = {
    "step_seconds": Quantity("step_seconds", "Time of a step of adaptation alone", "seconds a step", 4, True),
    "mean_meta_loss": Quantity("meta_loss", "Training loss, mean of meta-training", "nats", 3, True, select=height),
}
AREA = """Area under the curve of training-batch accuracy over the steps on a held-out task, between 0 and 1. The paper
shows this as a plot (Fig. 5, bottom) and prints no numbers."""
TIME = """The paper says that SGD and KFAC take "2x and 4x longer" than Warp-Leap (App. F). Times are those of the
machine that made the rows, and include the measurement of the curves."""


def document(frame: pd.DataFrame, paper: pd.DataFrame) -> Document:
    """Accuracy, then area; raises ValueError as `comparison`."""
    experiment, lines = looks.experiment(frame), comparison(frame, "accuracy", paper)
    text = cells_explained(paper, lines)
    text += """- The paper's caption says "mean test error", but the numbers are accuracies. Its column WarpGrad is
  Warp-Leap.\n"""
    if "kfac" in set(frame["method"]):
        text += "- KFAC has the batch and rate of SGD beside it and a damping chosen on validation alphabets (below).\n"
    extra = [method for method in dict.fromkeys(lines["method"]) if method not in set(paper["method"])]
    if extra:
        names = ", ".join(looks.look(method, experiment).name for method in extra)
        text += f"- Of ours only, not in the paper's table: {names}.\n"
    blocks: list[Block] = [Text(text), block(lines, experiment), Heading("Area under the accuracy curve"), Text(AREA)]
    title = "WarpGrad, Table 2: held-out accuracy on Omniglot after 100 steps, in percent (higher: better)"
    if quantity(frame, "auc").empty:
        return Document(title, [*blocks, Text("The rows have no area (metric `auc`).")], lines)
    areas = comparison(frame, "auc")
    blocks.append(block(areas, experiment))
    blocks += kfac.times(frame, ("warp_leap", "sgd10x", "kfac"), "warp_leap", TIME) + kfac.dampings(frame)
    return Document(title, blocks, pd.concat([lines, areas], ignore_index=True))


by_tasks = partial(counts.by_tasks, name="accuracy")
auc_by_tasks, heldout_curves = counts.auc_by_tasks, counts.heldout_curves
meta_curves = partial(counts.meta_curves, watched="replay_loss")
