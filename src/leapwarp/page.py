"""One self-contained page of what a size has produced: tables beside the papers', figures, claims, provenance.

    python -m leapwarp.page --folder results/quick --experiments omniglot_warp omniglot_leap \
        --captions workflow/report --searches workflow/search.yaml --out results/quick/index.html

It shows whatever it finds in <folder>/<experiment>: table*.csv with the heading of its .md, figures/*.png with the
caption <captions>/<figure>.rst, rows.csv, runs.json; <folder>/claims.csv; and the random searches that were made, in
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

from leapwarp import claims, tables
from leapwarp.figures import style
from leapwarp.files import atomic, one_line
from leapwarp.tables import search

# ---------------------------------------------------------------- tables


def _value(mean: float, std: float, decimals: int) -> str:
    return "" if math.isnan(mean) else tables.number(mean, std, decimals)


def comparison(lines: pd.DataFrame) -> list[dict[str, Any]]:
    """One block a metric of a table "ours | paper": for each number of tasks a row of cells, one a method."""
    blocks = []
    for metric, mine in lines.groupby("metric", sort=False):
        about = tables.QUANTITIES[str(metric)]
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
                "methods": [style.method(method).name for method in methods],
                "rows": rows,
            }
        )
    return blocks


def table(path: Path) -> dict[str, Any]:
    """A table's heading, its link, and its comparison, or its plain cells where it is of another kind."""
    try:
        frame = pd.read_csv(path)
    except ValueError as error:
        raise ValueError(f"{path}: found no readable CSV ({error}). Delete it and run its rule again.") from None
    text = path.with_suffix(".md")
    heading = text.read_text().splitlines()[0].lstrip("# ") if text.exists() else path.stem
    found: dict[str, Any] = {"heading": heading, "path": path, "comparison": None, "columns": [], "rows": []}
    if list(frame.columns) == tables.COLUMNS:
        return found | {"comparison": comparison(frame)}
    return found | {"columns": list(frame.columns), "rows": frame.astype("str").to_numpy().tolist()}


# ---------------------------------------------------------------- provenance


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def settings(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Settings that all methods share, and for each method those in which it departs from most."""
    by_method = {run["method"]: {key: _short(value) for key, value in run["settings"].items()} for run in runs}
    keys = list(next(iter(by_method.values())))
    common = {key: pd.Series([found.get(key) for found in by_method.values()]).mode().iloc[0] for key in keys}
    departures = {
        style.method(method).name: {key: value for key, value in found.items() if value != common.get(key)}
        for method, found in by_method.items()
    }
    return {"common": common, "departures": {name: found for name, found in departures.items() if found}}


def provenance(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What made the rows: each of data, code, machine and packages as the set of what was found, and the times."""

    def found(key: str) -> list[str]:
        return sorted({str(run[key]) for run in runs})

    seconds: dict[str, list[float]] = {}
    for run in runs:
        seconds.setdefault(run["method"], []).extend(run["seconds"].values())
    times = [
        {"method": style.method(name).name, "runs": len(each), "median": median(each), "sum": sum(each)}
        for name, each in seconds.items()
    ]
    return {
        "sources": found("data_source"),
        "checksums": found("data_checksum"),
        "versions": found("version"),
        "codes": found("code"),
        "hashes": sorted({run["settings_hash"] for run in runs}),
        "machines": found("machine"),
        "devices": found("device"),
        "packages": sorted({f"{name} {version}" for run in runs for name, version in run["packages"].items()}),
        "first": min(run["started"] for run in runs),
        "last": max(run["started"] for run in runs),
        "n_runs": sum(line["runs"] for line in times),
        "hours": sum(line["sum"] for line in times) / 3600,
        "times": times,
    }


# ---------------------------------------------------------------- the page


def caption(path: Path, captions: Path) -> str:
    """What <captions>/<figure>.rst says of a figure, on one line; its name where there is no such file."""
    text = captions / f"{path.stem}.rst"
    return " ".join(text.read_text().split()) if text.exists() else path.stem.replace("_", " ")


def image(path: Path, captions: Path) -> dict[str, str]:
    data = base64.b64encode(path.read_bytes()).decode()
    return {"caption": caption(path, captions), "source": f"data:image/png;base64,{data}"}


def experiment(folder: Path, name: str, captions: Path) -> dict[str, Any]:
    """Everything of one experiment; `ran` is False where nothing is there."""
    here = folder / name
    found: dict[str, Any] = {"name": name, "ran": (here / "runs.json").exists()}
    if not found["ran"]:
        return found
    runs = json.loads((here / "runs.json").read_text())
    return found | {
        "tables": [table(path) for path in sorted(here.glob("table*.csv"))],
        "figures": [image(path, captions) for path in sorted((here / "figures").glob("*.png"), key=style.figure_order)],
        "settings": settings(runs),
        "provenance": provenance(runs),
        "profile": runs[0]["profile"],
        "links": [path for path in (here / "rows.csv", here / "runs.json") if path.exists()],
    }


def _drawn_from(distribution: dict[str, Any]) -> str:
    """A distribution of workflow/search.yaml in words."""
    [(kind, values)] = distribution.items()
    if kind == "choice":
        return "one of " + ", ".join(map(_short, values))
    low, high = map(_short, values)
    return f"{low} to {high} ({kind.replace('_', '-')})"


def use(folder: Path, winner: dict[str, Any]) -> str:
    """Whether the runs of the winner's experiment and method have its settings, as their provenance says."""
    path, name = folder / winner["experiment"] / "runs.json", style.method(winner["method"]).name
    runs = [run for run in json.loads(path.read_text()) if run["method"] == winner["method"]] if path.exists() else []
    if not runs:
        return f"no run of {name} in {winner['experiment']} at this size yet"
    chosen = winner["settings"].items()
    n = sum(all(run["settings"].get(key) == value for key, value in chosen) for run in runs)
    where = f"of {name} in {winner['experiment']}"
    if n == len(runs):
        return f"used by the rows {where}"
    return f"not used by the rows {where}" if n == 0 else f"used by the rows of {n} of {len(runs)} runs {where}"


def searched(folder: Path, spaces: dict[str, Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """The random searches that were made, in the order of the experiments `names`.

    Args:
        spaces: workflow/search.yaml; its ranges are shown.

    Raises:
        ValueError: a search is unfinished.
    """

    def order(path: Path) -> tuple[int, Path]:
        name = path.parent.parent.name
        return (names.index(name) if name in names else len(names), path)

    found = []
    for path in sorted((folder / "search").glob("*/*/winner.yaml"), key=order):
        here, winner = path.parent, yaml.safe_load(path.read_text())
        if not (here / "trials.csv").exists():
            raise ValueError(f"{here}: found a winner without trials.csv, needed both. Run `snakemake search`.")
        trials = pd.read_csv(here / "trials.csv")
        drawn, about = search.drawn(trials), tables.QUANTITIES[winner["criterion"]]
        space = spaces.get(winner["experiment"], {}).get("spaces", {}).get(winner["method"], {})
        lines = [
            {
                "trial": line["trial"],
                "score": "diverged" if math.isnan(line["score"]) else f"{line['score']:.{about.decimals}f}",
                "settings": [_value_of(line[name]) for name in drawn],
                "won": line["trial"] == winner["trial"],
            }
            for line in trials.to_dict("records")
        ]
        origins = [json.loads(origin.read_text()) for origin in sorted((here / "trials").glob("*.json"))]
        found.append(
            {
                "experiment": winner["experiment"],
                "method": style.method(winner["method"]).name,
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
                "versions": sorted({origin["version"] for origin in origins}),
                "minutes": sum(sum(origin["seconds"].values()) for origin in origins) / 60,
                "figure": here / "search.png" if (here / "search.png").exists() else None,
                "links": [here / "trials.csv", path],
            }
        )
    return found


def _value_of(setting: Any) -> str:
    return f"{setting:.3g}" if isinstance(setting, float) else str(setting)


def declared(path: Path | None) -> dict[str, Any]:
    """What workflow/search.yaml declares; nothing without a path."""
    return yaml.safe_load(path.read_text()) if path else {}


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
        papers.append({"name": style.PAPERS[str(paper)], "claims": found, "counts": counts})
    return papers


def render(folder: Path, names: Sequence[str], captions: Path, searches: Path | None = None) -> str:
    """The page; raises ValueError where nothing was run, or as `searched`. `searches` is workflow/search.yaml."""
    experiments = [experiment(folder, name, captions) for name in names]
    ran = [found for found in experiments if found["ran"]]
    if not ran:
        raise ValueError(f"{folder}: found no results of {', '.join(names)}, needed at least one. Run snakemake first.")
    environment = Environment(
        loader=PackageLoader("leapwarp", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["link"] = lambda path: path.relative_to(folder).as_posix()
    environment.filters["number"] = lambda value: "–" if math.isnan(value) else f"{value:.3g}"
    sources = sorted({source for found in ran for source in found["provenance"]["sources"]})
    profile = ran[0]["profile"]
    made = searched(folder, declared(searches), names)
    return environment.get_template("page.html.j2").render(
        profile=profile,
        about_profile=tables.PROFILES.get(profile, ""),
        stand_ins={
            source: tables.SOURCES.get(source, "not one of the papers' data")
            for source in sources
            if source not in tables.REAL
        },
        experiments=experiments,
        papers=verdicts(folder / "claims.csv"),
        claims_path=folder / "claims.csv",
        searches=[one | {"figure": image(one["figure"], captions) if one["figure"] else None} for one in made],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m leapwarp.page", description="Make the page of one size.")
    parser.add_argument("--folder", required=True, type=Path, help="results of one size, such as results/quick")
    parser.add_argument("--experiments", required=True, nargs="+", metavar="NAME", help="in the order of the page")
    parser.add_argument("--captions", required=True, type=Path, metavar="DIR", help="folder of <figure>.rst")
    parser.add_argument("--searches", type=Path, metavar="YAML", help="the spaces of the random searches")
    parser.add_argument("--out", required=True, type=Path, metavar="HTML", help="the file to write, in the folder")
    options = parser.parse_args(arguments)
    with one_line(parser):
        text = render(options.folder, options.experiments, options.captions, options.searches)
        with atomic(options.out) as path:
            path.write_text(text, encoding="utf-8")
    print(f"{options.out}: {len(text) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
