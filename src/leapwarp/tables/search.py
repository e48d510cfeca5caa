"""A random search's trials as a table, and its winner as settings for the experiment.

    python -m leapwarp.tables.search --criterion accuracy --out-dir results/quick/search/few_shot/warp_maml \
        results/quick/search/few_shot/warp_maml/trials/*.csv

Each trial is a run that was judged on validation classes, with its settings beside its rows (trial3.csv, trial3.yaml)
and where it came from (trial3.json). The winner has the highest mean of the criterion over its validation tasks.
"""

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from leapwarp import results, tables
from leapwarp.figures import style
from leapwarp.files import atomic, one_line


def read_trial(path: Path, criterion: str) -> dict[str, Any]:
    """One trial: number, score (nan where it diverged) and the settings that were drawn.

    Raises ValueError where it was not judged on validation classes, or never measured the criterion.
    """
    origin = json.loads(path.with_suffix(".json").read_text())
    if origin.get("held_out") != "validation":
        raise ValueError(
            f"{path}: was judged on {origin.get('held_out', 'test')} classes. Settings are chosen on validation "
            "classes alone: needed a run with --held-out validation."
        )
    trial, frame = yaml.safe_load(path.with_suffix(".yaml").read_text()), results.read(path)
    score = math.nan
    if "diverged" not in set(frame["metric"]):
        final = tables.quantity(frame, criterion)
        if final.empty:
            raise ValueError(f"{path}: found metrics {sorted(set(frame['metric']))}, needed {criterion!r}.")
        score = float(final["value"].to_numpy().mean())
    about = {key: trial[key] for key in ("experiment", "method", "trial")}
    about |= {"profile": frame["profile"].iloc[0], "data_source": frame["data_source"].iloc[0]}
    return about | {"score": score} | {name: trial["settings"][name] for name in trial["drawn"]}


def collect(paths: Sequence[Path], criterion: str) -> pd.DataFrame:
    """The trials, the best first; of equals the one of the lowest number, and those that diverged last.

    Raises ValueError where all diverged, or where they are of several searches.
    """
    trials: list[dict[str, Any]] = [read_trial(path, criterion) | {"criterion": criterion} for path in paths]
    for key in ("experiment", "method", "profile", "data_source"):
        found = sorted({trial[key] for trial in trials})
        if len(found) > 1:
            raise ValueError(f"found trials of {key} {found}, needed those of one search.")
    if all(math.isnan(trial["score"]) for trial in trials):
        raise ValueError(f"all {len(trials)} trials diverged: needed one that did not. Narrow the space of the rates.")
    sign = 1 if tables.QUANTITIES[criterion].lower else -1

    def place(trial: dict[str, Any]) -> tuple[bool, float, int]:
        diverged = math.isnan(trial["score"])
        return diverged, 0.0 if diverged else sign * trial["score"], trial["trial"]

    return pd.DataFrame(sorted(trials, key=place))


def drawn(frame: pd.DataFrame) -> list[str]:
    """The columns of the settings that were drawn."""
    known = {"experiment", "method", "trial", "profile", "data_source", "score", "criterion"}
    return [column for column in frame.columns if column not in known]


def plain(value: Any) -> Any:
    """A number of a frame as one that YAML knows."""
    return value.item() if hasattr(value, "item") else value


def winner(frame: pd.DataFrame) -> dict[str, Any]:
    best = frame.iloc[0]
    return {
        "experiment": best["experiment"],
        "method": best["method"],
        "profile": best["profile"],
        "data_source": best["data_source"],
        "trial": plain(best["trial"]),
        "trials": len(frame),
        "criterion": best["criterion"],
        "score": plain(best["score"]),
        "settings": {name: plain(best[name]) for name in drawn(frame)},
    }


def text(frame: pd.DataFrame) -> str:
    best, names = frame.iloc[0], drawn(frame)
    about = tables.QUANTITIES[best["criterion"]]
    lines = [f"| Trial | {about.title} [{about.unit}] | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for row in frame.to_dict("records"):
        score = "diverged" if math.isnan(row["score"]) else f"{row['score']:.{about.decimals}f}"
        cells = [str(row["trial"]), score]
        cells += [f"{row[name]:.3g}" if isinstance(row[name], float) else str(row[name]) for name in names]
        lines.append("| " + " | ".join(cells) + " |")
    return f"""# Random search: {style.method(best["method"]).name}, {best["experiment"]}

- {len(frame)} trials at profile `{best["profile"]}`, data `{best["data_source"]}`; the best first.
- Judged on validation classes; no trial sees test classes. The space is ours: the paper does not print its own.

{chr(10).join(lines)}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m leapwarp.tables.search", description="Choose the best trial.")
    parser.add_argument("trials", nargs="+", type=Path, help="CSVs of trials, with their .yaml and .json beside them")
    parser.add_argument("--criterion", required=True, choices=sorted(tables.QUANTITIES))
    parser.add_argument("--out-dir", required=True, type=Path, help="folder of trials.csv, trials.md and winner.yaml")
    options = parser.parse_args(arguments)
    with one_line(parser):
        frame = collect(options.trials, options.criterion)
        with atomic(options.out_dir / "trials.csv") as path:
            frame.to_csv(path, index=False, lineterminator="\n")
        with atomic(options.out_dir / "trials.md") as path:
            path.write_text(text(frame), encoding="utf-8")
        with atomic(options.out_dir / "winner.yaml") as path:
            path.write_text(yaml.safe_dump(winner(frame), sort_keys=False), encoding="utf-8")
    print(f"{options.out_dir / 'winner.yaml'}: trial {frame['trial'].iloc[0]} of {len(frame)}")


if __name__ == "__main__":
    main()
