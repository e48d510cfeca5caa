"""A table of methods by quantities, for experiments without task counts and without printed numbers."""

from collections.abc import Sequence

import pandas as pd

from leapwarp import results, tables
from leapwarp.figures import style


def summaries(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """One line for each method and key of QUANTITIES: mean and std over seeds, n_seeds, unit."""
    parts = [results.summary(tables.quantity(frame, name), ["method", "n_tasks", "metric"]) for name in names]
    lines = pd.concat([part for part in parts if len(part)], ignore_index=True)
    return lines.assign(unit=[tables.QUANTITIES[name].unit for name in lines["metric"]])


def markdown(lines: pd.DataFrame, names: Sequence[str], head: str) -> str:
    """The same with a method a row."""
    about = [tables.QUANTITIES[name] for name in names]
    text = [f"| {head} | " + " | ".join(f"{each.title} [{each.unit}]" for each in about) + " |"]
    text.append("|---" * (len(names) + 1) + "|")
    found = {(line["method"], line["metric"]): line for line in lines.to_dict("records")}
    for method in style.ordered(lines["method"]):
        cells = []
        for name, each in zip(names, about, strict=True):
            line = found.get((method, name))
            cells.append("–" if line is None else _number(line["mean"], line["std"], each.decimals))
        text.append(f"| {style.method(method).name} | " + " | ".join(cells) + " |")
    return "\n".join(text)


def _number(mean: float, std: float, decimals: int) -> str:
    """As `tables.number`, but in powers of ten where the decimals would show nothing."""
    if mean and abs(mean) < 0.5 * 10**-decimals:
        return f"{mean:.1e}" + ("" if pd.isna(std) else f" ± {std:.0e}")
    return tables.number(mean, std, decimals)
