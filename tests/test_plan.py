"""The jobs follow from config.yaml, the size and the experiments' files. Wrong files are refused in one line."""

import json
import re
import shutil
from dataclasses import dataclass
from typing import Literal

import pytest
import torch
import yaml
from calls import CONFIG, REPO, SIZES, jobs_of

from leapwarp import catalogue, plan
from leapwarp.experiments import resolve, settings, states

PAPER_COUNTS = {
    "omniglot_leap": [1, *range(2, 31, 2)],  # Leap, Table 1
    "omniglot_warp": [1, 3, 5, 10, 15, 20, 25],  # WarpGrad, Table 2
    "leap_ablation": [30],  # Leap, appendix E
    "warp_ablation": [25],  # WarpGrad, appendix G
    "natural_gradient": [25],  # WarpGrad, appendix H
}
PAPER_SEEDS = {"warp_ablation": 4, "natural_gradient": 4}  # WarpGrad, Tables 3 and 4; elsewhere 10


def changed(value, keys, new):
    """A copy of nested mappings with the value at `keys` replaced."""
    value = json.loads(json.dumps(value))
    place = value
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = new
    return value


# ---------------------------------------------------------------- experiments


def test_every_experiment_says_what_it_is_and_has_its_code():
    assert {"leap_ablation", "maze", "omniglot_warp"} < set(catalogue.names())
    for name in catalogue.names():
        about = catalogue.find(name)
        assert about.title and about.asks and about.where and about.figures
        assert all(caption.endswith(".") for caption in about.figures.values()), name
        assert (about.code / "run.py").is_file() and (about.code / "report.py").is_file()


def test_code_and_yaml_of_every_experiment_name_the_same_methods_and_settings():
    for name in catalogue.names():
        about = catalogue.find(name)
        experiment, report = about.module("run").EXPERIMENT, about.module("report")
        found = experiment.methods(experiment.published)
        assert set(about.methods) <= set(found)
        if about.code == about.folder:
            assert set(about.methods) == set(found)
        settings = found[next(iter(found))].settings
        assert all(hasattr(settings, key) for key in experiment.evaluation)
        assert any(method.trains for method in about.methods.values()) == (experiment.train is not None)
        assert callable(report.document) and isinstance(report.QUANTITIES, dict)
        assert all(callable(getattr(report, figure, None)) for figure in about.figures), name
        if about.search:
            assert set(about.search["spaces"]) <= set(about.methods)


def test_an_experiment_that_there_is_not_is_named():
    with pytest.raises(ValueError, match="found no experiment 'omniglot_lep', needed one of atari, few_shot"):
        catalogue.find("omniglot_lep")


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["titel"], "x", "unknown key 'titel' (value 'x'). Allowed here: like, title,"),
        (["paper"], "maml", "'paper' is 'maml'. Allowed: leap or warpgrad"),
        (["methods", "momentum"], None, "'methods.momentum' has no look. Needed here: name, colour, marker."),
        (
            ["methods", "momentum"],
            {"name": "M", "colour": "red"},
            "'methods.momentum.colour' is 'red'. Allowed: a colour",
        ),
        (["methods", "leap"], {"name": "L"}, "'methods.leap' has its own look, and methods.yaml has another"),
    ],
)
def test_a_wrong_experiment_yaml_gives_one_clear_line(tmp_path, keys, value, message):
    folder = tmp_path / "mine"
    folder.mkdir()
    about = yaml.safe_load((catalogue.FOLDER / "surfaces" / catalogue.FILE).read_text())
    (folder / catalogue.FILE).write_text(yaml.safe_dump(changed(about, keys, value)))
    with pytest.raises(ValueError, match="^[^\n]*$") as error:
        catalogue.find(str(folder))
    assert str(error.value).startswith(f"{folder / catalogue.FILE}: {message}")


@pytest.mark.parametrize("name", ["surfaces", "command"])
def test_an_experiment_of_ones_own_does_not_take_a_name_of_the_package(tmp_path, name):
    """Python would import the package's code in its place."""
    shutil.copytree(catalogue.FOLDER / "surfaces", tmp_path / name)
    with pytest.raises(ValueError, match=f"leapwarp.experiments already has {name}. Give the folder of your own exp"):
        catalogue.find(f"{tmp_path}/{name}")


# ---------------------------------------------------------------- sizes


def test_paper_is_what_was_published():
    jobs = jobs_of("paper")
    assert set(jobs) == set(catalogue.names())
    for name, each in jobs.items():
        assert each.n_tasks == PAPER_COUNTS.get(name, [0]) and len(each.seeds) == PAPER_SEEDS.get(name, 10)
    assert jobs["atari"].chain == {"meta_steps": 100, "games": 16}  # Leap, appendix H
    for entry in plan.read_size(SIZES / "paper.yaml").entries.values():
        # The published settings are in the code, with their sources. That of multicv is a departure in docs/deviations.
        assert entry.get("settings", {}).keys() <= {"most_validation"} and "methods" not in entry


def test_quick_is_the_default_and_every_size_has_every_experiment():
    assert CONFIG["size"] == "quick"
    for size in ("smoke", "quick", "paper"):
        assert list(jobs_of(size)) == list(jobs_of("quick"))


def test_sizes_that_may_decide_more_come_first(tmp_path):
    shutil.copy(SIZES / "quick.yaml", tmp_path / "mine.yaml")
    paths = [*SIZES.glob("*.yaml"), tmp_path / "mine.yaml"]
    assert plan.largest_first(paths) == ["paper", "mine", "overnight", "quick", "smoke", "width64"]


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (
            ["abuot"],
            "x",
            "unknown key 'abuot' (value 'x'). Allowed here: about, decides, search_with_all, search_used, first_seed,",
        ),
        (["decides"], "all", "'decides' is 'all'. Allowed: nothing, orders or everything."),
        (
            ["experiments", "maze", "sedes"],
            2,
            "unknown key 'experiments.maze.sedes' (value 2). Allowed here: n_tasks, n_tasks_per_job,",
        ),
        (
            ["experiments", "maze", "seeds"],
            0,
            "'experiments.maze.seeds' is 0. Allowed: a whole number from 1 to 10000.",
        ),
        (
            ["experiments", "maze", "n_tasks"],
            [3],
            "'experiments.maze.n_tasks' is [3]. Needed: none: tasks are not counted.",
        ),
        (
            ["experiments", "omniglot_warp", "n_tasks"],
            [1, 1],
            "'experiments.omniglot_warp.n_tasks' is [1, 1]. Allowed: a list, not empty and without repeats,",
        ),
        (
            ["experiments", "omniglot_warp", "n_tasks"],
            [27],
            "'experiments.omniglot_warp.n_tasks' has 27. Allowed: whole numbers from 1 to 26.",
        ),
        (
            ["experiments", "omniglot_leap", "methods"],
            {"leep": {}},
            "'experiments.omniglot_leap.methods' has 'leep'. Allowed: leap, leap_to_the_end, reptile, finetune,",
        ),
        (["experiments", "maze", "run"], ["rmm"], "'experiments.maze.run' has 'rmm'. Allowed: warp_rnn, "),
        (
            ["experiments", "maze", "search"],
            {"trials": 2, "methods": ["rnn"]},
            "'experiments.maze.search.methods' has 'rnn'. Allowed: none, since its experiment.yaml declares no spaces.",
        ),
        (
            ["experiments", "sine", "chain"],
            {"meta_steps": 2, "games": 2},
            "'experiments.sine.chain' is {'games': 2, 'meta_steps': 2}. Only atari has it.",
        ),
        (["experiments", "atari"], {"seeds": 1}, "'experiments.atari.chain' is missing. Needed: meta_steps and games,"),
        (["experiments", "omniglot_lep"], {"seeds": 1}, "found no experiment 'omniglot_lep', needed one of atari,"),
    ],
)
def test_a_wrong_size_gives_one_clear_line(tmp_path, keys, value, message):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(changed(yaml.safe_load((SIZES / "quick.yaml").read_text()), keys, value)))
    with pytest.raises(ValueError, match="^[^\n]*$") as error:
        plan.read_size(path)
    assert message in str(error.value) and (str(path) in str(error.value) or "found no experiment" in message)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (
            ["settings"],
            {"filterz": 8},
            "experiments.omniglot_leap.settings: unknown setting 'filterz' (value 8). Known: filters,",
        ),
        (
            ["settings"],
            {"filters": 0.5},
            "experiments.omniglot_leap.settings: the setting filters is 0.5, needed a value as 64.",
        ),
        (["settings"], {"inner_lr": -1}, "the setting inner_lr is -1.0, needed a finite number of at least 0."),
        (["settings"], {"filters": None}, "the setting filters is None, needed a value as 64."),
        (
            ["settings"],
            {"dampings": [1, "x"]},
            "the setting dampings: item 2 is 'x', needed a value of the type float, without quotes.",
        ),
        (
            ["methods"],
            {"leap": {"meta_steps": "many"}},
            "experiments.omniglot_leap.methods.leap: the setting meta_steps is 'many', needed a value as",
        ),
    ],
)
def test_a_setting_that_cannot_be_gives_one_clear_line(keys, value, message):
    size = yaml.safe_load((SIZES / "smoke.yaml").read_text())
    entry = changed(size["experiments"]["omniglot_leap"], keys, value)
    with pytest.raises(ValueError, match="^[^\n]*$") as error:
        resolve.of_experiment("omniglot_leap", entry, "mine.yaml: experiments.omniglot_leap")
    assert message in str(error.value) and str(error.value).startswith("mine.yaml: experiments.omniglot_leap")


@dataclass(frozen=True)
class Kinds:
    clip: float | None = None
    most: int | None = None
    warp: Literal["identity", "residual"] = "identity"
    rates: tuple[float, ...] = ()
    widths: tuple[int, ...] = (8, 4)
    strides: "tuple[int, ...]" = (0, 1)
    names: tuple[str, ...] | None = None


@pytest.mark.parametrize(
    ("key", "value", "needed"),
    [
        ("clip", 2.0, 2.0),
        ("clip", 2, 2.0),
        ("clip", None, None),
        ("clip", "2", "is '2', needed a value of the type float, without quotes."),
        ("most", 1, 1),
        ("most", 1.0, "is 1.0, needed a value of the type int."),
        ("most", 0, "is 0, needed a finite number of at least 1."),
        ("warp", "residual", "residual"),
        ("warp", "identty", "is 'identty', needed one of 'identity', 'residual'."),
        ("warp", None, "is None, needed one of 'identity', 'residual'."),
        ("rates", [1, 0.5], (1.0, 0.5)),
        ("rates", [], ()),
        ("rates", ["a", None], ": item 1 is 'a', needed a value of the type float, without quotes."),
        ("rates", [0.1, -0.1], ": item 2 is -0.1, needed a finite number of at least 0."),
        ("rates", 0.1, "is 0.1, needed a value as ()."),
        ("widths", [-8, "x"], ": item 1 is -8, needed a finite number of at least 1."),
        ("widths", [8, True], ": item 2 is True, needed a value of the type int."),
        ("strides", [0], (0,)),
        ("names", ["a"], ("a",)),
        ("names", [1], ": item 1 is 1, needed a value of the type str."),
    ],
)
def test_a_setting_fits_its_annotation(key, value, needed):
    if isinstance(needed, str) and " " in needed:
        with pytest.raises(ValueError, match="^[^\n]*$") as error:
            settings.changed(Kinds(), {key: value}, "x")
        assert str(error.value) == f"x: the setting {key}{'' if needed.startswith(':') else ' '}{needed}"
    else:
        found = getattr(settings.changed(Kinds(), {key: value}, "x"), key)
        assert (found, repr(found)) == (needed, repr(needed))  # 1.0 is not 1


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"filters": {"choice": [32, "x"]}}, "the setting filters is 'x', needed a value as 4, without quotes."),
        ({"filters": {"log_uniform": [8, 64]}}, "the setting filters is 8.0, needed a value as 4."),
        ({"inner_lr": {"uniform": [-1, 1]}}, "the setting inner_lr is -1.0, needed a finite number of at least 0."),
        ({"inner_lr": {"uniform": [1, 0.1]}}, "inner_lr is drawn from uniform [1, 0.1], needed two numbers, the lower"),
    ],
)
def test_a_space_of_values_that_cannot_be_gives_one_clear_line(monkeypatch, space, message):
    about = catalogue.find("few_shot")
    searched = about._replace(search=about.search | {"spaces": {"maml": space}})
    monkeypatch.setattr(catalogue, "find", lambda where: searched)
    entry = yaml.safe_load((SIZES / "smoke.yaml").read_text())["experiments"]["few_shot"]
    entry["search"] = {"trials": 1, "methods": ["maml"]}
    with pytest.raises(ValueError, match="^[^\n]*few_shot/experiment.yaml: search.spaces.maml: [^\n]*$") as error:
        resolve.of_experiment("few_shot", entry, "mine.yaml: experiments.few_shot")
    assert message in str(error.value)


@pytest.mark.slow
def test_settings_are_read_once_for_each_version_of_size_and_code(tmp_path):
    path, cache = tmp_path / "mine.yaml", tmp_path / "cache"
    shutil.copy(SIZES / "smoke.yaml", path)
    first = plan.departures(path, ["omniglot_leap"], cache)
    assert first["omniglot_leap"]["leap"]["train"]["filters"] == 4
    assert first["omniglot_leap"]["leap"]["evaluate"] == {"eval_steps": 10, "curve_every": 5}
    [kept] = cache.iterdir()
    kept.write_text("{}")
    assert plan.departures(path, ["omniglot_leap"], cache) == {}  # it was read, and not computed again
    path.write_text(path.read_text() + "\n")
    assert plan.departures(path, ["omniglot_leap"], cache) == first
    path.write_text(path.read_text().replace("inner_steps", "inner_rate"))
    with pytest.raises(
        ValueError, match=r"^\S*mine.yaml: experiments.omniglot_leap\S*: unknown setting 'inner_rate'[^\n]*$"
    ):
        plan.departures(path, ["omniglot_leap"], cache)


# ---------------------------------------------------------------- config.yaml


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (
            ["size"],
            "smok",
            "'size' is 'smok'. Allowed: overnight, paper, quick, smoke, width64, or the path of a file as those in",
        ),
        (["size"], 3, "'size' is 3. Allowed: the name of a file in workflow/sizes, or the path of one."),
        (["device"], "gpu", "'device' is 'gpu'. Allowed: auto, cpu, cuda or cuda:N."),
        (["data", "source"], "mnist", "'data.source' is 'mnist'. Allowed: auto, omniglot or glyphs."),
        (["sedes"], 3, "unknown key 'sedes' (value 3). Allowed here: size, device, data, search, experiments,"),
        (["data", "folder"], "x", "unknown key 'data.folder' (value 'x'). Allowed here: source, dir, mini_imagenet,"),
        (
            ["data", "sets"],
            ["a", "b"],
            "'data.sets' is ['a', 'b']. Allowed: a list of at least three names, without repeats.",
        ),
        (["search", "use"], "paper", "'search.use' is 'paper'. Allowed: auto, true or false."),
        (["experiments"], ["omniglot_lep"], "'experiments' has 'omniglot_lep', which is not of the package, and 'own_"),
        (
            ["experiments"],
            None,
            "'experiments' is None. Allowed: all, or a list without repeats of names of experiments.",
        ),
        (["own_experiments"], "mine", "'own_experiments' is 'mine', which has no */experiment.yaml."),
        (["methods"], {"maz": ["rnn"]}, "'methods' has 'maz'. Allowed: omniglot_warp, omniglot_leap,"),
        (["methods"], {"maze": ["rn"]}, "'methods.maze' has 'rn'. Allowed: warp_rnn, hyper_rnn,"),
        (["methods"], {"maze": []}, "'methods.maze' is []. Allowed: a list without repeats of methods."),
        (["seeds"], 0, "'seeds' is 0. Allowed: a mapping from the name of an experiment to a number of seeds, or one"),
        (
            ["state"],
            "x.pt",
            "'state' is x.pt, a checkpoint of training; needed a state, as `python -m leapwarp.experiments",
        ),
        (["state"], "x.safetensors", "'state' is x.safetensors, which does not exist; needed a state,"),
        (["profile"], "paper", "the key 'profile' is called 'size' now: --config size=paper."),
    ],
)
def test_a_wrong_config_gives_one_clear_line(keys, value, message):
    config = changed(CONFIG, keys, value)
    with pytest.raises(ValueError, match="^[^\n]*$") as error:
        plan.jobs(config, plan.read_config(config, SIZES))
    assert str(error.value).startswith(f"config: {message}")


def test_a_search_that_the_size_does_not_have_is_not_asked_for_in_vain():
    config = changed(changed(CONFIG, ["search"], {"use": True, "with_all": True}), ["experiments"], ["sine"])
    with pytest.raises(
        ValueError, match="^config: 'search.use' and 'search.with_all' is true, and .* no search for sine"
    ):
        plan.jobs(config, plan.read_config(config, SIZES))
    config = changed(config, ["experiments"], "all")
    assert any(jobs.search for jobs in plan.jobs(config, SIZES / "smoke.yaml").values())


@pytest.mark.parametrize("name", ["hills.v2", "figures_hills", "published", "winner"])
def test_an_experiment_of_ones_own_has_a_name_that_the_workflow_can_use(tmp_path, name):
    shutil.copytree(REPO / "examples/own/waves", tmp_path / "own" / name)
    size = yaml.safe_load((REPO / "examples/own/small.yaml").read_text())
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(size | {"experiments": {name: size["experiments"]["waves"]}}))
    config = CONFIG | {"size": str(path), "own_experiments": str(tmp_path / "own")}
    with pytest.raises(ValueError, match=f"config: the experiment is called '{name}'.* Give it another name."):
        plan.jobs(config, path)


def test_names_of_rules_are_taken():
    text = "".join(path.read_text() for path in (REPO / "workflow/rules").glob("*.smk"))
    assert set(re.findall(r"^rule (\w+):", text, re.MULTILINE)) <= plan.RULES


def test_a_folder_is_the_same_however_it_is_written():
    config = CONFIG | {"own_experiments": f"{REPO}/examples//own/"}
    assert plan.settled(config)["own_experiments"] == f"{REPO}/examples/own"


def test_a_missing_key_gives_one_clear_line():
    config = {key: value for key, value in CONFIG.items() if key != "device"}
    with pytest.raises(ValueError, match="config: the key 'device' is missing. Needed here: size, device, data,"):
        plan.read_config(config, SIZES)


def test_config_says_what_each_key_does():
    lines = (REPO / "config.yaml").read_text().splitlines()
    for key in CONFIG:
        place = next(i for i, line in enumerate(lines) if line.startswith(f"{key}:"))
        assert lines[place - 1].startswith("# "), f"{key} is not explained"
    assert len(lines) < 60


# ---------------------------------------------------------------- jobs and files


def test_seeds_share_jobs():
    assert plan.chunks(range(5), 2) == [(0, 1), (2, 3), (4, 4)]
    assert plan.chunks([100, 101, 102], 2) == [(100, 101), (102, 102)]
    jobs = jobs_of("quick", seeds={"omniglot_leap": 5})["omniglot_leap"]._replace(seeds_per_job=2)
    folder = "results/quick/omniglot_leap"
    assert plan.state_files(jobs._replace(n_tasks=[3]), "leap", 0, 4) == [
        f"{folder}/states/leap/tasks3/seeds{seeds}.safetensors" for seeds in ("0-1", "2-3", "4-4")
    ]
    assert plan.evaluations(jobs)[0] == ("leap", 0, 4)
    assert plan.state_files(jobs, "scratch", 0, 4) == []
    in_two = jobs._replace(seeds_per_evaluation=4, n_tasks=[1, 3])
    assert plan.evaluations(in_two)[:2] == [("leap", 0, 3), ("leap", 4, 4)]
    assert len(plan.state_files(in_two, "leap", 0, 3)) == 4 and len(plan.state_files(in_two, "leap", 4, 4)) == 2


def test_seeds_of_an_evaluation_are_whole_jobs_of_training(tmp_path):
    size = yaml.safe_load((SIZES / "quick.yaml").read_text())
    size["experiments"]["maze"] |= {"seeds": 8, "seeds_per_job": 3, "seeds_per_evaluation": 4}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(size))
    assert jobs_of(str(tmp_path / "mine.yaml"))["maze"].seeds_per_evaluation == 6


def test_trials_begin_at_another_seed(tmp_path):
    size = yaml.safe_load((SIZES / "quick.yaml").read_text()) | {"first_seed": 100}
    (tmp_path / "seeds100.yaml").write_text(yaml.safe_dump(size))
    with pytest.raises(ValueError, match="decides' is orders. Trial seeds .* Write: decides: nothing."):
        plan.read_size(tmp_path / "seeds100.yaml")
    size["decides"] = "nothing"
    size["experiments"]["maze"] |= {"seeds": 3, "seeds_per_job": 2}
    (tmp_path / "seeds100.yaml").write_text(yaml.safe_dump(size))
    jobs = jobs_of(str(tmp_path / "seeds100.yaml"))["maze"]
    assert jobs.seeds == [100, 101, 102] and jobs.folder == "results/seeds100/maze"
    assert plan.row_files(jobs)[0].endswith("seeds100-102.csv")
    assert plan.state_files(jobs, jobs.methods[0], 100, 102)[-1].endswith("seeds102-102.safetensors")


@pytest.mark.parametrize("first_seed", [1, 50, 99])
def test_trials_begin_at_seed_100_or_later(tmp_path, first_seed):
    size = yaml.safe_load((SIZES / "smoke.yaml").read_text()) | {"first_seed": first_seed}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(size))
    needed = f"mine.yaml: 'first_seed' is {first_seed}. Needed 0 for reported runs, or at least 100 for trials.$"
    with pytest.raises(ValueError, match=needed):
        plan.read_size(tmp_path / "mine.yaml", [])


def test_reported_seeds_are_never_those_of_trials(tmp_path):
    assert jobs_of("smoke", seeds=100)["sine"].seeds == list(range(100))
    message = "^config: sine has 150 seeds at .*yaml, and those from 100 on are for trials. Needed: at most 100 under"
    with pytest.raises(ValueError, match=message):
        jobs_of("smoke", experiments=["sine"], seeds=150)
    size = yaml.safe_load((SIZES / "smoke.yaml").read_text())
    size["experiments"]["sine"] |= {"seeds": 150, "seeds_per_evaluation": 150}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(size))
    with pytest.raises(ValueError, match=message):
        jobs_of(str(tmp_path / "mine.yaml"))
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(size | {"first_seed": 100}))
    assert jobs_of(str(tmp_path / "mine.yaml"))["sine"].seeds == list(range(100, 250))


def test_a_state_does_not_take_the_place_of_a_method(tmp_path):
    """Also not of a method that is not run. A method of another experiment may have its name."""
    about = {"experiment": "omniglot_leap", "method": "reptile", "n_tasks": [3], "seeds": [0, 1]}
    for name in ("leap", "reptile", "leap_to_the_end"):
        path = tmp_path / f"{name}.safetensors"
        states.write(path, {(3, 0): {"params": {"w": torch.zeros(1)}}}, about)
        message = f"^config: 'state' is {path}, which is called '{name}': that is taken. Give it another name.$"
        with pytest.raises(ValueError, match=message):
            jobs_of("smoke", state=str(path), methods={"omniglot_leap": ["reptile"]})
    path = tmp_path / "hyper_rnn.safetensors"
    states.write(path, {(3, 0): {"params": {"w": torch.zeros(1)}}}, about)
    jobs = jobs_of("smoke", state=str(path))["omniglot_leap"]
    assert plan.state_files(jobs, "hyper_rnn", 0, 1) == [str(path)]
    assert plan.state_files(jobs, "leap", 0, 0)[0].startswith("results/smoke/omniglot_leap/states/leap/")
    assert len(set(plan.row_files(jobs))) == len(plan.row_files(jobs))


def test_a_size_may_name_its_methods(tmp_path):
    size = yaml.safe_load((SIZES / "quick.yaml").read_text())
    size["experiments"]["maze"]["run"] = ["rnn_shifted", "rnn"]
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(size))
    assert jobs_of(str(tmp_path / "mine.yaml"))["maze"].methods == ["rnn", "rnn_shifted"]
    asked = jobs_of(str(tmp_path / "mine.yaml"), methods={"maze": ["warp_rnn"]})
    assert asked["maze"].methods == ["warp_rnn"]


def test_methods_and_experiments_of_config_yaml():
    jobs = jobs_of("smoke", experiments=["maze", "sine"], methods={"maze": ["warp_rnn", "rnn_shifted"]}, seeds=3)
    assert list(jobs) == ["maze", "sine"]
    assert jobs["maze"].methods == ["warp_rnn", "rnn_shifted"] and jobs["maze"].seeds == [0, 1, 2]
    assert "rnn_shifted" not in jobs_of("smoke")["maze"].methods  # only when it is asked for
    files = ["rows.csv", "runs.json", "table_maze.csv", "table_maze.md", "table_maze.json"]
    files += [f"figures/{name}.{kind}" for kind in ("png", "pdf") for name in ("maze_return", "maze_picture")]
    assert plan.outputs(jobs["maze"]) == [f"results/smoke/maze/{name}" for name in files]


def test_figures_read_what_they_say():
    jobs = jobs_of("quick")
    assert plan.figure_files(jobs["maze"]) == []
    folder = "results/quick/atari"
    assert plan.figure_files(jobs["atari"]) == [
        *(f"{folder}/runs/{method}/seeds{k}-{k}.npz" for method in jobs["atari"].methods for k in jobs["atari"].seeds),
        f"{folder}/meta_curves.csv",
    ]
    assert f"{folder}/meta_curves.csv" not in plan.figure_files(jobs["atari"]._replace(methods=["scratch"]))
