"""The workflow: targets, the config check, lint, and the whole smoke profile from data to figures."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import yaml
from calls import REPO, RUNS, rows_of, snakemake

SEARCH = yaml.safe_load((REPO / "workflow/search.yaml").read_text())
CONFIG = yaml.safe_load((REPO / "config.yaml").read_text())
FIGURES = [f"figures/{name}.png" for name in ("auc_by_tasks", "by_tasks", "heldout_curves", "meta_curves")]
LEAVES = {
    "omniglot_leap": ["rows.csv", "runs.json", "table1.csv", "table1.md", *FIGURES],
    "omniglot_warp": ["rows.csv", "runs.json", "table2.csv", "table2.md", *FIGURES],
    "leap_ablation": [
        "rows.csv",
        "table_leap_ablation.csv",
        "table_leap_ablation.md",
        "figures/leap_ablation.png",
        "figures/leap_ablation_heldout.png",
    ],
    "warp_ablation": [
        "rows.csv",
        "table3.csv",
        "table3.md",
        "figures/warp_ablation.png",
        "figures/warp_ablation_curves.png",
    ],
    "natural_gradient": [
        "rows.csv",
        "table4.csv",
        "table4.md",
        "figures/natural_gradient.png",
        "figures/activations.png",
    ],
    "jacobian": [
        "rows.csv",
        "table_jacobian.csv",
        "table_jacobian.md",
        "figures/jacobian.png",
        "figures/jacobian_layers.png",
    ],
    "theorem1": [
        "rows.csv",
        "table_theorem1.csv",
        "table_theorem1.md",
        "figures/theorem1.png",
        "figures/theorem1_variants.png",
    ],
    "geometry": ["rows.csv", "table_geometry.csv", "table_geometry.md", "figures/geometry.png"],
    "surfaces": [
        "rows.csv",
        "table_surfaces.csv",
        "table_surfaces.md",
        "figures/surfaces_paths.png",
        "figures/surfaces_curves.png",
        "figures/surfaces_sweep.png",
    ],
    "sine": [
        "rows.csv",
        "table_sine.csv",
        "table_sine.md",
        "figures/sine_losses.png",
        "figures/sine_predictions.png",
        "figures/sine_meta.png",
    ],
    "maze": ["rows.csv", "table_maze.csv", "table_maze.md", "figures/maze_return.png", "figures/maze_picture.png"],
    "few_shot": [
        "rows.csv",
        "table_few_shot.csv",
        "table_few_shot.md",
        "figures/few_shot.png",
        "figures/few_shot_curves.png",
    ],
    "few_shot_tiered": [
        "rows.csv",
        "table_few_shot_tiered.csv",
        "table_few_shot_tiered.md",
        "figures/few_shot.png",
        "figures/few_shot_curves.png",
    ],
    "inner_cost": ["rows.csv", "table_inner_cost.csv", "table_inner_cost.md", "figures/inner_cost.png"],
    "multicv": [
        "rows.csv",
        "table_multicv.csv",
        "table_multicv.md",
        "figures/multicv.png",
        "figures/multicv_map.png",
        "figures/multicv_curves.png",
    ],
    "multi_shot": [
        "rows.csv",
        "table_multi_shot.csv",
        "table_multi_shot.md",
        "figures/multi_shot.png",
        "figures/multi_shot_meta.png",
    ],
    "atari": [
        "rows.csv",
        "table_atari.csv",
        "table_atari.md",
        "figures/atari_scores.png",
        "figures/atari_meta.png",
        "figures/atari_pictures.png",
    ],
}
TARGETS = ("omniglot_warp", "maze", "multicv", "multi_shot", "atari")  # one of each kind, to be asked for by name
SIMULATED = {"theorem1", "geometry", "surfaces", "sine", "maze", "inner_cost", "atari"}  # they read no data
PAPER_COUNTS = {
    "omniglot_leap": [1, *range(2, 31, 2)],  # Leap, Table 1
    "omniglot_warp": [1, 3, 5, 10, 15, 20, 25],  # WarpGrad, Table 2
    "leap_ablation": [30],  # Leap, appendix E
    "warp_ablation": [25],  # WarpGrad, appendix G
    "natural_gradient": [25],  # WarpGrad, appendix H
}
PAPER_SEEDS = {"warp_ablation": 4, "natural_gradient": 4}  # WarpGrad, Tables 3 and 4; elsewhere 10


@pytest.fixture
def folder(tmp_path):
    """A folder to run the workflow in, with the repository's config: nothing reaches its results/."""
    shutil.copy(REPO / "config.yaml", tmp_path)
    return tmp_path


def n_runs(experiment, profile, config=CONFIG):
    """How many jobs an experiment has: one a baseline, and for the methods task counts x chunks of seeds."""
    block = config["experiments"][experiment]
    size = block[profile]
    chunks = -(-size["seeds"] // size["seeds_per_job"])
    return len(block.get("baselines", [])) + len(block["methods"]) * len(size.get("n_tasks", [0])) * chunks


def n_trials(profile):
    """How many trials of random searches come with everything else."""
    sizes = [about[profile] for about in SEARCH.values() if profile in CONFIG["search"]["in_all"]]
    return sum(size["trials"] * len(size["methods"]) for size in sizes)


def n_links(experiment, profile):
    """How many jobs meta-training has where it is a chain: one for each seed, meta-step and game."""
    size = CONFIG["experiments"][experiment][profile]
    return size["seeds"] * size.get("meta_steps", 0) * size.get("games", 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "profile"),
    [("all", "smoke"), ("all", "quick"), ("all", "paper"), *((name, "quick") for name in TARGETS)],
)
def test_every_target_dry_runs(folder, target, profile):
    result = snakemake(folder, target, "--dry-run", "--config", f"profile={profile}")
    assert result.returncode == 0, result.stdout
    names = list(LEAVES) if target == "all" else [target]
    runs = sum(n_runs(name, profile) + n_links(name, profile) for name in names)
    assert result.stdout.count(RUNS) == runs
    jobs = runs + (n_trials(profile) if target == "all" else 0)
    assert len(re.findall(rf"\n +benchmark: results/{profile}/", result.stdout)) == jobs
    assert len(re.findall(r"\n +resources: .*runtime=\d+, gpu=[01], .*mem_mb=\d+", result.stdout)) == jobs
    reads = {"data"} if set(names) - SIMULATED else set()
    assert set(re.findall(r"results/(\w+)/", result.stdout)) - {"logs"} == {profile} | reads
    for name in names:
        for leaf in LEAVES[name]:
            assert f"results/{profile}/{name}/{leaf}" in result.stdout


def test_searches_can_be_made_alone_and_their_winners_used(folder):
    alone = snakemake(folder, "search", "--dry-run")
    assert alone.returncode == 0, alone.stdout
    assert alone.stdout.count("--held-out validation") == n_trials("quick") and RUNS not in alone.stdout
    page = snakemake(folder, "results/quick/index.html", "--dry-run")  # it shows them
    assert page.stdout.count("--held-out validation") == n_trials("quick")
    without = snakemake(folder, "multi_shot", "--dry-run")
    assert "--settings" not in without.stdout

    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["search"]["used"] = ["quick"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    used = snakemake(folder, "multi_shot", "--dry-run")
    assert used.returncode == 0, used.stdout
    for method in CONFIG["experiments"]["multi_shot"]["methods"]:
        [*commands] = re.findall(rf"{re.escape(RUNS)}multi_shot .*--method {method} .*", used.stdout)
        winner = f"--settings results/quick/search/multi_shot/{method}/winner.yaml"
        searched = method in SEARCH["multi_shot"]["quick"]["methods"]
        assert commands and all((winner in command) == searched for command in commands)


def test_a_file_of_any_size_can_be_asked_for_by_name(folder):
    result = snakemake(folder, "--dry-run", "results/paper/omniglot_leap/table1.csv")
    assert result.returncode == 0, result.stdout
    assert result.stdout.count(RUNS) == n_runs("omniglot_leap", "paper")


def test_paper_is_what_was_published():
    for experiment, counts in PAPER_COUNTS.items():
        assert CONFIG["experiments"][experiment]["paper"]["n_tasks"] == counts
        assert CONFIG["experiments"][experiment]["paper"]["seeds"] == PAPER_SEEDS.get(experiment, 10)
    atari = CONFIG["experiments"]["atari"]["paper"]  # Leap, appendix H
    assert (atari["meta_steps"], atari["games"]) == (100, 16)


def test_quick_is_the_default():
    assert CONFIG["profile"] == "quick"


def test_seeds_share_a_job(folder):
    config = json.loads(json.dumps(CONFIG))
    config["experiments"]["omniglot_leap"]["quick"].update(n_tasks=[3], seeds=5, seeds_per_job=2)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    result = snakemake(folder, "omniglot_leap", "--dry-run")
    commands = re.findall(r"Shell command: .*--method leap --n-tasks 3 --seeds ([\d ]+) --data", result.stdout)
    assert sorted(commands) == ["0 1", "2 3", "4"]


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["profile"], "smok", "'profile' is 'smok'. Allowed: smoke, quick or paper."),
        (["device"], "gpu", "'device' is 'gpu'. Allowed: auto, cpu, cuda or cuda:N."),
        (["data", "source"], "mnist", "'data.source' is 'mnist'. Allowed: auto, omniglot or glyphs."),
        (["sedes"], 3, "unknown key 'sedes' (value 3). Allowed here: profile, device, data, search, experiments."),
        (
            ["data", "folder"],
            "x",
            "unknown key 'data.folder' (value 'x'). Allowed here: source, dir, mini_imagenet, tiered_imagenet, sets.",
        ),
        (
            ["data", "sets"],
            ["a", "b"],
            "'data.sets' is ['a', 'b']. Allowed: a list of at least three names, without repeats.",
        ),
        (
            ["experiments", "omniglot_lep"],
            {},
            "unknown key 'experiments.omniglot_lep' (value {}). Allowed here: omniglot_warp, omniglot_leap,"
            " leap_ablation, warp_ablation, natural_gradient, jacobian, theorem1, geometry, surfaces, sine, maze,"
            " few_shot, few_shot_tiered, inner_cost, multicv, multi_shot, atari.",
        ),
        (
            ["experiments", "omniglot_leap", "quick", "sedes"],
            2,
            "unknown key 'experiments.omniglot_leap.quick.sedes' (value 2)."
            " Allowed here: n_tasks, seeds, seeds_per_job, mem_mb, runtime, gpu.",
        ),
        (
            ["experiments", "omniglot_leap", "quick", "seeds"],
            0,
            "'experiments.omniglot_leap.quick.seeds' is 0. Allowed: a whole number of at least 1.",
        ),
        (
            ["experiments", "omniglot_warp", "smoke", "n_tasks"],
            [1, 1],
            "'experiments.omniglot_warp.smoke.n_tasks' is [1, 1]."
            " Allowed: a list, not empty and without repeats, of whole numbers from 1 to 30.",
        ),
        (
            ["experiments", "omniglot_warp", "paper", "n_tasks"],
            [27],
            "'experiments.omniglot_warp.paper.n_tasks[0]' is 27. Allowed: a whole number from 1 to 26.",
        ),
        (
            ["experiments", "omniglot_warp", "methods", 0],
            "leep",
            "'experiments.omniglot_warp.methods[0]' is 'leep'."
            " Allowed: finetune, reptile, fomaml, maml, leap, leap_released_pixels, warp_leap, warp_leap_approx.",
        ),
        (
            ["experiments", "omniglot_leap", "methods", 0],
            "maml",
            "'experiments.omniglot_leap.methods[0]' is 'maml'. Allowed: finetune, reptile, fomaml, leap.",
        ),
        (
            ["experiments"],
            None,
            "'experiments' is None. Allowed: a mapping from the name of an experiment to its block.",
        ),
    ],
)
def test_a_wrong_config_gives_one_clear_line(folder, keys, value, message):
    config = json.loads(json.dumps(CONFIG))
    place = config
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    result = snakemake(folder, "--dry-run")
    assert result.returncode == 1
    lines = [line for line in result.stdout.splitlines() if not line.startswith("Using workflow specific profile")]
    assert lines == [f"config: {message}"]


def test_a_missing_key_gives_one_clear_line(folder):
    config = json.loads(json.dumps(CONFIG))
    del config["experiments"]["omniglot_leap"]["smoke"]["seeds"]
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    result = snakemake(folder, "--dry-run")
    assert result.returncode == 1
    assert result.stdout.splitlines()[-1].startswith(
        "config: the key 'experiments.omniglot_leap.smoke.seeds' is missing."
    )


def test_config_says_what_each_key_does():
    opening = (REPO / "config.yaml").read_text().split("\nprofile:")[0]
    schema = yaml.safe_load((REPO / "workflow/schemas/config.schema.yaml").read_text())
    parts = [schema, schema["properties"]["data"], schema["$defs"]["experiment"], schema["$defs"]["size"]]
    for key in [key for part in parts for key in part["properties"]]:
        assert re.search(rf"^#.*\b{key}\b", opening, re.MULTILINE), f"{key} is not explained"


def test_lint_is_clean(folder):
    result = snakemake(folder, "--lint")
    assert result.returncode == 0, result.stdout


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, pytest.param(True, marks=pytest.mark.full)])
def test_smoke_from_data_to_figures(folder, whole):
    """The two experiments that the others are like as a whole, and two methods of each of these; or all of it."""
    config = json.loads(json.dumps(CONFIG)) | {"profile": "smoke"}
    if not whole:
        for name, block in config["experiments"].items():
            if name not in ("omniglot_warp", "omniglot_leap"):
                block["methods"] = block["methods"][:2]
    if "LEAPWARP_DATA" not in os.environ:
        config["data"] = {"source": "glyphs", "dir": ""}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))

    first = snakemake(folder, "--cores", "2")
    assert first.returncode == 0, first.stdout[-5000:]
    for experiment, leaves in LEAVES.items():
        results = folder / "results/smoke" / experiment
        for leaf in leaves:
            assert (results / leaf).stat().st_size > 0
        runs = [path.relative_to(results / "runs").with_suffix("") for path in results.glob("runs/*/*/*.csv")]
        assert len(runs) == n_runs(experiment, "smoke", config)
        for run in runs:
            assert (results / "logs" / run.with_suffix(".log")).exists()
            assert (results / "benchmarks" / run.with_suffix(".tsv")).exists()
    assert {path.name for path in (folder / "results").iterdir()} == {"data", "smoke", "claims.csv", "logs"}
    verdicts = (folder / "results/smoke/claims.csv").read_text()
    assert "undecided" in verdicts and ",supported," not in verdicts and ",contradicted," not in verdicts
    page = (folder / "results/smoke/index.html").read_text()
    figures = sum(leaf.endswith(".png") for leaves in LEAVES.values() for leaf in leaves)
    searches = sum(len(about["smoke"]["methods"]) for about in SEARCH.values())
    assert page.count("<img ") == figures + searches > figures and "not the published size" in page

    # The headline experiment's table does not wait for the runs of the others.
    table = first.stdout.index("python -m leapwarp.tables.omniglot_warp")
    assert table < first.stdout.rindex("python -m leapwarp.experiments.omniglot_leap")

    second = snakemake(folder, "--cores", "2")
    assert "Nothing to be done" in second.stdout, second.stdout[-5000:]

    assert snakemake(folder, "--report", "report.html").returncode == 0
    report = (folder / "report.html").read_text()
    for text in ("Overview", "subcategory", "verdict on each claim", "beside the numbers printed in the paper"):
        assert text in report

    # The command at the head of its log, run by hand, makes the same rows.
    log = folder / "results/smoke/omniglot_leap/logs/leap/tasks1/seeds0-1.log"
    command = log.read_text().splitlines()[0].removeprefix("python ")
    out = folder / re.search(r"--out (\S+)", command).group(1)
    before = rows_of(out)
    out.unlink()
    shutil.rmtree(folder / re.search(r"--checkpoints (\S+)", command).group(1), ignore_errors=True)
    subprocess.run([sys.executable, *command.split()], cwd=folder, check=True, timeout=300, capture_output=True)
    assert rows_of(out) == before
