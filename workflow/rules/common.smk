"""Reads and checks config.yaml and the size. Functions of wildcards say which files and options a job has."""

import json
import os
import re
import sys
from functools import cache
from pathlib import Path

from leapwarp import catalogue, environment, machine, plan
from leapwarp.check import read_yaml
from leapwarp.files import ended, said

environment.settle()  # jobs inherit the environment

# Commands call `python`. This makes it the one that runs snakemake, even if .venv is not activated.
os.environ.update(PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))

# The folder of this file, not of the main Snakefile: if this is a module, the main one belongs to another workflow.
CHECKOUT = Path(os.path.relpath(Path(str(workflow.current_basedir)).parents[1]))
SIZES = CHECKOUT / "workflow/sizes"


@cache
def planned(size):
    """The jobs of every experiment at a size, and the settings of their methods."""
    path = SIZE_FILE if size == SIZE else plan.size_path(size, SIZES)
    jobs = plan.jobs(config, path)
    wheres = [each.where for each in jobs.values()]
    return jobs, plan.departures(path, wheres, Path(".snakemake/leapwarp"), CHECKOUT / "paper")


try:
    for path in workflow.configfiles:  # Snakemake reads them too, but accepts a key that is there twice
        read_yaml(Path(path), "what to run")
    if workflow.is_main_process and not workflow.modifier.is_module:
        plan.check_profile(CHECKOUT, sys.argv)
    config.update(plan.settled(config))
    SIZE_FILE = plan.read_config(config, SIZES)
    SIZE = SIZE_FILE.stem
    JOBS, _ = planned(SIZE)
    LARGEST_FIRST = plan.largest_first([*plan.size_files(SIZES), SIZE_FILE])
except Exception as error:
    sys.exit(said(error))


def explain(logs):
    """Explain why jobs were ended from outside, according to the logs of this call of Snakemake."""
    for path in [logs] if isinstance(logs, str) else logs:
        for line in ended(Path(path).read_text(encoding="utf-8", errors="replace")):
            print(line, file=sys.stderr)


# Local jobs together use no more memory than the machine has, unless --resources says otherwise. A job that asks for
# more runs alone. With `device: auto` all jobs compute on the first GPU, so only one of them runs at a time.
if workflow.is_main_process and workflow.local_exec:
    for name, there in (("mem_mb", machine.memory_mb()), ("gpu", min(1, machine.gpus()))):
        if there is not None and name not in workflow.global_resources:
            workflow.register_resource(name, there)


def any_of(names):
    return "|".join(re.escape(name) for name in sorted({str(name) for name in names}))


wildcard_constraints:
    size=any_of(LARGEST_FIRST),
    experiment=any_of(JOBS),
    method=any_of(name for jobs in JOBS.values() for name in [*jobs.about.methods, *jobs.states]),
    n_tasks=r"\d+(_\d+)*",
    first=r"\d+",
    number=r"\d+",
    last=r"\d+",
    table=any_of(jobs.about.table for jobs in JOBS.values()),


def of(wildcards):
    return planned(wildcards.size)[0][wildcards.experiment]


def all_outputs(size):
    return [path for jobs in planned(size)[0].values() for path in plan.outputs(jobs)]


def as_json(value):
    return json.dumps(value, sort_keys=True)


def method_of(wildcards):
    """The method whose settings a run has. For a state of the user's, it is the method that the state belongs to."""
    given = of(wildcards).states.get(wildcards.method)
    return given[1]["method"] if given else wildcards.method


def training_settings(wildcards):
    return as_json(planned(wildcards.size)[1][wildcards.experiment][wildcards.method]["train"])


def trial_settings(wildcards):
    """All settings of a method, since a trial trains and is evaluated."""
    found = planned(wildcards.size)[1][wildcards.experiment][wildcards.method]
    return as_json(found["train"] | found["evaluate"])


def evaluation_settings(wildcards):
    """The evaluation settings. Methods without training have no other job, so theirs include the training settings."""
    jobs, method = of(wildcards), method_of(wildcards)
    found = planned(wildcards.size)[1][wildcards.experiment][method]
    trained = wildcards.method in jobs.states or jobs.about.methods[method].trains
    return as_json(found["evaluate"] if trained else found["train"] | found["evaluate"])


def priority_of(wildcards, input):
    """The first experiment of a size runs first, and in each experiment the methods in the order of its file."""
    jobs = planned(wildcards.size)[0]
    methods = list(jobs[wildcards.experiment].about.methods)
    place = methods.index(wildcards.method) / len(methods)
    return 10 * (wildcards.experiment == next(iter(jobs))) + 5 - 5 * place


def states(wildcards):
    return plan.state_files(of(wildcards), wildcards.method, int(wildcards.first), int(wildcards.last))


def histories(wildcards):
    return plan.history_files(of(wildcards), wildcards.method, int(wildcards.first), int(wildcards.last))


def states_option(wildcards, input):
    """The option that says what to evaluate: states, or the seeds of a method without training."""
    if not input.states:
        return ["--seeds", *range(int(wildcards.first), int(wildcards.last) + 1)]
    return ["--states", *input.states] + (["--histories", *input.histories] if input.histories else [])


def trained_option(wildcards):
    """The option with the settings that states must have been trained with. Those of a search are not known here."""
    jobs = of(wildcards)
    known = wildcards.method not in jobs.states and not jobs.chain and not winner_file(wildcards)
    return ["--trained", training_settings(wildcards)] if states(wildcards) and known else []


def given_checksum(wildcards):
    """The checksum of a state that was handed in: another file may have the same name, and an older time."""
    _, about = of(wildcards).states.get(wildcards.method, ("", {}))
    return about.get("checksum", "")


def name_option(wildcards):
    return ["--name", wildcards.method] if wildcards.method in of(wildcards).states else []


def arrays_option(wildcards, output):
    return ["--arrays", output.arrays] if "arrays" in output.keys() else []


# Values that a user has written reach the rules through functions. In a plain value Snakemake would read {x} as a
# wildcard.


def folder_option(wildcards):
    """The option with the folder of the images, if config.yaml names one."""
    return ["--dir", config["data"]["dir"]] if config["data"]["dir"] else []


def data_file(wildcards):
    """The file with the images that an experiment reads, if any."""
    found = of(wildcards).about.data
    return [f"results/data/{found}.safetensors"] if found else []


def data_option(wildcards, input):
    return ["--data", *input.data] if input.data else []


def winner_file(wildcards):
    """The winner of the random search for this method, if there is a search and runs use its winner."""
    jobs = of(wildcards)
    asked = config["search"]["use"]
    used = size_of(wildcards.size).search_used if asked == "auto" else asked
    if not used or wildcards.method not in jobs.search.get("methods", []):
        return []
    return [f"results/{wildcards.size}/search/{wildcards.experiment}/{wildcards.method}/winner.yaml"]


def winner_option(wildcards, input):
    return ["--winner", *input.winner] if input.winner else []


def size_of(name):
    """The content of a size's file, without its experiments."""
    return plan.read_size(SIZE_FILE if name == SIZE else plan.size_path(name, SIZES), [])


def decides(size):
    return size_of(size).decides


def stated_power(size):
    """The table of statistical power beside the file of a size, if there is one."""
    path = SIZE_FILE if size == SIZE else plan.size_path(size, SIZES)
    return [str(table) for table in [Path(path).with_suffix(".power.csv")] if table.exists()]


def about_size(size):
    return size_of(size).about


def searches(size):
    return [path for jobs in planned(size)[0].values() for path in plan.searches(jobs)]


def searches_with_all(size):
    """The outputs of the random searches, if they are made with everything else."""
    with_all = config["search"]["with_all"]
    wanted = size_of(size).search_with_all if with_all == "auto" else with_all
    return searches(size) if wanted else []


def searched(wildcards):
    """Searches that were made separately, and their times. The page shows them, and is made again after a new one."""
    if searches_with_all(wildcards.size):
        return []
    named = [
        (jobs.about.name, name) for jobs in planned(wildcards.size)[0].values() for name in jobs.about.methods
    ]
    made = [
        Path(f"results/{wildcards.size}/search") / name / method / "winner.yaml" for name, method in named
    ]
    return sorted(f"{path.parent.as_posix()} {path.stat().st_mtime:.0f}" for path in made if path.is_file())


def paper_numbers(about):
    """The numbers printed in the paper that the experiment is from."""
    return (CHECKOUT / "paper" / f"{about.paper}.csv").as_posix()


def names(about):
    """The names of methods in tables."""
    return as_json({name: method.look.name for name, method in about.methods.items()})


def looks(about):
    """The names, colours and markers of methods in figures."""
    return as_json([about.title, {name: method.look for name, method in about.methods.items()}])


def said_of(all_jobs):
    """What experiments say of themselves in documents: these are made again if it changes."""
    abouts = [jobs.about for jobs in all_jobs]
    return as_json([[about.title, about.asks, about.where, about.paper, about.printed] for about in abouts])


def caption(about, figure):
    """A file with the caption of a figure, for snakemake --report."""
    path = Path(f".snakemake/leapwarp/captions/{about.name}/{figure}.rst").absolute()
    if not path.is_file() or path.read_text(encoding="utf-8") != about.figures[figure]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(about.figures[figure], encoding="utf-8")
    return str(path)


def wheres(size):
    """The experiments of a size, as commands take them: names, or folders of a user's own."""
    return [jobs.where for jobs in planned(size)[0].values()]


def with_printed(size):
    """The jobs of experiments whose numbers are in print."""
    return [jobs for jobs in planned(size)[0].values() if jobs.about.printed]


def output_folder(wildcards, output):
    return Path(output[0]).parent.as_posix()


# ---- Meta-training on Atari: rules/atari.smk


def chain_of(wildcards):
    """The numbers of meta-steps and of games in each."""
    return planned(wildcards.size)[0]["atari"].chain


def meta_folder(wildcards):
    return f"results/{wildcards.size}/atari/meta"


def chain_settings(wildcards):
    return as_json(planned(wildcards.size)[1]["atari"]["leap"]["train"])


def start_of(wildcards):
    """The initialisation at the start of a meta-step. The first meta-step has no file: its initialisation is random."""
    k = int(wildcards.k)
    return [f"{meta_folder(wildcards)}/step{k}/seed{wildcards.seed}.safetensors"] if k else []


def shares(wildcards):
    """The results of the games of the previous meta-step."""
    here = f"{meta_folder(wildcards)}/step{int(wildcards.k) - 1}/seed{wildcards.seed}"
    return [f"{here}/game{place}.safetensors" for place in range(chain_of(wildcards)["games"])]


def before(wildcards):
    """The initialisation that an update starts from: that of the previous meta-step."""
    k = int(wildcards.k) - 1
    return [f"{meta_folder(wildcards)}/step{k}/seed{wildcards.seed}.safetensors"] if k else []


def curves_of_games(wildcards):
    """The learning curves of all games of all meta-steps."""
    return [
        f"{meta_folder(wildcards)}/step{k}/seed{seed}/game{place}.csv"
        for k in range(chain_of(wildcards)["meta_steps"])
        for seed in planned(wildcards.size)[0]["atari"].seeds
        for place in range(chain_of(wildcards)["games"])
    ]


def start_option(wildcards, input):
    return ["--start", *input.start] if input.start else []


def chain_ends(wildcards):
    """The initialisations after all meta-steps, a file for each seed."""
    folder = f"{meta_folder(wildcards)}/step{chain_of(wildcards)['meta_steps']}"
    return [
        f"{folder}/seed{seed}.safetensors" for seed in range(int(wildcards.first), int(wildcards.last) + 1)
    ]
