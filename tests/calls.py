"""Calls of the programs that the tests of whole runs share."""

import csv
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).parents[1]


def snakemake_command(*args):
    return [sys.executable, "-m", "snakemake", "--snakefile", str(REPO / "Snakefile"), *args]


def snakemake(folder, *args):
    """One call of snakemake in `folder`: the finished process, output and errors together in stdout."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(snakemake_command(*args), cwd=folder, text=True, timeout=900, **pipes)


def experiments(output):
    """(method, number of tasks, seeds) of each run that snakemake started or would start, from what it printed."""
    lines = [line.split() for line in output.splitlines() if "Shell command: python -m leapwarp.experiments." in line]
    between = [(line[line.index("--method") + 1], int(line[line.index("--n-tasks") + 1]), line) for line in lines]
    return sorted(
        (method, n_tasks, " ".join(line[line.index("--seeds") + 1 : line.index("--data")]))
        for method, n_tasks, line in between
    )


def rows_of(path):
    """The rows of a CSV without what depends on the clock."""
    with open(path, newline="") as file:
        rows = [{key: row[key] for key in row if key not in ("seconds", "version")} for row in csv.DictReader(file)]
    return [row for row in rows if not row["metric"].endswith("seconds")]
