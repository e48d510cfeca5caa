"""Random search: draws, settings from files, and the choice among trials."""

import json
import math
import re
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import yaml
from calls import REPO, jobs_of

from leapwarp import catalogue, plan, search
from leapwarp.data import textures
from leapwarp.data.classes import for_choosing
from leapwarp.experiments import command, trial
from leapwarp.experiments.base import SIMULATED, Evaluated, Experiment
from leapwarp.experiments.settings import changed, departures, of_size, winner
from leapwarp.report import rows as results
from leapwarp.report import search as table

SPACE = {"a": {"log_uniform": [0.001, 10]}, "b": {"uniform": [-2, 6]}, "c": {"choice": [1, 2, 5]}}
SIZES = {name: plan.read_size(REPO / f"workflow/sizes/{name}.yaml") for name in ("smoke", "quick", "paper")}
SEARCHED = {name: about for name in catalogue.names() if (about := catalogue.find(name)).search}
METHODS = [(name, method) for name, about in SEARCHED.items() for method in about.methods]


def draws(space=SPACE, n=2000, method="m"):
    return pd.DataFrame([search.draw(space, "e", method, number) for number in range(n)])


def test_draws_have_the_distributions_that_are_declared():
    found = draws()
    uniform = {"a": np.log10(found["a"]).add(3) / 4, "b": found["b"].add(2) / 8}
    for name, values in uniform.items():
        ordered = np.sort(values.to_numpy())
        assert ordered[0] >= 0
        assert ordered[-1] <= 1
        # Kolmogorov-Smirnov: with a random stream, the distance would be larger once in a thousand times
        assert np.abs(ordered - (np.arange(2000) + 0.5) / 2000).max() < 1.95 / math.sqrt(2000), name
    counts = found["c"].value_counts()
    assert sorted(counts.index) == [1, 2, 5] and counts.between(600, 735).all()  # 667 ± 3 std of 21
    assert found.rank().corr().abs().where(~np.eye(3, dtype=bool)).max().max() < 0.08


def test_a_trial_is_its_number_whatever_else_is_drawn():
    assert search.draw(SPACE, "e", "m", 7) == search.draw(SPACE, "e", "m", 7)
    assert search.draw({"a": SPACE["a"]}, "e", "m", 7)["a"] == search.draw(SPACE, "e", "m", 7)["a"]
    values = [
        search.draw(SPACE, e, m, k)["a"] for e, m, k in (("e", "m", 7), ("e", "m", 8), ("e", "n", 7), ("f", "m", 7))
    ]
    assert len(set(values)) == 4


@pytest.mark.parametrize(
    ("distribution", "message"),
    [
        ({"normal": [0, 1]}, "needed one of uniform, log_uniform, choice"),
        ({"log_uniform": [0, 1]}, "needed two positive numbers, the lower first"),
        ({"uniform": [1, 1]}, "needed two numbers, the lower first"),
        ({"choice": []}, "has no choices"),
        ({"uniform": [0, 1], "choice": [1]}, "needed one of"),
        (0.1, "needed one of"),
    ],
)
def test_a_distribution_that_is_none_is_named(distribution, message):
    with pytest.raises(ValueError, match=f"rate .*{message}"):
        search.draw({"rate": distribution}, "e", "m", 0)


@pytest.mark.parametrize(("experiment", "method"), METHODS)
def test_every_space_that_is_declared_fits_its_experiment(experiment, method):
    about = SEARCHED[experiment]
    for size in SIZES.values():
        entry = size.entries[experiment]
        fixed = entry.get("search", {}).get("settings", {})
        drawn = search.draw(about.search["spaces"][method], experiment, method, 0) | fixed
        before = of_size(about.module("run").EXPERIMENT, entry, "x")[method].settings
        assert asdict(changed(before, drawn, "x")) == asdict(before) | drawn


def test_the_paper_sizes_are_as_many_trials_as_it_says_of_every_method():
    searched = {name: SIZES["paper"].entries[name]["search"] for name in SEARCHED}
    trials = {name: one["trials"] for name, one in searched.items()}
    assert trials == {"few_shot": 50, "few_shot_tiered": 50, "multi_shot": 200}
    for name, about in SEARCHED.items():
        run = set(jobs_of("paper")[name].methods)
        assert run == set(searched[name]["methods"]) <= set(about.search["spaces"])


# ---------------------------------------------------------------- settings of sizes and of files


@dataclass(frozen=True)
class Settings:
    rate: float = 0.1
    steps: int = 3
    widths: tuple[int, ...] = (1, 2)
    patience: int | None = None
    n_test: int = 4


class Method(NamedTuple):
    settings: Settings


def methods(settings):
    return {"m": Method(settings), "fast": Method(replace(settings, rate=10 * settings.rate))}


TOY = Experiment(Settings(), methods, lambda run, state: Evaluated([]), evaluation=frozenset({"n_test"}))


def test_a_size_replaces_what_methods_share_before_they_depart_and_what_is_theirs_after():
    entry = {"settings": {"rate": 1, "widths": [4, 5], "patience": 2}, "methods": {"m": {"patience": None}}}
    found = of_size(TOY, entry, "x")
    assert found["m"].settings == Settings(1.0, 3, (4, 5))
    assert found["fast"].settings == Settings(10.0, 3, (4, 5), 2)
    given = departures(TOY, {"settings": {"steps": 3, "n_test": 2}, "methods": {"fast": {"rate": 5}}}, "x")
    assert given["m"] == {"train": {}, "evaluate": {"n_test": 2}}
    assert given["fast"] == {"train": {"rate": 5.0}, "evaluate": {"n_test": 2}}
    with pytest.raises(ValueError, match="x.methods: unknown method 'slow'. Known: m, fast."):
        of_size(TOY, {"methods": {"slow": {}}}, "x")
    with pytest.raises(ValueError, match="x.methods.m: unknown setting 'rat'"):
        of_size(TOY, {"methods": {"m": {"rat": 1}}}, "x")


def test_a_setting_of_all_methods_that_changes_none_is_refused():
    fixed = TOY._replace(methods=lambda settings: {"m": Method(replace(settings, rate=0.5))})
    of_size(fixed, {"settings": {"rate": 0.1, "steps": 9, "widths": [1, 2]}}, "x")  # two as published
    with pytest.raises(
        ValueError, match="x.settings: rate is 0.2, which changes no method: each has a value of its own"
    ):
        of_size(fixed, {"settings": {"rate": 0.2}}, "x")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rat": 0.5}, "unknown setting 'rat' (value 0.5). Known: rate, steps, widths, patience, n_test."),
        ({"steps": 0.5}, "the setting steps is 0.5, needed a value as 3."),
        ({"steps": True}, "the setting steps is True, needed a value as 3."),
        ({"rate": "fast"}, "the setting rate is 'fast', needed a value as 0.1, without quotes."),
        ({"rate": None}, "the setting rate is None, needed a value as 0.1."),
        ({"rate": -0.5}, "the setting rate is -0.5, needed a finite number of at least 0."),
        ({"rate": float("nan")}, "the setting rate is nan, needed a finite number of at least 0."),
        ({"steps": 0}, "the setting steps is 0, needed a finite number of at least 1."),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(values, message):
    with pytest.raises(ValueError, match=f"^{re.escape(f'x: {message}')}$"):
        changed(Settings(), values, "x")


def declare(path, **other):
    about = {"experiment": "toy_search", "method": "m", "settings": {"rate": 0.5}} | other
    path.write_text(yaml.safe_dump(about))
    return path


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"method": "n"}, "has the settings of n in toy_search, needed those of m in toy_search."),
        ({"size": "smoke"}, "was chosen with size smoke, needed quick."),
        ({"data_source": "glyphs"}, "was chosen with data_source glyphs, needed textures."),
        ({"settings": 3}, "needed a mapping with the keys experiment, method and settings."),
        ({"settings": {"rat": 1}}, "unknown setting 'rat' (value 1). Known: rate, steps."),
    ],
)
def test_a_wrong_file_of_settings_is_one_line_of_error(toy, tmp_path, other, message):
    path = declare(tmp_path / "s.yaml", **other)
    with pytest.raises(SystemExit) as ended:
        run(toy, tmp_path, "--winner", str(path))
    assert ended.value.code == f"error: m: {path}: {message}"
    assert not (tmp_path / "out.csv").exists()


def test_no_file_and_no_yaml_are_said(tmp_path):
    with pytest.raises(ValueError, match="found no such file, needed settings"):
        winner(tmp_path / "s.yaml", "toy_search", "m", "quick", "x")
    (tmp_path / "s.yaml").write_text("a: [1")
    with pytest.raises(ValueError, match="is not valid YAML"):
        winner(tmp_path / "s.yaml", "toy_search", "m", "quick", "x")


# ---------------------------------------------------------------- runs of trials


YAML = """
title: Toy
paper: leap
data: toy
table: table_toy
figures: {}
methods:
  m: {name: "Toy", colour: "#0072B2", marker: "s"}
"""
RUN = """
from dataclasses import dataclass
from typing import NamedTuple

import torch

from leapwarp.data import textures
from leapwarp.experiments.base import Evaluated, Experiment, Trained

SEEN = []


@dataclass(frozen=True)
class Settings:
    rate: float = 0.1
    steps: int = 3


class Method(NamedTuple):
    settings: Settings


def train(runs):
    (run,) = runs
    SEEN.append((run.data, run.identity))
    if run.method.settings.rate > 5:
        raise FloatingPointError("too fast.")
    return [Trained({"rate": torch.tensor(run.method.settings.rate, dtype=torch.float64)}, [("", 0, "loss", 1.0)], 1.0)]


def evaluate(run, state):
    if run.method.settings.rate > 4:
        raise FloatingPointError("too fast to judge.")
    return Evaluated([("t", None, "accuracy", float(state["rate"]))])


EXPERIMENT = Experiment(
    Settings(), lambda settings: {"m": Method(settings)}, evaluate, train, lambda path: textures.make((3, 2, 2), 2, 16)
)
"""


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """The folder of a user's experiment whose accuracy is its rate."""
    folder = tmp_path_factory.mktemp("mine") / "toy_search"
    folder.mkdir()
    for name, text in (("experiment.yaml", YAML), ("run.py", RUN), ("report.py", "QUANTITIES = {}\n")):
        (folder / name).write_text(text)
    return catalogue.find(str(folder))


def run(toy, folder, *extra):
    """Train and evaluate. -> the rows, and their provenance"""
    same = [str(toy.folder), "--method", "m", "--size", "quick", "--data", "x", "--device", "cpu", *extra]
    state, history, out = folder / "out.safetensors", folder / "history.csv", folder / "out.csv"
    command.train([*same, "--seeds", "0", "--out", str(state), "--history", str(history)])
    command.evaluate([*same, "--states", str(state), "--histories", str(history), "--out", str(out)])
    [origin] = json.loads(out.with_suffix(".json").read_text())
    return results.read(out), origin


def final(rows):
    return rows.loc[rows["step"].isna()]


def test_settings_are_part_of_what_a_run_is(toy, tmp_path):
    before, _ = run(toy, tmp_path)
    after, origin = run(toy, tmp_path, "--winner", str(declare(tmp_path / "s.yaml")))
    assert set(before["settings"]).isdisjoint(after["settings"])
    assert (final(after)["value"].item(), origin["settings"]["rate"], origin["held_out"]) == (0.5, 0.5, "test")
    *_, (_, first), (_, second) = toy.module("run").SEEN
    assert first["rate"] == 0.1 and second["rate"] == 0.5  # so the checkpoint of the other trial is refused


def test_a_trial_is_given_validation_classes_only(toy, tmp_path):
    run(toy, tmp_path)
    _, origin = run(toy, tmp_path, "--held-out", "validation")
    *_, (tested, first), (chosen, second) = toy.module("run").SEEN
    data = textures.make((3, 2, 2), 2, 16)
    assert tested.split == data.split and origin["held_out"] == "validation"
    assert not any(set(data.split["test"]) & set(part) for part in chosen.split.values())
    assert chosen.split["test"] == for_choosing(data).split["test"] == data.split["validation"]
    assert first != second


@pytest.mark.parametrize("rate", [4.5, 9])  # in evaluation, in training
def test_a_trial_that_diverges_is_a_result_and_another_run_is_not(toy, tmp_path, rate):
    diverges = ["--settings", json.dumps({"rate": rate})]
    rows, _ = run(toy, tmp_path, "--held-out", "validation", *diverges)
    assert final(rows)["metric"].tolist() == ["diverged"]
    with pytest.raises(SystemExit, match="too fast"):
        run(toy, tmp_path, *diverges)


def test_data_without_validation_classes_are_refused(toy, tmp_path, monkeypatch):
    module = toy.module("run")
    monkeypatch.setattr(module, "EXPERIMENT", module.EXPERIMENT._replace(load=lambda path: SIMULATED))
    with pytest.raises(SystemExit, match="toy_search has no validation classes; needed --held-out test"):
        run(toy, tmp_path, "--held-out", "validation")


def made(toy, folder, number, space, *extra):
    """The CSV of a trial, made by the command that makes them."""
    path = folder / f"{number}.csv"
    same = [str(toy.folder), "--method", "m", "--size", "quick", "--data", "x", "--device", "cpu"]
    trial.main([*same, "--number", str(number), "--space", json.dumps(space), *extra, "--out", str(path)])
    return path


def test_a_trial_is_a_draw_and_a_run_with_it(toy, tmp_path):
    space = {"rate": {"log_uniform": [0.01, 1]}, "steps": {"choice": [7, 8]}}
    path = made(toy, tmp_path, 3, space, "--fixed", '{"steps": 9}')
    found, [origin] = yaml.safe_load((tmp_path / "3.yaml").read_text()), json.loads((tmp_path / "3.json").read_text())
    rate = search.draw(space, "toy_search", "m", 3)["rate"]
    assert found["drawn"] == ["rate"] and found["settings"] == {"rate": rate, "steps": 9} == origin["settings"]
    assert final(results.read(path))["value"].item() == rate
    assert (origin["held_out"], origin["seed"], origin["training"]["held_out"]) == ("validation", 100, "validation")


# ---------------------------------------------------------------- the winner


def trials(toy, folder, *rates):
    fixed = ["--fixed", '{"steps": 2}']
    return [made(toy, folder, k, {"rate": {"choice": [rate]}}, *fixed) for k, rate in enumerate(rates)]


def test_the_winner_is_the_best_on_validation_classes(toy, tmp_path):
    paths = trials(toy, tmp_path, 0.2, 0.6, 0.4, 0.6, 9.0)
    options = ["--criterion", "accuracy", "--experiment", str(toy.folder), "--out-dir", str(tmp_path / "out")]
    table.main(["table", *options, *map(str, paths)])
    best = yaml.safe_load((tmp_path / "out/winner.yaml").read_text())
    assert best["settings"] == {"rate": 0.6}  # the drawn settings, without those of every trial
    assert (best["trial"], best["trials"], best["score"], best["size"]) == (1, 5, pytest.approx(60), "quick")
    assert pd.read_csv(tmp_path / "out/trials.csv")["trial"].tolist() == [1, 3, 2, 0, 4]
    assert re.search(r"\| 4 +\| diverged +\| 9 +\|", (tmp_path / "out/trials.md").read_text())
    # and it is a file of settings as runs read them
    rows, _ = run(toy, tmp_path, "--winner", str(tmp_path / "out/winner.yaml"))
    assert final(rows)["value"].item() == 0.6
    lowest = table.collect(paths, "error")["trial"].tolist()
    assert lowest == [1, 3, 2, 0, 4]  # the least error is the highest accuracy


def test_a_trial_that_saw_test_classes_is_refused(toy, tmp_path):
    paths = trials(toy, tmp_path, 0.2, 0.9)
    origin = paths[1].with_suffix(".json")
    origin.write_text(origin.read_text().replace('"held_out": "validation"', '"held_out": "test"'))
    with pytest.raises(ValueError, match="1.csv: was evaluated on test classes"):
        table.collect(paths, "accuracy")


def test_a_search_without_any_result_is_said(toy, tmp_path):
    with pytest.raises(ValueError, match="all 2 trials diverged"):
        table.collect(trials(toy, tmp_path, 9.0, 9.0), "accuracy")
    with pytest.raises(ValueError, match="needed 'auc'"):
        table.collect(trials(toy, tmp_path, 1.0), "auc")
    with pytest.raises(ValueError, match="toy_search has no quantity 'joy', needed one of accuracy, error"):
        table.collect(trials(toy, tmp_path, 1.0), "joy")


def test_the_figure_shows_every_trial(toy, tmp_path):
    figure = table.build(table.collect(trials(toy, tmp_path, 0.2, 0.6, 9.0), "accuracy"))
    [axes] = figure.axes
    shown = [tuple(np.round(line.get_xydata()[:, 0], 3)) for line in axes.lines]
    assert shown == [(0.6, 0.2), (0.6,), (9.0, 9.0)]
