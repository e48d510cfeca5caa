"""Table 4 of the WarpGrad paper: gradient descent, KFAC and warps from one random initialisation, ours beside theirs.

    python -m leapwarp.tables.natural_gradient --paper paper/warpgrad.csv \
        --rows results/quick/natural_gradient/rows.csv --out-dir results/quick/natural_gradient
"""

from collections.abc import Sequence

import pandas as pd

from leapwarp import tables
from leapwarp.figures import style

ROWS = ("sgd", "kfac", "kfac_exact", "warp_linear", "warp_nonlinear")
SIZES = {
    "smoke": "Nothing can be read from this size.",
    "quick": "Here batches are of 50 and the rate is 0.25, in the published proportion of 200 and 1.0, and the warps "
    "learn on a dozen trajectories where the published ones learn on some 20,000: what comes out for the order of "
    "warps and KFAC is about this size alone.",
    "paper": "Batches of 200 and a rate of 1.0, as published.",
}


def dampings(frame: pd.DataFrame) -> str:
    """A markdown table of what each damping was worth on validation alphabets, and what each seed took; or ""."""
    grid = frame.loc[frame["metric"].str.startswith("validation_accuracy.")]
    if grid.empty:
        return ""
    grid = grid.assign(damping=grid["metric"].str.split(".", n=1).str[1].astype("float64"), value=100 * grid["value"])
    values = sorted(set(grid["damping"]))
    text = [
        "| Method | Seed | " + " | ".join(f"{value:g}" for value in values) + " | taken |",
        "|---|---|" + "---|" * (len(values) + 1),
    ]
    taken = frame.loc[frame["metric"] == "damping"].set_index(["method", "seed"])["value"]
    for (method, seed), mine in grid.groupby(["method", "seed"]):
        found = mine.set_index("damping")["value"]
        cells = [f"{found[value]:.1f}" if value in found.index else "–" for value in values]
        text.append(
            "| " + " | ".join([style.method(method).name, str(seed), *cells, f"{taken[method, seed]:g}"]) + " |"
        )
    return "\n".join(text)


def times(frame: pd.DataFrame, methods: Sequence[str], base: str) -> str:
    """A markdown table of the seconds that a held-out task takes, also in units of those of `base`."""
    lines = tables.by_tasks(frame, "adapt_seconds")
    lines = lines.loc[lines["n_tasks"].isin([0, lines["n_tasks"].max()])].set_index("method")
    about, found = tables.QUANTITIES["adapt_seconds"], [method for method in methods if method in lines.index]
    text = [f"| Method | Seconds a task | Times {style.method(base).name} |", "|---|---|---|"]
    for method in found:
        mean, std = lines.loc[method, ["mean", "std"]].astype(float)
        share = f"{mean / lines.loc[base, 'mean']:.1f}" if base in found else "–"
        text.append(f"| {style.method(method).name} | {tables.number(mean, std, about.decimals)} | {share} |")
    return "\n".join(text)


def build(frame: pd.DataFrame, paper: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The lines of the CSV (accuracy, then area) and the text; raises ValueError as `tables.comparison` does."""
    count = int(frame["n_tasks"].to_numpy().max())
    frame = frame.loc[frame["n_tasks"].isin([0, count])]
    rows = frame.loc[frame["method"].isin(ROWS)]
    lines = tables.comparison(rows, "accuracy", paper.assign(n_tasks=count), "natural_gradient")
    areas = tables.comparison(rows, "auc", None, "natural_gradient")
    document = f"""# WarpGrad, Table 4: warps and natural gradient; held-out accuracy in percent (higher: better)

{tables.origin(frame)}
- {SIZES.get(frame["profile"].iloc[0], "")}
- All rows of a seed start from the same random initialisation, which no meta-training moves. {count} pretraining tasks
  for the warps here, 25 in the paper. ± is the sample standard deviation over seeds, the paper's its own over 4 runs.
- "{style.method("kfac").name}" takes the Fisher matrix of the batch's own labels, as the code that the authors used
  does; "{style.method("kfac_exact").name}" that of the labels the network predicts, in expectation, which is the
  matrix that theory asks for. It is not in the paper.
- The paper's Table 2 has SGD and KFAC at the same batch and rate, with 51.0 and 56.0.

{tables.listing(lines)}

## Area under the accuracy curve

Of training-batch accuracy over the steps of a held-out task, between 0 and 1; not in the paper.

{tables.listing(areas)}
"""
    found = dampings(frame)
    if found:
        document += f"""
## KFAC's damping

Accuracy in percent on the validation alphabets of each seed, by damping; the best is taken to the held-out alphabets.
The paper does not say its own.

{found}
"""
    if not tables.by_tasks(rows, "adapt_seconds").empty:
        document += f"""
## Time

{times(frame, ROWS, "sgd")}
"""
    return pd.concat([lines, areas], ignore_index=True), document


if __name__ == "__main__":
    tables.main(
        build,
        module="natural_gradient",
        description="Make Table 4 of the WarpGrad paper from result rows: ours beside theirs.",
        paper="warpgrad",
        table="4",
    )
