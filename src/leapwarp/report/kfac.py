"""Sections about KFAC beside gradient descent: the dampings it was tried with, and what a held-out task costs."""

from collections.abc import Sequence

import pandas as pd

from leapwarp.report import looks
from leapwarp.report.document import Block, Heading, Table, Text
from leapwarp.report.quantities import SHARED
from leapwarp.report.table import by_tasks, number


def dampings(frame: pd.DataFrame) -> list[Block]:
    """The accuracy of each damping on validation alphabets, and each seed's choice; no blocks if none was tried."""
    grid = frame.loc[frame["metric"].str.startswith("validation_accuracy.")]
    if grid.empty:
        return []
    grid = grid.assign(damping=grid["metric"].str.split(".", n=1).str[1].astype("float64"), value=100 * grid["value"])
    wide = grid.pivot_table(index=["method", "seed"], columns="damping", values="value")
    taken = frame.loc[frame["metric"] == "damping"].set_index(["method", "seed"])["value"]
    rows = [
        [looks.names(frame)[method], str(seed), *map(number, mine), f"{taken[method, seed]:g}"]
        for (method, seed), mine in zip(wide.index, wide.to_numpy(), strict=True)
    ]
    text = """Accuracy in percent on the validation alphabets of each seed, by damping. The best is used for the
held-out alphabets. – : training diverged. The paper does not give its damping."""
    head = ["Method", "Seed", *(f"{value:g}" for value in wide.columns), "taken"]
    return [Heading("KFAC's damping"), Text(text), Table(head, rows)]


def times(frame: pd.DataFrame, methods: Sequence[str], base: str, text: str) -> list[Block]:
    """The seconds that a held-out task takes, also relative to `base`; no blocks if they were not measured."""
    lines = by_tasks(frame, "adapt_seconds")
    if lines.empty:
        return []
    lines = lines.loc[lines["n_tasks"].isin([0, lines["n_tasks"].max()])].set_index("method")
    names, rows = looks.names(frame), []
    for method in [method for method in methods if method in lines.index]:
        mean, std = lines.loc[method, ["mean", "std"]].astype(float)
        share = number(mean / lines.loc[base, "mean"]) if base in lines.index else "–"
        rows.append([names[method], number(mean, std, SHARED["adapt_seconds"].decimals), share])
    name = looks.look(base, looks.experiment(frame)).name
    return [Heading("Time on a held-out task"), Text(text), Table(["Method", "Seconds a task", f"Times {name}"], rows)]
