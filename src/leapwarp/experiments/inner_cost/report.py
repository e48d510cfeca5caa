"""Memory and time of a meta-update against the number of inner steps (WarpGrad, section 2)."""

import pandas as pd
from matplotlib.figure import Figure

from leapwarp.report import draw, looks
from leapwarp.report.document import Document, Heading, Table, Text
from leapwarp.report.quantities import Quantity
from leapwarp.report.select import steps
from leapwarp.report.table import number, summaries, summary_table

QUANTITIES = {
    "memory_growth": Quantity("memory_growth", "Memory at the most steps over that at the fewest", "ratio", 2, True),
    "time_growth": Quantity(
        "time_growth", "Time a step at the most steps over that at the middle one", "ratio", 2, True
    ),
}


def by_steps(frame: pd.DataFrame, metric: str, heading: str, factor: float, decimals: int) -> Table:
    """A table of one measurement: methods as rows, numbers of steps as columns."""
    means = steps(frame, metric).pivot_table(index="method", columns="step", values="value") * factor
    rows = [
        [name, *(number(value, decimals=decimals) for value in means.loc[method])]
        for method, name in looks.names(frame).items()
    ]
    return Table([heading, *map(str, means.columns)], rows)


def document(frame: pd.DataFrame, paper: pd.DataFrame) -> Document:
    """The document: one line for each learner and quantity."""
    lines = summaries(frame, list(QUANTITIES))
    text = """
- A meta-update has one task of random images. Memory is the largest number of bytes in tensors at any moment. It is
  counted as operations make and free tensors, without the workspace of kernels, so it is the same on every machine.
  Time is the fastest of a few repetitions, and on a CPU that of the process.
- MAML keeps the graph of every step. Warp-MAML's warp objective does not, but its other part is MAML's objective. It
  grows less for each step than MAML, because the first block, with the largest activations, belongs to the warps.
- The paper prints no numbers. It says that memory is constant and time linear in the number of steps.
"""
    blocks = [
        Text(text),
        summary_table(lines, "Learner", looks.experiment(frame), list(QUANTITIES)),
        Heading("Memory by number of inner steps"),
        by_steps(frame, "memory", "Memory [MB]", 1e-6, 1),
        Heading("Time by number of inner steps"),
        by_steps(frame, "update_seconds", "Time [ms]", 1e3, 0),
    ]
    return Document("What a meta-update costs against the number of inner steps (WarpGrad, section 2)", blocks, lines)


def inner_cost(frame: pd.DataFrame, *_) -> Figure:
    heading = "What a meta-update costs: memory and time against the inner steps"
    metrics = {"memory": ("most memory in tensors at a time [MB]", 1e-6)}
    metrics |= {"update_seconds": ("time of a meta-update [s]", 1.0)}
    x_label = "gradient steps on a task, K"
    figure, panels, shown = draw.curve_panels(frame, heading, metrics, x_label, (11.0, 4.0), draw.with_markers)
    for axes, metric in zip(panels, metrics, strict=True):
        axes.set(xscale="log", yscale="log")
        ticks = sorted(set(steps(frame, metric)["step"].astype(int)))
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
    draw.legend(figure, shown, markers=True)
    return figure
