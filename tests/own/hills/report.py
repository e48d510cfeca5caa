"""The table and the figure of it."""

from matplotlib.figure import Figure

from leapwarp.experiments.surfaces.report import QUANTITIES
from leapwarp.report import draw, looks
from leapwarp.report import table as tables

__all__ = ["QUANTITIES", "figures", "table"]
NAME = "hills"


def table(frame, paper, note):
    lines = tables.summaries(frame, ["final_gap", "gap_area"])
    block = tables.summary_block(lines, ["final_gap", "gap_area"], "Learner", NAME)
    return lines, f"# Surfaces with momentum\n\n{tables.origin(frame, note)}\n\n{block}\n"


def figures(frame, paper, files):
    figure = Figure(layout="constrained")
    axes = figure.add_subplot()
    lines, _ = draw.curve(frame, "gap")
    for name in looks.ordered(lines["method"], NAME):
        draw.shaded(axes, lines.loc[lines["method"] == name], "step", looks.look(name, NAME))
    draw.title(figure, "Surfaces with momentum", draw.caption(frame, NAME))
    return {"hills": figure}
