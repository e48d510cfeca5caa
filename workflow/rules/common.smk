"""The config check, wildcard constraints, and functions that say which files belong together."""

import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

import jsonschema
import yaml

# Commands say `python`: it is the one that runs snakemake, also where .venv is not activated.
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


def check_config(config, schema, what="config"):
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
            f"{what}: unknown key '{key}' (value {error.instance[unknown]!r}). Allowed here: {', '.join(known)}."
        )
    if error.validator == "required":
        missing = next(name for name in error.validator_value if name not in error.instance)
        key = f"{key}.{missing}".removeprefix(".")
        sys.exit(f"{what}: the key '{key}' is missing. Needed here: {', '.join(error.validator_value)}.")
    sys.exit(f"{what}: '{key}' is {error.instance!r}. Allowed: {error.schema['description']}.")


with open(workflow.source_path("../schemas/config.schema.yaml")) as file:
    check_config(config, yaml.safe_load(file))

with open(workflow.source_path("../search.yaml")) as file:
    SEARCH = yaml.safe_load(file)
with open(workflow.source_path("../schemas/search.schema.yaml")) as file:
    check_config(SEARCH, yaml.safe_load(file), "search.yaml")

EXPERIMENTS = config["experiments"]
CHECKOUT = Path(os.path.relpath(workflow.basedir))
PROFILES = ("smoke", "quick", "paper")
ALPHABETS = "results/data/alphabets.safetensors"
MINI_IMAGENET = "results/data/mini_imagenet.safetensors"
TIERED_IMAGENET = "results/data/tiered_imagenet.safetensors"
IMAGES = "results/data/images.safetensors"
SEARCH_SEED = 100  # of the runs of trials; no run that is reported has it
OMNIGLOT_FIGURES = ("by_tasks", "auc_by_tasks", "heldout_curves", "meta_curves")


class Experiment(NamedTuple):
    """What an experiment reads and leaves, beside the rows of its runs."""

    paper: str  # its numbers: paper/<paper>.csv
    table: str
    figures: tuple
    data: str | None = ALPHABETS  # None where code makes the tasks
    script: str | None = None  # of the figures, where it is not named as the experiment


CATALOGUE = {
    "omniglot_warp": Experiment("warpgrad", "table2", OMNIGLOT_FIGURES, script="omniglot"),
    "omniglot_leap": Experiment("leap", "table1", OMNIGLOT_FIGURES, script="omniglot"),
    "leap_ablation": Experiment("leap", "table_leap_ablation", ("leap_ablation", "leap_ablation_heldout")),
    "warp_ablation": Experiment("warpgrad", "table3", ("warp_ablation", "warp_ablation_curves")),
    "natural_gradient": Experiment("warpgrad", "table4", ("natural_gradient", "activations")),
    "jacobian": Experiment("leap", "table_jacobian", ("jacobian", "jacobian_layers")),
    "theorem1": Experiment("leap", "table_theorem1", ("theorem1", "theorem1_variants"), data=None),
    "geometry": Experiment("warpgrad", "table_geometry", ("geometry",), data=None),
    "surfaces": Experiment(
        "warpgrad", "table_surfaces", ("surfaces_paths", "surfaces_curves", "surfaces_sweep"), data=None
    ),
    "maze": Experiment("warpgrad", "table_maze", ("maze_return", "maze_picture"), data=None),
    "atari": Experiment("leap", "table_atari", ("atari_scores", "atari_meta", "atari_pictures"), data=None),
    "sine": Experiment("warpgrad", "table_sine", ("sine_losses", "sine_predictions", "sine_meta"), data=None),
    "few_shot": Experiment("warpgrad", "table_few_shot", ("few_shot", "few_shot_curves"), data=MINI_IMAGENET),
    "few_shot_tiered": Experiment(
        "warpgrad",
        "table_few_shot_tiered",
        ("few_shot", "few_shot_curves"),
        data=TIERED_IMAGENET,
        script="few_shot",
    ),
    "inner_cost": Experiment("warpgrad", "table_inner_cost", ("inner_cost",), data=None),
    "multicv": Experiment("leap", "table_multicv", ("multicv", "multicv_map", "multicv_curves"), data=IMAGES),
    "multi_shot": Experiment(
        "warpgrad", "table_multi_shot", ("multi_shot", "multi_shot_meta"), data=TIERED_IMAGENET
    ),
}


for name, about in SEARCH.items():
    if name not in CATALOGUE:
        sys.exit(f"search.yaml: unknown key '{name}' (no experiment). Known: {', '.join(CATALOGUE)}.")
    for profile in PROFILES:
        lost = sorted(set(about[profile]["methods"]) - set(about["spaces"]))
        if lost:
            sys.exit(
                f"search.yaml: '{name}.{profile}.methods' has {', '.join(lost)}, for which 'spaces' has none."
            )


def any_of(names):
    return "|".join(sorted({str(name) for name in names}))


wildcard_constraints:
    profile=any_of(PROFILES),
    experiment=any_of(EXPERIMENTS),
    method=any_of(
        name for block in EXPERIMENTS.values() for name in block.get("baselines", []) + block["methods"]
    ),
    n_tasks=r"\d+",
    first=r"\d+",
    number=r"\d+",
    last=r"\d+",
    table=any_of(about.table for about in CATALOGUE.values()),


def size(wildcards):
    """The block of config.yaml for one experiment at one size."""
    return EXPERIMENTS[wildcards.experiment][wildcards.profile]


def seed_chunks(seeds, per_job):
    """[(first, last), ...]: the seeds 0 .. seeds - 1 cut into chunks of at most `per_job`."""
    return [(first, min(first + per_job, seeds) - 1) for first in range(0, seeds, per_job)]


def run_files(wildcards):
    """The CSV of every run of one experiment at one size.

    Without pretraining, n_tasks is 0 and each method is run once; all seeds of a baseline, which take seconds, share a
    job. Where an experiment does not count tasks, n_tasks is 0 for all its methods.
    """
    block = EXPERIMENTS[wildcards.experiment]
    chosen = size(wildcards)
    jobs = [(method, 0, chosen["seeds"]) for method in block.get("baselines", [])]
    jobs += [
        (method, n_tasks, chosen["seeds_per_job"])
        for method in block["methods"]
        for n_tasks in chosen.get("n_tasks", [0])
    ]
    return [
        f"results/{wildcards.profile}/{wildcards.experiment}/runs/{method}/tasks{n_tasks}/seeds{first}-{last}.csv"
        for method, n_tasks, per_job in jobs
        for first, last in seed_chunks(chosen["seeds"], per_job)
    ]


def outputs(experiment, profile):
    """What one experiment leaves at one size: tidy rows, their provenance, a table, figures."""
    folder, about = f"results/{profile}/{experiment}", CATALOGUE[experiment]
    files = [
        f"{folder}/rows.csv",
        f"{folder}/runs.json",
        f"{folder}/{about.table}.csv",
        f"{folder}/{about.table}.md",
    ]
    return files + [f"{folder}/figures/{name}.png" for name in about.figures]


def data_file(wildcards):
    """The images that an experiment reads, where it reads any."""
    found = CATALOGUE[wildcards.experiment].data
    return [found] if found else []


def data_option(wildcards, input):
    return ["--data", *input.data] if input.data else []


def imagenet_memory(wildcards):
    """For the set itself, which is held twice while it is written: 1.3 GB of mini-ImageNet, 16.5 of tiered."""
    return {"mini": 4000, "tiered": 36000}[wildcards.subset]


def searched_folder(wildcards):
    return f"results/{wildcards.profile}/search/{wildcards.experiment}/{wildcards.method}"


def trials(wildcards):
    """The rows of all trials of one method's random search."""
    about = SEARCH[wildcards.experiment][wildcards.profile]
    return [f"{searched_folder(wildcards)}/trials/{number}.csv" for number in range(about["trials"])]


def searches(profile):
    """What the random searches leave at one size: winners, tables of trials and figures."""
    return [
        f"results/{profile}/search/{experiment}/{method}/{name}"
        for experiment, about in SEARCH.items()
        if experiment in EXPERIMENTS
        for method in about[profile]["methods"]
        for name in ("winner.yaml", "trials.csv", "trials.md", "search.png")
    ]


def searches_with_all(wildcards):
    """What the random searches leave, at a size at which they are made with everything else."""
    return searches(wildcards.profile) if wildcards.profile in config["search"]["in_all"] else []


def searched(wildcards):
    """Searches that were made on their own, and when: the page shows them, and is made anew where one is."""
    if searches_with_all(wildcards):
        return []
    made = Path(f"results/{wildcards.profile}/search").glob("*/*/winner.yaml")
    return sorted(f"{path.parent.as_posix()} {path.stat().st_mtime:.0f}" for path in made)


def winner_file(wildcards):
    """The settings that a run takes from a random search, where the size takes any and the method is searched."""
    about = SEARCH.get(wildcards.experiment)
    if wildcards.profile not in config["search"]["used"] or about is None:
        return []
    return (
        [f"{searched_folder(wildcards)}/winner.yaml"]
        if wildcards.method in about[wildcards.profile]["methods"]
        else []
    )


def settings_option(wildcards, input):
    return ["--settings", *input.settings] if input.settings else []


def as_json(value):
    return json.dumps(value, sort_keys=True)


def paper_numbers(experiment):
    """The numbers printed in the paper that the experiment is from."""
    return (CHECKOUT / "paper" / f"{CATALOGUE[experiment].paper}.csv").as_posix()


def meta_curves(experiment):
    """What the figures of an experiment read beside its rows: the curves of Atari's meta-training, where there is any."""
    if experiment != "atari" or "leap" not in EXPERIMENTS["atari"]["methods"]:
        return []
    return ["results/{profile}/atari/meta_curves.csv"]


def output_folder(wildcards, output):
    return Path(output[0]).parent.as_posix()


# ---- The chain of Atari: rules/atari.smk


def atari_size(wildcards):
    return EXPERIMENTS["atari"][wildcards.profile]


def start_of(wildcards):
    """The initialisation that a meta-step begins with; none before the first, where it is random."""
    folder = f"results/{wildcards.profile}/atari/meta"
    return [f"{folder}/step{wildcards.k}/seed{wildcards.seed}.safetensors"] if int(wildcards.k) else []


def shares(wildcards):
    """What the games of the meta-step before return."""
    here = f"results/{wildcards.profile}/atari/meta/step{int(wildcards.k) - 1}/seed{wildcards.seed}"
    return [f"{here}/game{place}.safetensors" for place in range(atari_size(wildcards)["games"])]


def before(wildcards):
    """The initialisation that an update starts from."""
    k = int(wildcards.k) - 1
    folder = f"results/{wildcards.profile}/atari/meta"
    return [f"{folder}/step{k}/seed{wildcards.seed}.safetensors"] if k else []


def curves_of_games(wildcards):
    """The learning curves of all games of all meta-steps."""
    size, folder = atari_size(wildcards), f"results/{wildcards.profile}/atari/meta"
    return [
        f"{folder}/step{k}/seed{seed}/game{place}.csv"
        for k in range(size["meta_steps"])
        for seed in range(size["seeds"])
        for place in range(size["games"])
    ]


def start_option(wildcards, input):
    return ["--start", *input.start] if input.start else []


def chain_folder(wildcards):
    """Where the initialisations after all meta-steps are, a file a seed."""
    return f"results/{wildcards.profile}/atari/meta/step{atari_size(wildcards)['meta_steps']}"


def chain_end(wildcards):
    """The initialisations that a run of the evaluation starts from, where it does."""
    if wildcards.method != "leap":
        return []
    seeds = range(int(wildcards.first), int(wildcards.last) + 1)
    return [f"{chain_folder(wildcards)}/seed{seed}.safetensors" for seed in seeds]
