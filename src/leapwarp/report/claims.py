"""A verdict on each claim of the papers, from tidy rows (docs/claims.md).

    python -m leapwarp.report.claims decide --claims paper/claims.yaml --out results/quick/claims.csv --size quick \
        --decides orders --experiments omniglot_leap maze --rows results/quick/omniglot_leap/rows.csv \
        results/quick/maze/rows.csv
    python -m leapwarp.report.claims merge --out results/claims.csv results/paper/claims.csv results/quick/claims.csv

A claim has parts, and each part is a contrast: a weighted sum of cells, a method at a number of tasks each, that is
positive where the claim is right. All methods of a seed see the same held-out tasks, so that the contrast is taken
for each seed and task, and its interval comes from drawing seeds and tasks anew. Nothing here imports torch.
"""

import argparse
import math
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from leapwarp import catalogue
from leapwarp.catalogue import Method
from leapwarp.check import read_yaml
from leapwarp.files import atomic, one_line
from leapwarp.plan import DECIDES, SCHEMAS
from leapwarp.report import looks, rows
from leapwarp.report.document import Document, Text, Verdicts
from leapwarp.report.quantities import Quantity, quantities, quantity
from leapwarp.report.stats import LEVEL, interval

SUPPORTED, CONTRADICTED, UNDECIDED = VERDICTS = "supported", "contradicted", "undecided"
COLUMNS = [
    "id", "paper", "section", "claim", "experiment", "verdict", "part", "part_verdict", "effect", "low", "high", "unit",
    "n_seeds", "n_heldout", "reason", "size", "data_source",
]  # fmt: skip

Cell = tuple[str, int]
"""(method, number of pretraining tasks)"""
Weights = dict[Cell, float]
Methods = dict[str, Method]
"""of the claim's experiment"""


class Part(NamedTuple):
    name: str
    weights: Weights
    logarithm: bool = False
    """of ratios: the contrast is taken of logarithms, to base 2"""
    constant: float = 0.0
    """added to the weighted sum"""


# ---------------------------------------------------------------- kinds of statistics


def _counts(asked: Any, run: Sequence[int]) -> list[int]:
    """Numbers of tasks that `at` names; a list names them whether they were run or not."""
    if asked == "each":
        return list(run)
    if asked == "largest":
        return list(run[-1:])
    if isinstance(asked, dict):
        return [count for count in run if count >= asked["from"]]
    return asked


def _cell(method: str, count: int, methods: Methods) -> Cell:
    return method, count if methods[method].trains else 0


def _pair(spec: dict[str, Any], run: Sequence[int], methods: Methods, sign: str, logarithm: bool) -> list[Part]:
    names = [methods[spec[key]].look.name for key in ("more", "less")]
    return [
        Part(
            f"{names[0]} {sign} {names[1]}" + (f", {count} task{'s' * (count != 1)}" if count else ""),
            {_cell(spec["more"], count, methods): 1.0, _cell(spec["less"], count, methods): -1.0},
            logarithm,
        )
        for count in _counts(spec["at"], run)
    ]


def difference(spec: dict[str, Any], run: Sequence[int], methods: Methods) -> list[Part]:
    """`more` minus `less`, at each number of tasks that `at` names."""
    return _pair(spec, run, methods, "−", False)


def ratio(spec: dict[str, Any], run: Sequence[int], methods: Methods) -> list[Part]:
    """`more` divided by `less`; the claim is that it is above 1."""
    return _pair(spec, run, methods, "/", True)


def gain(spec: dict[str, Any], run: Sequence[int], methods: Methods) -> list[Part]:
    """What `method` gains from the smallest number of tasks to the largest, beyond what `than` gains."""
    if len(run) < 2:
        return [Part(f"gain of {methods[spec['method']].look.name}", {})]
    weights = {(spec["method"], run[-1]): 1.0, (spec["method"], run[0]): -1.0}
    name = f"gain of {methods[spec['method']].look.name} from {run[0]} to {run[-1]} tasks"
    if "than" in spec:
        weights |= {(spec["than"], run[-1]): -1.0, (spec["than"], run[0]): 1.0}
        name += f" − that of {methods[spec['than']].look.name}"
    return [Part(name, weights)]


def slope(spec: dict[str, Any], run: Sequence[int], methods: Methods) -> list[Part]:
    """What the metric of `method` falls by whenever the number of tasks doubles: least squares over all numbers."""
    name = f"fall of {methods[spec['method']].look.name} per doubling of tasks"
    if len(run) < 3:
        return [Part(name, {})]
    x = np.log2(run) - np.log2(run).mean()
    return [Part(name, {(spec["method"], count): -float(w) for count, w in zip(run, x / (x**2).sum(), strict=True)})]


def trend(spec: dict[str, Any], run: Sequence[int], methods: Methods) -> list[Part]:
    """What the metric rises by from one of `methods` to the next, in their order: least squares over all of them."""
    order, rank = spec["methods"], np.arange(len(spec["methods"])) - (len(spec["methods"]) - 1) / 2
    return [
        Part(
            f"rise per place from {methods[order[0]].look.name} to {methods[order[-1]].look.name}",
            {_cell(name, count, methods): float(w) for name, w in zip(order, rank / (rank**2).sum(), strict=True)},
        )
        for count in _counts(spec["at"], run)
    ]


def bound(spec: dict[str, Any], run: Sequence[int], methods: Methods) -> list[Part]:
    """By how much `method` stays below `at_most`, or above `at_least`, at the largest number of tasks."""
    upper = "at_most" in spec
    limit, sign = spec["at_most" if upper else "at_least"], 1.0 if upper else -1.0
    name = f"{methods[spec['method']].look.name}, {'at most' if upper else 'at least'} {limit:g}"
    return [Part(name, {_cell(spec["method"], run[-1], methods): -sign}, constant=sign * limit)]


KINDS: dict[str, Callable[[dict[str, Any], Sequence[int], Methods], list[Part]]] = {
    function.__name__: function for function in (difference, ratio, gain, slope, trend, bound)
}


# ---------------------------------------------------------------- paper/claims.yaml


def read(path: Path, known: Collection[str]) -> list[dict[str, Any]]:
    """The claims; raises ValueError naming the claim and the key where one is not as docs/claims.md says.

    Args:
        known: the experiments whose methods and metrics there are; claims on others are not held against any.
    """
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: found no readable YAML ({' '.join(str(error).split())}).") from None
    error = best_match(Draft202012Validator(read_yaml(SCHEMAS / "claims.schema.yaml", "the schema")).iter_errors(found))
    if error:
        where = error.json_path.removeprefix("$") or "the file"
        raise ValueError(f"{path}: {where}: {error.message}. docs/claims.md says what a claim needs.")
    ids = [claim["id"] for claim in found]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise ValueError(f"{path}: found the claims {', '.join(twice)} twice, needed each once.")
    for claim in found:
        if claim["experiment"] in known:
            _check_names(claim, f"{path}: {claim['id']}")
    return found


def _check_names(claim: dict[str, Any], what: str) -> None:
    """Raise ValueError at the first metric or method that the claim's experiment has not."""
    about = catalogue.find(claim["experiment"])
    metrics = quantities(about.name)
    for spec in claim["parts"]:
        asked = [spec[key] for key in ("more", "less", "method", "than") if key in spec] + spec.get("methods", [])
        for kind, names, there in (("metric", [spec["metric"]], metrics), ("method", asked, about.methods)):
            lost = [name for name in names if name not in there]
            if lost:
                raise ValueError(f"{what}: {about.name} has no {kind} {lost[0]!r}. Known: {', '.join(there)}.")


# ---------------------------------------------------------------- statistics


def contrast(frame: pd.DataFrame, part: Part, metric: str) -> tuple[list[np.ndarray], list[Cell]]:
    """The contrast for each seed that all cells have: one array [held-out task] a seed; and the cells without rows."""
    final = quantity(frame, metric)
    cells = {}
    for (method, count), weight in part.weights.items():
        mine = final.loc[(final["method"] == method) & (final["n_tasks"] == count)]
        values = mine.set_index(["seed", "task"])["value"]
        cells[method, count] = weight * (np.log2(values) if part.logarithm else values)
    missing = [cell for cell, values in cells.items() if values.empty]
    if missing or not cells:
        return [], missing
    joined = pd.concat(cells, axis=1, join="inner").sum(axis=1).sort_index() + part.constant
    return [group.to_numpy() for _, group in joined.groupby(level="seed")], []


def decide_part(
    frame: pd.DataFrame, part: Part, spec: dict[str, Any], about: Quantity, n_parts: int, obstacle: str
) -> dict[str, Any]:
    """The columns of one part. `obstacle` is why no verdict may be given, or "". `n_parts` are tested together."""
    values, missing = contrast(frame, part, spec["metric"])
    unit = "times" if part.logarithm else about.unit.split(",")[0].replace("percent", "points")
    line: dict[str, Any] = {"part": f"{spec['metric']}: {part.name}", "part_verdict": UNDECIDED, "unit": unit}
    line |= {"effect": math.nan, "low": math.nan, "high": math.nan, "n_seeds": len(values), "reason": obstacle}
    line["n_heldout"] = sum(len(value) for value in values)
    if not part.weights:
        return line | {"reason": obstacle or "too few numbers of tasks were run"}
    if missing and obstacle:
        return line
    if missing:
        called = [looks.look(name, looks.experiment(frame)).name for name, _ in missing]
        names = ", ".join(f"{name} with {n} tasks" if n else name for name, (_, n) in zip(called, missing, strict=True))
        there = set(zip(frame["method"], frame["n_tasks"], strict=True))
        why = "not run" if set(missing) - there else "run with too few seeds for this"
        return line | {"reason": f"{why}: {names}"}
    if len(values) < 2:
        effect = float(values[0].mean()) if values else math.nan
        return line | {
            "effect": 2**effect if part.logarithm else effect,
            "reason": obstacle or "one seed is no evidence",
        }
    effect, low, high = interval(values, LEVEL)
    # A claim of many parts would be contradicted by chance sooner or later: each part answers for its share.
    _, wide_low, wide_high = interval(values, 1 - (1 - LEVEL) / n_parts)
    margin = spec.get("within")
    if margin is None:
        supported, contradicted = low > 0, wide_high < 0
        leaning = f"the interval holds zero; it leans {'towards' if effect > 0 else 'against'} the claim"
        if high < 0:
            leaning = f"below zero, but not once corrected for the claim's {n_parts} parts"
    else:
        supported, contradicted = -margin < low and high < margin, wide_low > margin or wide_high < -margin
        leaning = f"the interval is neither inside ±{margin:g} nor outside"
    if not obstacle:
        line["part_verdict"] = SUPPORTED if supported else CONTRADICTED if contradicted else UNDECIDED
        line["reason"] = "" if supported or contradicted else leaning
    scaled = [2**number if part.logarithm else number for number in (effect, low, high)]
    return line | dict(zip(("effect", "low", "high"), scaled, strict=True))


def decide(claims: Sequence[dict[str, Any]], frames: dict[str, pd.DataFrame], size: str, decides: str) -> pd.DataFrame:
    """One line a part of a claim, in COLUMNS.

    Args:
        frames: rows of each experiment; a claim on one that is not there is undecided.
        decides: what the size may decide, one of `plan.DECIDES`.
    """
    lines = []
    for claim in claims:
        name = claim["experiment"]
        frame = frames.get(name, pd.DataFrame(columns=rows.COLUMNS))
        source = rows.provenance(frame, name).data_source if len(frame) else ""
        obstacle = ""
        if not source:
            obstacle = f"{name} was not run"
        elif DECIDES.index(decides) < DECIDES.index(claim["from"]):
            why = "it only shows that everything runs" if decides == "nothing" else claim["why"]
            obstacle = f"{size} is too small: {why}"
        elif source != claim["data"]:
            obstacle = f"the data are {source}, not {claim['data']}"
        same = {
            "id": claim["id"],
            "paper": "leap" if claim["id"].startswith("L") else "warpgrad",
            "section": claim["section"],
            "claim": " ".join(claim["claim"].split()),
            "experiment": name,
            "size": size,
            "data_source": source,
        }
        decided = _decided(claim, frame, obstacle)
        verdicts = {line["part_verdict"] for line in decided}
        verdict = CONTRADICTED if CONTRADICTED in verdicts else SUPPORTED if verdicts == {SUPPORTED} else UNDECIDED
        lines += [same | {"verdict": verdict} | line for line in decided]
    return pd.DataFrame(lines, columns=COLUMNS)


def _decided(claim: dict[str, Any], frame: pd.DataFrame, obstacle: str) -> list[dict[str, Any]]:
    """`decide_part` of each part of a claim."""
    if frame.empty and claim["experiment"] not in catalogue.names():  # a user's own, which nothing is known of
        return [{"part": "", "part_verdict": UNDECIDED, "n_seeds": 0, "n_heldout": 0, "unit": "", "reason": obstacle}]
    about = catalogue.find(claim["experiment"])
    metrics = quantities(about.name)
    run = sorted({int(count) for count in frame["n_tasks"]} - {0}) or [0]  # 0 where tasks are not counted
    parts = [(part, spec) for spec in claim["parts"] for part in KINDS[spec["kind"]](spec, run, about.methods)]
    if not parts:  # all of `at: each` where nothing was run
        parts = [(Part("", {}), claim["parts"][0])]
    return [decide_part(frame, part, spec, metrics[spec["metric"]], len(parts), obstacle) for part, spec in parts]


def merge(paths: Sequence[Path]) -> pd.DataFrame:
    """The lines of several claims.csv, in their order; raises ValueError naming one that does not fit."""
    frames = []
    for path in paths:
        try:
            frame = pd.read_csv(
                path, keep_default_na=False, na_values={name: [""] for name in ("effect", "low", "high")}
            )
        except (OSError, ValueError) as error:
            raise ValueError(f"{path}: found no readable CSV ({error}). Delete it and run its rule again.") from None
        if list(frame.columns) != COLUMNS:
            raise ValueError(f"{path}: found columns {list(frame.columns)}, needed {COLUMNS}. Delete it and run again.")
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


# ---------------------------------------------------------------- as a document

INTRODUCTION = """A claim is supported if all its parts are, contradicted if one is. An effect is above zero where the
claim is right (where it says that two things are equal: near zero), and its interval of 95 % comes from drawing seeds
and held-out tasks anew."""


def document(frame: pd.DataFrame) -> Document:
    """The claims of each paper with their parts, in the order of `frame`, as `decide` or `merge` have it."""
    blocks = []
    for paper, mine in frame.fillna({"reason": ""}).groupby("paper", sort=False):
        found = []
        for _, parts in mine.groupby("id", sort=False):
            lines = [_placed(line, parts) for line in parts.to_dict("records")]
            same = parts.iloc[0]
            about = {key: same[key] for key in ("id", "section", "claim", "experiment", "verdict")}
            found.append(about | {"parts": lines})
        counts = {verdict: sum(claim["verdict"] == verdict for claim in found) for verdict in VERDICTS}
        blocks.append(Verdicts(looks.PAPERS[str(paper)], counts, found))
    return Document("Claims of the papers", [Text(INTRODUCTION), *blocks])


def _placed(line: dict[Any, Any], parts: pd.DataFrame) -> dict[str, Any]:
    """A part, with where its interval lies on a scale of 0 to 100 that all parts of its claim share, zero at 50."""
    times = set(parts["unit"]) == {"times"}
    places = parts[["effect", "low", "high"]].apply(np.log) if times else parts[["effect", "low", "high"]]
    reach = 1.08 * places.abs().max(axis=None) or 1.0
    at = {
        key: round(50 + 50 * float(math.log(line[key]) if times else line[key]) / reach, 2)
        for key in ("effect", "low", "high")
        if not math.isnan(line[key])
    }
    return {str(key): value for key, value in line.items()} | {"at": at}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m leapwarp.report.claims", description="Verdicts on the papers' claims."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("decide", help="decide every claim from rows of one size")
    command.add_argument("--claims", required=True, type=Path, metavar="YAML", help="paper/claims.yaml")
    command.add_argument("--size", required=True, metavar="NAME", help="what the size of the rows is called")
    command.add_argument("--decides", required=True, choices=DECIDES, help="what it may decide")
    command.add_argument("--experiments", required=True, nargs="+", help="those that ran: names, or paths of folders")
    command.add_argument("--rows", required=True, nargs="+", type=Path, metavar="CSV", help="one of each experiment")
    command.add_argument("--out", required=True, metavar="CSV", help="the file to write")
    command = commands.add_parser("merge", help="put the claims.csv of several sizes into one file")
    command.add_argument("--out", required=True, metavar="CSV", help="the file to write")
    command.add_argument("csv", nargs="+", type=Path, metavar="CSV", help="claims.csv of one size each, in this order")
    options = parser.parse_args(arguments)
    with one_line(parser):
        if options.command == "merge":
            frame = merge(options.csv)
        else:
            ran = [catalogue.find(where).name for where in options.experiments]
            found = [rows.read(path) for path in options.rows]
            frames = {looks.experiment(frame): frame for frame in found}
            claims = read(options.claims, {*ran, *catalogue.names()})
            frame = decide(claims, frames, options.size, options.decides)
        with atomic(options.out) as path:
            frame.to_csv(path, index=False, lineterminator="\n", float_format="%.6g")
    counts = frame.drop_duplicates(["id", "size"])["verdict"].value_counts()
    print(f"{options.out}: " + ", ".join(f"{n} {verdict}" for verdict, n in counts.items()))


if __name__ == "__main__":
    main()
