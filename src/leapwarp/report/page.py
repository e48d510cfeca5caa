"""One self-contained page of what a size has produced: tables beside the papers', figures, claims, provenance.

    python -m leapwarp.report.page --folder results/quick --experiments omniglot_warp omniglot_leap \
        --about "smaller networks and shorter training" --out results/quick/index.html

It shows whatever it finds in <folder>/<experiment>: the table with the heading of its .md, figures with the captions
of experiment.yaml, rows.csv, runs.json; <folder>/claims.csv; and the random searches that were made, in
<folder>/search/<experiment>/<method>. Images are embedded and links relative,
so that the page can be opened, mailed or archived without a server. Nothing here imports torch.
"""

import argparse
import base64
import json
import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from leapwarp import catalogue
from leapwarp.catalogue import Experiment
from leapwarp.files import atomic, one_line
from leapwarp.report import claims, looks, search
from leapwarp.report.quantities import quantities
from leapwarp.report.table import COLUMNS, REAL, SOURCES, number

# ---------------------------------------------------------------- tables


def _value(mean: float, std: float, decimals: int) -> str:
    return "" if math.isnan(mean) else number(mean, std, decimals)


def comparison(lines: pd.DataFrame, experiment: str) -> list[dict[str, Any]]:
    """One block a metric of a table "ours | paper": for each number of tasks a row of cells, one a method."""
    blocks = []
    for metric, mine in lines.groupby("metric", sort=False):
        about = quantities(experiment)[str(metric)]
        decimals, better = about.decimals, -1 if about.lower else 1
        methods, rows = list(dict.fromkeys(mine["method"])), []
        for count, group in mine.groupby("n_tasks"):
            best = {name: (better * group[name]).max() for name in ("ours_mean", "paper")}
            cells = {}
            for line in group.to_dict("records"):
                ours, paper = line["ours_mean"], line["paper"]
                difference = ours - paper
                cells[line["method"]] = {
                    "ours": _value(ours, line["ours_std"], decimals),
                    "paper": _value(paper, line["paper_std"], decimals),
                    "difference": "" if math.isnan(difference) else f"{difference:+.{decimals}f}",
                    "mark": "" if math.isnan(difference) else "better" if better * difference >= 0 else "worse",
                    "best_ours": better * ours == best["ours_mean"],
                    "best_paper": better * paper == best["paper"],
                }
            rows.append({"count": count, "cells": [cells[method] for method in methods]})
        blocks.append(
            {
                "title": f"{about.title} [{about.unit}]",
                "lower": about.lower,
                "published": bool(mine["paper"].notna().any()),
                "methods": [looks.look(method, experiment).name for method in methods],
                "rows": rows,
            }
        )
    return blocks


def table(path: Path, experiment: str) -> dict[str, Any]:
    """A table's heading, its link, and its comparison, or its plain cells where it is of another kind."""
    try:
        frame = pd.read_csv(path)
    except ValueError as error:
        raise ValueError(f"{path}: found no readable CSV ({error}). Delete it and run its rule again.") from None
    text = path.with_suffix(".md")
    heading = text.read_text().splitlines()[0].lstrip("# ") if text.exists() else path.stem
    found: dict[str, Any] = {"heading": heading, "path": path, "comparison": None, "columns": [], "rows": []}
    if list(frame.columns) == COLUMNS:
        return found | {"comparison": comparison(frame, experiment)}
    return found | {"columns": list(frame.columns), "rows": frame.astype("str").to_numpy().tolist()}


# ---------------------------------------------------------------- provenance


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def settings(runs: Sequence[dict[str, Any]], experiment: str) -> dict[str, Any]:
    """Settings that all methods share, and for each method those in which it departs from most."""
    by_method = {run["method"]: {key: _short(value) for key, value in run["settings"].items()} for run in runs}
    keys = list(next(iter(by_method.values())))
    common = {key: pd.Series([found.get(key) for found in by_method.values()]).mode().iloc[0] for key in keys}
    departures = {
        looks.look(method, experiment).name: {key: value for key, value in found.items() if value != common.get(key)}
        for method, found in by_method.items()
    }
    return {"common": common, "departures": {name: found for name, found in departures.items() if found}}


def provenance(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What made the rows: each of data, code, machine and packages as the set of what was found, and the times.

    Args:
        runs: of runs.json, one entry a seed, with what trained it under `training`.
    """
    made = [each for run in runs for each in (run, run["training"]) if each]

    def found(key: str) -> list[str]:
        return sorted({str(each[key]) for each in made})

    seconds: dict[str, list[float]] = {}
    for run in runs:
        seconds.setdefault(looks.look(run["method"], run["experiment"]).name, []).append(run["seconds"])
    times = [
        {"method": name, "runs": len(each), "median": median(each), "sum": sum(each)} for name, each in seconds.items()
    ]
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
        "times": times,
    }


# ---------------------------------------------------------------- the page


def image(path: Path, caption: str) -> dict[str, str]:
    data = base64.b64encode(path.read_bytes()).decode()
    return {"caption": caption, "source": f"data:image/png;base64,{data}"}


def figures(folder: Path, about: Experiment) -> dict[Path, str]:
    """The figures that are there, in the order of the experiment's yaml, with their captions."""
    files = {folder / about.name / f"figures/{name}.png": caption for name, caption in about.figures.items()}
    return {path: caption for path, caption in files.items() if path.exists()}


def experiment(folder: Path, about: Experiment) -> dict[str, Any]:
    """Everything of one experiment; `ran` is False where nothing is there."""
    here = folder / about.name
    found: dict[str, Any] = {"name": about.name, "heading": about.name, "ran": (here / "runs.json").exists()}
    if not found["ran"]:
        return found
    runs, path = json.loads((here / "runs.json").read_text()), here / f"{about.table}.csv"
    shown = table(path, about.name) if path.exists() else None
    return found | {
        "heading": shown["heading"] if shown else about.name,
        "table": shown,
        "figures": [image(path, caption) for path, caption in figures(folder, about).items()],
        "settings": settings(runs, about.name),
        "provenance": provenance(runs),
        "size": runs[0]["size"],
        "links": [path for path in (here / "rows.csv", here / "runs.json") if path.exists()],
    }


def _drawn_from(distribution: dict[str, Any]) -> str:
    """A distribution of a search's space in words."""
    [(kind, values)] = distribution.items()
    if kind == "choice":
        return "one of " + ", ".join(map(_short, values))
    low, high = map(_short, values)
    return f"{low} to {high} ({kind.replace('_', '-')})"


def use(folder: Path, winner: dict[str, Any]) -> str:
    """Whether the runs of the winner's experiment and method have its settings, as their provenance says."""
    path = folder / winner["experiment"] / "runs.json"
    name = looks.look(winner["method"], winner["experiment"]).name
    runs = [run for run in json.loads(path.read_text()) if run["method"] == winner["method"]] if path.exists() else []
    if not runs:
        return f"no run of {name} in {winner['experiment']} at this size yet"
    chosen = winner["settings"].items()
    n = sum(all(run["settings"].get(key) == value for key, value in chosen) for run in runs)
    where = f"of {name} in {winner['experiment']}"
    if n == len(runs):
        return f"used by the rows {where}"
    return f"not used by the rows {where}" if n == 0 else f"used by the rows of {n} of {len(runs)} runs {where}"


def searched(folder: Path, names: Sequence[str]) -> list[dict[str, Any]]:
    """The random searches that were made, in the order of the experiments `names`, then those of others there are.

    Raises:
        ValueError: a search is unfinished.
    """
    order = list(dict.fromkeys([*names, *catalogue.names()]))
    paths = [path for path in (folder / "search").glob("*/*/winner.yaml") if path.parts[-3] in order]
    found = []
    for path in sorted(paths, key=lambda path: (order.index(path.parts[-3]), path)):
        here, winner = path.parent, yaml.safe_load(path.read_text())
        if not (here / "trials.csv").exists():
            raise ValueError(f"{here}: found a winner without trials.csv, needed both. Run `snakemake search`.")
        trials = pd.read_csv(here / "trials.csv")
        drawn, about = search.drawn(trials), search.judge(trials)
        space = (catalogue.find(winner["experiment"]).search or {"spaces": {}})["spaces"].get(winner["method"], {})
        lines = [
            {
                "trial": line["trial"],
                "score": "diverged" if math.isnan(line["score"]) else f"{line['score']:.{about.decimals}f}",
                "settings": [_value_of(line[name]) for name in drawn],
                "won": line["trial"] == winner["trial"],
            }
            for line in trials.to_dict("records")
        ]
        runs = [run for file in (here / "trials").glob("*.json") for run in json.loads(file.read_text())]
        made_by = provenance(runs) if runs else {"versions": [], "hours": 0.0}
        found.append(
            {
                "experiment": winner["experiment"],
                "method": search.name_of(trials),
                "id": f"search_{winner['experiment']}_{winner['method']}",
                "criterion": f"{about.title} [{about.unit}]",
                "lower": about.lower,
                "source": winner["data_source"],
                "space": {name: _drawn_from(space[name]) if name in space else "not declared" for name in drawn},
                "drawn": drawn,
                "trials": lines,
                "winner": {name: _value_of(value) for name, value in winner["settings"].items()},
                "number": winner["trial"],
                "use": use(folder, winner),
                "versions": made_by["versions"],
                "minutes": 60 * made_by["hours"],
                "figure": here / "search.png" if (here / "search.png").exists() else None,
                "links": [here / "trials.csv", path],
            }
        )
    return found


def _value_of(setting: Any) -> str:
    return f"{setting:.3g}" if isinstance(setting, float) else str(setting)


def _places(parts: Sequence[dict[str, Any]]) -> None:
    """Where the interval of each part lies on a scale of 0 to 100 that all parts of a claim share, zero at 50."""
    numbers = [part[key] for part in parts for key in ("effect", "low", "high")]
    times = {part["unit"] for part in parts} == {"times"}
    places = [math.log(n) if times else n for n in numbers if not math.isnan(n)]
    reach = 1.08 * max([abs(n) for n in places], default=1.0) or 1.0
    for part in parts:
        at = {}
        for key in ("effect", "low", "high"):
            number = part[key]
            if not math.isnan(number):
                at[key] = round(50 + 50 * (math.log(number) if times else number) / reach, 2)
        part["at"] = at


def verdicts(path: Path) -> list[dict[str, Any]]:
    """The claims of each paper with their parts, in the order of the file; nothing where there is no such file."""
    if not path.exists():
        return []
    frame = claims.merge([path]).fillna({"reason": ""})
    papers = []
    for paper, mine in frame.groupby("paper", sort=False):
        found = []
        for name, parts in mine.groupby("id", sort=False):
            lines = [{str(key): value for key, value in line.items()} for line in parts.to_dict("records")]
            _places(lines)
            found.append({key: lines[0][key] for key in ("section", "claim", "verdict")} | {"id": name, "parts": lines})
        counts = {verdict: sum(claim["verdict"] == verdict for claim in found) for verdict in claims.VERDICTS}
        papers.append({"name": looks.PAPERS[str(paper)], "claims": found, "counts": counts})
    return papers


def render(folder: Path, abouts: Sequence[Experiment], about_size: str) -> str:
    """The page; raises ValueError where nothing was run, or as `searched`. `about_size` is what the size is."""
    experiments, names = [experiment(folder, about) for about in abouts], [about.name for about in abouts]
    ran = [found for found in experiments if found["ran"]]
    if not ran:
        raise ValueError(f"{folder}: found no results of {', '.join(names)}, needed at least one. Run snakemake first.")
    environment = Environment(
        loader=PackageLoader("leapwarp.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["link"] = lambda path: path.relative_to(folder).as_posix()
    environment.filters["number"] = lambda value: "–" if math.isnan(value) else f"{value:.3g}"
    sources = sorted({source for found in ran for source in found["provenance"]["sources"]})
    made = searched(folder, names)
    return environment.get_template("page.html.j2").render(
        size=ran[0]["size"],
        about_size=about_size,
        stand_ins={
            source: SOURCES.get(source, "not one of the papers' data") for source in sources if source not in REAL
        },
        experiments=experiments,
        papers=verdicts(folder / "claims.csv"),
        claims_path=folder / "claims.csv",
        searches=[one | {"figure": image(one["figure"], search.CAPTION) if one["figure"] else None} for one in made],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m leapwarp.report.page", description="Make the page of one size.")
    parser.add_argument("--folder", required=True, type=Path, help="results of one size, such as results/quick")
    parser.add_argument(
        "--experiments", required=True, nargs="+", help="names, or paths of folders, in the order of the page"
    )
    parser.add_argument("--about", required=True, metavar="TEXT", help="what the size is")
    parser.add_argument("--out", required=True, type=Path, metavar="HTML", help="the file to write, in the folder")
    options = parser.parse_args(arguments)
    with one_line(parser):
        text = render(options.folder, [catalogue.find(where) for where in options.experiments], options.about)
        with atomic(options.out) as path:
            path.write_text(text, encoding="utf-8")
    print(f"{options.out}: {len(text) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
