"""A verdict on each claim of the papers, from tidy rows (docs/claims.md).

    python -m leapwarp.report.claims decide --claims paper/claims.yaml --out results/quick/claims.csv --size quick \
        --decides orders --power workflow/sizes/quick.power.csv --experiments omniglot_leap maze \
        --rows results/quick/omniglot_leap/rows.csv results/quick/maze/rows.csv
    python -m leapwarp.report.claims merge --out results/claims.csv --results results --sizes paper quick smoke
    python -m leapwarp.report.claims power --claims paper/claims.yaml --size-file workflow/sizes/quick.yaml \
        --source "seeds 100 to 102" --experiments maze --rows trials/maze/rows.csv --out workflow/sizes/quick.power.csv
    python -m leapwarp.report.claims expected --claims paper/claims.yaml --size-file workflow/sizes/paper.yaml \
        --printed paper --like workflow/sizes/overnight.yaml --out workflow/sizes/paper.power.csv

A claim has parts. Each part is a contrast: a weighted sum of cells that is positive if the claim is right, where a cell
is a method at a number of pretraining tasks. All methods of a seed see the same held-out tasks, so the contrast is
computed for each seed and task. A part is decided only if it passes the gate (`unlearnt`, `underpowered`). Nothing here
imports torch.
"""

import argparse
import math
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from scipy.stats import chi2

from leapwarp import catalogue
from leapwarp.catalogue import Method
from leapwarp.check import read_yaml
from leapwarp.files import atomic, one_line
from leapwarp.plan import DECIDES, SCHEMAS, SEARCH_SEED, Size, read_size
from leapwarp.report import looks, rows
from leapwarp.report.document import Document, Text, Verdicts
from leapwarp.report.quantities import quantities, quantity
from leapwarp.report.select import final
from leapwarp.report.stats import LEVEL, corrected, interval, power, seeds_for, upper_spread
from leapwarp.report.table import read_paper

SUPPORTED, CONTRADICTED, UNDECIDED, NOT_TESTED = VERDICTS = "supported", "contradicted", "undecided", "not tested"
GROUPS = {"claim": "", "identity": "by mathematics or counting", "other data": "on other data than the paper's"}
"""groups of claims that are counted separately, with the headings of their lists"""
COLUMNS = [
    "id", "paper", "section", "claim", "group", "experiment", "verdict", "part", "part_verdict", "effect", "low",
    "high", "unit", "n_seeds", "n_heldout", "reason", "size", "data_source",
]  # fmt: skip
ROUNDING = 1e-12  # relative; seeds that differ by less gave the same number
POWER_COLUMNS = ["claim", "part", "effect", "spread", "n_trials", "seeds", "power", "seeds_needed", "source"]

Cell = tuple[str, int]
"""(method, number of pretraining tasks)"""
Weights = dict[Cell, float]
Methods = dict[str, Method]
"""of the claim's experiment"""


class Part(NamedTuple):
    name: str
    weights: Weights
    logarithm: bool = False
    """for ratios: the contrast is computed from logarithms to base 2"""
    constant: float = 0.0
    """added to the weighted sum"""


# ---------------------------------------------------------------- kinds of statistics


def _counts(asked: Any, run: Sequence[int]) -> list[int]:
    """Numbers of tasks that `at` names. A list may also name numbers that were not run."""
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
    beyond, said = spec.get("beyond"), ""
    if beyond is not None:
        said = f", above {beyond:g}".replace("-", "−")
    return [
        Part(
            f"{names[0]} {sign} {names[1]}{said}" + (f", {count} task{'s' * (count != 1)}" if count else ""),
            {_cell(spec["more"], count, methods): 1.0, _cell(spec["less"], count, methods): -1.0},
            logarithm,
            0.0 if beyond is None else -math.log2(beyond) if logarithm else -beyond,
        )
        for count in _counts(spec["at"], run)
    ]


def difference(spec: dict[str, Any], run: Sequence[int], methods: Methods) -> list[Part]:
    """`more` minus `less`, at each number of tasks that `at` names."""
    return _pair(spec, run, methods, "−", False)


def ratio(spec: dict[str, Any], run: Sequence[int], methods: Methods) -> list[Part]:
    """`more` divided by `less`. The claim is that it is above 1, or above `beyond`."""
    return _pair(spec, run, methods, "/", True)


def gain(spec: dict[str, Any], run: Sequence[int], methods: Methods) -> list[Part]:
    """The gain of `method` from one number of tasks to another, minus the gain of `than`."""
    first, last = spec["between"]
    weights = {(spec["method"], last): 1.0, (spec["method"], first): -1.0}
    name = f"gain of {methods[spec['method']].look.name} from {first} to {last} tasks"
    if "than" in spec:
        weights |= {(spec["than"], last): -1.0, (spec["than"], first): 1.0}
        name += f" − that of {methods[spec['than']].look.name}"
    beyond = spec.get("beyond", 0.0)
    return [Part(name + (f", above {beyond:g}" if beyond else ""), weights, constant=-beyond)]


def slope(spec: dict[str, Any], run: Sequence[int], methods: Methods) -> list[Part]:
    """The fall of the metric of `method` for each doubling of the number of tasks, by least squares.

    With `at_most`, the distance of this fall below that number.
    """
    name, limit = f"fall of {methods[spec['method']].look.name} per doubling of tasks", spec.get("at_most")
    sign = -1.0 if limit is None else 1.0
    if limit is not None:
        name += f", at most {limit:g}"
    if len(run) < 3:
        return [Part(name, {})]
    x = np.log2(run) - np.log2(run).mean()
    weights = x / (x**2).sum()
    return [
        Part(
            name,
            {(spec["method"], count): sign * float(w) for count, w in zip(run, weights, strict=True)},
            constant=limit or 0.0,
        )
    ]


def bound(spec: dict[str, Any], run: Sequence[int], methods: Methods) -> list[Part]:
    """The distance of `method` below `at_most`, or above `at_least`; with `scale: log`, the ratio."""
    upper, logarithm = "at_most" in spec, spec.get("scale") == "log"
    limit, sign = spec["at_most" if upper else "at_least"], 1.0 if upper else -1.0
    name = f"{methods[spec['method']].look.name}, {'at most' if upper else 'at least'} {limit:g}"
    return [
        Part(
            name + (f", {count} tasks" if isinstance(spec.get("at"), list) else ""),
            {_cell(spec["method"], count, methods): -sign},
            logarithm,
            sign * (math.log2(limit) if logarithm else limit),
        )
        for count in _counts(spec.get("at", "largest"), run)
    ]


KINDS: dict[str, Callable[[dict[str, Any], Sequence[int], Methods], list[Part]]] = {
    function.__name__: function for function in (difference, ratio, gain, slope, bound)
}


# ---------------------------------------------------------------- paper/claims.yaml


class Book(NamedTuple):
    """The content of paper/claims.yaml."""

    gate: dict[str, Any]
    """the conditions under which rows may decide a claim, the same for all claims"""
    identities: list[str]
    """claims that hold by mathematics or counting, which every seed must fulfil"""
    costs: dict[str, str]
    """the cost of the published settings, by experiment"""
    claims: list[dict[str, Any]]


def read(path: Path, known: Collection[str]) -> Book:
    """The claims. Raises ValueError with the claim and the key if one does not have the form of docs/claims.md.

    Args:
        known: the experiments whose methods and metrics are known. Claims on other experiments are not checked.
    """
    found = read_yaml(path, "the claims of the papers")
    error = best_match(Draft202012Validator(read_yaml(SCHEMAS / "claims.schema.yaml", "the schema")).iter_errors(found))
    if error:
        where = error.json_path.removeprefix("$") or "the file"
        raise ValueError(f"{path}: {where}: {error.message}. docs/claims.md says what a claim needs.")
    ids = [claim["id"] for claim in found["claims"]]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise ValueError(f"{path}: found the claims {', '.join(twice)} twice, needed each once.")
    named = [*found["identities"], *(claim["beside"] for claim in found["claims"] if "beside" in claim)]
    lost = sorted(set(named) - set(ids))
    if lost:
        raise ValueError(f"{path}: found no claim {', '.join(lost)}, which identities or `beside` name.")
    for claim in found["claims"]:
        if claim["experiment"] in known:
            _check_names(claim, f"{path}: {claim['id']}")
    return Book(found["gate"], found["identities"], found["costs"], found["claims"])


def _check_names(claim: dict[str, Any], what: str) -> None:
    """Raise ValueError for the first metric or method that the claim's experiment does not have."""
    about = catalogue.find(claim["experiment"])
    metrics = quantities(about.name)
    for spec in claim.get("parts", []):
        if spec["kind"] == "counted":
            continue
        asked = [spec[key] for key in ("more", "less", "method", "than") if key in spec]
        for kind, names, there in (("metric", [spec["metric"]], metrics), ("method", asked, about.methods)):
            lost = [name for name in names if name not in there]
            if lost:
                raise ValueError(f"{what}: {about.name} has no {kind} {lost[0]!r}. Known: {', '.join(there)}.")


def expanded(claim: dict[str, Any], frame: pd.DataFrame, methods: Methods) -> list[tuple[Part, dict[str, Any]]]:
    """The parts of a claim at the numbers of tasks that were run, each with its entry in the file."""
    mine = frame.loc[frame["method"].isin(methods)]  # not a user's own states
    return at_counts(claim, {int(count) for count in mine["n_tasks"]}, methods)


def at_counts(claim: dict[str, Any], counts: set[int], methods: Methods) -> list[tuple[Part, dict[str, Any]]]:
    """The parts of a claim at some numbers of tasks, each with its entry in the file."""
    run = sorted(counts - {0}) or [0]  # 0 where tasks are not counted
    asked = [spec for spec in claim.get("parts", []) if spec["kind"] != "counted"]
    # A spec whose numbers of tasks were not run is a part without cells, so that the others do not decide without it.
    return [(part, spec) for spec in asked for part in KINDS[spec["kind"]](spec, run, methods) or [Part("", {})]]


def named(part: Part, spec: dict[str, Any]) -> str:
    """The name of a part in results and tables of power."""
    return f"{spec['metric']}: {part.name}"


# ---------------------------------------------------------------- the gate


def unlearnt(frame: pd.DataFrame, cells: Sequence[Cell], gate: dict[str, Any], about: catalogue.Experiment) -> str:
    """Why the methods of a part, in `cells`, have not learnt enough for a verdict, or "". The same for all claims.

    A method with warps must have moved them, in every run. Another method must have moved its initialisation and be
    better than no pretraining, unless the part compares it with no pretraining.
    """
    for method, count in cells:
        if not about.methods[method].trains:
            continue
        name = about.methods[method].look.name + (f" with {count} task{'s' * (count != 1)}" if count else "")
        mine = frame.loc[(frame["method"] == method) & (frame["n_tasks"] == count)]
        what, found = "warps", final(mine, "moved_warps")
        if found.empty:
            what, found = "initialisation", final(mine, "moved_init")
        if set(found["seed"]) != set(mine["seed"]):
            return f"the rows do not say for every run how far {name} has moved from its first parameters"
        least, needed = float(found["value"].to_numpy().min()), gate["moved"][what]
        if not least >= needed:  # also where it is not a number
            more = f"; at this pace it takes {max(needed / least, 1.1):.2g} times the meta-steps" if least > 0 else ""
            return f"{name}: the {what} moved by {least:.2g} of the initial norm, needed {needed:g}{more}"
        beside = gate["ahead"]["of"].get(about.name)
        if what == "warps" or beside is None or beside.get("untrained") in {each for each, _ in cells}:
            continue
        ahead = _ahead(frame, method, count, beside)
        if math.isnan(ahead):
            return f"{name}: the rows do not say how far it is ahead of no pretraining"
        if not ahead >= gate["ahead"]["least"]:
            return f"{name} is better than no pretraining by a share of {ahead:.2g}, needed {gate['ahead']['least']:g}"
    return ""


def _ahead(frame: pd.DataFrame, method: str, count: int, beside: dict[str, Any]) -> float:
    """By what share of the value of no pretraining (or chance) a method is better: less error or loss, more return."""
    found = quantity(frame, beside["metric"])
    mean = float(found.loc[(found["method"] == method) & (found["n_tasks"] == count), "value"].mean())
    if "chance" in beside:
        base = float(beside["chance"])
    else:
        base = float(found.loc[found["method"] == beside["untrained"], "value"].mean())
    if not base > 0:
        return math.nan
    lower = quantities(looks.experiment(frame))[beside["metric"]].lower
    return 1 - mean / base if lower else mean / base - 1


Power = dict[tuple[str, str], dict[str, Any]]
"""(claim, part) -> a line of a size's table of power: effect and spread in the units of the contrast"""


def read_power(path: Path | None) -> Power:
    """The power that was stated before the runs of a size; empty if the size has no such table."""
    if path is None:
        return {}
    try:
        frame = pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: found no readable CSV ({error}).") from None
    if list(frame.columns) != POWER_COLUMNS:
        raise ValueError(f"{path}: found columns {list(frame.columns)}, needed {POWER_COLUMNS}.")
    return {(line["claim"], line["part"]): line for line in frame.to_dict("records")}


def underpowered(stated: dict[str, Any] | None, n_seeds: int, n_parts: int, within: float, needed: float) -> str:
    """Why this number of seeds is too small for a part, by its line in the table of power, `stated`; or ""."""
    if stated is None:
        return "no power was stated beforehand"
    numbers = stated["effect"], stated["spread"]
    found = power(*numbers, n_seeds, n_parts, within)
    if found >= needed:
        return ""
    enough = seeds_for(needed, *numbers, n_parts, within)
    return f"power {found:.2f} with {n_seeds} seeds, needed {needed:g}: {enough or 'more than 100'} seeds"


# ---------------------------------------------------------------- statistics


def contrast(frame: pd.DataFrame, part: Part, metric: str) -> tuple[list[np.ndarray], list[Cell]]:
    """The contrast for each seed that all cells have, an array [held-out task] each; and the cells without rows.

    The contrast is not finite where a value is not a number, and where the logarithm of zero is needed.

    Raises:
        ValueError: the cells have different held-out tasks in a seed.
    """
    final = quantity(frame, metric)
    cells = {}
    for (method, count), weight in part.weights.items():
        mine = final.loc[(final["method"] == method) & (final["n_tasks"] == count)]
        values = mine.set_index(["seed", "task"])["value"]
        with np.errstate(divide="ignore"):
            cells[method, count] = weight * (np.log2(values) if part.logarithm else values)
    missing = [cell for cell, values in cells.items() if values.empty]
    if missing or not cells:
        return [], missing
    shared = set.intersection(*({seed for seed, _ in values.index} for values in cells.values()))
    tasks = [{key for key in values.index if key[0] in shared} for values in cells.values()]
    if any(each != tasks[0] for each in tasks):
        raise ValueError(
            f"{metric} of {', '.join(method for method, _ in cells)}: found different held-out tasks in a seed, needed "
            "the same. Run one size into one folder."
        )
    joined = pd.concat(cells, axis=1, join="inner").sum(axis=1, skipna=False).sort_index() + part.constant
    return [group.to_numpy() for _, group in joined.groupby(level="seed")], []


def diverged(frame: pd.DataFrame, cells: Sequence[Cell]) -> str:
    """Which runs of a part's methods have diverged, or ""."""
    said = []
    for method, count in cells:
        mine = frame.loc[(frame["method"] == method) & (frame["n_tasks"] == count)]
        lost, every = len(set(final(mine, rows.DIVERGED)["seed"])), len(set(mine["seed"]))
        if lost:
            said.append(f"{lost} of {every} runs of {looks.look(method, looks.experiment(frame)).name} diverged")
    return "; ".join(said)


def decide_part(
    frame: pd.DataFrame, part: Part, spec: dict[str, Any], about: catalogue.Experiment, n_parts: int, obstacle: str,
    gate: dict[str, Any], stated: dict[str, Any] | None, exact: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """The columns of one part.

    Args:
        n_parts: the number of parts of the claim.
        obstacle: why no verdict may be given, or "".
        gate: the conditions under which rows may decide a claim.
        stated: the part's line in the size's table of power, or None.
        exact: the part belongs to an identity. Every seed must fulfil it, there is no gate, and the limits are the
            range of the seeds.
    """
    values, missing = contrast(frame, part, spec["metric"])
    about_metric = quantities(about.name)[spec["metric"]]
    used = [
        (other, count)
        for method, count in part.weights
        for other in about_metric.uses.get(method, ())
        if other != method
    ]
    cells = [*part.weights, *used]
    unit = about_metric.unit.split(",")[0].replace("percent", "points")
    line: dict[str, Any] = {"part": named(part, spec), "part_verdict": NOT_TESTED}
    line |= {"effect": math.nan, "low": math.nan, "high": math.nan, "unit": "times" if part.logarithm else unit}
    line |= {"n_seeds": len(values), "n_heldout": sum(len(value) for value in values), "reason": obstacle}
    if not part.weights:
        return line | {"reason": obstacle or "too few numbers of tasks were run"}
    if missing:
        return line | {"reason": obstacle or _lost(frame, missing)}
    margin = spec.get("within")
    why = obstacle or diverged(frame, cells) or ("" if values else "no seed has all that this compares")
    if not np.isfinite(np.concatenate([*values, [0.0]])).all():
        return line | {"reason": why or "a value is zero, of which there is no logarithm, or is not a number"}
    limits, verdict, leaning = (of_seeds if exact else of_interval)(values, margin, n_parts)
    effect = float(np.mean([value.mean() for value in values])) if values else math.nan
    scaled = [2**number if part.logarithm else number for number in (effect, *limits)]
    line |= dict(zip(("effect", "low", "high"), scaled, strict=True))
    if not exact:
        why = why or ("one seed has no interval" if len(values) < 2 else "")
        why = why or unlearnt(frame, cells, gate, about)
        why = why or underpowered(stated, len(values), n_parts, math.inf if margin is None else margin, gate["power"])
    return line | ({"reason": why} if why else {"part_verdict": verdict, "reason": leaning})


Found = tuple[tuple[float, float], str, str]
"""limits of the effect, verdict, and the reason if it is undecided, or "" """


def of_interval(values: list[np.ndarray], margin: float | None, n_parts: int) -> Found:
    """The verdict on a part by its intervals over seeds."""
    if len(values) < 2:
        return (math.nan, math.nan), UNDECIDED, ""
    effect, low, high = interval(values, LEVEL)
    _, wide_low, wide_high = interval(values, corrected(n_parts))
    means = np.array([value.mean() for value in values])
    if np.ptp(means) <= ROUNDING * max(1.0, abs(means).max()):
        return (low, high), UNDECIDED, "all seeds gave the same number: no spread is known"
    if margin is None:
        supported, contradicted = low > 0, wide_high < 0
        leaning = f"the interval contains zero; the effect is {'in favour of' if effect > 0 else 'against'} the claim"
        if high < 0:
            leaning = f"below zero, but not after the correction for the claim's {n_parts} parts"
    else:
        supported, contradicted = -margin < low and high < margin, wide_low > margin or wide_high < -margin
        leaning = f"the interval is neither inside ±{margin:g} nor outside"
    verdict = SUPPORTED if supported else CONTRADICTED if contradicted else UNDECIDED
    return (low, high), verdict, leaning if verdict == UNDECIDED else ""


def of_seeds(values: list[np.ndarray], margin: float | None, n_parts: int) -> Found:
    """Whether every seed fulfils an identity. The limits are the smallest and the largest value of the seeds."""
    means = [float(value.mean()) for value in values] or [math.nan]
    low, high = min(means), max(means)
    kept = low >= 0 if margin is None else max(-low, high) <= margin
    return (low, high), SUPPORTED if kept else CONTRADICTED, ""


def _lost(frame: pd.DataFrame, missing: list[Cell]) -> str:
    """A message that names the cells without rows."""
    called = [looks.look(name, looks.experiment(frame)).name for name, _ in missing]
    names = ", ".join(
        f"{name} with {n} task{'s' * (n != 1)}" if n else name for name, (_, n) in zip(called, missing, strict=True)
    )
    there = set(zip(frame["method"], frame["n_tasks"], strict=True))
    return f"{'not run' if set(missing) - there else 'not measured'}: {names}"


def decide(
    book: Book, frames: dict[str, pd.DataFrame], size: str, decides: str, stated: Power | None = None
) -> pd.DataFrame:
    """One line for each part of each claim, in COLUMNS.

    Args:
        frames: rows of each experiment. A claim on another experiment is not tested.
        decides: one of `plan.DECIDES`; at "nothing" no claim is tested.
        stated: the power that was stated before the runs.
    """
    lines = []
    for claim in book.claims:
        name = claim["experiment"]
        frame = frames.get(name, pd.DataFrame(columns=rows.COLUMNS))
        source = rows.provenance(frame, name).data_source if len(frame) else ""
        idle = f"{size} only shows that everything runs" if decides == "nothing" else ""
        obstacle = idle or _obstacle(claim, source)
        exact = claim["id"] in book.identities
        same = {
            "id": claim["id"],
            "paper": "leap" if claim["id"].startswith("L") else "warpgrad",
            "section": claim["section"],
            "claim": " ".join(claim["claim"].split()),
            "group": "identity" if exact else "other data" if "beside" in claim else "claim",
            "experiment": name,
            "size": size,
            "data_source": source,
        }
        counted = [_counted(spec, idle) for spec in claim.get("parts", []) if spec["kind"] == "counted"]
        measured = len(counted) < len(claim.get("parts", [""]))
        decided = counted + (_decided(claim, frame, obstacle, book.gate, stated or {}, exact) if measured else [])
        if name in book.costs and decides != "everything" and (not obstacle or not source):
            for line in decided:
                if line["part_verdict"] == NOT_TESTED:
                    line["reason"] += f"; the published settings take {book.costs[name]}"
        lines += [same | {"verdict": together([line["part_verdict"] for line in decided])} | line for line in decided]
    return pd.DataFrame(lines, columns=COLUMNS)


def _obstacle(claim: dict[str, Any], source: str) -> str:
    """Why rows of data from `source` ("" if there are no rows) cannot decide a claim, or "" if they can."""
    if "needs" in claim:
        return f"needs {claim['needs']}"
    if not source:
        return f"{claim['experiment']} was not run"
    return f"the data are {source}, not {claim['data']}" if source != claim["data"] else ""


def together(parts: Collection[str]) -> str:
    """The verdict on a claim: contradicted if a part is, else not tested, undecided or supported, in this order."""
    return next(verdict for verdict in (CONTRADICTED, NOT_TESTED, UNDECIDED, SUPPORTED) if verdict in parts)


def _decided(
    claim: dict[str, Any], frame: pd.DataFrame, obstacle: str, gate: dict[str, Any], stated: Power, exact: bool
) -> list[dict[str, Any]]:
    """`decide_part` of each part of a claim."""
    if "parts" not in claim or (
        frame.empty and claim["experiment"] not in catalogue.names()
    ):  # of a user's own, nothing is known
        none = {"part": "", "part_verdict": NOT_TESTED, "n_seeds": 0, "n_heldout": 0, "unit": ""}
        return [none | {"reason": obstacle}]
    about = catalogue.find(claim["experiment"])
    parts = expanded(claim, frame, about.methods)
    lines = []
    for part, spec in parts:
        mine = stated.get((claim["id"], named(part, spec)))
        lines.append(decide_part(frame, part, spec, about, len(parts), obstacle, gate, mine, exact))
    return lines


def _counted(spec: dict[str, Any], obstacle: str) -> dict[str, Any]:
    """A part that two counted numbers decide, without rows."""
    found = spec["numbers"][0] / spec["numbers"][1] - spec["at_least"]
    line = {"part": f"{spec['name']}, at least {spec['at_least']:g}", "effect": found, "unit": "times as many"}
    line |= {"n_seeds": 0, "n_heldout": 0, "reason": obstacle, "part_verdict": NOT_TESTED}
    return line if obstacle else line | {"part_verdict": SUPPORTED if found >= 0 else CONTRADICTED}


def trial_power(book: Book, frames: dict[str, pd.DataFrame], n_seeds: dict[str, int], source: str) -> pd.DataFrame:
    """The table of power of a size from rows of trial seeds: one line for each part that two or more trial seeds have.

    The effect is that of the trials. The spread is pooled over all parts of an experiment with the same metric, kind of
    statistic, numbers of tasks and number of cells. It is an upper bound: the true spread is below it with a
    probability of 0.8.

    Args:
        n_seeds: the number of seeds of the size, by experiment.
        source: a description of the trials.
    """
    found = []
    for claim in book.claims:
        frame = frames.get(claim["experiment"])
        if frame is None or claim["experiment"] not in n_seeds or claim["id"] in book.identities:
            continue
        if _obstacle(claim, rows.provenance(frame, claim["experiment"]).data_source):
            continue
        parts = expanded(claim, frame, catalogue.find(claim["experiment"]).methods)
        for part, spec in parts:
            values, _ = contrast(frame, part, spec["metric"])
            means = np.array([value.mean() for value in values])
            if len(values) > 1 and np.isfinite(means).all():
                # Parts without pretraining are pooled with those of the largest number of tasks.
                counts = tuple(sorted({n for _, n in part.weights if n} or {int(frame["n_tasks"].to_numpy().max())}))
                alike = claim["experiment"], spec["metric"], spec["kind"], part.logarithm, counts, len(part.weights)
                found.append((claim, part, spec, len(parts), alike, float(means.mean()), means.std(ddof=1), len(means)))
    lines = []
    for claim, part, spec, n_parts, alike, effect, _, n in found:
        same = list({each[1].name: each for each in found if each[4] == alike}.values())
        weights = [each[1].weights for each in same]
        spread = upper_spread([each[6] for each in same], [each[7] for each in same], weights)
        seeds = n_seeds[claim["experiment"]]
        lines.append(_stating(book, claim, part, spec, n_parts, effect, spread, n, seeds, source))
    return pd.DataFrame(lines, columns=POWER_COLUMNS)


def _stating(
    book: Book, claim: dict[str, Any], part: Part, spec: dict[str, Any], n_parts: int, effect: float, spread: float,
    n_trials: int, seeds: int, source: str,
) -> dict[str, Any]:  # fmt: skip
    """A line of a table of power."""
    margin = spec.get("within", math.inf)
    has = power(effect, spread, seeds, n_parts, margin)
    enough = seeds_for(book.gate["power"], effect, spread, n_parts, margin)
    numbers = (claim["id"], named(part, spec), effect, spread, n_trials, seeds, has, enough or "over 100", source)
    return dict(zip(POWER_COLUMNS, numbers, strict=True))


PRINTED = "the papers' numbers, methods taken as independent"
PRINTED_SEEDS = {"omniglot_warp": 10, "warp_ablation": 4, "natural_gradient": 4}
"""the number of seeds of the printed deviations; others are not over seeds, or the number is not known"""


def expected_power(book: Book, size: Size, printed: dict[str, pd.DataFrame], like: Power, called: str) -> pd.DataFrame:
    """The table of power of a size without trials: from the papers' numbers, else from those of another size.

    A part has a line if all numbers that it compares are printed with a spread over seeds, or if the other size has
    stated one. The spread of a contrast is that of independent methods, with the upper bound of `upper_spread`. Methods
    share the tasks of a seed, so it should be less.

    Args:
        printed: the printed numbers of each experiment that has some, as `table.read_paper` gives them.
        like: the power that the other size has stated, and `called` the name of that size.
    """
    lines = []
    for claim in book.claims:
        name = claim["experiment"]
        if name not in size.entries or claim["id"] in book.identities or "beside" in claim:
            continue
        entry, methods = size.entries[name], catalogue.find(name).methods
        parts = at_counts(claim, set(entry.get("n_tasks", [])), methods)
        for part, spec in parts:
            n = PRINTED_SEEDS.get(name, 0)
            found = _printed(part, spec["metric"], printed[name], n) if n else None
            other = like.get((claim["id"], named(part, spec)))
            if found:
                numbers = (*found, n, int(entry["seeds"]), PRINTED)
            elif other:
                told = str(other["source"]).replace("in the settings of this size", f"in the settings of {called}")
                numbers = (other["effect"], other["spread"], other["n_trials"], int(entry["seeds"]), told)
            else:
                continue
            lines.append(_stating(book, claim, part, spec, len(parts), *numbers))
    return pd.DataFrame(lines, columns=POWER_COLUMNS)


def _printed(part: Part, metric: str, paper: pd.DataFrame, n_seeds: int) -> tuple[float, float] | None:
    """Effect and spread of a part by numbers printed from `n_seeds` seeds, or None where one is missing or has no ±."""
    if part.logarithm or not part.weights:
        return None
    effect, deviations = part.constant, []
    for (method, count), weight in part.weights.items():
        mine = paper.loc[(paper["method"] == method) & (paper["metric"] == metric)]
        mine = mine.loc[mine["n_tasks"] == count] if count else mine.drop_duplicates(["value", "std"])
        if len(mine) != 1 or not np.isfinite(mine["std"].to_numpy(dtype=float)).all():
            return None
        effect += weight * float(mine["value"].iloc[0])
        deviations.append(weight * float(mine["std"].iloc[0]))
    squares = np.square(deviations)
    degrees = (n_seeds - 1) * squares.sum() ** 2 / np.square(squares).sum()  # after Satterthwaite
    return effect, float(np.sqrt(squares.sum() * degrees / chi2.ppf(0.2, degrees)))


def merge(paths: Sequence[Path]) -> pd.DataFrame:
    """The lines of several claims.csv, in their order. Raises ValueError with the name of one that is damaged."""
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


def of_sizes(results: Path, sizes: Sequence[str]) -> pd.DataFrame:
    """The lines of the claims.csv of all sizes that were run, in this order. Prints a line about ignored folders."""
    every = sorted(path.parent.name for path in results.glob("*/claims.csv"))
    strays = [name for name in every if name not in sizes]
    parts = []
    for path in [results / name / "claims.csv" for name in sizes if name in every]:
        found = merge([path])
        if set(found["size"]) == {path.parent.name}:
            parts.append(found)
        else:
            strays.append(path.parent.name)
    if strays:
        known = ", ".join(sizes)
        print(
            f"{results}: passed over {', '.join(strays)}: needed results of a size in a folder of its name ({known})."
        )
    if not parts:
        raise ValueError(f"{results}: found no <size>/claims.csv, needed one of {', '.join(sizes)}. Run snakemake.")
    return pd.concat(parts, ignore_index=True)


# ---------------------------------------------------------------- as a document

INTRODUCTION = """A claim is *supported* if all its parts are, and *contradicted* if one is. It is *not tested* if the
methods have not learnt enough to say anything about it, or if the power stated before the runs is below 0.8. Such a
claim is open, whatever the numbers are. A claim is *undecided* if it was tested and an interval contains zero. An
effect is above zero if the claim is right (near zero, for claims that two things are equal)."""


def document(frame: pd.DataFrame) -> Document:
    """The claims of each paper with their parts, in the order of `frame`, as `decide` or `merge` have it.

    Identities, and claims on other data than the paper's, have separate lists and counts.
    """
    blocks = []
    for paper, mine in frame.fillna({"reason": ""}).groupby("paper", sort=False):
        for group, heading in GROUPS.items():
            claims = [_claim(parts) for _, parts in mine.loc[mine["group"] == group].groupby("id", sort=False)]
            title = looks.PAPERS[str(paper)] + (f", {heading}" if heading else "")
            if claims:
                blocks.append(Verdicts(title, counts(claims), claims))
    return Document("Claims of the papers", [Text(INTRODUCTION), *blocks])


def counts(claims: Sequence[dict[str, Any]]) -> dict[str, int]:
    """How many claims have each of the four verdicts."""
    return {verdict: sum(claim["verdict"] == verdict for claim in claims) for verdict in VERDICTS}


def _claim(parts: pd.DataFrame) -> dict[str, Any]:
    """A claim in the form of `Verdicts`."""
    lines = [_placed(line, parts) for line in parts.to_dict("records")]
    same = parts.iloc[0]
    return {key: same[key] for key in ("id", "section", "claim", "group", "experiment", "verdict")} | {"parts": lines}


def _placed(line: dict[Any, Any], parts: pd.DataFrame) -> dict[str, Any]:
    """A part, with the position of its interval on a scale from 0 to 100, shared by all parts of a unit; 50 is zero."""
    times, numbers = line["unit"] == "times", parts.loc[parts["unit"] == line["unit"], ["effect", "low", "high"]]
    reach = 1.08 * (numbers.apply(np.log) if times else numbers).abs().max(axis=None) or 1.0
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
    command.add_argument("--size", required=True, metavar="NAME", help="the name of the rows' size")
    command.add_argument("--decides", required=True, choices=DECIDES, help="the size's key `decides`")
    command.add_argument("--power", type=Path, metavar="CSV", help="the power stated before the runs, if any")
    _reads_rows(command)
    command = commands.add_parser("power", help="the table of power of a size, from rows of trial seeds")
    command.add_argument("--size-file", required=True, type=Path, metavar="YAML", help="the file of the size")
    command.add_argument("--source", required=True, metavar="TEXT", help="a description of the trials")
    _reads_rows(command)
    command = commands.add_parser("expected", help="the table of power of a size, from the papers' numbers")
    command.add_argument("--claims", required=True, type=Path, metavar="YAML", help="paper/claims.yaml")
    command.add_argument("--size-file", required=True, type=Path, metavar="YAML", help="the file of the size")
    command.add_argument("--printed", required=True, type=Path, metavar="DIR", help="the folder of the papers' numbers")
    command.add_argument(
        "--like", required=True, type=Path, metavar="YAML", help="a size whose stated power serves for other parts"
    )
    command.add_argument("--out", required=True, metavar="CSV", help="the file to write")
    command = commands.add_parser("merge", help="put the claims.csv of several sizes into one file")
    command.add_argument("--out", required=True, metavar="CSV", help="the file to write")
    command.add_argument(
        "--results", required=True, type=Path, metavar="DIR", help="the folder with the results of each size"
    )
    command.add_argument("--sizes", required=True, nargs="+", metavar="NAME", help="the sizes to merge, in this order")
    options = parser.parse_args(arguments)
    with one_line(parser):
        if options.command == "merge":
            frame = of_sizes(options.results, options.sizes)
        elif options.command == "expected":
            size, book = read_size(options.size_file), read(options.claims, catalogue.names())
            printed = {
                about.name: read_paper(options.printed / f"{about.paper}.csv", about.printed)
                for about in size.experiments.values()
                if about.printed
            }
            like = read_power(options.like.with_suffix(".power.csv"))
            frame = expected_power(book, size, printed, like, options.like.stem)
        else:
            ran = [catalogue.find(where).name for where in options.experiments]
            found = [rows.read(path) for path in options.rows]
            frames = {looks.experiment(frame): frame for frame in found}
            check(frames, options)
            book = read(options.claims, {*ran, *catalogue.names()})
            if options.command == "power":
                entries = read_size(options.size_file, []).entries
                n_seeds = {name: int(entries[name]["seeds"]) for name in frames if name in entries}
                frame = trial_power(book, frames, n_seeds, options.source)
            else:
                frame = decide(book, frames, options.size, options.decides, read_power(options.power))
        with atomic(options.out) as path:
            frame.to_csv(path, index=False, lineterminator="\n", float_format="%.6g")
    if options.command in ("power", "expected"):
        print(f"{options.out}: {len(frame)} parts")
        return
    found = frame.drop_duplicates(["id", "size"])["verdict"].value_counts()
    print(f"{options.out}: " + ", ".join(f"{n} {verdict}" for verdict, n in found.items()))


def check(frames: dict[str, pd.DataFrame], options: argparse.Namespace) -> None:
    """Raise ValueError for rows that cannot go together into verdicts, or into a table of power."""
    if len(frames) < len(options.rows):
        names = ", ".join(frames)
        raise ValueError(f"found {len(options.rows)} files of rows of {names}, needed one of each experiment.")
    for name, frame in frames.items():
        seeds = frame["seed"].to_numpy()
        first, last = int(seeds.min()), int(seeds.max())
        size = rows.provenance(frame, name).size
        if options.command == "power" and first < SEARCH_SEED:
            raise ValueError(f"{name}: found rows of seed {first}, needed trial seeds, from {SEARCH_SEED} on.")
        if options.command == "decide" and size != options.size:
            raise ValueError(f"{name}: found rows of size {size}, needed {options.size}.")
        if options.command == "decide" and options.decides != "nothing" and last >= SEARCH_SEED:
            raise ValueError(f"{name}: found rows of seed {last}, needed seeds below {SEARCH_SEED}: others are trials.")


def _reads_rows(command: argparse.ArgumentParser) -> None:
    command.add_argument("--claims", required=True, type=Path, metavar="YAML", help="paper/claims.yaml")
    command.add_argument("--experiments", required=True, nargs="+", help="experiments that ran: names or paths")
    command.add_argument("--rows", required=True, nargs="+", type=Path, metavar="CSV", help="a file of each experiment")
    command.add_argument("--out", required=True, metavar="CSV", help="the file to write")


if __name__ == "__main__":
    main()
