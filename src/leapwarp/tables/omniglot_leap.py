"""Table 1 of the Leap paper: held-out error on Omniglot by number of pretraining tasks, ours beside theirs.

    python -m leapwarp.tables.omniglot_leap --paper paper/leap.csv \
        --rows results/quick/omniglot_leap/rows.csv --out-dir results/quick/omniglot_leap
"""

import pandas as pd

from leapwarp import tables


def build(frame: pd.DataFrame, paper: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The lines of the CSV and the text of the markdown; raises ValueError as `tables.comparison` does."""
    lines = tables.comparison(frame, "error", paper, "omniglot_leap")
    text = f"""# Leap, Table 1: error on held-out Omniglot alphabets, in percent (lower is better)

{tables.preamble(frame, lines, paper)}
- "MAML (first-order)" is the paper's MAML* column.

{tables.block(lines)}
"""
    return lines, text


if __name__ == "__main__":
    tables.main(
        build,
        module="omniglot_leap",
        description="Make Table 1 of the Leap paper from result rows: ours beside theirs.",
        paper="leap",
        table="1",
    )
