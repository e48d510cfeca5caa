"""The table and the figure of this experiment."""

from leapwarp.experiments.surfaces.report import QUANTITIES
from leapwarp.report import draw, looks
from leapwarp.report.document import Document
from leapwarp.report.table import summaries, summary_table

__all__ = ["QUANTITIES", "document", "hills"]


def document(frame, paper):
    names = ["final_gap", "gap_area"]
    lines = summaries(frame, names)
    return Document("Surfaces with momentum", [summary_table(lines, "Learner", looks.experiment(frame), names)], lines)


def hills(frame, paper, files):
    figure, [axes] = draw.panels(frame, "Surfaces with momentum", (6.4, 4.8))
    draw.legend(figure, draw.curves(axes, frame, "gap"))
    axes.set(xlabel="gradient steps", ylabel="mean gap to the lowest point [0 to 1]")
    return figure
