"""The command line that every experiment has: some seeds of one method at one number of tasks -> one CSV.

It settles the process, listens for signals, holds the run's lock, loads the data, calls the experiment's `run` once a
seed, and writes rows and provenance. Whatever is wrong ends in one line of error and no CSV.
"""

import argparse
import json
import math
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
import yaml

from leapwarp import host, interrupt, provenance, results
from leapwarp.data.classes import Classes, for_choosing
from leapwarp.files import alone, atomic

# Settings that a run may change on its way without changing what it learns.
NOT_RESULTS = {"checkpoint_every", "curve_every", "tasks_at_a_time"}


class Simulated(NamedTuple):
    """Stands where data stand in an experiment whose tasks are made by its own code from the seed."""

    source: str = "simulated"
    checksum: str = "none"


SIMULATED = Simulated()

Record = tuple[str, int | None, str, float]
"""(held-out task or "", step or None, metric, value)"""

Build = Callable[[dict[str, Any]], dict[str, Any]]
"""changes of an experiment's settings -> its methods by name"""


def pick_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one; raises ValueError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used here ({reason}); take auto, cpu or cuda.") from None
    return device


def copies(build: Build, name: str, key: str, value: Any) -> dict[str, Any]:
    """The other settings of a method that would change with the experiment's `key`, by name, and what they would be.

    A file replaces settings of the method, which has its copies by then: they would keep what they are.
    """
    before, after = (asdict(build(changes)[name].settings) for changes in ({}, {key: value}))
    return {other: after[other] for other in after if other != key and after[other] != before[other]}


def with_settings(build: Build, path: Path, experiment: str, name: str, profile: str, data_source: str) -> Any:
    """The method with the settings that a file declares, as a random search writes it (`leapwarp.tables.search`).

    Raises:
        ValueError: no such file, one of another experiment, method, size or data source, or settings that the
            experiment does not have or cannot have, or that the method reads under another name.
    """
    method = build({})[name]
    if not path.is_file():
        raise ValueError(f"{path}: found no such file, needed settings, as `snakemake search` makes them.")
    try:
        found = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: is no YAML ({' '.join(str(error).split())[:120]}).") from None
    if not isinstance(found, dict) or not isinstance(found.get("settings"), dict):
        raise ValueError(f"{path}: needed a mapping with the keys experiment, method and settings.")
    if (found.get("experiment"), found.get("method")) != (experiment, name):
        of = f"{found.get('method')} in {found.get('experiment')}"
        raise ValueError(f"{path}: has the settings of {of}, needed those of {name} in {experiment}.")
    for key, needed in (("profile", profile), ("data_source", data_source)):
        if found.get(key, needed) != needed:  # the settings of a trial have neither
            raise ValueError(f"{path}: was chosen with {key} {found[key]}, needed {needed}.")
    known, values = asdict(method.settings), {}
    for key, value in found["settings"].items():
        if key not in known:
            raise ValueError(f"{path}: unknown setting {key!r} of {experiment}. Known: {', '.join(known)}.")
        kind = type(known[key])
        if kind is tuple and isinstance(value, list):
            value = tuple(value)
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind:
            raise ValueError(f"{path}: the setting {key} is {value!r}, needed a value as {known[key]!r}.")
        least = 1 if kind is int and known[key] else 0
        if isinstance(value, int | float) and not least <= value < math.inf:
            raise ValueError(f"{path}: the setting {key} is {value!r}, needed a number of at least {least}.")
        values[key] = value
    for key, value in values.items():
        for other, copy in copies(build, name, key, value).items():
            if values.get(other) != copy:
                raise ValueError(
                    f"{path}: found the setting {key}, which {name} reads as {other}; needed {other}. Name {other} "
                    f"in place of {key}, or both with values that agree."
                )
    return method._replace(settings=replace(method.settings, **values))


def seed_number(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a seed is a whole number from 0 upwards, got {text!r}")
    return int(text)


def main(
    experiment: str,
    document: str | None,
    profiles: dict[str, Any],
    methods: Callable[[Any], dict[str, Any]],
    load: Callable[[Path], Any] | None,
    run: Callable[..., tuple[list[Record], float]],
    arguments: Sequence[str] | None = None,
) -> None:
    """The command line of one experiment.

    Args:
        profiles: settings (a dataclass) by size.
        methods: settings -> the methods by name, each with `settings` and whether it `pretrains`.
        load: path -> data with `source` and `checksum`; None where code makes the tasks: the data are then `SIMULATED`.
        run: (data, method, its name, number of tasks, seed, device, folder of checkpoints or None, identity: whatever
            the result depends on) -> records, seconds that it took, those of interrupted processes included.
    """
    names = list(methods(next(iter(profiles.values()))))
    parser = argparse.ArgumentParser(
        prog=f"python -m leapwarp.experiments.{experiment}",
        description=document,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--profile", choices=list(profiles), default="quick", help="size of the experiment")
    parser.add_argument("--method", choices=names, required=True)
    parser.add_argument("--n-tasks", type=int, required=True, help="pretraining tasks; 0 for methods without")
    parser.add_argument("--seeds", type=seed_number, nargs="+", required=True, help="one run each, one after the other")
    if load:
        parser.add_argument("--data", type=Path, required=True, help="what `python -m leapwarp.data.prepare` made")
    parser.add_argument("--out", type=Path, required=True, help="CSV of result rows to write; provenance beside it")
    parser.add_argument("--checkpoints", type=Path, help="folder to keep checkpoints in, and to resume from")
    parser.add_argument(
        "--settings", type=Path, metavar="YAML", help="replaces settings, as a random search found them"
    )
    parser.add_argument(
        "--held-out",
        choices=["test", "validation"],
        default="test",
        help="classes to judge on: validation to choose settings, and then a run that diverges has a row that says so",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    options = parser.parse_args(arguments)

    def build(changes: dict[str, Any]) -> dict[str, Any]:
        return methods(replace(profiles[options.profile], **changes))

    method = build({})[options.method]
    if (options.n_tasks > 0) != method.pretrains or options.n_tasks < 0:
        needed = "at least 1" if method.pretrains else "0, since it does not pretrain"
        parser.error(f"argument --n-tasks: {options.method} needs {needed}, got {options.n_tasks}")
    if len(set(options.seeds)) < len(options.seeds):
        parser.error(f"argument --seeds: needs each seed once, got {' '.join(map(str, options.seeds))}")
    interrupt.watch()
    host.settle()
    print(shlex.join(["python", "-m", f"leapwarp.experiments.{experiment}", *(arguments or sys.argv[1:])]), flush=True)
    with job(f"{options.method}, {options.n_tasks} tasks", options.out):
        _run_seeds(experiment, options, build, load, run)


@contextmanager
def job(name: str, out: Path) -> Iterator[None]:
    """Hold the lock of `out`; a signal ends the process with a code of its own, bad input with one line of error."""
    try:
        with alone(out.with_name(f".{out.name}.lock")):
            yield
    except BaseException as error:
        signal = interrupt.received()
        if signal:  # whatever else the error says: libraries may make another one of it
            print(
                f"{name}: stopped by {signal}; started again, it goes on from its checkpoint, if it has one", flush=True
            )
            sys.exit(interrupt.EXIT_CODE)
        if isinstance(error, ValueError | FloatingPointError | OSError):
            sys.exit(f"error: {name}: {error}")
        raise


def _run_seeds(
    experiment: str,
    options: argparse.Namespace,
    build: Build,
    load: Callable[[Path], Any] | None,
    run: Callable[..., tuple[list[Record], float]],
) -> None:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    device = pick_device(options.device)
    data = load(options.data) if load else SIMULATED
    method = build({})[options.method]
    if options.settings:
        method = with_settings(build, options.settings, experiment, options.method, options.profile, data.source)
    if options.held_out == "validation":
        if not isinstance(data, Classes):
            raise ValueError(f"{experiment} has no validation classes to judge on; needed --held-out test.")
        data = for_choosing(data)
    settings = asdict(method.settings)
    numbers = {key: value for key, value in settings.items() if key not in NOT_RESULTS}
    identity = {
        "experiment": experiment,
        "profile": options.profile,
        "method": options.method,
        "n_tasks": options.n_tasks,
        "data": data.checksum,
        "held_out": options.held_out,
        "code": provenance.code(),
        "torch": torch.__version__,
        **numbers,
    }
    same = {
        "experiment": experiment,
        "profile": options.profile,
        "method": options.method,
        "n_tasks": options.n_tasks,
        "version": provenance.version(),
        "data_source": data.source,
        "data_checksum": data.checksum[: provenance.DIGITS],
        "device": str(device),
    }
    frames, seconds = [], {}
    for seed in options.seeds:
        about = identity | {"seed": seed}
        try:
            records, seconds[seed] = run(
                data, method, options.method, options.n_tasks, seed, device, options.checkpoints, about
            )
        except FloatingPointError as diverged:
            if options.held_out == "test":
                raise
            print(f"{options.method}, seed {seed}: {diverged}", flush=True)
            records, seconds[seed] = [("", None, "diverged", 1.0)], 0.0
        hashed = provenance.digest(numbers)
        frames.append(results.rows(records, **same, settings=hashed, seed=seed, seconds=seconds[seed]))
        print(f"{options.method}, {options.n_tasks} tasks, seed {seed}: {seconds[seed]:.0f} s", flush=True)
    origin = same | {
        "seeds": options.seeds,
        "held_out": options.held_out,
        "code": identity["code"],
        "settings": settings,
        "settings_hash": provenance.digest(numbers),
        "packages": provenance.packages(),
        "machine": provenance.machine(device),
        "started": started,
        "seconds": seconds,
    }
    with atomic(options.out.with_suffix(".json")) as path:
        path.write_text(json.dumps(origin, indent=1) + "\n")
    results.write(options.out, pd.concat(frames, ignore_index=True))
