"""The commands `train` (seeds of one method -> a state) and `evaluate` (states -> rows) of all experiments.

They set up the process and its signal handlers, lock the output, load the data, call the experiment's functions, and
write files atomically, with their provenance. Every fault ends in an error of one line.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from leapwarp import catalogue, fit, host, interrupt, provenance
from leapwarp.data.classes import Classes, for_choosing
from leapwarp.experiments import states
from leapwarp.experiments.base import SIMULATED, Evaluated, Experiment, Record, Run, Trained
from leapwarp.experiments.settings import NOT_RESULTS, changed, winner
from leapwarp.files import alone, atomic, said
from leapwarp.learners.base import State
from leapwarp.modules import kind_of
from leapwarp.report import rows
from leapwarp.report.rows import DIVERGED
from leapwarp.rng import generator, global_draws_from

PROGRAM = "python -m leapwarp.experiments"


def whole_number(text: str) -> int:
    if not text.isdecimal() or len(text) > 18:  # rows hold 64 bits
        raise argparse.ArgumentTypeError(f"needed a whole number from 0 to {10**18 - 1}, got {text[:40]!r}")
    return int(text)


def mapping(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise argparse.ArgumentTypeError(f"needed JSON as '{{\"inner_lr\": 0.1}}', got {text!r}")
    return found


def options_of_both(command: argparse.ArgumentParser) -> None:
    """The options that `train` and `evaluate` share."""
    command.add_argument("experiment", help="the name of an experiment, or a folder with an experiment.yaml")
    command.add_argument("--method", required=True)
    command.add_argument("--size", default="own", help="the name of the size in the rows")
    command.add_argument(
        "--settings", type=mapping, default={}, metavar="JSON", help="settings that replace published ones"
    )
    command.add_argument("--winner", type=Path, metavar="YAML", help="a file with the winner of a random search")
    command.add_argument(
        "--data", type=Path, help="the data file that leapwarp.data.prepare, or a command like it, made"
    )
    command.add_argument("--checkpoints", type=Path, help="folder for checkpoints, to resume from")
    command.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    command.add_argument(
        "--held-out",
        choices=["test", "validation"],
        default="test",
        help="classes for the evaluation: test, or validation to choose settings; then a run that diverges has a row",
    )


@contextmanager
def job(name: str, out: Path) -> Iterator[None]:
    """Lock `out`. A signal ends the process with its own exit code, and bad input with an error of one line."""
    try:
        with alone(out.with_name(f".{out.name}.lock")):
            yield
    except BaseException as error:
        signal = interrupt.received()
        if signal:  # libraries may turn the signal's exception into another error
            print(
                f"{name}: stopped by {signal}; if started again, it continues from its checkpoint, if it has one",
                flush=True,
            )
            sys.exit(interrupt.EXIT_CODE)
        if not isinstance(error, Exception):
            raise
        sys.exit(f"error: {name}: {said(error)}")


def begin(program: str, arguments: Sequence[str]) -> None:
    """Set up the process, and print the command, with which it can be repeated."""
    interrupt.watch()
    host.settle()
    print(shlex.join(["python", "-m", *program.split(), *arguments]), flush=True)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def digits(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that results depend on."""
    return {key: value for key, value in settings.items() if key not in NOT_RESULTS}


class Job:
    """The experiment, its data, and the method with its settings, from the options of a command."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.about = options, catalogue.find(options.experiment)
        self.experiment: Experiment = self.about.module("run").EXPERIMENT
        self.device, self.started = host.pick_device(options.device), now()
        if (options.data is None) != (self.about.data is None):
            needed = f"--data results/data/{self.about.data}.safetensors" if self.about.data else "no --data"
            raise ValueError(f"{self.about.name} reads {self.about.data or 'no data'}; needed {needed}.")
        load = self.experiment.load
        self.data: Any = load(options.data) if load else SIMULATED
        if not hasattr(self.data, "source") or not hasattr(self.data, "checksum"):
            raise ValueError(
                f"load() of {self.about.name} returns {kind_of(self.data)}; needed an object with the texts `source` "
                "and `checksum`."
            )
        self.code = provenance.code()
        if options.held_out == "validation":
            if not isinstance(self.data, Classes):
                raise ValueError(f"{self.about.name} has no validation classes; needed --held-out test.")
            self.data = for_choosing(self.data)

    def method(self, name: str, values: dict[str, dict[str, Any]]) -> Any:
        """A method with its published settings, replaced by those of `values` (source -> settings), then --winner."""
        methods = self.experiment.methods(self.experiment.published)
        if name not in methods:
            raise ValueError(f"{self.about.name} has no method {name!r}, needed one of {', '.join(methods)}.")
        settings, options = methods[name].settings, self.options
        for what, each in values.items():
            settings = changed(settings, each, what)
        if options.winner:
            found = winner(options.winner, self.about.name, name, options.size, self.data.source)
            settings = changed(settings, found, str(options.winner))
        return methods[name]._replace(settings=settings)

    def origin(self, name: str, n_tasks: int) -> dict[str, Any]:
        """The columns that are the same in all rows of the job."""
        return {
            "experiment": self.about.name,
            "method": name,
            "n_tasks": n_tasks,
            "size": self.options.size,
            "version": provenance.version(),
            "data_source": self.data.source,
            "data_checksum": self.data.checksum[: provenance.DIGITS],
            "device": str(self.device),
        }

    def made_by(self) -> dict[str, Any]:
        """The provenance of the results, besides the columns of the rows."""
        return {
            "held_out": self.options.held_out,
            "code": self.code,
            "packages": provenance.packages(),
            "machine": provenance.machine(self.device),
            "started": self.started,
        }

    def identity(self, name: str, n_tasks: int, seed: int, settings: dict[str, Any]) -> dict[str, Any]:
        """Everything that the result of one seed depends on."""
        return {
            "experiment": self.about.name,
            "method": name,
            "n_tasks": n_tasks,
            "seed": seed,
            "data": self.data.checksum,
            "held_out": self.options.held_out,
            "code": self.code,
            "torch": torch.__version__,
            **digits(settings),
        }


# ---------------------------------------------------------------- train


def train(arguments: Sequence[str]) -> None:
    """The command `train`."""
    parser = argparse.ArgumentParser(prog=f"{PROGRAM} train", description="Train seeds of one method.")
    options_of_both(parser)
    parser.add_argument(
        "--n-tasks", type=whole_number, nargs="+", default=[0], help="pretraining tasks; 0 if they are not counted"
    )
    parser.add_argument(
        "--seeds", type=whole_number, nargs="+", required=True, help="one run for each seed and number of tasks"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="SAFETENSORS", help="the learnt state to write")
    parser.add_argument("--history", type=Path, required=True, metavar="CSV", help="rows of training to write")
    options = parser.parse_args(arguments)
    for what, given in (("seeds", options.seeds), ("n-tasks", options.n_tasks)):
        if len(set(given)) < len(given):
            parser.error(f"argument --{what}: needs each number once, got {' '.join(map(str, given))}")
    begin(f"{PROGRAM.removeprefix('python -m ')} train", arguments)
    counts = ", ".join(map(str, options.n_tasks))
    name = options.method if options.n_tasks == [0] else f"{options.method}, {counts} tasks"
    with job(name, options.out):
        train_runs(Job(options), options)


def train_runs(job: Job, options: argparse.Namespace) -> None:
    """Train the seeds and numbers of tasks of the options, and write the state and the history of each run.

    A run that diverges has no state, and a row that says so. The job fails if all runs diverge.
    """
    about, experiment = job.about, job.experiment
    method = job.method(options.method, {"--settings": options.settings})
    if experiment.train is None or not about.methods[options.method].trains:
        raise ValueError(f"{options.method} of {about.name} is not trained: needed the command evaluate.")
    for count in options.n_tasks:
        if (count > 0) != (about.most_tasks > 0):
            needed = f"1 to {about.most_tasks}" if about.most_tasks else "none, since tasks are not counted"
            raise ValueError(f"--n-tasks is {count}, {about.name} needs {needed}.")
    settings = {key: v for key, v in asdict(method.settings).items() if key not in experiment.evaluation}
    hashed = provenance.digest(digits(settings))
    runs = [
        Run(
            job.data,
            method,
            options.method,
            count,
            seed,
            job.device,
            options.checkpoints,
            job.identity(options.method, count, seed, settings),
        )
        for count in options.n_tasks
        for seed in options.seeds
    ]
    try:
        with global_draws_from([generator(run.seed, "global") for run in runs]):  # for a user's own experiment
            found = experiment.train(runs)
    except FloatingPointError as error:
        if options.held_out == "test":
            raise
        print(error, flush=True)
        found = [Trained({}, [], 0.0, str(error)) for _ in runs]
    if not isinstance(found, list | tuple) or len(found) != len(runs) or not all(isinstance(e, Trained) for e in found):
        raise ValueError(
            f"train() of {about.name} returns {kind_of(found)}; needed a list with one Trained for each of the "
            f"{len(runs)} runs."
        )
    frames, learnt, seconds, diverged = [], {}, {}, {}
    for run, trained in zip(runs, found, strict=True):
        records, key = trained.records, (run.n_tasks, run.seed)
        if trained.error:
            diverged[states.name(*key)], records = trained.error, [("", None, DIVERGED, 1.0)]
        learnt[key], seconds[states.name(*key)] = trained.state, trained.seconds
        same = job.origin(options.method, run.n_tasks)
        frames.append(rows.rows(records, **same, settings=hashed, seed=run.seed, seconds=trained.seconds))
        print(f"{run.title}: {trained.error or f'trained in {trained.seconds:.0f} s'}", flush=True)
    origin = job.origin(options.method, 0) | {"n_tasks": options.n_tasks, "seeds": options.seeds}
    origin |= {**job.made_by(), "settings": settings, "seconds": seconds, "diverged": diverged}
    rows.write(options.history, pd.concat(frames, ignore_index=True))
    states.write(options.out, learnt, origin)


# ---------------------------------------------------------------- evaluate


class Learnt(NamedTuple):
    """One seed to evaluate."""

    seed: int
    n_tasks: int
    state: State | None
    """None for a method that is not trained"""
    training: dict[str, Any]
    """the provenance of the state; empty without a state"""
    history: list[Record]
    seconds: float
    """of training"""
    path: Path | None = None
    """the file of the state"""


def evaluate(arguments: Sequence[str]) -> None:
    """The command `evaluate`."""
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} evaluate", description="Evaluate a method, trained or not, on held-out tasks."
    )
    options_of_both(parser)
    parser.add_argument(
        "--states", type=Path, nargs="+", default=[], help="files that `train` wrote; all seeds are evaluated"
    )
    parser.add_argument(
        "--trained", type=mapping, metavar="JSON", help="the --settings of `train` that the states must come from"
    )
    parser.add_argument("--histories", type=Path, nargs="+", default=[], help="histories of these states, in order")
    parser.add_argument(
        "--seeds", type=whole_number, nargs="+", default=[], help="the seeds of a method that is not trained"
    )
    parser.add_argument("--name", help="the name of the method in the rows, for a state of other origin")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="CSV", help="rows to write, with their provenance beside them"
    )
    parser.add_argument("--arrays", type=Path, metavar="NPZ", help="arrays for figures to write")
    options = parser.parse_args(arguments)
    if bool(options.states) == bool(options.seeds):
        parser.error("needs --states, or --seeds for a method that is not trained")
    if options.histories and len(options.histories) != len(options.states):
        parser.error(f"argument --histories: {len(options.histories)} of {len(options.states)} states")
    begin(f"{PROGRAM.removeprefix('python -m ')} evaluate", arguments)
    with job(f"{options.name or options.method}, evaluation", options.out):
        _evaluate(Job(options), options)


def read_learnt(job: Job, path: Path, history: Path | None) -> list[Learnt]:
    """The runs of a state file, with their history.

    Raises:
        ValueError: a file is damaged, the state belongs to another method, the history to another state, or the state
            was trained on other data and the rows have no name of their own.
    """
    found, about = states.read(path, job.device)
    of, needed = (
        f"{method} in {experiment}"
        for method, experiment in (
            (about["method"], about["experiment"]), (job.options.method, job.about.name)
        )
    )  # fmt: skip
    if of != needed:
        raise ValueError(f"{path}: is a state of {of}, needed one of {needed}.")
    if job.options.trained is not None:
        check_trained(job, path, about["settings"])
    if about["held_out"] != job.options.held_out:
        raise ValueError(f"{path}: was trained with --held-out {about['held_out']}, needed {job.options.held_out}.")
    (trained_on, its), (source, mine) = (
        (each["data_source"], each["data_checksum"]) for each in (about, job.origin(job.options.method, 0))
    )
    if its != mine and not job.options.name:
        raise ValueError(
            f"{path}: was trained on other data ({trained_on}, {its}) than these ({source}, {mine}). Train it again, "
            "or give --name, under which its rows are kept apart."
        )
    records: dict[tuple[int, int], list[Record]] = {key: [] for key in found}
    if history:
        frame = rows.read(history)
        for column, its in (
            *((key, {about[key]}) for key in ("experiment", "method")),
            ("n_tasks", {count for count, _ in found}),
            ("seed", {seed for _, seed in found}),
        ):
            if set(frame[column]) != its:
                has, needed = (", ".join(map(str, sorted(values))) for values in (set(frame[column]), its))
                raise ValueError(f"{history}: has rows of {column} {has}, needed {needed}, as its state {path}.")
        for line in frame.to_dict("records"):
            step = None if pd.isna(line["step"]) else int(line["step"])
            records[line["n_tasks"], line["seed"]].append((line["task"], step, line["metric"], line["value"]))
    else:
        lost = [key for key in found if states.name(*key) in about.get("diverged", {})]
        records |= {key: [("", None, DIVERGED, 1.0)] for key in lost}
    return [
        Learnt(seed, count, state, about, records[count, seed], about["seconds"][states.name(count, seed)], path)
        for (count, seed), state in found.items()
    ]


def check_trained(job: Job, path: Path, found: dict[str, Any]) -> None:
    """Raise ValueError if a state was trained with other settings than `train` would use now.

    A job of training that outlives a killed Snakemake can write its state after the size has been edited.
    """
    settings = asdict(job.method(job.options.method, {"--trained": job.options.trained}).settings)
    needed = {key: value for key, value in settings.items() if key not in job.experiment.evaluation}
    needed, found = (json.loads(json.dumps(digits(each))) for each in (needed, found))
    if odd := [key for key in sorted(found.keys() | needed.keys()) if found.get(key) != needed.get(key)]:
        listing = "; ".join(f"{key} is {found.get(key)!r}, needed {needed.get(key)!r}" for key in odd)
        raise ValueError(f"{path}: was trained with other settings ({listing}). Delete it and call snakemake again.")


def _evaluate(job: Job, options: argparse.Namespace) -> None:
    about, name = job.about, options.name or options.method
    trains = job.experiment.train is not None and about.methods[options.method].trains
    if trains != bool(options.states):
        needed = "--states of its training" if trains else "--seeds, since it is not trained"
        raise ValueError(f"{options.method} of {about.name} needs {needed}.")
    if name != options.method and name in about.methods:
        raise ValueError(f"--name is {name}, which is another method of {about.name}. Give it another name.")
    found = [Learnt(seed, 0, None, {}, [], 0.0) for seed in options.seeds]
    histories = options.histories or [None] * len(options.states)
    for path, history in zip(options.states, histories, strict=True):
        found += read_learnt(job, path, history)
    frames, origins, arrays, errors = [], [], {}, []
    for each in found:
        learnt = {key: value for key, value in each.training.get("settings", {}).items() if key not in NOT_RESULTS}
        method = job.method(options.method, {str(each.path): learnt, "--settings": options.settings})
        settings = asdict(method.settings)
        hashed, same = provenance.digest(digits(settings)), job.origin(name, each.n_tasks)
        identity = job.identity(name, each.n_tasks, each.seed, settings)
        identity |= {"state": each.training.get("checksum", ""), "seed": each.seed}
        run = Run(job.data, method, name, each.n_tasks, each.seed, job.device, options.checkpoints, identity)
        try:
            evaluated, seconds = evaluated_before(run, job.experiment, each)
        except FloatingPointError as error:
            print(f"{run.title}: {error}", flush=True)
            evaluated, seconds = Evaluated([("", None, DIVERGED, 1.0)]), 0.0
            errors.append(str(error))
        seconds += each.seconds
        records = each.history + evaluated.records
        frames.append(rows.rows(records, **same, settings=hashed, seed=each.seed, seconds=seconds))
        same["rows"] = len(frames[-1])
        arrays |= {f"seed{each.seed}/{key}": array for key, array in evaluated.arrays.items()}
        origins.append(
            same
            | {"seed": each.seed, **job.made_by(), "settings": settings, "settings_hash": hashed, "seconds": seconds}
            | {"training": {key: value for key, value in each.training.items() if key != "settings"}}
        )
        print(f"{run.title}: evaluated, {seconds:.0f} s with training", flush=True)
    if options.held_out == "test" and len(errors) == len(found):
        raise FloatingPointError(errors[0])
    if options.arrays:
        with atomic(options.arrays) as path, open(path, "wb") as file:
            np.savez_compressed(file, **{key: array.numpy() for key, array in arrays.items()})
    with atomic(options.out.with_suffix(".json")) as path:
        path.write_text(json.dumps(origins, indent=1) + "\n", encoding="utf-8")
    rows.write(options.out, pd.concat(frames, ignore_index=True))


def evaluated_before(run: Run, experiment: Experiment, each: Learnt) -> tuple[Evaluated, float]:
    """The evaluation of one seed, and its seconds. It is stored beside the checkpoints, so that a job that was
    interrupted, or that gets another state, does not repeat it. On another machine it is repeated, since rows say
    where they were measured."""
    kept = run.checkpoint(f"tasks{run.n_tasks}-evaluated")
    identity = run.identity | {"device": str(run.device), "machine": provenance.machine(run.device)}
    found = fit.load(kept, identity) if kept else None
    if found:
        return Evaluated([tuple(record) for record in found["records"]], found["arrays"]), found["seconds"]
    if each.state == {}:  # training diverged, and `each.history` says so
        return Evaluated([]), 0.0
    seconds = host.clock(run.device)
    began = seconds()
    with global_draws_from([generator(run.seed, "global", "evaluation")]):
        evaluated = experiment.evaluate(run, each.state)
    if not isinstance(evaluated, Evaluated):
        raise ValueError(f"evaluate() of {run.name} returns {kind_of(evaluated)}; needed Evaluated(records).")
    took = seconds() - began
    if kept:
        result = {"finished": True, "records": evaluated.records, "arrays": evaluated.arrays, "seconds": took}
        fit.save(kept, result, identity)
    return evaluated, took
