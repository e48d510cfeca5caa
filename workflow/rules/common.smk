"""The config check, wildcard constraints, and functions that say which files belong together."""

import os
import sys
from pathlib import Path

import jsonschema
import yaml

# Commands say `python`: it is the one that runs snakemake, also where .venv is not activated.
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


def check_config(config, schema):
    """Stop at the first mistake with one line: the key, its value, and what is allowed there."""
    errors = jsonschema.Draft202012Validator(schema).iter_errors(config)
    error = min(errors, key=lambda error: error.json_path, default=None)
    if error is None:
        return
    key = error.json_path.removeprefix("$").removeprefix(".")
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        unknown = next(name for name in error.instance if name not in known)
        key = f"{key}.{unknown}".removeprefix(".")
        sys.exit(
            f"config: unknown key '{key}' (value {error.instance[unknown]!r}). Allowed here: {', '.join(known)}."
        )
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in error.instance)
        key = f"{key}.{missing}".removeprefix(".")
        sys.exit(f"config: the key '{key}' is missing. Needed here: {', '.join(error.validator_value)}.")
    sys.exit(f"config: '{key}' is {error.instance!r}. Allowed: {error.schema['description']}.")


with open(workflow.source_path("../schemas/config.schema.yaml")) as file:
    check_config(config, yaml.safe_load(file))

EXPERIMENTS = config["experiments"]
PAPER = {"omniglot_leap": "leap", "omniglot_warp": "warpgrad"}
CHECKOUT = Path(os.path.relpath(workflow.basedir))
PROFILES = ("smoke", "quick", "paper")
DATA = "results/data/alphabets.safetensors"
TABLES = {"omniglot_leap": "table1", "omniglot_warp": "table2"}
OMNIGLOT_FIGURES = ("by_tasks", "auc_by_tasks", "heldout_curves", "meta_curves")
FIGURES = {"omniglot_leap": OMNIGLOT_FIGURES, "omniglot_warp": OMNIGLOT_FIGURES}


def any_of(names):
    return "|".join(sorted({str(name) for name in names}))


wildcard_constraints:
    profile=any_of(PROFILES),
    experiment=any_of(EXPERIMENTS),
    method=any_of(name for block in EXPERIMENTS.values() for name in block["baselines"] + block["methods"]),
    n_tasks=r"\d+",
    first=r"\d+",
    last=r"\d+",
    table=any_of(TABLES.values()),


def size(wildcards):
    """The block of config.yaml for one experiment at one size."""
    return EXPERIMENTS[wildcards.experiment][wildcards.profile]


def seed_chunks(seeds, per_job):
    """[(first, last), ...]: the seeds 0 .. seeds - 1 cut into chunks of at most `per_job`."""
    return [(first, min(first + per_job, seeds) - 1) for first in range(0, seeds, per_job)]


def run_files(wildcards):
    """The CSV of every run of one experiment at one size.

    Without pretraining, n_tasks is 0, each method is run once, and all its seeds, which take seconds, share a job.
    """
    block = EXPERIMENTS[wildcards.experiment]
    chosen = size(wildcards)
    jobs = [(method, 0, chosen["seeds"]) for method in block["baselines"]]
    jobs += [
        (method, n_tasks, chosen["seeds_per_job"])
        for method in block["methods"]
        for n_tasks in chosen["n_tasks"]
    ]
    return [
        f"results/{wildcards.profile}/{wildcards.experiment}/runs/{method}/tasks{n_tasks}/seeds{first}-{last}.csv"
        for method, n_tasks, per_job in jobs
        for first, last in seed_chunks(chosen["seeds"], per_job)
    ]


def outputs(experiment, profile):
    """What one experiment leaves at one size: tidy rows, their provenance, tables, figures."""
    folder = f"results/{profile}/{experiment}"
    files = [f"{folder}/rows.csv", f"{folder}/runs.json"]
    if experiment in TABLES:
        files += [f"{folder}/{TABLES[experiment]}.{kind}" for kind in ("csv", "md")]
    return files + [f"{folder}/figures/{name}.png" for name in FIGURES.get(experiment, ())]


def paper_numbers(wildcards):
    """The numbers printed in the paper that the experiment is from."""
    return (CHECKOUT / "paper" / f"{PAPER[wildcards.experiment]}.csv").as_posix()


def output_folder(wildcards, output):
    return Path(output[0]).parent.as_posix()
