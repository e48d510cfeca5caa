"""Table 2 of the WarpGrad paper: held-out accuracy on Omniglot after 100 steps, ours beside theirs."""

from functools import partial

import numpy as np
import pandas as pd

from leapwarp.report import counts, kfac, looks
from leapwarp.report.document import Block, Document, Heading, Text
from leapwarp.report.quantities import Quantity, quantity
from leapwarp.report.select import RUN, height, steps
from leapwarp.report.table import block, cells_explained, comparison


def heldout_area(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One row for each held-out task: the area under its curve by the trapezium rule, divided by its length."""
    lines = []
    for _, mine in steps(frame, metric).groupby([*RUN, "task"], sort=True):
        at, value = mine["step"].to_numpy(dtype=float), mine["value"].to_numpy()
        area = np.trapezoid(value, at) / (at[-1] - at[0]) if len(at) > 1 else value[0]
        lines.append(mine.iloc[[0]].assign(step=pd.array([pd.NA], dtype="Int64"), value=area))
    return pd.concat(lines, ignore_index=True) if lines else frame.iloc[:0]


HELDOUT_AREA = "Area under the held-out accuracy curve"
QUANTITIES = {
    "heldout_area": Quantity("heldout_accuracy", HELDOUT_AREA, "area, 0 to 1", 3, select=heldout_area),
    "step_seconds": Quantity("step_seconds", "Time of a step of adaptation alone", "seconds a step", 4, True),
    "mean_meta_loss": Quantity("meta_loss", "Training loss, mean of meta-training", "nats", 3, True, select=height),
}
AREA = """Area under the curve of training-batch accuracy over the steps on a held-out task, between 0 and 1. The paper
shows this as a plot (Fig. 5, bottom) and prints no numbers."""
HELDOUT = """The same with the accuracy on held-out images, since the paper does not say which images it means. The
first points of this curve are near chance for every method: the running averages of batch norm begin anew on each task,
and take some 30 steps to forget their first values."""
FEWER = """ Here only the seeds count whose points of curves were kept: the CSV says how many."""
TIME = """The paper says that SGD and KFAC take "2x and 4x longer" than Warp-Leap (App. F). Claim W5b compares these
times, which are those of the processor alone. The measurement of curves is not in them."""


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
    title = "WarpGrad, Table 2: held-out accuracy on Omniglot after training on a task, in percent (higher: better)"
    if quantity(frame, "auc").empty:
        return Document(title, [*blocks, Text("The rows have no area (metric `auc`).")], lines)
    areas = comparison(frame, "auc")
    blocks.append(block(areas, experiment))
    if not quantity(frame, "heldout_area").empty:
        held_out = comparison(frame, "heldout_area")
        both = areas.merge(held_out, how="left", on=["n_tasks", "method"], suffixes=("", "_kept"))
        fewer = (both["n_seeds_kept"].fillna(0) < both["n_seeds"]).to_numpy().any()
        text = HELDOUT + (FEWER if fewer else "")
        blocks += [Heading(HELDOUT_AREA), Text(text), block(held_out, experiment)]
        areas = pd.concat([areas, held_out], ignore_index=True)
    blocks += kfac.times(frame, ("warp_leap", "sgd10x", "kfac"), "warp_leap", TIME) + kfac.dampings(frame)
    return Document(title, blocks, pd.concat([lines, areas], ignore_index=True))


by_tasks = partial(counts.by_tasks, name="accuracy")
auc_by_tasks, heldout_curves = counts.auc_by_tasks, counts.heldout_curves
meta_curves = partial(counts.meta_curves, watched="replay_loss")
