"""How near warped descent is to descent under the warp's metric, in numbers: Equation 6 of the WarpGrad paper.

python -m leapwarp.tables.geometry --rows results/quick/geometry/rows.csv --out-dir results/quick/geometry
"""

import pandas as pd

from leapwarp import results, tables
from leapwarp.tables.summaries import markdown, summaries

SHOWN = ["order", "largest_error", "definite"]


def build(frame: pd.DataFrame, paper: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """One line a warp and quantity, and the text; raises ValueError where rows are of several sizes."""
    results.provenance(frame, "geometry")
    lines = summaries(frame, SHOWN)
    n_draws = frame.loc[frame["task"] != "", ["seed", "task"]].drop_duplicates().groupby("seed").size().max()
    document = f"""# WarpGrad, Equation 6 in numbers: warping and descent under its metric

{tables.origin(frame)}
- One step of descent in θ under a random warp Ω, against one step of G⁻¹∇L in γ = Ω(θ), on random smooth losses;
  {n_draws} draws a seed, in float64. ± is the standard deviation over seeds of the mean over draws.
- The paper (claim W14): the two losses differ by O(α²). The order is fitted to the smallest rates. It is an upper
  bound: where the warp is linear there is no difference but rounding, and no order.
- G⁻¹ = [DΩ][DΩ]ᵀ is positive definite for every draw, so that G is a metric: the last column is above zero.

{markdown(lines, SHOWN, "Warp")}
"""
    return lines, document


if __name__ == "__main__":
    tables.main(
        build,
        module="geometry",
        description="Make the table on Equation 6 from result rows.",
        paper="warpgrad",
        name="table_geometry",
    )
