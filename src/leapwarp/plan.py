"""The plan of the workflow: checks of config.yaml and a size's file, and the jobs and files that follow from them.

These are pure functions of the files, without torch and without Snakemake. `workflow/rules` use them.
"""

import copy
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Collection, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from leapwarp import catalogue
from leapwarp.catalogue import Experiment
from leapwarp.check import check, read_yaml

SCHEMAS = Path(__file__).parent / "schemas"
DECIDES = ("nothing", "orders", "everything")
"""what a size is made to decide: nothing, the order of methods, or all claims. For `orders` and `everything` a claim
has to pass the same checks before it gets a verdict"""
SEARCH_SEED = 100  # first seed of trials; `read_size` and `jobs` ensure that reported runs have smaller seeds


class Size(NamedTuple):
    """The content of a size's file; `schemas/size.schema.yaml` and docs/options.md explain its keys."""

    name: str
    about: str
    decides: str
    search_with_all: bool
    """whether random searches are made with everything else"""
    search_used: bool
    """whether runs use the winners of the searches, unless config.yaml says otherwise"""
    experiments: dict[str, Experiment]
    """the experiments of this size, by name or by the path of a folder"""
    entries: dict[str, dict[str, Any]]
    """the size's entry for each experiment, by name"""
    first_seed: int
    """the first seed: 0, or at least SEARCH_SEED in trials"""


class Jobs(NamedTuple):
    """One experiment at one size, with the changes of config.yaml."""

    size: str
    where: str
    """the experiment as commands take it: its name, or the path of its folder"""
    about: Experiment
    methods: list[str]
    n_tasks: list[int]
    """numbers of pretraining tasks; [0] if they are not counted"""
    n_tasks_per_job: int
    """how many of them a job of training has"""
    seeds: list[int]
    seeds_per_job: int
    """number of seeds in a job of training"""
    seeds_per_evaluation: int
    note: str
    """the sentence on the size under tables"""
    chain: dict[str, int]
    """meta_steps and games, if meta-training is a chain of jobs"""
    search: dict[str, Any]
    """numbers of trials, methods and settings of its random searches"""
    states: dict[str, tuple[str, dict[str, Any]]]
    """states of a user: name -> file, and its metadata"""

    @property
    def folder(self) -> str:
        return f"results/{self.size}/{self.about.name}"


@cache
def schema(name: str) -> dict[str, Any]:
    return read_yaml(SCHEMAS / f"{name}.schema.yaml", "a schema")


def size_files(folder: Path) -> list[Path]:
    """The files of the sizes in a folder, without copies such as `quick (1).yaml`, which is not a valid name."""
    return sorted(path for path in folder.glob("*.yaml") if NAME.fullmatch(path.stem))


def size_path(size: str, folder: Path) -> Path:
    """The file of a size: `<size>.yaml` in `folder`, or a user's file by its path. Raises ValueError if missing."""
    path = Path(size) if size.endswith((".yaml", ".yml")) else folder / f"{size}.yaml"
    if not path.is_file():
        known = ", ".join(each.stem for each in size_files(folder))
        raise ValueError(f"config: 'size' is {size!r}. Allowed: {known}, or the path of a file as those in {folder}.")
    return path


def read_size(path: Path, wheres: Iterable[str] | None = None) -> Size:
    """The size in a file, with the experiments in `wheres` (names or paths), or all of its experiments.

    Raises:
        ValueError: the file does not fit the schema, names a method that an experiment does not have, or has a
            `first_seed` that is neither 0 nor one of trials. The message has the key and its value.
    """
    found = read_yaml(path, "a size, as those in workflow/sizes")
    check(found, schema("size"), str(path))
    entries, first_seed = found["experiments"], found.get("first_seed", 0)
    if 0 < first_seed < SEARCH_SEED:
        raise ValueError(
            f"{path}: 'first_seed' is {first_seed}. Needed 0 for reported runs, or at least {SEARCH_SEED} for trials."
        )
    if first_seed and found["decides"] != "nothing":
        raise ValueError(
            f"{path}: 'first_seed' is {first_seed} and 'decides' is {found['decides']}. Trial seeds choose a size and "
            "state its power; they decide no claim. Write: decides: nothing."
        )
    experiments = {}
    for where in wheres if wheres is not None else entries:
        about = catalogue.find(where)
        if about.name not in entries:
            raise ValueError(f"{path}: has no entry for {about.name} under 'experiments', needed one.")
        experiments[where] = about
        _check_entry(about, entries[about.name], f"{path}: 'experiments.{about.name}")
    return Size(
        path.stem,
        " ".join(found["about"].split()),
        found["decides"],
        found["search_with_all"],
        found["search_used"],
        experiments,
        entries,
        first_seed,
    )


def _check_entry(about: Experiment, entry: dict[str, Any], what: str) -> None:
    if ("n_tasks" in entry) != (about.most_tasks > 0):
        needed = f"it, with numbers from 1 to {about.most_tasks}" if about.most_tasks else "none: tasks are not counted"
        raise ValueError(f"{what}.n_tasks' is {entry.get('n_tasks', 'missing')}. Needed: {needed}.")
    if "n_tasks_per_job" in entry and "n_tasks" not in entry:
        raise ValueError(f"{what}.n_tasks_per_job' is given. Needed: none, since tasks are not counted.")
    for count in entry.get("n_tasks", []):
        if count > about.most_tasks:
            raise ValueError(f"{what}.n_tasks' has {count}. Allowed: whole numbers from 1 to {about.most_tasks}.")
    if ("chain" in entry) != (about.name == "atari"):
        needed = (
            "Needed: meta_steps and games, as paper.yaml has them" if about.name == "atari" else "Only atari has it"
        )
        raise ValueError(f"{what}.chain' is {entry.get('chain', 'missing')}. {needed}.")
    for key in ("methods", "run"):
        for name in entry.get(key, ()):
            if name not in about.methods:
                raise ValueError(f"{what}.{key}' has {name!r}. Allowed: {', '.join(about.methods)}.")
    for name in entry.get("search", {}).get("methods", []):
        spaces = about.search["spaces"] if about.search else {}
        if name not in spaces:
            declared = ", ".join(spaces) or "none, since its experiment.yaml declares no spaces"
            raise ValueError(f"{what}.search.methods' has {name!r}. Allowed: {declared}.")


def settled(config: dict[str, Any]) -> dict[str, Any]:
    """config.yaml with ~ and variables in paths expanded, and texts and empty values of `--config` converted.

    Raises:
        ValueError: a path has an unknown variable, or names a folder that does not exist.
    """
    found = copy.deepcopy(config)
    for key in ("own_experiments", "state"):
        if found.get(key, "") is None:  # --config state=
            found[key] = ""
    for key in ("search", "seeds"):
        if isinstance(found.get(key), dict):  # --config seeds={sine: 3} has "3"
            found[key] = {name: _meant(value) for name, value in found[key].items()}
    data = found["data"] if isinstance(found.get("data"), dict) else {}
    for place, key in (
        *((found, key) for key in ("size", "own_experiments", "state")),
        *((data, key) for key in ("dir", "mini_imagenet", "tiered_imagenet")),
    ):
        if isinstance(place.get(key), str):
            place[key] = _in_full(place[key], key if place is found else f"data.{key}")
        elif isinstance(place.get(key), list):
            place[key] = [_in_full(each, key) if isinstance(each, str) else each for each in place[key]]
    folder = data.get("dir")
    if isinstance(folder, str) and folder and not Path(folder).is_dir():
        raise ValueError(
            f"config: 'data.dir' is {config['data']['dir']!r}, and there is no such folder"
            + (f" ({folder})" if folder != config["data"]["dir"] else "")
            + '. Needed one, or "" for $LEAPWARP_DATA or a download.'
        )
    for key in ("mini_imagenet", "tiered_imagenet"):
        source, named = data.get(key, "auto"), ("", "auto", "real", "tiny", "textures")
        if isinstance(source, str) and source not in named and not Path(source).exists():
            raise ValueError(
                f"config: 'data.{key}' is {config['data'][key]!r}, and there is no such folder. Needed auto, real, "
                "tiny, textures or a folder of your own."
            )
    return found


def _meant(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"[1-9][0-9]{0,8}", value):
        return int(value)
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


def _in_full(path: str, key: str) -> str:
    """A path with its variables and ~ expanded. Raises ValueError if one is unknown."""
    full = os.path.expandvars(os.path.expanduser(path))
    lost = re.search(r"\$(\w+|\{\w+\})", full)
    if lost and not Path(full).exists():
        raise ValueError(f"config: '{key}' is {path!r}, and there is no variable {lost.group()} here.")
    return os.path.normpath(full) if full else full  # so that another way to write it reruns nothing


NAME = re.compile(r"\w[\w.-]*")
FOLDERS = {"data", "logs", "slurm"}
"""folders in `results`, besides those of sizes"""
RULES = {
    *("all", "claims", "all_claims", "code", "evaluate", "evaluate_with_arrays", "gather", "logs", "page", "prepare"),
    *("prepare_images", "prepare_imagenet", "published", "search", "search_figure", "table", "train", "trial"),
    *("winner", "atari_game", "atari_update", "atari_curves", "atari_state"),
}
"""names of rules, and of folders in the results of a size besides those of experiments"""


def check_name(name: str, what: str, taken: Collection[str] = ()) -> None:
    """Raise ValueError if a user's name cannot be used for files, rules and commands."""
    if not NAME.fullmatch(name) or name in taken:
        why = "that is taken" if name in taken else "needed letters, digits, '_', '-' and '.', a letter or digit first"
        raise ValueError(f"{what} is called {name!r}: {why}. Give it another name.")


def read_config(config: dict[str, Any], sizes: Path) -> Path:
    """Check the config that `settled` returns (its schema explains the keys). -> the file of its size

    Raises:
        ValueError: one line with the key, its value and what is allowed.
    """
    if "profile" in config:
        raise ValueError(f"config: the key 'profile' is called 'size' now: --config size={config['profile']}.")
    check(config, schema("config"), "config")
    path = size_path(config["size"], sizes)
    check_name(path.stem, f"config: the size {path}", FOLDERS)
    ours = sizes / f"{path.stem}.yaml"
    here = sizes.resolve().is_relative_to(Path.cwd())  # elsewhere results are in another folder
    if here and ours.is_file() and not path.samefile(ours):
        raise ValueError(
            f"config: 'size' is {path}, whose results would be in the folder of those of {ours}, results/{path.stem}. "
            "Give the file another name."
        )
    return path


def check_profile(checkout: Path, arguments: Sequence[str]) -> None:
    """Raise ValueError if Snakemake has not found its default options. It would run without them and without a message.

    `profiles` is a symbolic link to workflow/profiles. If git may not create links, it is a text file.
    """
    if any(word.partition("=")[0] == "--workflow-profile" for word in arguments):
        return
    for name in ("workflow/profiles", "profiles"):
        path = checkout / name / "default/config.yaml"
        if not path.is_file():
            why = (
                "is no folder: links are not made here" if (checkout / name).is_file() else "has no default/config.yaml"
            )
            raise ValueError(
                f"{checkout / name}: {why}, so that Snakemake would run without its default options. Needed a copy of "
                "the folder workflow/profiles in its place (git config core.symlinks true, then git checkout profiles) "
                "or --workflow-profile workflow/profiles/default."
            )
        if not isinstance(read_yaml(path, "the default options of Snakemake"), dict):
            raise ValueError(f"{path}: found no options, needed those of Snakemake. Get the file from git again.")


def largest_first(paths: Iterable[Path]) -> list[str]:
    """The names of sizes, sorted by `decides`: everything, orders, nothing."""
    ranks = {path.stem: DECIDES.index(read_size(path, []).decides) for path in paths}
    return sorted(ranks, key=lambda name: (-ranks[name], name))


def chosen(config: dict[str, Any], entries: Iterable[str], path: Path) -> list[str]:
    """The experiments of config.yaml, or all of a size's file: names of the package's, and paths of a user's own."""
    folder, own = config["own_experiments"], {}
    if folder:
        own = {
            path.parent.name: f"{folder}/{path.parent.name}" for path in Path(folder).glob(f"[!.]*/{catalogue.FILE}")
        }
    if folder and not own:
        raise ValueError(f"config: 'own_experiments' is {folder!r}, which has no */{catalogue.FILE}.")
    asked = list(entries) if config["experiments"] == "all" else config["experiments"]
    unknown = [name for name in asked if name not in own and name not in catalogue.names()]
    if unknown:
        known = ", ".join([*catalogue.names(), *own])
        source = path if config["experiments"] == "all" else "config"
        where = f"is none of {folder}" if folder else "is not of the package, and 'own_experiments' in config is empty"
        raise ValueError(f"{source}: 'experiments' has {unknown[0]!r}, which {where}. Known: {known}.")
    for name in asked:
        check_name(name, "config: the experiment", RULES)
        if "." in name or name.startswith("figures_"):
            raise ValueError(
                f"config: the experiment is called {name!r}. Its folder is a Python package and its figures have a "
                "rule, so '.' and 'figures_' at the beginning are not allowed. Give it another name."
            )
    return [own.get(name, name) for name in asked]


def jobs(config: dict[str, Any], path: Path) -> dict[str, Jobs]:
    """The jobs of each experiment, by its name, at the size of a file.

    Raises:
        ValueError: as `read_size`, or config.yaml has an unknown name, a state with the name of a method, or so many
            seeds that some are those of trials.
    """
    size = read_size(path, chosen(config, read_size(path, []).entries, path))
    names = {about.name: where for where, about in size.experiments.items()}
    for key in ("methods", "seeds"):
        for name in config[key] if isinstance(config[key], dict) else {}:
            if name not in size.entries:
                raise ValueError(f"config: '{key}' has {name!r}. Allowed: {', '.join(size.entries)}.")
    wanted = [f"'search.{key}'" for key in ("use", "with_all") if config.get("search", {}).get(key) is True]
    if wanted and not any("search" in size.entries[name] for name in names):
        raise ValueError(
            f"config: {' and '.join(wanted)} is true, and {path} has no search for {', '.join(names)}. Needed a key "
            "'search' there, with methods and trials, or 'auto' in config.yaml."
        )
    states = given_states(config["state"])
    found = {}
    for name, where in names.items():
        about, entry = size.experiments[where], size.entries[name]
        usual = entry.get("run", [key for key, method in about.methods.items() if method.default])
        asked = config["methods"].get(name, usual)
        for method in asked:
            if method not in about.methods:
                raise ValueError(f"config: 'methods.{name}' has {method!r}. Allowed: {', '.join(about.methods)}.")
        seeds = config["seeds"].get(name, entry["seeds"]) if isinstance(config["seeds"], dict) else config["seeds"]
        if size.first_seed == 0 and seeds > SEARCH_SEED:
            raise ValueError(
                f"config: {name} has {seeds} seeds at {path}, and those from {SEARCH_SEED} on are for trials. Needed: "
                f"at most {SEARCH_SEED} under 'seeds', there or in config.yaml."
            )
        mine = {method: file for method, file in states.items() if file[1]["experiment"] == name}
        for method, (file, _) in mine.items():
            check_name(method, f"config: 'state' is {file}, which", about.methods)
        per_job = entry.get("seeds_per_job", 1)
        per_evaluation = entry.get("seeds_per_evaluation", seeds)
        found[name] = Jobs(
            size.name,
            where,
            about,
            [method for method in about.methods if method in asked],
            entry.get("n_tasks", [0]),
            entry.get("n_tasks_per_job", 1),
            list(range(size.first_seed, size.first_seed + seeds)),
            per_job,
            -(-per_evaluation // per_job) * per_job,
            " ".join(entry.get("note", size.about).split()),
            entry.get("chain", {}),
            entry.get("search", {}),
            mine,
        )
    lost = [path for path, about in states.values() if about["experiment"] not in found]
    if lost:
        raise ValueError(f"config: 'state' is {lost[0]}, of an experiment that does not run: {', '.join(found)} do.")
    return found


def given_states(paths: str | Sequence[str]) -> dict[str, tuple[str, dict[str, Any]]]:
    """The states that a user has given, by their names in rows, which are the names of the files."""
    found = {}
    for path in [paths] if isinstance(paths, str) else paths:
        if path:
            check_name(Path(path).stem, f"config: 'state' is {path}, which")
            if Path(path).stem in found:
                raise ValueError(f"config: 'state' has {found[Path(path).stem][0]} and {path}: give one another name.")
            found[Path(path).stem] = (path, state_header(Path(path)))
    return found


def state_header(path: Path) -> dict[str, Any]:
    """The metadata of a state's file (`leapwarp.experiments.states`), read without torch. Raises ValueError."""
    needed = "needed a state, as `python -m leapwarp.experiments train` writes it"
    if path.suffix == ".pt":
        raise ValueError(f"config: 'state' is {path}, a checkpoint of training; {needed} (*.safetensors).")
    try:
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            metadata = json.loads(file.read(min(length, 100_000_000)))["__metadata__"]
            return json.loads(metadata["about"]) | {"checksum": metadata["checksum"]}
    except FileNotFoundError:
        raise ValueError(f"config: 'state' is {path}, which does not exist; {needed}.") from None
    except (OSError, ValueError, KeyError, TypeError):
        raise ValueError(f"config: 'state' is {path}, which is damaged or something else; {needed}.") from None


# ---------------------------------------------------------------- files


def chunks(seeds: Sequence[int], per_job: int) -> list[tuple[int, int]]:
    """[(first, last), ...]: consecutive seeds in chunks of at most `per_job`."""
    return [(seeds[k], seeds[min(k + per_job, len(seeds)) - 1]) for k in range(0, len(seeds), per_job)]


def counts_of(jobs: Jobs) -> list[str]:
    """The numbers of pretraining tasks of each job of training, as its files have them: 5, or 1_5_25."""
    per_job = jobs.n_tasks_per_job
    return ["_".join(map(str, jobs.n_tasks[k : k + per_job])) for k in range(0, len(jobs.n_tasks), per_job)]


def state_files(jobs: Jobs, method: str, first: int, last: int) -> list[str]:
    """The states that an evaluation of some seeds of a method reads; none if it is not trained."""
    if method in jobs.states:
        return [jobs.states[method][0]]
    if not jobs.about.methods[method].trains:
        return []
    return [
        f"{jobs.folder}/states/{method}/tasks{counts}/seeds{a}-{b}.safetensors"
        for counts in counts_of(jobs)
        for a, b in chunks(jobs.seeds, jobs.seeds_per_job)
        if first <= a <= last
    ]


def history_files(jobs: Jobs, method: str, first: int, last: int) -> list[str]:
    """The histories of these states. A user's state has none."""
    return (
        []
        if method in jobs.states
        else [path.replace(".safetensors", ".csv") for path in state_files(jobs, method, first, last)]
    )


def evaluations(jobs: Jobs) -> list[tuple[str, int, int]]:
    """(method, first and last seed) of each job of evaluation."""
    found = [(name, *chunk) for name in jobs.methods for chunk in chunks(jobs.seeds, jobs.seeds_per_evaluation)]
    return found + [(name, min(about["seeds"]), max(about["seeds"])) for name, (_, about) in jobs.states.items()]


def row_files(jobs: Jobs, ending: str = "csv") -> list[str]:
    """The outputs of the jobs of evaluation."""
    return [f"{jobs.folder}/runs/{method}/seeds{a}-{b}.{ending}" for method, a, b in evaluations(jobs)]


def figures(jobs: Jobs) -> list[str]:
    """The files of an experiment's figures, PNG and PDF."""
    return [f"{jobs.folder}/figures/{name}.{kind}" for kind in ("png", "pdf") for name in jobs.about.figures]


def figure_files(jobs: Jobs) -> list[str]:
    """The inputs of its figures besides its rows: arrays of evaluation, and the curves of a chain of jobs."""
    files = row_files(jobs, "npz") if jobs.about.arrays else []
    trained = [name for name in jobs.methods if jobs.about.methods[name].trains]
    return files + [f"{jobs.folder}/meta_curves.csv"] * bool(jobs.chain and trained)


def outputs(jobs: Jobs) -> list[str]:
    """The outputs of one experiment at one size: tidy rows, their provenance, a table, its document, figures."""
    files = [
        f"{jobs.folder}/{name}"
        for name in ("rows.csv", "runs.json", *(f"{jobs.about.table}.{kind}" for kind in ("csv", "md", "json")))
    ]
    return files + figures(jobs)


def searches(jobs: Jobs) -> list[str]:
    """The outputs of its random searches: winners, tables of trials and figures."""
    return [
        f"results/{jobs.size}/search/{jobs.about.name}/{method}/{name}"
        for method in jobs.search.get("methods", [])
        for name in ("winner.yaml", "trials.csv", "trials.md", "search.png", "search.pdf")
    ]


def trials(jobs: Jobs, method: str) -> list[str]:
    """The rows of all trials of one method's random search."""
    folder = f"results/{jobs.size}/search/{jobs.about.name}/{method}/trials"
    return [f"{folder}/{number}.csv" for number in range(jobs.search["trials"])]


# ---------------------------------------------------------------- settings


def departures_file(path: Path, wheres: Sequence[str], cache: Path, papers: Path | None = None) -> Path:
    """The file in the folder `cache` with the result of `departures` for this version of the size and of the code."""
    own = [Path(where) for where in wheres if "/" in where]
    folders = [catalogue.FOLDER.parent, *own]
    found = [file for folder in folders for kind in ("py", "yaml") for file in sorted(folder.rglob(f"[!.]*.{kind}"))]
    found += [file for folder in sorted({each.parent for each in own}) for file in sorted(folder.glob("[!.]*.py"))]
    files = [file for file in found if file.is_file()]  # editors leave broken links
    digest = hashlib.sha256(json.dumps(list(wheres)).encode())
    printed = [file for file in sorted(papers.glob("[!.]*")) if file.is_file()] if papers else []
    for file in [path, *files, *printed]:
        digest.update(f"{file.name} {file.stat().st_size}".encode() + file.read_bytes())
    return cache / f"{path.stem}-{digest.hexdigest()[:16]}.json"


def departures(
    path: Path, wheres: Sequence[str], cache: Path, papers: Path | None = None
) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """The settings of every method at a size that differ from the published ones, in the form
    experiment -> method -> {"train": ..., "evaluate": ...}.

    They follow from the size and from the code, whose settings need torch to be read. Another process does that once
    for each version of these files, and the result is stored in the folder `cache`.

    Args:
        papers: the folder of the papers' claims and numbers. The process also checks, before anything runs, that the
            report can be made from them.

    Raises:
        ValueError: an unknown setting or a wrong value, or something that the report needs is missing.
    """
    kept = departures_file(path, wheres, cache, papers)
    if not kept.is_file():
        command = [sys.executable, "-m", "leapwarp.experiments", "settings", str(path), "--out", str(kept)]
        if papers:
            command += ["--papers", str(papers)]
        made = subprocess.run(
            [*command, "--experiments", *wheres], capture_output=True, encoding="utf-8", errors="replace"
        )
        if made.returncode:
            silent = f"{path}: the settings could not be read, for their process ended with code {made.returncode}"
            *before, last = made.stderr.strip().splitlines() or [silent]
            log = kept.with_name(f"{path.stem}.log")
            if before:
                log.parent.mkdir(parents=True, exist_ok=True)
                log.write_text(made.stderr, encoding="utf-8")
            raise ValueError(last.removeprefix("error: ").replace("is in the log", f"is in {log}"))
    return json.loads(kept.read_text(encoding="utf-8"))
