"""Sections about KFAC beside gradient descent: the dampings it was tried with, and what a step costs."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from leapwarp.report import looks
from leapwarp.report.document import Block, Heading, Table, Text
from leapwarp.report.select import final
from leapwarp.report.table import number


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
    """The time of a gradient step on a held-out task, also relative to `base`; no blocks if it was not measured.

    The ratio is the geometric mean over the seeds that both methods have, as in claims.
    """
    found = final(frame, "step_seconds")
    if found.empty:
        return []
    found = found.loc[found["n_tasks"].isin([0, found["n_tasks"].max()])]
    wide = 1000 * found.pivot(index="seed", columns="method", values="value")
    names, rows = looks.names(frame), []
    for method in [method for method in methods if method in wide]:
        share = math.nan
        if base in wide:
            share = float(np.exp(np.log(wide[method] / wide[base]).mean()))
        rows.append([names[method], number(wide[method].mean(), wide[method].std()), number(share)])
    name = looks.look(base, looks.experiment(frame)).name
    head = ["Method", "Milliseconds a step", f"Times {name}"]
    return [Heading("Time of a step on a held-out task"), Text(text), Table(head, rows)]
