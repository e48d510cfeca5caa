"""What pulling forward does to gradient paths and their ends, in numbers: Theorem 1 of the Leap paper.

python -m leapwarp.tables.theorem1 --rows results/quick/theorem1/rows.csv --out-dir results/quick/theorem1
"""

import pandas as pd

from leapwarp import results, tables
from leapwarp.tables.summaries import markdown, summaries

SHOWN = ["shortening", "overshoot", "rises", "criterion_broken", "half_steps", "limit_distance"]


def breaking(frame: pd.DataFrame) -> str:
    """The swept meta step sizes up to which nothing rises and from which on something does, a sentence each."""
    sweep = frame.loc[frame["method"].str.startswith("beta_") & frame["step"].isna()]
    sentences = []
    for metric, what in (("criterion_broken", "the frozen objective"), ("rises", "the path")):
        worst = sweep.loc[sweep["metric"] == metric].groupby("method")["value"].max()
        rates = {float(name.removeprefix("beta_")): value for name, value in worst.items()}
        first = min((rate for rate, value in rates.items() if value > 0), default=None)
        if first is None:
            sentences.append(f"in no seed does {what} ever rise")
        else:
            below = max((rate for rate in rates if rate < first), default=None)
            quiet = f", at {below:g} in none" if below is not None else ""
            sentences.append(f"{what} rises in some seed from β = {first:g} on{quiet}")
    return "; ".join(sentences)


def build(frame: pd.DataFrame, paper: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """One line a method and quantity, and the text; raises ValueError where rows are of several sizes."""
    results.provenance(frame, "theorem1")
    lines = summaries(frame, SHOWN)
    n_steps = int(frame.loc[frame["metric"] == "path_length", "step"].max())
    document = f"""# Leap, Theorem 1 in numbers: gradient paths under pulling forward

{tables.origin(frame)}
- Expected length of the gradient paths of a few tasks in the plane (for *energy*, their energy), over {n_steps}
  meta-steps with exact expectations, gradients and, but for *identity Jacobians*, Jacobians. Unless a row says
  otherwise α = 0.1, β = 0.01, p = 1, one basin a task, all points in every batch. ± is the standard deviation over
  seeds, which draw tasks.
- The theorem (claim L13): with small enough steps no path is *longer than before* and no *limit point moves*. What it
  asks of β is that the objective with frozen far ends falls: *frozen objective rose* counts where it did not. After a
  divergence every meta-step counts as a rise.
- Where the guarantee breaks, of the swept β at α = 0.1: {breaking(frame)}.
- *Last path above the shortest*: how far it has crept back up. Limit points: the furthest that a task's path ever ended
  from where it first did, as a mean over tasks.

{markdown(lines, SHOWN, "Variant")}
"""
    return lines, document


if __name__ == "__main__":
    tables.main(
        build,
        module="theorem1",
        description="Make the table on Theorem 1 from result rows.",
        paper="leap",
        name="table_theorem1",
    )
