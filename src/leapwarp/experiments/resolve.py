"""The settings of every method at a size: checked, and as differences from the published ones.

    python -m leapwarp.experiments settings workflow/sizes/quick.yaml --out settings.json

Snakemake calls this once for every version of a size and of the code, and uses the differences as parameters of rules.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from leapwarp import catalogue, plan
from leapwarp import search as random_search
from leapwarp.experiments.settings import changed, departures, of_size
from leapwarp.files import atomic, one_line


def of_experiment(where: str, entry: dict[str, Any], what: str) -> dict[str, dict[str, dict[str, Any]]]:
    """`departures` of one experiment. Raises ValueError if its yaml and its code have different methods, or if a search
    has an unknown setting, or draws a value that its setting cannot have."""
    about = catalogue.find(where)
    experiment = about.module("run").EXPERIMENT
    methods = of_size(experiment, entry, what)
    missing = sorted(set(about.methods) - set(methods))
    if missing:
        raise ValueError(f"{about.folder}: experiment.yaml has the methods {', '.join(missing)}, run.py does not.")
    for name, method in methods.items():  # else a state could not be read back
        changed(method.settings, asdict(method.settings), f"{about.code / 'run.py'}: {name}")
    search = entry.get("search", {})
    for name in search.get("methods", []):
        space, source = (about.search or {})["spaces"][name], f"{about.folder / catalogue.FILE}: search.spaces.{name}"
        try:
            random_search.check(space)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from None
        for key, distribution in space.items():
            for kind, values in distribution.items():
                for value in values:  # choices, or the two ends of a range
                    drawn = value if kind == "choice" else float(value)
                    changed(methods[name].settings, {key: drawn}, source)
        changed(methods[name].settings, search.get("settings", {}), f"{what}.search.settings")
    return {name: found for name, found in departures(experiment, entry, what).items() if name in about.methods}


def check_report(size: plan.Size, papers: Path) -> None:
    """Check, before anything runs, that the report can be made later. Raises ValueError if not.

    The packages of the report must be importable, a figure must be drawable, report.py must have the functions that
    experiment.yaml names, and the papers' numbers and claims must be readable.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from leapwarp.report import claims, draw
    from leapwarp.report.quantities import Quantity
    from leapwarp.report.table import read_paper

    with draw.styled():
        Figure().draw_without_rendering()
    for about in size.experiments.values():
        report = about.module("report")
        for name in ("document", *about.figures):
            if not callable(getattr(report, name, None)):
                raise ValueError(f"{about.code / 'report.py'}: has no function {name}, which it needs.")
        known = getattr(report, "QUANTITIES", None)
        if not isinstance(known, dict) or not all(isinstance(each, Quantity) for each in known.values()):
            raise ValueError(
                f"{about.code / 'report.py'}: needed QUANTITIES, a dictionary from names to Quantity(...) of "
                "leapwarp.report.quantities."
            )
        for name, method in about.methods.items():
            if (found := method.look.marker) not in Line2D.markers:
                known = " ".join(each for each in Line2D.markers if isinstance(each, str) and each.strip())
                path = about.folder / catalogue.FILE
                raise ValueError(f"{path}: 'methods.{name}.marker' is {found!r}; needed one of matplotlib's: {known}.")
        if about.search and about.search["criterion"] not in claims.quantities(about.name):
            criterion, known = about.search["criterion"], ", ".join(claims.quantities(about.name))
            raise ValueError(f"{about.folder / catalogue.FILE}: 'search.criterion' is {criterion!r}. Allowed: {known}.")
        if about.printed:
            read_paper(papers / f"{about.paper}.csv", about.printed)
    claims.read(papers / "claims.yaml", {*catalogue.names(), *(about.name for about in size.experiments.values())})


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m leapwarp.experiments settings", description="Check a size.")
    parser.add_argument("size", type=Path, help="the size's file, such as workflow/sizes/quick.yaml")
    parser.add_argument("--experiments", nargs="*", help="names or paths of folders; default: all of the size")
    parser.add_argument("--out", type=Path, metavar="JSON", help="write to this file instead of printing")
    parser.add_argument(
        "--papers", type=Path, metavar="DIR", help="folder of claims and numbers, to check the report too"
    )
    options = parser.parse_args(arguments)
    with one_line(parser):
        size = plan.read_size(options.size, options.experiments or None)
        what = str(options.size)
        found = {
            about.name: of_experiment(where, size.entries[about.name], f"{what}: experiments.{about.name}")
            for where, about in size.experiments.items()
        }
        if options.papers:
            check_report(size, options.papers)
        text = json.dumps(found, indent=1)
        if not options.out:
            print(text)
            return
        with atomic(options.out) as path:
            path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
