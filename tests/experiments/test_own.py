"""The example of an experiment of one's own, and what is said where its functions return something else."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from calls import REPO

from leapwarp import catalogue, plan
from leapwarp.experiments import command, resolve
from leapwarp.experiments.base import Evaluated
from leapwarp.experiments.settings import changed
from leapwarp.report import __main__ as report
from leapwarp.report import rows

OWN = REPO / "examples/own"
WAVES = str(OWN / "waves")


@pytest.fixture
def size():
    return plan.read_size(OWN / "small.yaml", [WAVES])


def run(folder, *line):
    """A command on the waves: train or evaluate."""
    name, method, *more = line
    files = {"train": ["--out", folder / f"{method}.safetensors", "--history", folder / f"{method}.history.csv"]}
    shared = [WAVES, "--method", method, "--size", "small", "--device", "cpu"]
    out = files.get(name, ["--out", folder / f"{method}.csv"])
    getattr(command, name)([str(each) for each in (*shared, *out, *more)])


@pytest.mark.slow
def test_the_example_learns_and_is_reported(size, tmp_path):
    resolve.check_report(size, REPO / "paper")
    run(tmp_path, "evaluate", "scratch", "--seeds", 0, 1)
    for method in ("leap", "leap_falling"):
        run(tmp_path, "train", method, "--seeds", 0, 1, "--settings", '{"meta_steps": 60}')
        states = ["--states", tmp_path / f"{method}.safetensors", "--histories", tmp_path / f"{method}.history.csv"]
        run(tmp_path, "evaluate", method, *states)
    about = catalogue.find(WAVES)
    frame = pd.concat([rows.read(tmp_path / f"{method}.csv") for method in about.methods], ignore_index=True)
    made = report.build(about, frame, report.printed(about, None), "a size")
    found = made.lines.set_index("method")["mean"]
    assert found["leap"] < 0.6 * found["scratch"] and found["leap_falling"] < 0.6 * found["scratch"]
    starts = frame.loc[(frame["method"] == "scratch") & (frame["metric"] == "train_loss") & (frame["step"] == 0)]
    assert starts["value"].nunique() == 2  # each seed has its own initialisation


@pytest.mark.parametrize(
    ("changes", "line", "message"),
    [
        ({"evaluate": lambda run, state: []}, ("evaluate", "scratch"), r"evaluate\(\) of .* returns list; needed Eval"),
        (
            {"evaluate": lambda run, state: Evaluated([("final_loss", 1.0, "x")])},
            ("evaluate", "scratch"),
            r"found the record \('final_loss', 1.0, 'x'\), needed \(task or '', step or None, metric, value\)",
        ),
        ({"train": lambda runs: []}, ("train", "leap"), r"train\(\) of waves returns list; needed a list with one Tr"),
        ({"train": lambda runs: None}, ("train", "leap"), r"train\(\) of waves returns NoneType; needed a list with"),
        ({"load": lambda path: {}}, ("train", "leap"), r"load\(\) of waves returns dict; needed an object with the te"),
    ],
)
def test_what_its_functions_must_return_is_said(tmp_path, monkeypatch, changes, line, message):
    module = catalogue.find(WAVES).module("run")
    monkeypatch.setattr(module, "EXPERIMENT", module.EXPERIMENT._replace(**changes))
    with pytest.raises(SystemExit, match=message):
        run(tmp_path, *line, "--seeds", 0)


@pytest.mark.parametrize("made", [None, {"final_loss": ("final_loss", "Loss", "nats", 3)}])
def test_quantities_are_asked_for_before_anything_runs(size, monkeypatch, made):
    monkeypatch.setattr(catalogue.find(WAVES).module("report"), "QUANTITIES", made)
    with pytest.raises(ValueError, match=r"report.py: needed QUANTITIES, a dictionary from names to Quantity\(...\)"):
        resolve.check_report(size, REPO / "paper")


def test_a_marker_that_cannot_be_drawn_is_told_before_anything_runs(size):
    about = size.experiments[WAVES]
    look = about.methods["leap_falling"].look._replace(marker="q")
    odd = about._replace(methods=about.methods | {"leap_falling": about.methods["leap_falling"]._replace(look=look)})
    with pytest.raises(ValueError, match="'methods.leap_falling.marker' is 'q'; needed one of matplotlib's: "):
        resolve.check_report(size._replace(experiments={WAVES: odd}), REPO / "paper")


def test_a_report_must_return_documents_with_lines_and_figures(monkeypatch):
    about = catalogue.find(WAVES)
    module = about.module("report")
    fixed = {"size": "small", "data_source": "simulated", "data_checksum": "0", "settings": "0", "version": "1"}
    fixed |= {"experiment": "waves", "device": "cpu", "seconds": 1.0, "n_tasks": 0, "seed": 0}
    frame = pd.concat([rows.rows([("wave00", None, "final_loss", 1.0)], method=m, **fixed) for m in about.methods])
    paper = report.printed(about, None)
    wrong = module.QUANTITIES["final_loss"]._replace(metric="fnal_loss")
    for name, value, message in (
        ("document", lambda frame, paper: None, r"document\(\) returns NoneType; needed Document\(title, blocks"),
        (
            "QUANTITIES",
            {"final_loss": wrong},
            "the table has no lines. Needed quantities of the metrics in the rows: f",
        ),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            with pytest.raises(ValueError, match=message):
                report.build(about, frame, paper, "a size")
    with monkeypatch.context() as patch:
        patch.setattr(module, "waves_curves", lambda frame, paper, files: None)
        with pytest.raises(ValueError, match=r"waves_curves\(\) returns NoneType; needed a figure"):
            report.draw_all(about, frame, paper, [])


@dataclass
class Settings:
    slope: float = -2.0
    shift: int = -1
    anything: Any = None


def test_settings_may_be_negative_where_the_published_one_is():
    for values in ({"slope": -3.0}, {"slope": 1.0}, {"shift": -4}, {"shift": 0}, {"anything": "x"}, {"anything": 2.0}):
        found = changed(Settings(), values, "here")
        assert {key: getattr(found, key) for key in values} == values
    with pytest.raises(ValueError, match="the setting slope is -inf, needed a finite number"):
        changed(Settings(), {"slope": float("-inf")}, "here")


def test_an_experiment_may_be_like_another_of_ones_own(tmp_path):
    shutil.copytree(OWN / "waves", tmp_path / "ripples")
    for name, like in (("again", "ripples"), ("lost", "nothing"), ("itself", "itself")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "experiment.yaml").write_text(f"like: {like}\ntitle: Again\ntable: table_again\n")
    found = catalogue.find(str(tmp_path / "again"))
    assert found.code == tmp_path / "ripples" and found.title == "Again" and "leap_falling" in found.methods
    for name in ("lost", "itself"):
        with pytest.raises(
            ValueError, match=r"'like' is '.*'; needed one of atari, .*, or the name of a folder beside"
        ):
            catalogue.find(str(tmp_path / name))


def test_the_traceback_of_an_error_in_ones_own_code_is_kept(tmp_path):
    shutil.copytree(OWN / "waves", tmp_path / "swell")
    path = tmp_path / "swell/run.py"
    path.write_text(path.read_text() + "\nSETTINGS['nothing']\n")
    size = tmp_path / "small.yaml"
    size.write_text((OWN / "small.yaml").read_text().replace("waves:", "swell:"))
    with pytest.raises(
        ValueError, match=r"unexpected NameError in swell/run.py, line \d+: .* is in .*small.log; fin"
    ) as told:
        plan.departures(size, [str(tmp_path / "swell")], tmp_path / "cache")
    log = Path(str(told.value).split(" is in ")[1].split(";")[0])
    assert "SETTINGS['nothing']" in log.read_text()


def test_draws_from_the_global_stream_are_those_of_the_seed(tmp_path, monkeypatch):
    module = catalogue.find(WAVES).module("run")
    made = lambda run, state: Evaluated([("wave00", None, "final_loss", float(torch.rand(())))])  # noqa: E731
    monkeypatch.setattr(module, "EXPERIMENT", module.EXPERIMENT._replace(evaluate=made))
    found = []
    for name in ("first", "again"):
        (tmp_path / name).mkdir()
        run(tmp_path / name, "evaluate", "scratch", "--seeds", 0, 1)
        found.append(rows.read(tmp_path / name / "scratch.csv")["value"].tolist())
    assert found[0] == found[1] and found[0][0] != found[0][1]
