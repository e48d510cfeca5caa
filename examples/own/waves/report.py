"""The table and the figure of the waves."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from leapwarp.report import draw, looks
from leapwarp.report.document import Document, Text
from leapwarp.report.quantities import Quantity
from leapwarp.report.table import summaries, summary_table

QUANTITIES = {  # what tables, figures and claims may use; the first word is the metric of the rows
    "final_loss": Quantity("final_loss", "Held-out loss", "half squared error", 3, lower=True),
}


def document(frame: pd.DataFrame, paper: pd.DataFrame) -> Document:
    lines = summaries(frame, ["final_loss"])
    table = summary_table(lines, "Method", looks.experiment(frame), ["final_loss"])
    return Document("Waves", [Text("± is the sample standard deviation over seeds."), table], lines)


def waves_curves(frame: pd.DataFrame, paper: pd.DataFrame, files: Sequence[Path]) -> Figure:
    figure, [axes] = draw.panels(frame, "New waves", (6.4, 4.8))
    draw.legend(figure, draw.curves(axes, frame, "train_loss"))
    axes.set(xlabel="gradient steps", ylabel="training loss [half squared error]")
    return figure
