"""Table 1 of the Leap paper: held-out error on Omniglot by number of pretraining tasks, ours beside theirs."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from leapwarp.report import counts, looks
from leapwarp.report.quantities import Quantity
from leapwarp.report.table import block, comparison, preamble

QUANTITIES: dict[str, Quantity] = {}


def table(frame: pd.DataFrame, paper: pd.DataFrame, note: str) -> tuple[pd.DataFrame, str]:
    """The lines of the CSV and the text of the markdown; raises ValueError as `comparison` does."""
    experiment = looks.experiment(frame)
    lines = comparison(frame, "error", paper, experiment)
    text = f"""# Leap, Table 1: error on held-out Omniglot alphabets, in percent (lower is better)

{preamble(frame, lines, paper, note)}
- "MAML (first-order)" is the paper's MAML* column.

{block(lines, experiment)}
"""
    return lines, text


def figures(frame: pd.DataFrame, paper: pd.DataFrame, files: Sequence[Path]) -> dict[str, Figure]:
    return counts.figures(frame, paper, "error", "validation_error")
