"""Table 1 of the Leap paper: held-out error on Omniglot by number of pretraining tasks, ours beside theirs."""

from functools import partial

import pandas as pd

from leapwarp.report import counts, looks
from leapwarp.report.document import Document, Text
from leapwarp.report.quantities import Quantity
from leapwarp.report.table import block, cells_explained, comparison

QUANTITIES: dict[str, Quantity] = {}


def document(frame: pd.DataFrame, paper: pd.DataFrame) -> Document:
    """Raises ValueError as `comparison` does."""
    lines = comparison(frame, "error", paper)
    text = cells_explained(paper, lines) + '- "MAML (first-order)" is the paper\'s MAML* column.\n'
    title = "Leap, Table 1: error on held-out Omniglot alphabets, in percent (lower is better)"
    return Document(title, [Text(text), block(lines, looks.experiment(frame))], lines)


by_tasks = partial(counts.by_tasks, name="error")
auc_by_tasks, heldout_curves = counts.auc_by_tasks, counts.heldout_curves
meta_curves = partial(counts.meta_curves, watched="validation_error")
