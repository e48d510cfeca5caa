"""Tables of our numbers beside the papers'."""

import math
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from leapwarp.report import looks
from leapwarp.report.document import Cell, Table
from leapwarp.report.quantities import Quantity, quantities, quantity
from leapwarp.report.rows import provenance
from leapwarp.report.stats import summary

PAPER_DTYPES = {
    "paper": "str",
    "table": "str",
    "row": "str",
    "method": "str",
    "n_tasks": "int64",
    "metric": "str",
    "value": "float64",
    "std": "float64",
    "unit": "str",
    "note": "str",
}
PAPER_COLUMNS = list(PAPER_DTYPES)
COLUMNS = [
    "n_tasks", "method", "metric", "ours_mean", "ours_std", "n_seeds", "paper", "paper_std",
    "unit", "size", "data_source",
]  # fmt: skip


def read_paper(path: str | os.PathLike[str], table: str) -> pd.DataFrame:
    """The published numbers of one table. Raises ValueError if the file or the table does not exist."""
    if not Path(path).is_file():
        raise ValueError(f"{path}: found no such file, needed the paper's numbers, as in paper/*.csv.")
    found = pd.read_csv(path, dtype="str", keep_default_na=False)
    if list(found.columns) != PAPER_COLUMNS:
        raise ValueError(f"{path}: found columns {list(found.columns)}, needed {PAPER_COLUMNS}.")
    try:
        frame = found.assign(std=found["std"].replace("", "nan")).astype(PAPER_DTYPES)
    except ValueError as error:
        raise ValueError(f"{path}: found a field of the wrong type ({error}), needed {PAPER_DTYPES}.") from None
    chosen = frame.loc[frame["table"] == table]
    if chosen.empty:
        raise ValueError(f"{path}: found tables {sorted(set(frame['table']))}, needed table {table}.")
    return chosen.reset_index(drop=True)


def default_paper(name: str) -> Path:
    """paper/<name>.csv in the working directory, or else in the checkout of this file."""
    here = Path("paper") / f"{name}.csv"
    return here if here.exists() else Path(__file__).resolve().parents[3] / here


def by_tasks(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """Our numbers over seeds: columns method, n_tasks, mean, std, n_seeds. Without pretraining, n_tasks is 0.

    Raises ValueError if two runs of one seed were evaluated on different held-out tasks.
    """
    final = quantity(frame, name)
    heldout: dict[int, dict[str, set[str]]] = {}  # seed, run, tasks
    for method, n_tasks, seed, task in final[["method", "n_tasks", "seed", "task"]].itertuples(index=False):
        heldout.setdefault(seed, {}).setdefault(f"{method} tasks{n_tasks}", set()).add(task)
    for seed, runs in heldout.items():
        if any(found != set.union(*runs.values()) for found in runs.values()):
            raise ValueError(
                f"{name}: found different held-out tasks among the runs of seed {seed}, needed the same for "
                f"all (how many: { {run: len(found) for run, found in runs.items()} }). Run those again."
            )
    return summary(final, ["method", "n_tasks"])


def by_key(frame: pd.DataFrame) -> dict[tuple[str, int], dict[Hashable, Any]]:
    """The lines of a frame as dicts, found by (method, n_tasks)."""
    return {(line["method"], line["n_tasks"]): line for line in frame.to_dict("records")}


def comparison(frame: pd.DataFrame, name: str, paper: pd.DataFrame | None = None) -> pd.DataFrame:
    """One line for each (n_tasks, method) with our number and the paper's (or a missing value), in COLUMNS.

    The numbers of tasks are those that were run, or the paper's if nothing was pretrained. Methods without pretraining
    are repeated at each of them. The paper's methods come first, in its order. Raises ValueError if rows come from
    several sizes, data sources or experiments, or if `name` was never measured.
    """
    experiment = looks.experiment(frame)
    size, data_source = provenance(frame, experiment)
    ours, about = by_tasks(frame, name), quantities(experiment)[name]
    if ours.empty:
        raise ValueError(f"found metrics {sorted(set(frame['metric']))}, needed {about.metric!r}.")
    mine = by_key(ours)
    theirs = by_key(paper) if paper is not None else {}
    counts = sorted({count for _, count in mine if count > 0}) or sorted({count for _, count in theirs}) or [0]
    methods = list(dict.fromkeys(method for method, _ in theirs))
    methods += [method for method in looks.ordered((method for method, _ in mine), experiment) if method not in methods]
    lines = []
    for count in counts:
        for method in methods:
            our = mine.get((method, count)) or mine.get((method, 0)) or {"n_seeds": 0}
            their = theirs.get((method, count), {})
            lines.append([
                count, method, name, our.get("mean"), our.get("std"), our["n_seeds"],
                their.get("value"), their.get("std"), about.unit, size, data_source,
            ])  # fmt: skip
    numbers = dict.fromkeys(["ours_mean", "ours_std", "paper", "paper_std"], "float64")
    return pd.DataFrame(lines, columns=COLUMNS).astype({"n_tasks": "int64", "n_seeds": "int64", **numbers})


def number(mean: float, std: float = math.nan, decimals: int = 1) -> str:
    """'12.3 ± 0.4', without the spread if it is missing, or '–' if there is no number."""
    if math.isnan(mean):
        return "–"
    return f"{mean:.{decimals}f}" + ("" if math.isnan(std) else f" ± {std:.{decimals}f}")


def scaled(mean: float, std: float, decimals: int) -> str:
    """As `number`, but in powers of ten if all decimals would be zero."""
    if mean and abs(mean) < 0.5 * 10**-decimals:
        return f"{mean:.1e}" + ("" if pd.isna(std) else f" ± {std:.0e}")
    return number(mean, std, decimals)


def signed(difference: float, decimals: int = 1) -> str:
    """'+1.2', or '–' if there is no number."""
    return "–" if math.isnan(difference) else f"{difference:+.{decimals}f}"


def _compared(lines: pd.DataFrame, about: Quantity) -> list[dict[Hashable, Any]]:
    """The lines of a `comparison`, each with its cell; the best at each number of tasks are marked."""
    better, found = -1 if about.lower else 1, []
    published = bool(np.isfinite(lines["paper"].to_numpy()).any())
    for _, group in lines.groupby("n_tasks"):
        best, best_paper = ((better * group[name]).max() for name in ("ours_mean", "paper"))
        for line in group.to_dict("records"):
            ours, paper = line["ours_mean"], line["paper"]
            difference = signed(ours - paper, about.decimals)
            cell = Cell(
                number(ours, line["ours_std"], about.decimals),
                number(paper, line["paper_std"], about.decimals) if published else "",
                "" if difference == "–" else difference,
                "" if difference == "–" else "better" if better * (ours - paper) >= 0 else "worse",
                bool(better * ours == best),
                bool(better * paper == best_paper),
            )
            found.append(line | {"cell": cell})
    return found


def _caption(about: Quantity) -> str:
    return f"{about.title} [{about.unit}], {'lower' if about.lower else 'higher'} is better"


def block(lines: pd.DataFrame, experiment: str) -> Table:
    """A `comparison` with numbers of tasks as rows and methods as columns; a cell has our number and the paper's."""
    about = quantities(experiment)[lines["metric"].iloc[0]]
    methods = list(dict.fromkeys(lines["method"]))
    cells = {(line["n_tasks"], line["method"]): line["cell"] for line in _compared(lines, about)}
    head = ["Pretraining tasks", *(looks.look(method, experiment).name for method in methods)]
    counts = dict.fromkeys(count for count, _ in cells)
    return Table(head, [[str(n), *(cells[n, method] for method in methods)] for n in counts], _caption(about))


def listing(
    lines: pd.DataFrame,
    experiment: str,
    heads: Sequence[str] = ("Method",),
    names: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Table:
    """A `comparison` at one number of tasks, with a row for each method: our number, the paper's, the difference.

    Args:
        heads, names: columns that identify a method, in place of its name.
    """
    about, rows = quantities(experiment)[lines["metric"].iloc[0]], []
    for line in _compared(lines, about):
        name, cell = looks.look(line["method"], experiment).name, line["cell"]
        first = names.get(line["method"], (name, *[""] * (len(heads) - 1)))
        difference = Cell(cell.difference or "–", mark=cell.mark)
        paper = Cell(cell.paper or "–", best=cell.best_paper)
        rows.append([*first, Cell(cell.ours, best=cell.best), paper, difference])
    return Table([*heads, "Ours", "Paper", "Difference"], rows, _caption(about))


def cells_explained(paper: pd.DataFrame, lines: pd.DataFrame) -> str:
    """The explanation of the cells of a table by number of tasks, and a note on numbers of tasks that were not run."""
    missing = sorted(set(paper["n_tasks"]) - set(lines["n_tasks"]))
    printed = bool(np.isfinite(paper["std"].to_numpy()).any())
    spread = "the paper's ± is its standard deviation" if printed else "the paper prints no spread"
    text = f"""
- A cell has *ours ± std*, then the *paper's*. Ours is the mean over seeds of the mean over held-out tasks. ± is the
  sample standard deviation over seeds (none with one seed); {spread}. The best method at a number of tasks is marked,
  separately for ours and the paper's. – is a missing number.
- Methods without pretraining do not depend on the number of tasks: ours are run once per seed and repeated in each row.
"""
    if missing:
        text += f"- The paper also has {', '.join(map(str, missing))} tasks, which were not run here.\n"
    return text


def summaries(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """One line for each method and quantity: mean and std over seeds, n_seeds, unit."""
    about = quantities(looks.experiment(frame))
    parts = [summary(quantity(frame, name), ["method", "n_tasks", "metric"]) for name in names]
    lines = pd.concat([part for part in parts if len(part)] or parts[:1], ignore_index=True)
    return lines.assign(unit=[about[name].unit for name in lines["metric"]])


def summary_table(
    lines: pd.DataFrame,
    head: str,
    experiment: str,
    names: Mapping[str, str] | Sequence[str],
    notes: Mapping[tuple[str, str], str] = MappingProxyType({}),
    beside: Mapping[str, Mapping[str, str]] = MappingProxyType({}),
) -> Table:
    """`summaries` as a table with a row for each method.

    Args:
        names: the quantities to show; or a dictionary from a metric of `lines` to the quantity that names its column.
        notes: texts at the end of the cells of (method, quantity).
        beside: further columns before the quantities, by heading, with a cell for each method.
    """
    names = names if isinstance(names, Mapping) else {name: name for name in names}
    about = {column: quantities(experiment)[shown] for column, shown in names.items()}
    found, rows = {(line["method"], line["metric"]): line for line in lines.to_dict("records")}, []
    for method in looks.ordered(lines["method"], experiment):
        cells = [looks.look(method, experiment).name, *(column[method] for column in beside.values())]
        for name, each in about.items():
            line = found.get((method, name))
            cell = "–" if line is None else scaled(line["mean"], line["std"], each.decimals)
            cells.append(cell + notes.get((method, name), ""))
        rows.append(cells)
    return Table([head, *beside, *(f"{each.title} [{each.unit}]" for each in about.values())], rows)
