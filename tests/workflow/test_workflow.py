"""The workflow: targets, the effect of edits, lint, and the whole smoke size from data to page."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
import yaml
from calls import REPO, commands, edit, evaluated, jobs_of, made, option, rows_of, snakemake, trained, work_out_settings

from leapwarp import machine, plan
from leapwarp.data import alphabets

KINDS = {  # an experiment of each kind: counted, searched, a chain; tests/own is simulated, and measured in part
    "omniglot_warp": ["warp_leap", "leap", "kfac"],
    "few_shot": ["warp_maml", "maml"],
    "atari": ["leap", "random_policy"],
}
TARGETS = ("omniglot_warp", "multi_shot", "atari")  # one of each kind, to be asked for by name


@pytest.fixture
def folder(tmp_path):
    """A folder to run the workflow in, with the repository's config. The repository's own results/ are not changed."""
    shutil.copy(REPO / "config.yaml", tmp_path)
    work_out_settings(tmp_path)
    return tmp_path


def n_trained(jobs):
    """How many training jobs an experiment has: for each trained method, numbers of tasks x chunks of seeds."""
    methods = [name for name in jobs.methods if jobs.about.methods[name].trains]
    if jobs.chain:  # a chain of jobs of its own
        return 0
    return len(methods) * len(plan.counts_of(jobs)) * -(-len(jobs.seeds) // jobs.seeds_per_job)


def n_evaluated(jobs):
    return len(jobs.methods) * -(-len(jobs.seeds) // jobs.seeds_per_evaluation)


def n_trials(size):
    """How many trials of random searches are made with everything else."""
    if not plan.read_size(REPO / f"workflow/sizes/{size}.yaml", []).search_with_all:
        return 0
    return sum(jobs.search["trials"] * len(jobs.search["methods"]) for jobs in jobs_of(size).values() if jobs.search)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "size"),
    [
        ("all", "smoke"),
        ("all", "quick"),
        pytest.param("all", "paper", marks=pytest.mark.full),
        *((name, "quick") for name in TARGETS),
    ],
)
def test_every_target_dry_runs(folder, target, size):
    result = snakemake(folder, target, "--dry-run", "--config", f"size={size}")
    assert result.returncode == 0, result.stdout
    jobs = [each for name, each in jobs_of(size).items() if target in ("all", name)]
    assert len(commands(result.stdout, "train")) == sum(map(n_trained, jobs))
    assert len(commands(result.stdout, "evaluate")) == sum(map(n_evaluated, jobs))
    assert len(commands(result.stdout, "trial")) == (n_trials(size) if target == "all" else 0)
    games = sum(each.chain["meta_steps"] * each.chain["games"] * len(each.seeds) for each in jobs if each.chain)
    assert result.stdout.count("exec python -m leapwarp.experiments.atari.chain game") == games
    reads = {"data"} if any(each.about.data for each in jobs) else set()
    assert set(re.findall(r"results/(\w+)/", result.stdout)) - {"logs"} == {size} | reads
    for each in jobs:
        for path in plan.outputs(each):
            assert path in result.stdout


@pytest.mark.slow
def test_searches_can_be_made_alone_and_their_winners_used_also_in_a_module(folder):
    alone = snakemake(folder, "search", "--dry-run")
    assert alone.returncode == 0, alone.stdout
    trials = commands(alone.stdout, "trial")
    assert len(trials) == n_trials("quick") > 0 and not commands(alone.stdout, "train")
    shown = [json.loads(option(each, "--settings").strip("'")) for each in trials if "--method leap" in each]
    assert shown and all({"eval_steps", "inner_steps"} <= each.keys() for each in shown)  # of training and evaluation
    page = snakemake(folder, "results/quick/index.html", "--dry-run")  # the page shows them
    assert len(commands(page.stdout, "trial")) == n_trials("quick")
    without = snakemake(folder, "multi_shot", "--dry-run")
    assert "--winner" not in without.stdout

    edit(folder / "config.yaml", lambda config: config["search"].update(use=True))
    used = snakemake(folder, "multi_shot", "--dry-run")
    assert used.returncode == 0, used.stdout
    searched = jobs_of("quick")["multi_shot"].search["methods"]
    for command in commands(used.stdout, "train"):
        winner = f"--winner results/quick/search/multi_shot/{option(command, '--method')}/winner.yaml"
        assert (winner in command) == (option(command, "--method") in searched)

    # also if the workflow is a module of another one, as in the documents
    (code,) = re.findall(r"```\n(configfile.*?)```", (REPO / "docs/options.md").read_text(), re.DOTALL)
    (folder / "Snakefile").write_text(code.replace("path/to/clone/Snakefile", str(REPO / "Snakefile")))
    profile = ("--workflow-profile", REPO / "workflow/profiles/default")
    other = snakemake(folder, "multi_shot", "--snakefile", "Snakefile", "--dry-run", *profile)
    assert other.returncode == 0, other.stdout
    assert sorted(commands(other.stdout, "train")) == sorted(commands(used.stdout, "train"))


@pytest.mark.slow
def test_a_file_of_any_size_can_be_asked_for_by_name(folder):
    result = snakemake(folder, "--dry-run", "results/paper/omniglot_leap/table1.csv")
    assert result.returncode == 0, result.stdout
    assert len(commands(result.stdout, "train")) == n_trained(jobs_of("paper")["omniglot_leap"]) == 96


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda config: config.update(size="smok"),
            "config: 'size' is 'smok'. Allowed: overnight, paper, quick, smoke, width64, or the path",
        ),
        (
            lambda config: config.update(profile="paper"),
            "config: the key 'profile' is called 'size' now: --config size=pap",
        ),
        (
            lambda config: config.update(size="mine.yaml"),
            "mine.yaml: experiments.sine.settings: unknown setting 'hiden'",
        ),
    ],
)
def test_a_wrong_config_or_size_stops_in_one_line_before_anything_runs(folder, change, message):
    shutil.copy(REPO / "workflow/sizes/smoke.yaml", folder / "mine.yaml")
    edit(folder / "mine.yaml", lambda size: size["experiments"]["sine"]["settings"].update(hiden=3))
    edit(folder / "config.yaml", change)
    result = snakemake(folder, "--dry-run")
    assert result.returncode == 1
    lines = [line for line in result.stdout.splitlines() if not line.startswith("Using workflow specific profile")]
    assert len(lines) == 1 and lines[0].startswith(message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text + "methods: {sine: [replay]}\n", "the key 'methods' is there twice, in lines"),
        (
            lambda text: text.replace('dir: ""', "dir: ${HOME}/{x}"),
            "config: 'data.dir' is '${HOME}/{x}', and there is no such",
        ),
    ],
)
def test_text_of_a_users_is_checked_as_it_is_written(folder, change, message):
    (folder / "config.yaml").write_text(change((folder / "config.yaml").read_text()))
    result = snakemake(folder, "--dry-run")
    lines = [line for line in result.stdout.splitlines() if not line.startswith("Using workflow specific profile")]
    assert result.returncode == 1 and len(lines) == 1 and message in lines[0], result.stdout


@pytest.mark.slow
def test_jobs_at_home_fit_into_the_memory_of_the_machine(folder):
    """A job that asks for more than the machine has gets all of it, and so runs alone. A folder may be called {x}."""
    (folder / "d {x}").mkdir()
    edit(folder / "config.yaml", lambda config: config["data"].update(dir="d {x}"))
    more = ["--set-resources", "evaluate:mem_mb=10000000"]
    result = snakemake(folder, "omniglot_leap", "--dry-run", "--config", "size=smoke", *more)
    assert result.returncode == 0, result.stdout
    asked = [int(found) for found in re.findall(r"resources: .*mem_mb=(\d+)", result.stdout)]
    assert set(asked) == {machine.memory_mb()} and len(asked) > 1
    assert "--dir 'd {x}'" in result.stdout


@pytest.mark.skipif(not list(REPO.glob(".venv/set-up-*")), reason="needs the pinned packages of make setup")
def test_the_environment_of_conda_is_that_of_make_setup():
    """Its Python is one that the lock is for, and its script installs the locked packages, which are here already."""
    declared = yaml.safe_load((REPO / "workflow/envs/leapwarp.yaml").read_text())["dependencies"]
    (python,) = (name.partition("=")[2] for name in declared if name.startswith("python"))
    assert f"Python {python}" in (REPO / "README.md").read_text()
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PIP_DRY_RUN": "1", "PIP_NO_INDEX": "1"}
    script = ["bash", REPO / "workflow/envs/leapwarp.post-deploy.sh"]
    ours = tomllib.loads((REPO / "pyproject.toml").read_text())
    made = subprocess.run(script, cwd=REPO, env=environment, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert re.findall(r"^Would install (.*)$", made.stdout, re.MULTILINE) == [f"leapwarp-{ours['project']['version']}"]


def test_lint_is_clean(folder):
    result = snakemake(folder, "--lint")
    assert result.returncode == 0, result.stdout


# ---------------------------------------------------------------- an experiment, a size, and edits of a user's own


@pytest.mark.slow
def test_an_experiment_and_a_size_of_ones_own_run_from_a_folder_to_the_page(own):
    folder = own / "results/small/hills"
    files = ["rows.csv", "runs.json", "table_hills.csv", "table_hills.md", "table_hills.json"]
    for name in [*files, "figures/hills.png", "figures/hills.pdf"]:
        assert (folder / name).stat().st_size > 0
    page = (own / "results/small/index.html").read_text()
    assert (
        page.count('src="data:image/png') == 1 and "Height of the surface over the steps" in page and "Momentum" in page
    )
    assert "the smallest that proves it" in page
    assert "Nothing to be done" in snakemake(own).stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "change", "trains", "evaluates", "rules"),
    [
        ("small.yaml", lambda s: None, [], [], set()),
        (
            "small.yaml",  # of one method
            lambda s: s["experiments"]["hills"]["methods"]["warpgrad"].update(meta_steps=4),
            ["warpgrad"],
            ["warpgrad"],
            {"train", "evaluate", "gather", "table", "figures_hills", "claims", "all_claims", "page", "all"},
        ),
        (
            "small.yaml",  # of the evaluation
            lambda s: s["experiments"]["hills"]["settings"].update(n_test=5),
            [],
            ["gd", "momentum", "warpgrad"],
            {"evaluate", "gather", "table", "figures_hills", "claims", "all_claims", "page", "all"},
        ),
        (
            "mine/hills/experiment.yaml",
            lambda s: s["methods"]["momentum"].update(colour="#000000"),
            [],
            [],
            {"figures_hills", "page", "all"},
        ),
        (
            "mine/hills/experiment.yaml",
            lambda s: s["figures"].update(hills="Another caption."),
            [],
            [],
            {"table", "page", "all"},
        ),
        (
            "mine/hills/experiment.yaml",
            lambda s: s.update(asks="What do warps do?"),
            [],
            [],
            {"table", "page", "all"},
        ),
        (
            "mine/hills/experiment.yaml",
            lambda s: s.update(printed="2"),
            [],
            [],
            {"table", "published", "page", "all"},
        ),
        ("config.yaml", lambda s: s.update(device="cpu"), [], [], set()),
    ],
    ids=["nothing", "meta_steps of a method", "evaluation", "colour", "caption", "asks", "printed", "device"],
)
def test_an_edit_makes_anew_what_it_changes_and_nothing_else(own, tmp_path, file, change, trains, evaluates, rules):
    here = shutil.copytree(own, tmp_path / "here")
    edit(here / file, change)
    work_out_settings(here)
    dry = snakemake(here, "--dry-run").stdout
    assert [method for method, _, _ in trained(dry)] == trains
    assert [method for method, _ in evaluated(dry)] == evaluates
    assert made(dry) == rules


@pytest.mark.slow
def test_memory_reruns_nothing_and_code_everything_by_one_name(own):
    memory = snakemake(own, "--dry-run", "--set-resources", "train:mem_mb=999", "evaluate:mem_mb=999")
    assert made(memory.stdout) == set(), memory.stdout
    code = snakemake(own, "--dry-run", "--forcerun", "code").stdout
    assert [method for method, _, _ in trained(code)] == ["warpgrad"]
    assert [method for method, _ in evaluated(code)] == ["gd", "momentum", "warpgrad"]


@pytest.mark.slow
def test_a_state_that_is_handed_in_is_evaluated_as_a_method_of_its_own(own, tmp_path):
    here = shutil.copytree(own, tmp_path / "here")
    [state] = here.glob("results/small/hills/states/warpgrad/tasks0/*.safetensors")
    shutil.copy(state, here / "from_elsewhere.safetensors")
    result = snakemake(here, "hills", "--cores", "1", "--config", "state=from_elsewhere.safetensors")
    assert result.returncode == 0, result.stdout[-5000:]
    assert evaluated(result.stdout) == [("from_elsewhere", "0-1")] and not trained(result.stdout)
    rows = rows_of(here / "results/small/hills/rows.csv")

    def final(name):
        return [row["value"] for row in rows if row["method"] == name and row["metric"] == "final_gap"]

    assert final("from_elsewhere") == final("warpgrad") != []
    assert "from_elsewhere" in (here / "results/small/hills/table_hills.md").read_text()


# ---------------------------------------------------------------- the whole smoke size


def check_omniglot(path):
    """Check that the real set, which takes ten seconds to read, is as published."""
    data = alphabets.load(path)
    counts = data.alphabet.bincount()
    assert data.source == "omniglot"
    assert len(data.names) == 50
    assert data.names == sorted(data.names)
    assert data.images.shape == (1623, 20, 28, 28)
    assert counts.sum() == 1623
    small = {data.names[i]: int(count) for i, count in enumerate(counts) if count < 20}
    assert small == {
        "Blackfoot_(Canadian_Aboriginal_Syllabics)": 14,
        "Inuktitut_(Canadian_Aboriginal_Syllabics)": 16,
        "Ojibwe_(Canadian_Aboriginal_Syllabics)": 14,
        "Tagalog": 17,
    }
    braille = data.images[data.alphabet == data.names.index("Braille")][0]
    assert torch.equal(braille[2], braille[18])  # the one duplicate of the original set: 0192_03 and 0192_19
    ink = data.images.float().mean() / 255
    assert 0.07 < ink < 0.1  # bright strokes on a dark page


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.full)])
def test_smoke_from_data_to_page(folder, whole):
    """Everything with every method, or an experiment of each kind with a few (make test-slurm has two of each)."""
    experiments = list(jobs_of("smoke")) if whole else [*KINDS]
    methods = {name: list(jobs_of("smoke")[name].about.methods) for name in experiments} if whole else KINDS
    changes = {"size": "smoke", "experiments": experiments, "methods": methods}
    real = "LEAPWARP_DATA" in os.environ
    if not real:
        changes["data"] = {"source": "glyphs", "dir": ""}
    edit(folder / "config.yaml", lambda config: config.update(changes))

    first = snakemake(folder, "--cores", "2")
    assert first.returncode == 0, first.stdout[-5000:]
    jobs = jobs_of("smoke", experiments=experiments, methods=methods)
    figures = 0
    for name, each in jobs.items():
        for path in plan.outputs(each):
            assert (folder / path).stat().st_size > 0
            figures += path.endswith(".png")
        here = folder / "results/smoke" / name
        runs = [path.relative_to(here / "runs").with_suffix("") for path in here.glob("runs/*/*.csv")]
        assert len(runs) == n_evaluated(each)
        for run in runs:
            assert (here / "logs/evaluate" / run.with_suffix(".log")).exists()
            assert (here / "benchmarks/evaluate" / run.with_suffix(".tsv")).exists()
        assert len(list(here.glob("states/*/*/*.safetensors"))) == n_trained(each) + bool(each.chain)
    assert {path.name for path in (folder / "results").iterdir()} == {"data", "smoke", "claims.csv", "logs"}
    verdicts = (folder / "results/smoke/claims.csv").read_text()
    assert "not tested" in verdicts
    assert not any(f",{verdict}," in verdicts for verdict in ("supported", "contradicted", "undecided"))
    if real:
        check_omniglot(folder / "results/data/alphabets.safetensors")
    page = (folder / "results/smoke/index.html").read_text()
    searches = sum(len(each.search.get("methods", [])) for each in jobs.values())
    shown = figures + searches + 1  # and the published numbers against ours
    assert page.count('src="data:image/png') == shown > figures + 1 and "not the published size" in page

    # The headline experiment's table does not wait for the runs of the others.
    table = first.stdout.index("python -m leapwarp.report table omniglot_warp")
    assert table < first.stdout.rindex("python -m leapwarp.experiments train few_shot")

    second = snakemake(folder, "--cores", "2")
    assert "Nothing to be done" in second.stdout, second.stdout[-5000:]

    assert snakemake(folder, "--report", "report.html").returncode == 0
    report = (folder / "report.html").read_text()
    for text in ("Overview", "subcategory", "verdict on each claim", "beside those printed in the paper"):
        assert text in report
    assert jobs["omniglot_warp"].about.figures["by_tasks"][:40] in report

    # The commands at the top of the logs make the same rows if they are called by hand.
    here = folder / "results/smoke/omniglot_warp"
    before = rows_of(here / "runs/leap/seeds0-1.csv")
    shutil.rmtree(here / "checkpoints")
    for log in ("train/leap/tasks1", "train/leap/tasks3", "evaluate/leap"):
        command = (here / "logs" / log / "seeds0-1.log").read_text().splitlines()[0]
        assert command.startswith("python -m leapwarp.experiments ")
        by_hand = f"{sys.executable}{command.removeprefix('python')}"
        subprocess.run(by_hand, shell=True, cwd=folder, check=True, capture_output=True)
    assert rows_of(here / "runs/leap/seeds0-1.csv") == before


def test_the_profiles_need_no_size_of_a_users_own():
    """The last value of each expression is for any other size and experiment."""
    profile = yaml.safe_load((REPO / "workflow/profiles/slurm/config.yaml").read_text())
    for rule, resources in profile["set-resources"].items():
        for name, expression in resources.items():

            class wildcards:
                size, experiment, method, subset, n_tasks, first, last = (
                    "mine",
                    "hills",
                    "momentum",
                    "mini",
                    "5",
                    "0",
                    "3",
                )

            first, last = (eval(str(expression), {"wildcards": wildcards, "attempt": attempt}) for attempt in (1, 4))
            assert isinstance(first, int) and first >= 0, (rule, name)
            assert last == (2 * first if name == "mem_mb" else first), (rule, name)  # a job may be killed for memory
