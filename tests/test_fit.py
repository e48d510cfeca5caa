"""The outer loop: runs that are killed, damaged, edited, or diverge."""

import contextlib
import json
import math
import random
import shutil
import signal
import sys
import time
import zipfile

import pandas as pd
import pytest
import sizes
import torch
from calls import call, start_child
from cases import quadratic, quadratic_tasks, random_quadratics, small_warped

from leapwarp import interrupt, plan
from leapwarp.evaluate import evaluate
from leapwarp.experiments import command, states
from leapwarp.experiments.omniglot_warp import run as omniglot_warp
from leapwarp.fit import Fit, Member, fit, read
from leapwarp.learners import leap, scratch, warp_leap
from leapwarp.learners.base import one_run
from leapwarp.optim import sgd
from leapwarp.problem import lift, mean_square, stack_tasks, supervised
from leapwarp.report import rows
from leapwarp.trees import alone, leaves, repeat, stack

STEPS = 5
ABOUT = {"method": "m", "n_tasks": 0, "seed": 0, "size": "s", "data_source": "d", "data_checksum": "c"}
ABOUT |= {"settings": "x", "version": "1", "device": "cpu", "seconds": 1.0}


def shuffled(k):
    """Tasks whose mini-batches come in an order that depends on the meta-step."""
    _, _, tasks = small_warped()
    order = torch.randperm(tasks.order.shape[1], generator=torch.Generator().manual_seed(k))
    return tasks._replace(order=tasks.order[:, order])


def runs(folder, seeds, meta_steps=6, name="leap", fingerprint=None, sample=shuffled, **how):
    """Some seeds, fitted in one stack. All have the same tasks, and parameters that differ by the seed."""
    problem, params, _ = small_warped()
    learner = {"leap": leap, "warp_leap": warp_leap}[name](problem, sgd(0.1), sgd(0.1), STEPS)
    plan = Fit(meta_steps, checkpoints=folder, checkpoint_every=2, **how)
    members = [Member(seed, f"{name}, seed {seed}", (fingerprint or {"lr": 0.1}) | {"seed": seed}) for seed in seeds]
    starts = {n: torch.stack([leaf * (1 + 0.1 * seed) for seed in seeds]) for n, leaf in params.items()}
    return fit(learner, starts, lambda k, i: sample(k), plan, members)


def meta_train(folder, meta_steps=6, **how):
    """Seed 0 alone."""
    return runs(folder, [0], meta_steps, **how)[0]


def left(folder, seeds="0"):
    """The stack that a checkpoint holds."""
    return read(folder / f"seeds{seeds}.pt")[0]


@pytest.mark.parametrize("name", ["leap", "warp_leap"])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(tmp_path, name):
    path, whole = tmp_path, meta_train(None, name=name)

    with pytest.raises(ZeroDivisionError):
        meta_train(path, name=name, sample=interrupted_at(5, lambda: 1 / 0))
    assert left(path)["meta_step"] == 4
    resumed = meta_train(path, name=name)
    assert resumed.history == whole.history
    for key, leaf in leaves(whole.state).items():
        assert torch.equal(leaf, leaves(resumed.state)[key])


def test_early_stopping_keeps_the_best_state_and_counts_meta_steps(tmp_path):
    errors = iter([0.5, 0.3, 0.4, 0.35, 0.31, 0.1])
    fitted = meta_train(None, meta_steps=20, validate=lambda i, state: next(errors), validate_every=2, patience=6)
    assert fitted.meta_steps == 10  # best after 4, nothing better by 10
    best = meta_train(None, meta_steps=4)
    for key, leaf in leaves(fitted.state).items():
        assert torch.equal(leaf, leaves(best.state)[key])
    assert [step for step, metric, _ in fitted.history if metric == "validation_error"] == [1, 3, 5, 7, 9]


def test_a_run_stops_only_at_a_validation():
    """With a validation every four meta-steps and a patience of two, one without a better error ends it."""
    errors = iter([0.5, 0.4, 0.4])
    fitted = meta_train(None, meta_steps=20, validate=lambda i, state: next(errors), validate_every=4, patience=2)
    assert fitted.meta_steps == 12


def test_what_is_only_watched_never_ends_a_run(capsys):
    def watch(i, state):
        raise FloatingPointError("a test task diverged")

    how = {"validate": lambda i, state: 0.5, "validate_every": 2}
    watched, alone = (meta_train(None, **how, **more) for more in ({"watch": watch}, {}))
    assert watched.error is None and watched.history == alone.history
    assert "not watched: a test task diverged" in capsys.readouterr().out


def test_a_run_that_stopped_early_stays_stopped_when_started_again(tmp_path):
    path = tmp_path
    first = meta_train(path, meta_steps=20, validate=lambda i, state: 0.5, patience=3)
    again = meta_train(path, meta_steps=20, validate=lambda i, state: pytest.fail("nothing is left to do"), patience=3)
    assert again.history == first.history and again.meta_steps == first.meta_steps == 4


def interrupted_at(meta_step, how):
    """A sampler of tasks that calls a function at the given meta-step."""

    def sample(k):
        if k == meta_step:
            how()
        return shuffled(k)

    return sample


def test_a_checkpoint_of_an_unfinished_run_is_refused_by_other_settings_with_the_difference(tmp_path):
    path, other = tmp_path, {"lr": 0.1, "filters": 64}
    with pytest.raises(ZeroDivisionError):
        meta_train(path, fingerprint={"lr": 0.1, "filters": 16}, sample=interrupted_at(5, lambda: 1 / 0))
    with pytest.raises(ValueError, match="unfinished run .* filters is 16, this run needs 64. Delete it"):
        meta_train(path, fingerprint=other)


def test_a_finished_run_is_read_by_its_own_settings_and_replaced_by_others(tmp_path, capsys):
    path = tmp_path
    whole = meta_train(path, fingerprint={"lr": 0.1, "filters": 16})
    never = interrupted_at(0, lambda: pytest.fail("nothing is left to do"))
    again = meta_train(path, fingerprint={"lr": 0.1, "filters": 16}, sample=never)
    assert again.history == whole.history and again.seconds == whole.seconds
    meta_train(path, fingerprint={"lr": 0.1, "filters": 64})
    assert "filters is 16, this run needs 64): beginning anew" in capsys.readouterr().out
    assert left(path)["meta_step"] == 6


@pytest.fixture
def watched():
    """Handle signals as a run does, and restore the handlers afterwards."""
    before = {number: signal.getsignal(number) for number in interrupt.SIGNALS}
    interrupt.watch()
    yield
    interrupt.watch()  # forgets the signal
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", interrupt.SIGNALS)
def test_a_signal_in_the_middle_of_a_meta_step_saves_the_last_whole_one(tmp_path, watched, number):
    path, whole = tmp_path, meta_train(None)
    with pytest.raises(interrupt.Interrupted, match=number.name):
        meta_train(path, sample=interrupted_at(3, lambda: signal.raise_signal(number)))
    signal.raise_signal(number)  # a second signal changes nothing
    assert left(path)["meta_step"] == 3  # later than the last checkpoint, which was after 2
    interrupt.watch()  # as a new process would
    resumed = meta_train(path)
    assert resumed.history == whole.history
    for key, leaf in leaves(whole.state).items():
        assert torch.equal(leaf, leaves(resumed.state)[key])


def test_a_signal_that_a_library_makes_another_error_of_stops_the_run_all_the_same(tmp_path, watched):
    path = tmp_path

    def replaced():
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException:
            raise RuntimeError("could not determine the shape of an object") from None

    with pytest.raises(interrupt.Interrupted, match="SIGTERM"):
        meta_train(path, sample=interrupted_at(3, replaced))
    assert left(path)["meta_step"] == 3


def test_a_signal_that_a_library_swallows_stops_the_run_after_the_meta_step(tmp_path, watched):
    path, whole = tmp_path, meta_train(None)

    def swallowed():
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(interrupt.Interrupted, match="SIGTERM"):
        meta_train(path, sample=interrupted_at(3, swallowed))
    assert left(path)["meta_step"] == 4
    interrupt.watch()
    assert meta_train(path).history == whole.history


def test_the_command_leaves_with_the_exit_code_of_a_stop_whatever_the_error_is(tmp_path, watched, monkeypatch, capsys):
    def load_data(path):
        try:
            signal.raise_signal(signal.SIGUSR1)
        except BaseException:
            raise ValueError("could not determine the shape of an object") from None

    monkeypatch.setattr(omniglot_warp, "EXPERIMENT", omniglot_warp.EXPERIMENT._replace(load=load_data))
    with pytest.raises(SystemExit) as stop:
        command.train(train_line(tmp_path, "none", "leap", 1)[4:])
    assert stop.value.code == interrupt.EXIT_CODE
    assert "stopped by SIGUSR1" in capsys.readouterr().out


def test_a_signal_while_saving_leaves_a_whole_checkpoint(tmp_path, watched, monkeypatch):
    path = tmp_path
    write_bytes, calls = type(tmp_path).write_bytes, []

    def half(self, data):
        calls.append(self)
        if len(calls) == 2:
            write_bytes(self, bytes(data)[:100])
            signal.raise_signal(signal.SIGTERM)
        return write_bytes(self, data)

    monkeypatch.setattr(type(path), "write_bytes", half)
    with pytest.raises(interrupt.Interrupted):
        meta_train(path)
    assert left(path)["meta_step"] == 4
    assert [file.name for file in tmp_path.iterdir()] == ["seeds0.pt"]


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"not a checkpoint" * 9])
def test_a_damaged_checkpoint_is_named(tmp_path, damage):
    path = tmp_path
    meta_train(path)
    file = path / "seeds0.pt"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=r"seeds0.pt is damaged .*Delete it to start this run from its beginning"):
        meta_train(path)


def test_a_checkpoint_with_one_wrong_bit_is_named(tmp_path):
    """PyTorch reads it, with another number in its place."""
    meta_train(tmp_path)
    file = tmp_path / "seeds0.pt"
    content = file.read_bytes()
    for zipped in zipfile.ZipFile(file).infolist():
        if "/data/" not in zipped.filename:
            continue
        head = content[zipped.header_offset :][:30]  # then come the name, an extra field and the data
        start = zipped.header_offset + 30 + sum(int.from_bytes(head[k : k + 2], "little") for k in (26, 28))
        wrong = bytearray(content)
        wrong[start] ^= 1
        file.write_bytes(wrong)
        with pytest.raises(ValueError, match="seeds0.pt is damaged .*Delete it to start this run from its beginning"):
            meta_train(tmp_path)


def test_a_loss_that_is_not_finite_stops_the_run_and_says_where():
    matrices, centres = random_quadratics(3, 4)
    matrices[1] *= 1e150  # the second task blows up after a step or two
    problem, tasks = quadratic(matrices, centres), quadratic_tasks(3, STEPS + 1)
    learner = leap(problem, sgd(0.1), sgd(0.1), STEPS)
    params = {"w": torch.ones(1, 4, dtype=torch.float64)}
    with pytest.raises(FloatingPointError, match="leap on 3, meta-step 0: .* task number 1 is (inf|nan) at step [0-3]"):
        fit(learner, params, lambda k, i: tasks, Fit(2), [Member(0, "leap on 3", {})])


@pytest.mark.parametrize("rate", [1e30, 1e200])
def test_adapting_to_held_out_tasks_stops_where_the_loss_is_not_finite(rate):
    problem, params, tasks = small_warped()
    learner = scratch()
    state = learner.init(alone(params))
    with pytest.raises(FloatingPointError, match="of held-out task number [0-2] is (inf|nan) at step [1-9]"):
        evaluate(learner, state, problem, sgd(rate), tasks, 10, 2, 5)


def test_a_replay_that_diverges_is_told_from_the_tasks():
    problem, params, tasks = small_warped()
    learner = warp_leap(problem, sgd(0.1), sgd(1e300), STEPS)
    with pytest.raises(FloatingPointError, match="meta-step 0: the meta-loss of the warps is not finite from"):
        fit(learner, alone(params), lambda k, i: tasks, Fit(2), [Member(0, "warp_leap", {})])


# ---------------------------------------------------------------- runs side by side


def assert_same(one, other, exactly=True):
    tolerance = {"rtol": 0, "atol": 0} if exactly else {"rtol": 1e-9, "atol": 1e-12}
    assert one.meta_steps == other.meta_steps
    for (k, metric, value), (k_other, metric_other, value_other) in zip(one.history, other.history, strict=True):
        assert (k, metric) == (k_other, metric_other) and value == pytest.approx(value_other, rel=1e-9)
    torch.testing.assert_close(leaves(one.state), leaves(other.state), **tolerance)


@pytest.mark.parametrize("name", ["leap", "warp_leap"])
def test_a_resumed_stack_equals_an_uninterrupted_one_bit_for_bit(tmp_path, name):
    whole = runs(None, [0, 1, 4], name=name)
    with pytest.raises(ZeroDivisionError):
        runs(tmp_path, [0, 1, 4], name=name, sample=interrupted_at(5, lambda: 1 / 0))
    assert left(tmp_path, "0_1_4")["meta_step"] == 4
    for one, other in zip(whole, runs(tmp_path, [0, 1, 4], name=name), strict=True):
        assert_same(one, other)


def test_each_run_of_a_stack_is_the_run_alone_in_whatever_order():
    alone, together = ([runs(None, [seed])[0] for seed in (3, 0)], runs(None, [3, 0]))
    for one, other, third in zip(alone, together, reversed(runs(None, [0, 3])), strict=True):
        assert_same(one, other, exactly=False)
        assert_same(one, third, exactly=False)
    assert alone[0].history != alone[1].history


def parts(folder, keys, sample=shuffled):
    """Runs of one seed that differ in their part, as with other numbers of tasks, and in their parameters."""
    problem, params, _ = small_warped()
    how = Fit(6, checkpoints=folder, checkpoint_every=2)
    members = [Member(7, f"leap, part {key}", {"part": key}, f"part{key}") for key in keys]
    starts = {n: torch.stack([leaf * (1 + 0.1 * key) for key in keys]) for n, leaf in params.items()}
    return fit(leap(problem, sgd(0.1), sgd(0.1), STEPS), starts, lambda k, i: sample(k), how, members)


def test_runs_of_one_seed_with_different_parts_train_in_one_stack(tmp_path):
    whole = parts(None, [1, 2, 3])
    for one, key in zip(whole, (1, 2, 3), strict=True):
        assert_same(one, parts(None, [key])[0], exactly=False)
    with pytest.raises(ZeroDivisionError):
        parts(tmp_path, [1, 2, 3], interrupted_at(5, lambda: 1 / 0))
    assert [path.name for path in tmp_path.iterdir()] == ["seeds7-part1_part2_part3.pt"]
    for one, other in zip(whole, parts(tmp_path, [1, 2, 3]), strict=True):
        assert_same(one, other)
    again = parts(tmp_path, [3, 2], interrupted_at(0, lambda: pytest.fail("they are there")))
    assert [each.history for each in again] == [whole[2].history, whole[1].history]


def test_the_checkpoint_of_many_runs_has_a_short_name_and_is_found(tmp_path):
    many = list(range(1, 30))
    whole = parts(tmp_path, many)
    (path,) = tmp_path.iterdir()
    assert path.name.startswith("seeds29_runs_from_7-part1_to_7-part29_") and len(path.name) < 100
    (tmp_path / "seeds7-part30.pt").write_text("damaged, and of another run")
    (tmp_path / "seeds8_9-part17_part18.pt").write_text("damaged, and of other seeds")
    (again,) = parts(tmp_path, [17], interrupted_at(0, lambda: pytest.fail("it is there")))
    assert again.history == whole[16].history


def test_seeds_that_are_added_are_trained_beside_what_is_there(tmp_path):
    first = runs(tmp_path, [0, 1])
    steps = []
    more = runs(tmp_path, [0, 1, 2], sample=lambda k: steps.append(k) or shuffled(k))
    assert steps == [0, 1, 2, 3, 4, 5]  # of seed 2 alone
    for one, other in zip(first, more, strict=False):
        assert_same(one, other)
    assert_same(more[2], runs(None, [2])[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["seeds0_1.pt", "seeds2.pt"]


def test_unfinished_seeds_go_on_together_and_a_new_one_after_them(tmp_path):
    whole = runs(None, [0, 1])
    with pytest.raises(ZeroDivisionError):
        runs(tmp_path, [0, 1], sample=interrupted_at(5, lambda: 1 / 0))
    steps = []
    more = runs(tmp_path, [1, 2, 0], sample=lambda k: steps.append(k) or shuffled(k))
    assert steps == [4, 4, 5, 5, 0, 1, 2, 3, 4, 5]
    assert_same(more[0], whole[1])
    assert_same(more[2], whole[0])
    assert (
        runs(tmp_path, [1], sample=interrupted_at(0, lambda: pytest.fail("it is there")))[0].history == more[0].history
    )


def test_a_seed_taken_out_of_an_unfinished_stack_goes_on_from_where_it_was(tmp_path):
    with pytest.raises(ZeroDivisionError):
        runs(tmp_path, [0, 1], sample=interrupted_at(5, lambda: 1 / 0))
    steps = []
    (one,) = runs(tmp_path, [1], sample=lambda k: steps.append(k) or shuffled(k))
    assert steps == [4, 5]
    assert_same(one, runs(None, [1])[0], exactly=False)


@pytest.mark.parametrize(
    ("errors", "best"),
    [
        ([0.5, 0.5 - 1e-8, 0.5 - 2e-8, 0.5], 1),  # equal counts of wrong answers, added up in another order
        ([0.5, 0.49999, 0.5, 0.5], 2),
        ([math.nan, 0.5, math.nan, 0.6], 2),
        ([-1.0, -1.0 + 1e-8, -1.1, -1.1], 3),
        ([0.0, 0.0, 0.0, 0.0], 1),
    ],
)
def test_an_improvement_is_more_than_rounding(errors, best):
    found = iter(errors)
    how = {"validate_every": 1, "keep_best": True}
    fitted = meta_train(None, meta_steps=4, validate=lambda i, state: next(found), **how)
    torch.testing.assert_close(fitted.state, meta_train(None, meta_steps=best).state)


def test_each_run_stops_by_its_own_validation_and_keeps_its_own_best():
    errors = {0: iter([0.5, 0.3, 0.4, 0.35]), 1: iter([0.5, 0.4, 0.3, 0.2, 0.1, 0.05])}
    how = {"validate_every": 1, "patience": 2}
    short, long = runs(None, [0, 1], validate=lambda i, state: next(errors[i]), **how)
    assert (short.meta_steps, long.meta_steps) == (4, 6)
    best = runs(None, [0], meta_steps=2)[0]
    torch.testing.assert_close(leaves(short.state), leaves(best.state), rtol=1e-9, atol=1e-12)
    assert_same(long._replace(history=[]), runs(None, [1])[0]._replace(history=[]), exactly=False)


def test_a_run_that_diverges_leaves_the_others_as_they_would_be(tmp_path, capsys):
    problem, params, tasks = small_warped()
    learner = leap(problem, sgd(0.1), sgd(0.1), STEPS)
    starts = {name: torch.stack([leaf, leaf * torch.nan, leaf * 1.1]) for name, leaf in params.items()}
    members = [Member(seed, f"leap, seed {seed}", {}) for seed in (5, 6, 7)]
    how = Fit(4, checkpoints=tmp_path)
    good, bad, fine = fit(learner, starts, lambda k, i: tasks, how, members)
    assert bad.error and not bad.state and bad.meta_steps == 1 and good.error is None
    assert "leap, seed 6, meta-step 0: the training loss of training task number" in capsys.readouterr().out
    for i, found in ((0, good), (2, fine)):
        (one,) = fit(
            learner, {n: leaf[i : i + 1] for n, leaf in starts.items()}, lambda k, i: tasks, Fit(4), [members[i]]
        )
        assert_same(found, one, exactly=False)
    again = fit(learner, starts, lambda k, i: pytest.fail("it is there"), how, members)
    assert again[1].error == bad.error and again[0].history == good.history
    with pytest.raises(FloatingPointError, match="leap, seed 6, meta-step 0"):
        fit(learner, {n: leaf[1:2] for n, leaf in starts.items()}, lambda k, i: tasks, Fit(4), members[1:2])


def test_a_learner_of_one_run_refuses_several():
    learner = one_run(scratch())
    with pytest.raises(ValueError, match="trains one run at a time, got 2"):
        learner.init(repeat({"task": torch.ones(1)}, 2))


# ---------------------------------------------------------------- the command, killed at a random moment


def train_line(folder, data, method, n_tasks):
    """The command that trains two seeds of a method in `folder`."""
    settings = plan.read_size(sizes.SIZES / "smoke.yaml", ["omniglot_warp"]).entries["omniglot_warp"]["settings"]
    return [
        *(sys.executable, "-m", "leapwarp.experiments", "train", "omniglot_warp", "--method", method),
        *("--n-tasks", str(n_tasks), "--seeds", "0", "1", "--data", str(data), "--device", "cpu"),
        *("--settings", json.dumps(settings), "--out", str(folder / "state.safetensors")),
        *("--history", str(folder / "history.csv"), "--checkpoints", str(folder / "checkpoints")),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("method", [pytest.param("leap", marks=pytest.mark.full), "warp_leap"])
def test_training_killed_at_a_random_moment_resumes_to_the_same_state(tmp_path, made_up_alphabets, method):
    whole, killed, log = tmp_path / "whole", tmp_path / "killed", tmp_path / "log"
    run = (log, "leapwarp.experiments.command", "train")
    began = time.monotonic()
    start_child(tmp_path, *run, *train_line(whole, made_up_alphabets, method, 2)[4:]).join()
    length = time.monotonic() - began
    line, kills = train_line(killed, made_up_alphabets, method, 2)[4:], 0
    while kills < 2:  # at random moments of the run
        process = start_child(tmp_path, *run, *line)
        process.join(timeout=random.uniform(0, 1) * length)
        assert not process.exitcode, log.read_text()
        if process.exitcode == 0:
            shutil.rmtree(killed)  # it was faster than the run that was timed, so it starts again
            length *= 0.8
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
    start_child(tmp_path, *run, *line).join()
    frames = [rows.read(folder / "history.csv") for folder in (whole, killed)]
    timed = frames[0]["metric"].str.endswith("seconds")
    pd.testing.assert_frame_equal(*(f[~timed].drop(columns="seconds") for f in frames))
    found = [leaves(states.read(folder / "state.safetensors")[0]) for folder in (whole, killed)]
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(leaf, found[1][key]) for key, leaf in found[0].items())
    left = sorted(path.name for path in (killed / "checkpoints").iterdir())
    assert left == ["seeds0_1-tasks2.pt"]
    assert not list(killed.glob(".*"))  # no lock, no half-written file


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--method": "unknown"}, "omniglot_warp has no method 'unknown', needed one of scratch, "),
        ({"--method": "scratch"}, "scratch of omniglot_warp is not trained"),
        ({"--n-tasks": "40"}, "found 8 alphabets with at least 20 characters; 40 training tasks"),
        ({"--n-tasks": "0"}, "--n-tasks is 0, omniglot_warp needs 1 to 26"),
        ({"--seeds": "-1"}, "needed a whole number from 0 to 999999999999999999, got '-1'"),
        ({"--seeds": "1"}, "needs each number once, got 1 1"),
        ({"--device": "tpu"}, "device 'tpu' cannot be used here"),
        ({"--data": "nowhere.safetensors"}, "nowhere.safetensors"),
        ({"--settings": '{"colour": 3}'}, "unknown setting 'colour'"),
    ],
)
def test_bad_arguments_give_one_clear_error(tmp_path, made_up_alphabets, change, message):
    line = train_line(tmp_path, made_up_alphabets, "leap", 2)
    for option, value in change.items():
        line[line.index(option) + 1] = value
    run = call(tmp_path, "leapwarp.experiments.command", "train", *line[4:])
    assert run.returncode != 0 and message in run.stdout and "Traceback" not in run.stdout
    assert not (tmp_path / "state.safetensors").exists()


def test_how_far_a_run_has_moved_is_told_for_warps_and_initialisation():
    _, params, _ = small_warped()
    fitted = runs(None, [0, 2], name="warp_leap", meta_steps=2)
    for seed, found in zip((0, 2), fitted, strict=True):
        start = {name: leaf * (1 + 0.1 * seed) for name, leaf in params.items()}
        for metric, group in (("moved_warps", "warp"), ("moved_init", "params")):
            end = found.state[group]
            change = sum((end[name] - start[name]).square().sum() for name in end).sqrt()
            norm = sum(start[name].square().sum() for name in end).sqrt()
            assert found.moved[metric] == pytest.approx(float(change / norm)) and found.moved[metric] > 0
            assert found.history[-1][0] == 1 and (1, metric, found.moved[metric]) in found.history


class Residual(torch.nn.Linear):
    """A warp that begins as the identity if its parameters begin at zero."""

    def forward(self, x):
        return x + super().forward(x)


def test_numbers_that_do_not_exist_are_left_out_so_that_rows_can_be_written():
    """A regression has no accuracy, and warps that began at zero have no relative distance. Each run has its own."""
    net = torch.nn.Sequential(torch.nn.Linear(1, 4), Residual(4, 4), torch.nn.Linear(4, 1))
    model = lift(net, warp="1")
    x = torch.rand(2, 20, 1, generator=torch.Generator().manual_seed(0))
    learner = warp_leap(supervised(model, mean_square), sgd(0.1), sgd(0.1), 2)
    params = model.init(torch.Generator().manual_seed(0))
    zero = {name: torch.zeros_like(leaf) if name.startswith("warp.") else leaf for name, leaf in params.items()}

    def sample(k, i):
        return stack_tasks(list(zip(x, 2 * x, strict=True)), learner.draws, 5, torch.Generator().manual_seed(k))

    members = [Member(seed, "mine", {}) for seed in (0, 1)]
    found = fit(learner, stack([zero, params]), sample, Fit(2), members)
    assert [each.moved.keys() for each in found] == [{"moved_init"}, {"moved_init", "moved_warps"}]
    for run in found:
        assert {metric for _, metric, _ in run.history} == {"meta_loss", "replay_loss", *run.moved}
        assert not rows.rows([("", *record) for record in run.history], experiment="mine", **ABOUT).empty
