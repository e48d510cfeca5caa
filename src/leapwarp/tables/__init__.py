"""Shared code of the tables "ours | paper": the papers' numbers, joined to ours and written in both forms."""

import argparse
import math
import os
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from leapwarp import results
from leapwarp.figures import style
from leapwarp.files import atomic, one_line
from leapwarp.tables import activations, curves, scores, transfer

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
    "unit", "profile", "data_source",
]  # fmt: skip


def _final(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    return frame.loc[(frame["metric"] == metric) & frame["step"].isna()]


class Quantity(NamedTuple):
    """What tables, figures and claims speak about."""

    metric: str
    """of the rows it comes from"""
    title: str
    unit: str
    decimals: int
    """shown"""
    lower: bool = False
    """lower is better"""
    convert: Callable[[np.ndarray], np.ndarray] = lambda value: value
    """from the values of rows to the unit"""
    select: Callable[[pd.DataFrame, str], pd.DataFrame] = _final
    """(all rows, metric) -> one row for each run, or for each held-out task of a run"""


QUANTITIES = {
    "accuracy": Quantity("accuracy", "Held-out accuracy", "percent", 1, convert=lambda value: 100 * value),
    "error": Quantity("accuracy", "Held-out error", "percent", 1, True, lambda value: 100 * (1 - value)),
    "auc": Quantity("auc", "Area under the training-accuracy curve", "area, 0 to 1", 3),
    "mean_loss": Quantity("mean_loss", "Mean training loss along a held-out task", "nats", 3, True),
    "final_meta_loss": Quantity("meta_loss", "Loss at the end", "nats", 3, True, select=curves.end),
    "half_way": Quantity(
        "meta_loss", "Half-way", "percent of meta-training", 0, True, lambda value: 100 * value, curves.half_way
    ),
    "steps_to_median": Quantity(
        "meta_loss", "Steps to the median's end", "meta-steps", 0, True, select=curves.to_median
    ),
    "offset_pre": Quantity("pre", "Offset before warps", "of the root mean square", 3, select=activations.offset),
    "offset_post": Quantity(
        "post", "Offset after warps", "of the root mean square", 3, True, select=activations.offset
    ),
    "excess_post": Quantity("post", "Distance from I beyond the control's", "norm", 2, True, select=activations.excess),
    "rho_5": Quantity("rho_5", "ρ after 5 steps", "relative error", 4, True),
    "rho_20": Quantity("rho_20", "ρ after 20 steps", "relative error", 4, True),
    "rho_growth": Quantity("rho_growth", "Growth of ρ from 5 to 20 steps", "ratio", 2, True),
    "rho_late_growth": Quantity("rho_late_growth", "Growth of ρ from 20 steps to the last", "ratio", 2, True),
    "rho_spread_5": Quantity("rho_spread_5", "Largest over least ρ of all layers after 5 steps", "ratio", 1, True),
    "rho_spread_20": Quantity("rho_spread_20", "Largest over least ρ of all layers after 20 steps", "ratio", 1, True),
    "shortening": Quantity("shortening", "Last path", "of the first", 3, True),
    "overshoot": Quantity("overshoot", "Last path above the shortest", "percent", 3, True, lambda value: 100 * value),
    "rises": Quantity("rises", "Longer than before", "meta-steps", 1, True),
    "criterion_broken": Quantity("criterion_broken", "Frozen objective rose", "meta-steps", 1, True),
    "half_steps": Quantity("half_steps", "Above half of the first path", "meta-steps", 1, True),
    "limit_distance": Quantity("limit_distance", "Limit points moved, at most", "units of the plane", 4, True),
    "order": Quantity("order", "Order of the error", "power of the rate", 3),
    "largest_error": Quantity("largest_error", "Largest error", "of the loss", 3, True),
    "definite": Quantity("definite", "Least over largest eigenvalue of the metric", "ratio", 4),
    "final_height": Quantity("final_height", "Final height", "height", 3, True),
    "height_area": Quantity("height_area", "Area of heights", "height", 3, True),
    "final_gap": Quantity("final_gap", "Final gap", "0 to 1", 3, True),
    "gap_area": Quantity("gap_area", "Area of gaps", "0 to 1", 3, True),
    "gap_area_struggling": Quantity(
        "gap_area", "Area of gaps, struggling", "0 to 1", 3, True, select=curves.where_descent_struggles
    ),
    "left": Quantity("left", "Outside the domain at the end", "percent", 1, True, lambda value: 100 * value),
    "final_loss": Quantity("final_loss", "Loss on all sub-tasks at the end", "half squared error", 3, True),
    "learnt_loss": Quantity("learnt_loss", "Loss on each when it was learnt", "half squared error", 3, True),
    "forgetting": Quantity("forgetting", "Forgetting", "half squared error", 3, True),
    "transfer": Quantity("transfer", "Backward transfer", "half squared error", 3),
    "log_gain": Quantity("log_gain", "Gain on the current sub-task", "nats", 2),
    "log_forgetting": Quantity("log_forgetting", "Relative forgetting", "nats", 2, True),
    "log_spike": Quantity("log_spike", "Spike after a switch", "nats", 2, True),
    "log_recovery": Quantity("log_recovery", "Recovery after the spike", "nats", 2),
    "inductive_accuracy": Quantity(
        "inductive_accuracy", "Inductive held-out accuracy", "percent", 1, convert=lambda value: 100 * value
    ),
    "normalisation_gain": Quantity(
        "normalisation_gain", "Transductive less inductive", "points", 1, convert=lambda value: 100 * value
    ),
    "memory_growth": Quantity("memory_growth", "Memory at the most steps over that at the fewest", "ratio", 2, True),
    "time_growth": Quantity(
        "time_growth", "Time a step at the most steps over that at the middle one", "ratio", 2, True
    ),
    "heldout_area": Quantity(
        "heldout_area", "Area under the held-out accuracy curve", "percent", 1, convert=lambda value: 100 * value
    ),
    "adapt_seconds": Quantity("adapt_seconds", "Time to adapt", "seconds a task", 3, True),
}
QUANTITIES |= {
    "final_return": Quantity("return", "Return at the end", "reward an episode", 1, select=curves.end),
    "return_height": Quantity("return", "Mean return over training", "reward an episode", 1, select=curves.height),
    "return_spread": Quantity(
        "return", "That, off the median of seeds", "reward an episode", 1, True, select=curves.off_median
    ),
    "task_parameters": Quantity("task_parameters", "Task parameters", "numbers", 0),
    "warp_parameters": Quantity("warp_parameters", "Warp parameters", "numbers", 0),
}
GAMES = {  # by the suffix of their metrics
    "heldout": "held-out games",
    "seen": "games of meta-training",
    "larger": "games with more actions",
}
QUANTITIES |= {
    f"score_{what}_{group}": Quantity(f"score_{group}", f"{title}, {games}", "0 random, 1 best", 3, select=select)
    for group, games in GAMES.items()
    for what, title, select in (("area", "Area under the score", scores.area), ("end", "Score at the end", scores.end))
}
SHUFFLED = "_shuffled"  # measured where sub-tasks come in an order not seen in meta-training
QUANTITIES |= {
    name + SHUFFLED: about._replace(metric=name + SHUFFLED, title=f"{about.title}, other order")
    for name, about in QUANTITIES.items()
    if name in ("final_loss", "learnt_loss", "forgetting", "transfer") or name.startswith("log_")
}
QUANTITIES |= {
    "train_error": Quantity("train_error", "Training error", "percent", 1, True, lambda value: 100 * value),
    "error_area": Quantity("error_area", "Area under the training-error curve", "area, 0 to 100", 1, True),
    "step_seconds": Quantity("step_seconds", "Time of a step on a held-out set", "seconds", 4, True),
    "parameters": Quantity("parameters", "Parameters", "count", 0, True),
    "parameter_ratio": Quantity(
        "parameters", "Parameters", "times finetuning's", 1, True, select=transfer.times_finetuning
    ),
}
QUANTITIES["epochs_gain"] = Quantity(
    "accuracy", "Gain from more epochs", "points", 1, False, lambda value: 100 * value, transfer.gain_of_epochs
)
for _name in transfer.SETS:  # the comparisons of Leap's Table 3, set by set
    QUANTITIES |= {
        f"error_{_name}": QUANTITIES["error"]._replace(
            title=f"Held-out error on {_name}", select=transfer.on_set(_name)
        ),
        f"lead_{_name}": Quantity(
            "accuracy", f"Leap's lead on {_name}", "percent", 1, False, lambda value: 100 * value,
            transfer.margin(_name, lower=False),
        ),
        f"area_lead_{_name}": Quantity(
            "error_area", f"Leap's lead in area on {_name}", "area, 0 to 100", 1,
            select=transfer.margin(_name, lower=True),
        ),
    }  # fmt: skip
PROFILES = {
    "smoke": "the smallest size, to see that everything runs: its numbers say nothing about the methods",
    "quick": "smaller networks and shorter training than the published settings: compare the order of "
    "the methods with the paper's, not the level of the numbers",
    "paper": "the published settings as far as the paper states them; docs/deviations.md lists departures",
}
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


def quantity(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of a key of QUANTITIES, one a run or one a held-out task of a run, in its unit."""
    about = QUANTITIES[name]
    final = about.select(frame, about.metric)
    return final.assign(metric=name, value=about.convert(final["value"].to_numpy()))


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
    return results.summary(final, ["method", "n_tasks"])


def by_key(frame: pd.DataFrame) -> dict[tuple[str, int], dict[Hashable, Any]]:
    """The lines of a frame as dicts, found by (method, n_tasks)."""
    return {(line["method"], line["n_tasks"]): line for line in frame.to_dict("records")}


def comparison(frame: pd.DataFrame, name: str, paper: pd.DataFrame | None, experiment: str) -> pd.DataFrame:
    """One line per (n_tasks, method) with ours and the paper's (missing where there is none), in COLUMNS.

    The counts are those that were run, or the paper's where nothing was pretrained; methods run without
    pretraining are repeated at each of them. The paper's methods come first, in its order. Raises ValueError
    where rows come from several profiles, data sources or experiments, or where `name` was never measured.
    """
    profile, data_source = results.provenance(frame, experiment)
    ours = by_tasks(frame, name)
    if ours.empty:
        raise ValueError(f"found metrics {sorted(set(frame['metric']))}, needed {QUANTITIES[name].metric!r}.")
    mine = by_key(ours)
    theirs = by_key(paper) if paper is not None else {}
    counts = sorted({count for _, count in mine if count > 0}) or sorted({count for _, count in theirs})
    methods = list(dict.fromkeys(method for method, _ in theirs))
    methods += [method for method in style.ordered(method for method, _ in mine) if method not in methods]
    lines = []
    for count in counts:
        for method in methods:
            our = mine.get((method, count)) or mine.get((method, 0)) or {"n_seeds": 0}
            their = theirs.get((method, count), {})
            lines.append([
                count, method, name, our.get("mean"), our.get("std"), our["n_seeds"],
                their.get("value"), their.get("std"), QUANTITIES[name].unit, profile, data_source,
            ])  # fmt: skip
    numbers = dict.fromkeys(["ours_mean", "ours_std", "paper", "paper_std"], "float64")
    return pd.DataFrame(lines, columns=COLUMNS).astype({"n_tasks": "int64", "n_seeds": "int64", **numbers})


def number(mean: float, std: float, decimals: int) -> str:
    """'12.3 ± 0.4', without the spread where it is missing, and '–' where there is no number."""
    if math.isnan(mean):
        return "–"
    return f"{mean:.{decimals}f}" + ("" if math.isnan(std) else f" ± {std:.{decimals}f}")


def block(lines: pd.DataFrame) -> str:
    """A markdown table of `comparison` with counts as rows and methods as columns, 'ours ± std / paper'."""
    decimals = QUANTITIES[lines["metric"].iloc[0]].decimals
    published = bool(np.isfinite(lines["paper"].to_numpy()).any())
    methods = list(dict.fromkeys(lines["method"]))
    text = [["Pretraining tasks", *(style.method(method).name for method in methods)]]
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


def listing(lines: pd.DataFrame) -> str:
    """A markdown table of `comparison` at one number of tasks, a method a row: ours, the paper's, the difference."""
    about = QUANTITIES[lines["metric"].iloc[0]]
    text = ["| Method | Ours | Paper | Difference |", "|---|---|---|---|"]
    for line in lines.to_dict("records"):
        difference = line["ours_mean"] - line["paper"]
        cells = [
            style.method(line["method"]).name,
            number(line["ours_mean"], line["ours_std"], about.decimals),
            number(line["paper"], line["paper_std"], about.decimals),
            "–" if math.isnan(difference) else f"{difference:+.{about.decimals}f}",
        ]
        text.append("| " + " | ".join(cells) + " |")
    return "\n".join(text)


def origin(frame: pd.DataFrame, **profiles: str) -> str:
    """The lines that say which profile, data and code made the rows, and from how many seeds.

    Args:
        profiles: what a profile is, where the experiment has another word for it than `PROFILES`.
    """
    profile, data_source = frame["profile"].iloc[0], frame["data_source"].iloc[0]
    counts = sorted(set(frame.groupby(["method", "n_tasks"])["seed"].nunique()))
    n_seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} (the CSV says which)"
    return "\n".join(
        [
            f"- Profile: `{profile}`: {(PROFILES | profiles).get(profile, 'not one of the known sizes')}.",
            f"- Data: `{data_source}`: {SOURCES.get(data_source, 'not one of the known sources')}.",
            f"- Seeds: {n_seeds}. Code version: {', '.join(sorted(set(frame['version'])))}.",
        ]
    )


def preamble(frame: pd.DataFrame, lines: pd.DataFrame, paper: pd.DataFrame) -> str:
    """The lines every table by number of tasks opens with: `origin`, what ± means, and what was not run."""
    missing = sorted(set(paper["n_tasks"]) - set(lines["n_tasks"]))
    printed = bool(np.isfinite(paper["std"].to_numpy()).any())
    spread = "the paper's ± is its standard deviation" if printed else "the paper prints no spread"
    text = [
        origin(frame),
        "- Cells are *ours ± std / paper*. Ours is the mean over seeds of the mean over held-out tasks; ± is "
        f"the sample standard deviation over seeds (none with one seed); {spread}. – is a missing number.",
        "- Methods without pretraining do not depend on the number of tasks: ours are run once per seed and "
        "repeated in each row.",
    ]
    if missing:
        text.append(f"- The paper also has {', '.join(map(str, missing))} tasks, which were not run here.")
    return "\n".join(text)


def main(
    build: Callable[[pd.DataFrame, pd.DataFrame], tuple[pd.DataFrame, str]],
    *,
    module: str,
    description: str,
    paper: str,
    table: str | None = None,
    name: str | None = None,
    arguments: Sequence[str] | None = None,
) -> None:
    """The command line of one table: writes <name>.csv and .md, or ends with one line of error.

    Args:
        build: (rows, the paper's numbers) -> lines of the CSV, text.
        paper: which file of paper/. table: which of its tables; None where the paper prints no numbers, so that
            `build` gets an empty frame.
        name: of the files; that of the paper's table where None.
    """
    name = name or f"table{table}"
    parser = argparse.ArgumentParser(prog=f"python -m leapwarp.tables.{module}", description=description)
    parser.add_argument("--rows", required=True, metavar="CSV", help="gathered rows of this experiment")
    help_paper = f"the paper's numbers (default: paper/{paper}.csv)"
    parser.add_argument("--paper", default=default_paper(paper), metavar="CSV", help=help_paper)
    parser.add_argument("--out-dir", required=True, type=Path, metavar="DIR", help="folder of the two files")
    options = parser.parse_args(arguments)
    with one_line(parser):
        printed = read_paper(options.paper, table) if table else pd.DataFrame(columns=PAPER_COLUMNS)
        lines, text = build(results.read(options.rows), printed)
        with atomic(options.out_dir / f"{name}.csv") as path:
            lines.to_csv(path, index=False, lineterminator="\n")
        with atomic(options.out_dir / f"{name}.md") as path:
            path.write_text(text, encoding="utf-8")
    print(f"{options.out_dir / f'{name}.md'}: {len(lines)} lines")
