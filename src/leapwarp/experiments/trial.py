"""One trial of a random search: a run with drawn settings, evaluated on validation classes."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import yaml

from leapwarp import catalogue, plan, search
from leapwarp.experiments import command
from leapwarp.files import atomic, one_line


def main(arguments: Sequence[str]) -> None:
    """The command `trial`. It writes <number>.yaml, .csv, .json and, if the method is trained, .safetensors."""
    parser = argparse.ArgumentParser(prog=f"{command.PROGRAM} trial", description="One trial of a random search.")
    parser.add_argument("experiment", help="the name of an experiment, or a folder with an experiment.yaml")
    parser.add_argument("--number", type=command.whole_number, required=True, help="the number of the trial")
    parser.add_argument("--space", type=command.mapping, required=True, help="setting -> {kind: values}, as JSON")
    parser.add_argument("--fixed", default={}, type=command.mapping, help="settings of every trial; not drawn")
    parser.add_argument("--method", required=True)
    parser.add_argument("--out", required=True, type=Path, metavar="CSV", help="rows of the trial, to write")
    options, rest = parser.parse_known_args(arguments)
    about = catalogue.find(options.experiment)
    drawn_to = options.out.with_suffix(".yaml")
    with one_line(parser):
        space = {name: values for name, values in options.space.items() if name not in options.fixed}
        drawn = search.draw(space, about.name, options.method, options.number)
        with atomic(drawn_to) as path:
            trial = {"experiment": about.name, "method": options.method, "trial": options.number}
            trial |= {"drawn": sorted(drawn), "settings": drawn | options.fixed}
            path.write_text(yaml.safe_dump(trial, sort_keys=False), encoding="utf-8")
    judged = ["--winner", str(drawn_to), "--held-out", "validation"]
    same = [options.experiment, "--method", options.method, *judged, *rest]
    state, history = options.out.with_suffix(".safetensors"), options.out.with_name(f"{options.number}-history.csv")
    read = ["--seeds", str(plan.SEARCH_SEED)]
    if about.methods[options.method].trains:
        command.train([*same, *read, "--out", str(state), "--history", str(history)])
        read = ["--states", str(state), "--histories", str(history)]
    command.evaluate([*same, *read, "--out", str(options.out)])
