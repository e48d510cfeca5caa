"""Tidy result rows: one CSV per run, one value per row, the same columns everywhere.

    python -m leapwarp.report gather --out results/quick/omniglot_leap/rows.csv \
        --origins results/quick/omniglot_leap/runs.json RUN.csv [RUN.csv ...]

A value of a whole run has an empty `task`, and a summary an empty `step`. Files are written atomically, and reading a
file gives exactly the values that were written. Nothing here imports torch.
"""

import codecs
import io
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from leapwarp.files import atomic

# The dtype of every column, in the order of the file. "Int64" is the integer type that has a missing value.
DTYPES = {
    "experiment": "str",
    "method": "str",
    "n_tasks": "int64",
    "seed": "int64",
    "task": "str",
    "step": "Int64",
    "metric": "str",
    "value": "float64",
    "size": "str",
    "data_source": "str",
    "data_checksum": "str",
    "settings": "str",
    "version": "str",
    "device": "str",
    "seconds": "float64",
}
COLUMNS = list(DTYPES)
PUBLISHED = "paper"  # the size of the published settings
TEXT = [name for name, dtype in DTYPES.items() if dtype == "str"]
# The key of a row. Two rows with the same key are the same measurement, reported twice.
KEY = ["experiment", "method", "n_tasks", "seed", "task", "step", "metric", "size", "data_source"]


DIVERGED = "diverged"
"""the metric of a seed that diverged, in training or on a held-out task, and has no results"""


class Provenance(NamedTuple):
    """The provenance that all rows of a frame share."""

    size: str
    data_source: str


def rows(records: Iterable[tuple[str, int | None, str, float]], **run: Any) -> pd.DataFrame:
    """The rows of one run, in COLUMNS; each record is (task, step, metric, value).

    `task` is "" for a value of the whole run, and `step` is None for a summary. `run` has the other columns. Its
    `settings` is a hash of the run's settings. Raises ValueError as `checked`.
    """
    name = "rows of " + ", ".join(f"{column} {run.get(column)}" for column in ("method", "n_tasks", "seed"))
    records = list(records)
    for each in records:
        if len(each) != 4 or not isinstance(each[1], int | None):
            raise ValueError(f"{name}: found the record {each!r}, needed (task or '', step or None, metric, value).")
    frame = pd.DataFrame(records, columns=["task", "step", "metric", "value"]).astype({"step": "Int64"})
    return checked(frame.assign(**run), name)


def checked(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """`frame` in the order and dtypes of the schema. Raises ValueError with `name` if it does not fit."""
    if set(frame.columns) != set(COLUMNS) or len(frame.columns) != len(COLUMNS):
        raise ValueError(f"{name}: found columns {list(frame.columns)}, needed {COLUMNS}.")
    if frame.empty:
        raise ValueError(f"{name}: found no rows, needed at least one.")
    try:
        frame = frame.reindex(columns=COLUMNS).astype(DTYPES)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name}: a column does not have the type it needs ({DTYPES}): {error}.") from None
    for column in ("value", "seconds"):
        bad = ~np.isfinite(frame[column].to_numpy())
        if bad.any():
            first = frame.iloc[int(bad.argmax())]
            raise ValueError(
                f"{name}: found {column} {first[column]} for {first['metric']} of {first['method']}, "
                f"seed {first['seed']}, task {first['task']!r}, step {first['step']}; needed a finite number."
            )
    for column in set(TEXT) - {"task"}:
        if "" in set(frame[column]):
            raise ValueError(f"{name}: found an empty {column}, needed a name in every row.")
    return frame.reset_index(drop=True)


def ordered(frame: pd.DataFrame, name: str) -> pd.DataFrame:
    """Rows sorted by KEY, summaries before steps. Raises ValueError if a measurement is there twice."""
    frame = frame.sort_values(KEY, na_position="first", kind="stable", ignore_index=True)
    twice = frame.duplicated(KEY)
    if twice.any():
        key = frame.loc[twice, KEY].iloc[0].to_dict()
        raise ValueError(f"{name}: found {twice.sum()} rows twice, first {key}; needed each run once.")
    return frame


def write(path: str | os.PathLike[str], frame: pd.DataFrame) -> None:
    """Write rows to a CSV atomically; floats keep every digit. Raises ValueError as `checked` does."""
    frame = checked(frame, str(path))
    with atomic(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n")


def read(path: str | os.PathLike[str]) -> pd.DataFrame:
    """The rows of a CSV file that `write` made. Raises ValueError with its name if it is missing or damaged."""
    advice = "Delete the file and run its rule again."
    try:
        text = Path(path).read_bytes().removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n")  # as Excel saves it
    except FileNotFoundError:
        raise ValueError(f"{path}: found no such file, needed a CSV of result rows.") from None
    header = text.partition(b"\n")[0].decode("utf-8", "replace").strip()
    if header != ",".join(COLUMNS):
        raise ValueError(f"{path}: found the header {header[:300]!r}, needed {','.join(COLUMNS)!r}. {advice}")
    if not text.endswith(b"\n"):
        raise ValueError(f"{path}: found a last line that is cut off, needed a complete file. {advice}")
    try:
        frame = pd.read_csv(
            io.BytesIO(text),
            dtype={name: dtype for name, dtype in DTYPES.items() if dtype != "float64"},
            keep_default_na=False,
            na_values={"step": [""]},
            converters={"value": float, "seconds": float},  # exact, which pandas' own parser was not always
            encoding="utf-8",
            on_bad_lines="error",
        )
    except (ValueError, TypeError) as error:  # pandas' ParserError, UnicodeDecodeError; a step that is no whole number
        raise ValueError(
            f"{path}: found a damaged line, needed {len(COLUMNS)} fields of the right type "
            f"({str(error).strip()}). {advice}"
        ) from None
    # pandas reads a line with one field too many as one with an index, and fills a line with too few.
    if not isinstance(frame.index, pd.RangeIndex) or frame.drop(columns="step").isna().any(axis=None):
        raise ValueError(f"{path}: found a line that does not have {len(COLUMNS)} fields. {advice}")
    return checked(frame, str(path))


def origins(paths: Sequence[str | os.PathLike[str]]) -> list[dict[str, Any]]:
    """The provenance of every run, from the JSON files beside the CSVs. Raises ValueError naming a bad file."""
    found = []
    for path in [Path(path).with_suffix(".json") for path in paths]:
        try:
            found += json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{path}: found no readable provenance ({error}), needed what the run wrote beside its CSV. "
                "Delete both files and run their rule again."
            ) from None
    return found


def gather(paths: Sequence[str | os.PathLike[str]]) -> pd.DataFrame:
    """All rows of many CSVs, sorted, so that the order of `paths` does not matter.

    Raises:
        ValueError: a file is damaged, a row is there twice, or rows of a run are missing.
    """
    if not paths:
        raise ValueError("gather: found no files, needed at least one CSV of result rows.")
    frames = [read(path) for path in paths]
    for path, frame in zip(paths, frames, strict=True):
        if Path(path).with_suffix(".json").exists():
            check_complete(path, frame, origins([path]))
    frame = pd.concat(frames, ignore_index=True)
    return ordered(checked(frame, "gather"), f"gather of {len(paths)} files")


def check_complete(path: str | os.PathLike[str], frame: pd.DataFrame, runs: Sequence[dict[str, Any]]) -> None:
    """Raise ValueError if a file has other runs, or another number of rows of one, than its provenance says."""
    columns = ["method", "n_tasks", "seed"]
    if not all(isinstance(run, dict) and set(columns) <= run.keys() for run in runs):
        raise ValueError(f"{path}: the JSON file beside it names no runs. Delete both files and run their rule again.")
    found = frame.groupby(columns).size().to_dict()
    needed = {tuple(run[column] for column in columns): run.get("rows") for run in runs}  # none up to 1.0.0
    for key in sorted(found.keys() | needed.keys()):
        if key not in needed or found.get(key, 0) != (needed[key] or found.get(key)):
            raise ValueError(
                f"{path}: found {found.get(key, 0)} rows of {key[0]}, {key[1]} tasks, seed {key[2]}, needed "
                f"{needed.get(key, 0) or 'some'}, as the JSON file beside it says. Delete both files and run their "
                "rule again."
            )


def provenance(frame: pd.DataFrame, experiment: str) -> Provenance:
    """The one size and data source of the rows of `experiment`. Raises ValueError if there are several."""
    found = {}
    for column in ("experiment", "size", "data_source", "data_checksum"):
        values = sorted(frame[column].unique())
        if len(values) != 1:
            raise ValueError(
                f"found rows of {len(values)} {column} ({', '.join(map(str, values))}), needed one: "
                "numbers of different sizes or data do not belong together. Gather them apart."
            )
        found[column] = values[0]
    if found["experiment"] != experiment:
        raise ValueError(f"found rows of experiment {found['experiment']!r}, needed {experiment!r}.")
    return Provenance(found["size"], found["data_source"])
