"""Shared code of the tables "ours | paper": the papers' numbers, joined to ours and written in both forms."""

import math
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from leapwarp.report import looks
from leapwarp.report.quantities import quantities, quantity
from leapwarp.report.rows import provenance, summary

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
REAL = {
    "omniglot",
    "simulated",
    "mini-imagenet",
    "tiered-imagenet",
    "multicv",
    "atari",
}  # sources of data that the papers used
SOURCES = {
    "omniglot": "the Omniglot images",
    "simulated": "tasks made by code from the seed",
    "multicv": "the image data sets of the paper, whole",
    "multicv-subsets": "parts of the paper's image data sets and sets in their place, as the table lists them: the "
    "numbers cannot be compared with the paper's",
    "glyph-sets": "made-up characters in four looks, not image data sets: not comparable with the paper's numbers",
    "atari": "Atari games in the Arcade Learning Environment, as ale-py ships them",
    "glyphs": "a procedural stand-in, not Omniglot: the numbers cannot be compared with the paper's",
    "mini-imagenet": "mini-ImageNet with the split of Ravi and Larochelle",
    "tiered-imagenet": "tiered-ImageNet",
    "tiny-imagenet": "a subset of Tiny-ImageNet, other classes and smaller images than the paper's: the numbers cannot "
    "be compared with its",
    "textures": "a procedural stand-in, not ImageNet: the numbers cannot be compared with the paper's",
}


def read_paper(path: str | os.PathLike[str], table: str) -> pd.DataFrame:
    """The published numbers of one table; raises ValueError where the file or the table is not there."""
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
    """paper/<name>.csv of the working directory, or else of the checkout that this file is in."""
    here = Path("paper") / f"{name}.csv"
    return here if here.exists() else Path(__file__).resolve().parents[3] / here


def by_tasks(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """Ours over seeds: columns method, n_tasks, mean, std, n_seeds; no-pretraining methods have n_tasks = 0.

    Raises ValueError where two runs of one seed were evaluated on different held-out tasks.
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


def comparison(frame: pd.DataFrame, name: str, paper: pd.DataFrame | None, experiment: str) -> pd.DataFrame:
    """One line per (n_tasks, method) with ours and the paper's (missing where there is none), in COLUMNS.

    The counts are those that were run, or the paper's where nothing was pretrained; methods run without
    pretraining are repeated at each of them. The paper's methods come first, in its order. Raises ValueError
    where rows come from several sizes, data sources or experiments, or where `name` was never measured.
    """
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


def number(mean: float, std: float, decimals: int) -> str:
    """'12.3 ± 0.4', without the spread where it is missing, and '–' where there is no number."""
    if math.isnan(mean):
        return "–"
    return f"{mean:.{decimals}f}" + ("" if math.isnan(std) else f" ± {std:.{decimals}f}")


def block(lines: pd.DataFrame, experiment: str) -> str:
    """A markdown table of `comparison` with counts as rows and methods as columns, 'ours ± std / paper'."""
    decimals = quantities(experiment)[lines["metric"].iloc[0]].decimals
    published = bool(np.isfinite(lines["paper"].to_numpy()).any())
    methods = list(dict.fromkeys(lines["method"]))
    text = [["Pretraining tasks", *(looks.look(method, experiment).name for method in methods)]]
    for count, group in lines.groupby("n_tasks"):
        cells = {}
        for line in group.to_dict("records"):
            cell = number(line["ours_mean"], line["ours_std"], decimals)
            if published:
                cell += " / " + number(line["paper"], line["paper_std"], decimals)
            cells[line["method"]] = cell
        text.append([str(count), *(cells[method] for method in methods)])
    widths = [max(len(row[column]) for row in text) for column in range(len(text[0]))]
    padded = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in text
    ]
    rule = "|-" + "-|-".join("-" * width for width in widths) + "-|"
    return "\n".join([padded[0], rule, *padded[1:]])


def listing(lines: pd.DataFrame, experiment: str) -> str:
    """A markdown table of `comparison` at one number of tasks, a method a row: ours, the paper's, the difference."""
    about = quantities(experiment)[lines["metric"].iloc[0]]
    text = ["| Method | Ours | Paper | Difference |", "|---|---|---|---|"]
    for line in lines.to_dict("records"):
        difference = line["ours_mean"] - line["paper"]
        cells = [
            looks.look(line["method"], experiment).name,
            number(line["ours_mean"], line["ours_std"], about.decimals),
            number(line["paper"], line["paper_std"], about.decimals),
            "–" if math.isnan(difference) else f"{difference:+.{about.decimals}f}",
        ]
        text.append("| " + " | ".join(cells) + " |")
    return "\n".join(text)


def origin(frame: pd.DataFrame, note: str) -> str:
    """The lines that say which size, data and code made the rows, and how many seeds. `note` is what the size is."""
    size, data_source = frame["size"].iloc[0], frame["data_source"].iloc[0]
    counts = sorted(set(frame.groupby(["method", "n_tasks"])["seed"].nunique()))
    n_seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} (the CSV says which)"
    return "\n".join(
        [
            f"- Size: `{size}`: {note}.",
            f"- Data: `{data_source}`: {SOURCES.get(data_source, 'not one of the known sources')}.",
            f"- Seeds: {n_seeds}. Code version: {', '.join(sorted(set(frame['version'])))}.",
        ]
    )


def preamble(frame: pd.DataFrame, lines: pd.DataFrame, paper: pd.DataFrame, note: str) -> str:
    """The lines every table by number of tasks opens with: `origin`, what ± means, and what was not run."""
    missing = sorted(set(paper["n_tasks"]) - set(lines["n_tasks"]))
    printed = bool(np.isfinite(paper["std"].to_numpy()).any())
    spread = "the paper's ± is its standard deviation" if printed else "the paper prints no spread"
    text = [
        origin(frame, note),
        "- Cells are *ours ± std / paper*. Ours is the mean over seeds of the mean over held-out tasks; ± is "
        f"the sample standard deviation over seeds (none with one seed); {spread}. – is a missing number.",
        "- Methods without pretraining do not depend on the number of tasks: ours are run once per seed and "
        "repeated in each row.",
    ]
    if missing:
        text.append(f"- The paper also has {', '.join(map(str, missing))} tasks, which were not run here.")
    return "\n".join(text)


def summaries(frame: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """One line for each method and quantity: mean and std over seeds, n_seeds, unit."""
    about = quantities(looks.experiment(frame))
    parts = [summary(quantity(frame, name), ["method", "n_tasks", "metric"]) for name in names]
    lines = pd.concat([part for part in parts if len(part)], ignore_index=True)
    return lines.assign(unit=[about[name].unit for name in lines["metric"]])


def summary_block(
    lines: pd.DataFrame,
    names: Sequence[str],
    head: str,
    experiment: str,
    notes: Mapping[tuple[str, str], str] = MappingProxyType({}),
) -> str:
    """The same with a method a row. `notes` end the cells of (method, quantity)."""
    about = [quantities(experiment)[name] for name in names]
    text = [f"| {head} | " + " | ".join(f"{each.title} [{each.unit}]" for each in about) + " |"]
    text.append("|---" * (len(names) + 1) + "|")
    found = {(line["method"], line["metric"]): line for line in lines.to_dict("records")}
    for method in looks.ordered(lines["method"], experiment):
        cells = []
        for name, each in zip(names, about, strict=True):
            line = found.get((method, name))
            cell = "–" if line is None else _scaled(line["mean"], line["std"], each.decimals)
            cells.append(cell + notes.get((method, name), ""))
        text.append(f"| {looks.look(method, experiment).name} | " + " | ".join(cells) + " |")
    return "\n".join(text)


def _scaled(mean: float, std: float, decimals: int) -> str:
    """As `number`, but in powers of ten where the decimals would show nothing."""
    if mean and abs(mean) < 0.5 * 10**-decimals:
        return f"{mean:.1e}" + ("" if pd.isna(std) else f" ± {std:.0e}")
    return number(mean, std, decimals)
