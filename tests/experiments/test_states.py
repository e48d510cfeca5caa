"""Files of learnt states: a state that was written can be read, and other files are refused in one line."""

import json

import calls
import pandas as pd
import pytest
import torch
from calls import NAME, rows_of

from leapwarp import plan
from leapwarp.data import store
from leapwarp.experiments import command, omniglot, states
from leapwarp.models.recurrent import rnn
from leapwarp.report import rows

STATE = {
    "params": {"head.weight": torch.arange(6.0).view(2, 3), "head.bias": torch.zeros(2)},
    "own": {"0": {"w": torch.ones(1)}, "1": {}},
    "warp": {},
    "met": torch.tensor([True, False]),
    "outer": {"momentum": torch.ones(2)},
    "warp_outer": {"count": 3},
}
ABOUT = {"experiment": NAME, "method": "leap", "n_tasks": [3], "seeds": [0, 4]}


def same(left, right):
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return torch.equal(left, right) and left.dtype == right.dtype


def test_a_state_is_read_as_it_was_written_without_what_outer_optimizers_keep(tmp_path):
    path = tmp_path / "state.safetensors"
    other = STATE | {"params": {"head.weight": torch.randn(2, 3)}}
    states.write(path, {(3, 0): STATE, (3, 4): other}, ABOUT)
    found, about = states.read(path)
    for seed, written in ((0, STATE), (4, other)):
        assert same(found[3, seed], {key: part for key, part in written.items() if not key.endswith("outer")})
    assert {key: about[key] for key in ABOUT} == ABOUT and len(about["checksum"]) == 64
    assert plan.state_header(path) == about  # read without torch


def test_what_is_no_state_is_refused_in_one_line(tmp_path):
    data = tmp_path / "data.safetensors"
    store.write(data, {"images": torch.zeros(2)}, {"source": "made up"})
    with pytest.raises(store.DataError, match=r"data.safetensors: holds something else, needed a state. Delete it"):
        states.read(data)
    with pytest.raises(ValueError, match="'state' is .*data.safetensors, which is damaged or something else; needed a"):
        plan.state_header(data)
    with pytest.raises(store.DataError, match="seeds0.pt: is a checkpoint of training, needed a state"):
        states.read(tmp_path / "seeds0.pt")
    with pytest.raises(store.DataError, match="no such data file"):
        states.read(tmp_path / "nothing.safetensors")


@pytest.mark.slow
def test_a_state_is_evaluated_with_the_settings_it_was_trained_with(tmp_path, made_up_alphabets):
    """It is evaluated by hand, in another folder, without the settings of its training; twice with the same rows."""

    def call(name, *arguments):
        return calls.call(tmp_path, "leapwarp.experiments.command", name, *arguments)

    small = '{"filters": 3, "inner_steps": 3, "meta_steps": 2, "meta_batch": 2, "n_test": 2, "n_validation": 2}'
    of = [NAME, "--method", "leap", "--data", made_up_alphabets]
    made = ["--out", "state.safetensors", "--history", "history.csv"]
    result = call("train", *of, "--n-tasks", 2, "--seeds", 3, "--settings", small, *made)
    assert result.returncode == 0, result.stdout
    evaluate = ["evaluate", *of, "--settings", '{"eval_steps": 4}', "--states", "state.safetensors"]
    assert call(*evaluate, "--out", "alone.csv", "--name", "mine").returncode == 0
    assert call(*evaluate, "--histories", "history.csv", "--out", "whole.csv").returncode == 0
    alone, whole = rows_of(tmp_path / "alone.csv"), rows_of(tmp_path / "whole.csv")
    assert {(row["method"], row["seed"], row["n_tasks"]) for row in alone} == {("mine", "3", "2")}
    history = rows_of(tmp_path / "history.csv")
    hashes = {row["settings"] for row in whole}
    assert len(hashes) == 1 and len(whole) == len(alone) + len(history)
    by_place = {(row["task"], row["step"], row["metric"]): row["value"] for row in whole}
    assert all(by_place[row["task"], row["step"], row["metric"]] == row["value"] for row in alone + history)
    assert max(int(row["step"] or 0) for row in alone) == 4

    refused = call(
        *["evaluate", *of[:1], "--method", "reptile", *of[3:]], "--states", "state.safetensors", "--out", "x.csv"
    )
    assert refused.returncode == 1 and "is a state of leap in omniglot_leap, needed one of reptile" in refused.stdout
    for meta_steps, refusal in (
        (2, None),
        (3, "state.safetensors: was trained with other settings (meta_steps is 2, n"),
    ):
        trained = ["--trained", small.replace('"meta_steps": 2', f'"meta_steps": {meta_steps}')]
        result = call(*evaluate, *trained, "--out", "y.csv")
        assert result.returncode == (1 if refusal else 0) and (refusal or "") in result.stdout, result.stdout
    refused = call("evaluate", *of, "--seeds", 0, "--out", "x.csv")
    assert "error: leap, evaluation: leap of omniglot_leap needs --states of its training." in refused.stdout
    refused = call("train", *of, "--seeds", 0, *made)
    assert "--n-tasks is 0, omniglot_leap needs 1 to 30." in refused.stdout
    refused = call("train", NAME, "--method", "scratch", "--data", made_up_alphabets, "--seeds", 0, *made)
    assert "scratch of omniglot_leap is not trained: needed the command evaluate." in refused.stdout
    refused = call("train", *of[:3], "--n-tasks", 1, "--seeds", 0, *made)
    assert "needed --data results/data/alphabets.safetensors" in refused.stdout
    assert not list(tmp_path.glob("x.csv")) and "Traceback" not in refused.stdout


def test_numbers_of_tasks_that_train_in_one_job_have_the_rows_of_those_that_do_not(tmp_path, made_up_alphabets):
    small = '{"filters": 3, "inner_steps": 3, "meta_steps": 2, "meta_batch": 2, "n_test": 2, "n_validation": 2}'
    of = [NAME, "--method", "leap", "--data", str(made_up_alphabets)]

    def rows_with(*jobs):
        made = []
        for place, counts in enumerate(jobs):
            state, history = (str(tmp_path / f"{len(jobs)}-{place}.{kind}") for kind in ("safetensors", "csv"))
            numbers = ["--n-tasks", *counts, "--seeds", "0", "1"]
            command.train([*of, "--settings", small, *numbers, "--out", state, "--history", history])
            made.append((state, history))
        states_of, histories = zip(*made, strict=True)
        out = str(tmp_path / f"{len(jobs)}.csv")
        options = ["--settings", '{"eval_steps": 4}', "--states", *states_of, "--histories", *histories, "--out", out]
        command.evaluate([*of, *options])
        found = rows.read(out)
        return found[~found["metric"].str.endswith("seconds")].drop(columns="seconds")

    together, apart = rows_with(["1", "3"]), rows_with(["1"], ["3"])
    assert set(zip(together["n_tasks"], together["seed"], strict=True)) == {(1, 0), (1, 1), (3, 0), (3, 1)}
    keys = ["n_tasks", "seed", "task", "step", "metric"]
    both = [frame.sort_values(keys, ignore_index=True) for frame in (together, apart)]
    assert both[0][keys].equals(both[1][keys])
    first = [frame[(frame["metric"] == "meta_loss") & (frame["step"] == 0)]["value"] for frame in both]
    pd.testing.assert_series_equal(*first, rtol=1e-5)  # later on, rounding decides which pixel is the largest
    found, about = states.read(tmp_path / "1-0.safetensors")
    assert set(found) == {(1, 0), (1, 1), (3, 0), (3, 1)} and about["n_tasks"] == [1, 3] and about["seeds"] == [0, 1]


def test_a_state_of_an_older_version_is_refused(tmp_path):
    path = tmp_path / "old.safetensors"
    about = {"about": json.dumps(ABOUT | {"n_tasks": 3}), "kind": states.KIND, "empty": "[]"}
    store.write(path, {"seed0/params/w": torch.zeros(2)}, about)
    with pytest.raises(store.DataError, match="old.safetensors: was written by an older version of leapwarp. Delete"):
        states.read(path)


def test_a_seed_that_diverges_leaves_the_others_written(tmp_path, made_up_alphabets, monkeypatch, capsys):
    """In training and in evaluation one line says why, its rows say that it diverged, and the other seeds have rows."""
    real = omniglot.set_up

    def spoilt(run, *others):
        found = real(run, *others)
        bad = {name: leaf * torch.nan for name, leaf in found.params.items()}
        return found._replace(params=bad) if run.seed == 4 else found

    monkeypatch.setattr(omniglot, "set_up", spoilt)
    small = '{"filters": 3, "inner_steps": 3, "meta_steps": 2, "meta_batch": 2, "n_test": 2, "n_validation": 2}'
    of = [NAME, "--method", "leap", "--data", str(made_up_alphabets), "--settings", small]
    state, history, out = (str(tmp_path / name) for name in ("state.safetensors", "history.csv", "rows.csv"))

    def train(*seeds):
        command.train([*of, "--n-tasks", "2", "--seeds", *seeds, "--out", state, "--history", history])

    train("3", "4")
    assert "leap, 2 tasks, seed 4, meta-step 0: the training loss of training task number" in capsys.readouterr().out
    command.evaluate([*of, "--states", state, "--histories", history, "--out", out])
    found = rows.read(out)
    assert found.loc[found["seed"] == 4, "metric"].tolist() == ["diverged"]
    beside = found[found["seed"] == 3]
    assert (beside["metric"] == "accuracy").sum() == 2
    with pytest.raises(SystemExit, match="error: leap, 2 tasks: leap, 2 tasks, seed 4, meta-step 0: the training loss"):
        train("4")
    scratch = [*of[:2], "scratch", *of[3:5]]
    options = ["--settings", '{"filters": 3, "n_test": 2, "n_validation": 2, "eval_steps": 2}', "--out", out]
    command.evaluate([*scratch, *options, "--seeds", "3", "4"])
    found = rows.read(out)
    assert found.loc[found["seed"] == 4, "metric"].tolist() == ["diverged"]
    with pytest.raises(SystemExit, match="the training loss of held-out task number 0 is nan at step 0"):
        command.evaluate([*scratch, *options, "--seeds", "4"])


def maze_state(path, *seeds, diverged=(), checksum="none"):
    """A state of `rnn` in the maze that was never trained."""
    small = {"interior": 3, "steps": 4, "batch": 2, "updates": 2, "hidden": 4, "every": 1}
    about = {"experiment": "maze", "method": "rnn", "n_tasks": [0], "held_out": "test", "settings": small}
    about |= {"seconds": {f"seed{seed}": 1.0 for seed in seeds}, "seeds": seeds}
    about |= {"data_source": "made up", "data_checksum": checksum}
    state = {"params": rnn(17, 4, 4).init(torch.Generator().manual_seed(0)), "warp": {}}
    found = {(0, seed): {} if seed in diverged else state for seed in seeds}
    states.write(path, found, about | {"diverged": {f"seed{seed}": "the loss was nan" for seed in diverged}})


def test_a_seed_that_diverged_is_a_row_also_without_the_history(tmp_path):
    state, out = tmp_path / "mine.safetensors", tmp_path / "rows.csv"
    maze_state(state, 1, 2, diverged=[1])
    evaluate = ["maze", "--method", "rnn", "--states", str(state), "--out", str(out), "--device", "cpu"]
    command.evaluate([*evaluate, "--name", "mine"])
    found = rows.read(out)
    assert found.loc[found["seed"] == 1, ["method", "metric", "value"]].to_numpy().tolist() == [["mine", "diverged", 1]]
    beside = set(found.loc[found["seed"] == 2, "metric"])
    assert beside and "diverged" not in beside
    with pytest.raises(SystemExit, match="error: hyper_rnn, evaluation: --name is hyper_rnn, which is another method"):
        command.evaluate([*evaluate, "--name", "hyper_rnn"])


def test_a_state_of_other_data_is_evaluated_under_its_own_name_only(tmp_path):
    state, out = tmp_path / "state.safetensors", tmp_path / "rows.csv"
    maze_state(state, 1, checksum="0123456789ab")
    evaluate = ["maze", "--method", "rnn", "--states", str(state), "--out", str(out), "--device", "cpu"]
    refusal = r"state.safetensors: was trained on other data \(made up, 0123456789ab\) than these \(simulated, none\)"
    with pytest.raises(SystemExit, match=refusal):
        command.evaluate(evaluate)
    assert not out.exists()
    command.evaluate([*evaluate, "--name", "mine"])
    assert set(rows.read(out)["method"]) == {"mine"}


def test_a_history_belongs_to_its_state(tmp_path):
    state, history, out = tmp_path / "state.safetensors", tmp_path / "history.csv", tmp_path / "rows.csv"
    maze_state(state, 2)
    evaluate = ["maze", "--method", "rnn", "--states", str(state), "--histories", str(history), "--out", str(out)]
    own = {"experiment": "maze", "method": "rnn", "n_tasks": 0, "seed": 2, "size": "own", "data_source": "simulated"}
    own |= {"data_checksum": "none", "settings": "x", "version": "1", "device": "cpu", "seconds": 1.0}
    for column, value in (("experiment", "sine"), ("method", "hyper_rnn"), ("n_tasks", 7), ("seed", 3)):
        rows.write(history, rows.rows([("", 0, "meta_loss", 123.0)], **own | {column: value}))
        message = f"history.csv: has rows of {column} {value}, needed {own[column]}, as its state .*state.safetensors.$"
        with pytest.raises(SystemExit, match=message):
            command.evaluate(evaluate)
        assert not out.exists()
    rows.write(history, rows.rows([("", 0, "meta_loss", 123.0)], **own))
    command.evaluate(evaluate)
    found = rows.read(out)
    assert found.loc[found["metric"] == "meta_loss", ["seed", "value"]].to_numpy().tolist() == [[2, 123]]
