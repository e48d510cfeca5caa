"""Tables about KFAC beside gradient descent: the dampings it was tried with, and what a held-out task costs."""

from collections.abc import Sequence

import pandas as pd

from leapwarp.report import looks
from leapwarp.report.quantities import SHARED
from leapwarp.report.table import by_tasks, number


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
        name = looks.look(method, looks.experiment(frame)).name
        text.append("| " + " | ".join([name, str(seed), *cells, f"{taken[method, seed]:g}"]) + " |")
    return "\n".join(text)


def times(frame: pd.DataFrame, methods: Sequence[str], base: str) -> str:
    """A markdown table of the seconds that a held-out task takes, also in units of those of `base`; or ""."""
    lines = by_tasks(frame, "adapt_seconds")
    if lines.empty:
        return ""
    lines = lines.loc[lines["n_tasks"].isin([0, lines["n_tasks"].max()])].set_index("method")
    found, experiment = [method for method in methods if method in lines.index], looks.experiment(frame)
    text = [f"| Method | Seconds a task | Times {looks.look(base, experiment).name} |", "|---|---|---|"]
    for method in found:
        mean, std = lines.loc[method, ["mean", "std"]].astype(float)
        share = f"{mean / lines.loc[base, 'mean']:.1f}" if base in found else "–"
        seconds = number(mean, std, SHARED["adapt_seconds"].decimals)
        text.append(f"| {looks.look(method, experiment).name} | {seconds} | {share} |")
    return "\n".join(text)
