"""The provenance of rows: size, data, code, machine, packages, settings and times of their runs."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd

from leapwarp.report import looks
from leapwarp.report.document import Details, Settings, Table, Text
from leapwarp.report.rows import PUBLISHED

REAL = {
    "omniglot",
    "simulated",
    "mini-imagenet",
    "tiered-imagenet",
    "multicv",
    "atari",
}  # data sources of the papers
SOURCES = {
    "omniglot": "the Omniglot images",
    "simulated": "tasks made by code from the seed",
    "multicv": "the image data sets of the paper, whole",
    "multicv-subsets": "parts of the paper's image data sets and sets in their place, as the table lists them: the "
    "numbers cannot be compared with the paper's",
    "glyph-sets": "made-up characters in four styles, not image data sets: not comparable with the paper's numbers",
    "atari": "Atari games in the Arcade Learning Environment, as ale-py ships them",
    "glyphs": "a procedural stand-in, not Omniglot: the numbers cannot be compared with the paper's",
    "mini-imagenet": "mini-ImageNet with the split of Ravi and Larochelle",
    "tiered-imagenet": "tiered-ImageNet",
    "tiny-imagenet": "a subset of Tiny-ImageNet, other classes and smaller images than the paper's: the numbers cannot "
    "be compared with its",
    "tiny-imagenet-200": "Tiny-ImageNet as published, with a split of our own of its 200 classes, which have smaller "
    "images than the paper's: the numbers cannot be compared with its",
    "tiny-imagenet-200-subset": "Tiny-ImageNet in the published layout with some of its images missing, and with a "
    "split of our own: the numbers cannot be compared with the paper's",
    "textures": "a procedural stand-in, not ImageNet: the numbers cannot be compared with the paper's",
}

Run = dict[str, Any]
"""an entry of runs.json: one seed, with what trained it under `training`"""


def read(path: Path) -> list[Run]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def diverged(frame: pd.DataFrame) -> pd.DataFrame:
    """The runs that diverged and have no results: their method, n_tasks and seed."""
    runs = frame.loc[frame["metric"] == "diverged", ["method", "n_tasks", "seed"]]
    return runs.drop_duplicates().sort_values(["method", "n_tasks", "seed"])


def seed_counts(frame: pd.DataFrame) -> list[int]:
    """The numbers of seeds with results that the methods have, ascending, each once."""
    runs = frame[["method", "n_tasks", "seed"]].drop_duplicates()
    lost = diverged(frame)
    kept = runs.loc[~runs.apply(tuple, axis=1).isin(lost.apply(tuple, axis=1))] if len(lost) else runs
    return sorted(set(kept.groupby(["method", "n_tasks"])["seed"].nunique()))


def seeds(frame: pd.DataFrame) -> str:
    """The number of seeds with results: one number, or the smallest and the largest over methods."""
    counts = seed_counts(frame)
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def most_seeds(frame: pd.DataFrame) -> str:
    """The number of seeds with results, for figures that may draw fewer: some runs may lack points of curves."""
    runs = frame.assign(curve=frame["step"].notna()).groupby(["method", "n_tasks", "seed"])["curve"].any()
    mixed = (runs.groupby(["method", "n_tasks"]).nunique() > 1).to_numpy().any()
    counts = seed_counts(frame)
    return f"up to {counts[-1]}" if mixed or len(counts) > 1 else f"{counts[0]}"


def smaller(size: str, data_source: str) -> str:
    """A warning for readers who compare with the paper, or ""."""
    text = [] if size == PUBLISHED else ["not the published size"]
    other = "parts of the data sets" if data_source == "multicv-subsets" else "stand-in data, not the paper's"
    return "; ".join(text + ([] if data_source in REAL else [other]))


def in_short(frame: pd.DataFrame, count: Callable[[pd.DataFrame], str] = seeds) -> str:
    """Size, data and seeds of rows in one line. `count` says how many seeds there are."""
    size, data_source, n_seeds = frame["size"].iloc[0], frame["data_source"].iloc[0], count(frame)
    warning = smaller(size, data_source)
    text = f"size {size}, data {data_source}, {n_seeds} seed{'' if n_seeds == '1' else 's'}"
    return text + (f" ({warning})" if warning else "")


def opening(frame: pd.DataFrame, note: str) -> Text:
    """A list with the size, data, code and seeds of the rows. `note` describes the size."""
    size, data_source, n_seeds, version = (
        frame["size"].iloc[0],
        frame["data_source"].iloc[0],
        seeds(frame),
        frame["version"],
    )
    experiment, lost = frame["experiment"].iloc[0], []
    for method, n_tasks, seed in diverged(frame).itertuples(index=False):
        count = f" at {n_tasks} tasks" if n_tasks else ""
        lost.append(f"{looks.look(method, experiment).name}{count}, seed {seed}")
    missing = f"\n- Without results, since they diverged: {'; '.join(lost)}." if lost else ""
    which = " (the CSV says which)" if "to" in n_seeds else ""
    return Text(f"""
- Size: `{size}`: {note.rstrip(".")}.
- Data: `{data_source}`: {SOURCES.get(data_source, "not one of the known sources")}.
- Seeds: {n_seeds}{which}. Code version: {", ".join(sorted(set(version)))}.{missing}
""")


def short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def settings(runs: Sequence[Run]) -> Settings:
    """The settings that most methods share, and for each method those that differ."""
    by_method = {
        looks.look(run["method"], run["experiment"]).name: {key: short(value) for key, value in run["settings"].items()}
        for run in runs
    }
    keys = list(next(iter(by_method.values())))
    common = {key: pd.Series([found.get(key) for found in by_method.values()]).mode().iloc[0] for key in keys}
    departures = {
        name: {key: value for key, value in found.items() if value != common.get(key)}
        for name, found in by_method.items()
    }
    return Settings(common, {name: found for name, found in departures.items() if found})


def provenance(runs: Sequence[Run]) -> dict[str, Any]:
    """The provenance of the rows: the sets of data, code, machines and packages, and the times."""
    made = [each for run in runs for each in (run, run["training"]) if each]

    def found(key: str) -> list[str]:
        return sorted({str(each[key]) for each in made})

    return {
        "sources": found("data_source"),
        "checksums": found("data_checksum"),
        "versions": found("version"),
        "codes": found("code"),
        "hashes": sorted({run["settings_hash"] for run in runs}),
        "machines": found("machine"),
        "devices": found("device"),
        "packages": sorted({f"{name} {version}" for each in made for name, version in each["packages"].items()}),
        "first": min(found("started")),
        "last": max(found("started")),
        "n_runs": len(runs),
        "hours": sum(run["seconds"] for run in runs) / 3600,
    }


def together(made: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What several calls of `provenance` found, as one call would have found it."""
    joined = {
        key: sorted({name for each in made for name in each[key]}) for key in made[0] if type(made[0][key]) is list
    }
    ends = {"first": min(each["first"] for each in made), "last": max(each["last"] for each in made)}
    return joined | ends | {key: sum(each[key] for each in made) for key in ("n_runs", "hours")}


def details(runs: Sequence[Run]) -> Details:
    """The provenance as tables, with the times of the runs of each method."""
    made, times = provenance(runs), {}
    for run in runs:
        times.setdefault(looks.look(run["method"], run["experiment"]).name, []).append(run["seconds"])
    listed = {key: ", ".join(found) for key, found in made.items() if isinstance(found, list)}
    lines = [
        ["Data", f"{listed['sources']}, checksum {listed['checksums']}"],
        ["Code", f"{listed['versions']}; hash of the sources that ran {listed['codes']}"],
        ["Settings", f"hashes {listed['hashes']}"],
        ["Machine", f"{'; '.join(made['machines'])} (device {listed['devices']})"],
        ["Packages", listed["packages"]],
        ["Started", f"first run {made['first']}, last run {made['last']}"],
        ["Time", f"{made['n_runs']} runs, {made['hours']:.2f} hours together"],
    ]
    by_method = [[name, str(len(each)), f"{median(each):.1f}", f"{sum(each):.0f}"] for name, each in times.items()]
    of_times = Table(["Method", "Runs", "Median run [s]", "All runs [s]"], by_method)
    return Details("Where the numbers come from", [Table(["What", "Found"], lines), of_times])
