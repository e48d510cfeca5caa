"""Calls of the programs that the tests of whole runs share."""

import csv
import subprocess
import sys
import time
from pathlib import Path

import psutil

REPO = Path(__file__).parents[1]
NAME = "omniglot_leap"  # the experiment that these tests run
RUNS = "Shell command: exec python -m leapwarp.experiments."


def snakemake_command(*args):
    return [sys.executable, "-m", "snakemake", "--snakefile", str(REPO / "Snakefile"), *args]


def snakemake(folder, *args):
    """One call of snakemake in `folder`: the finished process, output and errors together in stdout."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(snakemake_command(*args), cwd=folder, text=True, timeout=900, **pipes)


def experiments(output):
    """(method, number of tasks, seeds) of each run that snakemake started or would start, from what it printed."""

    def option(line, name):
        rest = line[line.index(name) + 1 :]
        return rest[: next(i for i, word in enumerate(rest) if word.startswith("-"))]

    lines = [line.split() for line in output.splitlines() if RUNS in line]
    found = [[option(line, name) for name in ("--method", "--n-tasks", "--seeds")] for line in lines]
    return sorted((method, int(n_tasks), " ".join(seeds)) for (method,), (n_tasks,), seeds in found)


def rows_of(path):
    """The rows of a CSV without what depends on the clock."""
    with open(path, newline="") as file:
        rows = [{key: row[key] for key in row if key not in ("seconds", "version")} for row in csv.DictReader(file)]
    return [row for row in rows if not row["metric"].endswith("seconds")]


def processes(folder):
    """The runs that are at work in `folder`."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if process.cwd() == str(folder) and words[1:3] == ["-m", f"leapwarp.experiments.{NAME}"]:
                found.append(process)
        except psutil.Error:  # it has ended in the meantime
            pass
    return found


def caught(folder, parent, *methods):
    """The runs of `methods` at one task, each suspended as soon as it is at work, in whatever order they begin."""
    found, deadline = {}, time.monotonic() + 120
    while len(found) < len(methods):
        assert time.monotonic() < deadline and parent.poll() is None, (folder / "snakemake.log").read_text()
        for method in set(methods) - found.keys():
            if (folder / f"results/smoke/{NAME}/runs/{method}/tasks1/.seeds0-1.csv.lock").exists():
                found[method] = next(process for process in processes(folder) if method in process.cmdline())
                found[method].suspend()
        time.sleep(0.005)
    return [found[method] for method in methods]


def step_to(run, path):
    """Let a suspended run go on until `path` is there, and suspend it again."""
    while not path.exists():
        run.resume()
        time.sleep(0.01)
        run.suspend()
