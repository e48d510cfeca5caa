"""Calls of programs, shared by the tests of whole runs."""

import csv
import importlib
import multiprocessing
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import psutil
import yaml

from leapwarp import plan
from leapwarp.experiments import resolve

REPO = Path(__file__).parents[1]
SIZES = REPO / "workflow/sizes"
CONFIG = yaml.safe_load((REPO / "config.yaml").read_text())
PATIENCE = 3600  # seconds to wait for a process, so many that only a process that hangs reaches them
NAME = "omniglot_leap"  # the experiment that these tests run
SIZE = "tiny"  # and their size, a file of their own
RUNS = "Shell command: exec python -m leapwarp.experiments "


def jobs_of(size, **changes):
    """The jobs at a size of the repository, with config.yaml changed."""
    config = CONFIG | {"size": size} | changes
    return plan.jobs(config, plan.read_config(config, SIZES))


# A call of snakemake then ends as soon as its last job does. With the profile's value, timers run five seconds more.
QUICKLY = ["--max-jobs-per-timespan", "100/1s"]

# Calls are forks of a process that has imported these modules once, which takes seconds.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["snakemake.cli", "leapwarp.experiments.command"])


class Finished(NamedTuple):
    returncode: int
    stdout: str
    """output and errors together"""


def start_child(folder, output, module, function, *args):
    """Start a process in `folder` that calls a function with the words of a command line."""
    words = [str(arg) for arg in args]
    child = FORKS.Process(target=_child, args=(str(folder), str(output), dict(os.environ), module, function, words))
    child.start()
    return child


def _child(folder, output, environment, module, function, words):
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    file = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.argv = [module.split(".")[0], *words]
    getattr(importlib.import_module(module), function)(words)


def call(folder, module, function, *args):
    with tempfile.NamedTemporaryFile("r", errors="replace") as output:
        child = start_child(folder, output.name, module, function, *args)
        child.join()
        return Finished(child.exitcode, output.read())


def snakemake(folder, *args):
    """Call snakemake in `folder`. It does the same as `snakemake_command`, without the time of the import."""
    return call(folder, "snakemake.cli", "main", "--snakefile", REPO / "Snakefile", *QUICKLY, *args)


def snakemake_command(*args):
    return [sys.executable, "-m", "snakemake", "--snakefile", str(REPO / "Snakefile"), *QUICKLY, *args]


def work_out_settings(folder):
    """Compute the settings for which the first snakemake in `folder` would start a process that imports torch."""
    made = call(folder, "calls", "_work_out_settings")
    assert made.returncode == 0, made.stdout


def _work_out_settings(words):
    config = yaml.safe_load(Path("config.yaml").read_text())
    path = plan.read_config(config, SIZES)
    wheres = [jobs.where for jobs in plan.jobs(config, path).values()]
    papers = Path(os.path.relpath(REPO)) / "paper"
    kept = plan.departures_file(path, wheres, Path(".snakemake/leapwarp"), papers)
    if not kept.exists():
        resolve.main([str(path), "--experiments", *wheres, "--papers", str(papers), "--out", str(kept)])


def edit(path, change):
    """Change the content of a YAML file."""
    found = yaml.safe_load(path.read_text())
    change(found)
    path.write_text(yaml.safe_dump(found, sort_keys=False))


def option(line, name):
    """The values of an option of a command line."""
    words = line.split()
    rest = words[words.index(name) + 1 :]
    return " ".join(rest[: next((i for i, word in enumerate(rest) if word.startswith("-")), len(rest))])


def commands(output, command):
    """The command lines of `train` or `evaluate` that snakemake started or would start, from what it printed."""
    return [line for line in output.splitlines() if line.startswith(f"{RUNS}{command} ")]


def trained(output):
    """(method, number of tasks, seeds) of each training."""
    found = [
        [option(line, name) for name in ("--method", "--n-tasks", "--seeds")] for line in commands(output, "train")
    ]
    return sorted((method, int(n_tasks), seeds) for method, n_tasks, seeds in found)


def evaluated(output):
    """(method, seeds) of each evaluation."""
    files = [option(line, "--out") for line in commands(output, "evaluate")]
    return sorted(re.search(r"runs/(\w+)/seeds([\d-]+)\.csv", path).groups() for path in files)


def made(output):
    """All rules that snakemake ran or would run."""
    return set(re.findall(r"^ *(?:local)?rule (\w+):$", output, re.MULTILINE))


def rows_of(path):
    """The rows of a CSV without times."""
    with open(path, newline="") as file:
        rows = [{key: row[key] for key in row if key not in ("seconds", "version")} for row in csv.DictReader(file)]
    return [row for row in rows if not row["metric"].endswith("seconds")]


def lock_of(folder, command, method):
    """The lock that a training (at one task) or an evaluation holds."""
    place = {"train": f"states/{method}/tasks1/.seeds0-1.safetensors", "evaluate": f"runs/{method}/.seeds0-1.csv"}
    return folder / f"results/{SIZE}/{NAME}/{place[command]}.lock"


def processes(folder, command):
    """The running processes of `train` or `evaluate` in `folder`."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if process.cwd() == str(folder) and words[1:5] == ["-m", "leapwarp.experiments", command, NAME]:
                found.append(process)
        except psutil.Error:  # it has ended in the meantime
            pass
    return found


def caught(folder, parent, *methods, command="train"):
    """The processes of `methods`, each suspended as soon as it has started, in whatever order they start."""
    found, deadline = {}, time.monotonic() + PATIENCE
    while len(found) < len(methods):
        assert time.monotonic() < deadline and parent.poll() is None, (folder / "snakemake.log").read_text()
        for method in set(methods) - found.keys():
            if lock_of(folder, command, method).exists():
                at_work = [process for process in processes(folder, command) if method in process.cmdline()]
                if at_work:
                    found[method] = at_work[0]
                    found[method].suspend()
        time.sleep(0.005)
    return [found[method] for method in methods]


def step_to(run, path):
    """Let a suspended run continue until `path` exists, and suspend it again."""
    while not path.exists():
        run.resume()
        time.sleep(0.01)
        run.suspend()
