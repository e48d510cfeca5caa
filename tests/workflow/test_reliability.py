"""Faults while the workflow runs (docs/reliability.md): there is one clear error, and no finished work is lost."""

import json
import os
import re
import shutil
import signal
import subprocess

import pytest
import torch
import yaml
from calls import (
    NAME,
    PATIENCE,
    REPO,
    SIZE,
    call,
    caught,
    edit,
    evaluated,
    rows_of,
    snakemake,
    snakemake_command,
    step_to,
    trained,
    work_out_settings,
)

pytestmark = pytest.mark.slow
HERE = f"results/{SIZE}/{NAME}"
STATE = f"{HERE}/states/leap/tasks1/seeds0-1.safetensors"
HISTORY = f"{HERE}/states/leap/tasks1/seeds0-1.csv"
RUN = f"{HERE}/runs/leap/seeds0-1.csv"
CHECKPOINT = f"{HERE}/checkpoints/leap/seeds0_1-tasks1.pt"
ROWS = f"{HERE}/rows.csv"
TABLE = f"{HERE}/table1.csv"
SMALL = json.dumps(yaml.safe_load((REPO / "workflow/sizes/smoke.yaml").read_text())["experiments"][NAME]["settings"])
LEAP = [("leap", 1, "0 1")]  # as `trained` gives it
ITS_EVALUATION = [("leap", "0-1")]  # as `evaluated` gives it


@pytest.fixture
def fresh(tmp_path, empty):
    return shutil.copytree(empty, tmp_path / "here")


@pytest.fixture
def begun(done):
    """The same folder without the results of leap."""
    for path in (STATE, HISTORY, RUN, ROWS):
        (done / path).unlink()
    shutil.rmtree(done / HERE / "checkpoints/leap")
    return done


@pytest.fixture
def done(tmp_path, finished):
    """A copy of `finished` that a test may damage."""
    return shutil.copytree(finished, tmp_path / "here")


def to_rows(folder):
    """Run snakemake up to the rows of the experiment."""
    return snakemake(folder, ROWS)


def lose(folder, *files):
    """Remove files and everything made from them, since snakemake only notices missing files that it needs."""
    for name in (*files, ROWS):
        (folder / name).unlink()


def check_whole(folder, finished, target=ROWS, methods=("scratch", "reptile", "leap")):
    """Check that everything exists, rows are those of an undisturbed run, and snakemake has nothing to do."""
    expected = [row for row in rows_of(finished / ROWS) if row["method"] in methods]
    assert rows_of(folder / ROWS) == expected != []
    assert "Nothing to be done" in snakemake(folder, target).stdout
    left = [path for path in (folder / "results").rglob(".*") if path.name != ".gitkeep"]
    assert not left, left  # no locks, no half-written files


def check_one_error(result, *messages):
    assert result.returncode != 0
    assert "Traceback" not in result.stdout, result.stdout
    for message in messages:
        assert message in result.stdout, result.stdout


def train(folder, *args):
    """Call the command `train` without the workflow."""
    return call(folder, "leapwarp.experiments.command", "train", *args)


def start(folder, *args, command="train"):
    """Start snakemake in the background, and wait until the run of leap holds its lock. -> snakemake, the run"""
    with open(folder / "snakemake.log", "w") as log:
        parent = subprocess.Popen(snakemake_command("--cores", "1", *args), cwd=folder, stdout=log, stderr=log)
    return parent, caught(folder, parent, "leap", command=command)[0]


def test_a_training_that_is_killed_is_resumed(fresh, finished):
    parent, run = start(fresh)
    run.kill()
    assert parent.wait(PATIENCE) != 0
    text = (fresh / "snakemake.log").read_text()
    assert "Error in rule train" in text and "logs/train/leap/tasks1/seeds0-1.log" in text
    assert re.search(r"^error: a job of rule train \(log \S+/leap/tasks1/seeds0-1.log\) was killed from", text, re.M)
    assert [method for method, _, _ in trained(text)] == ["leap", "reptile"]  # one failure did not stop the others
    assert [method for method, _ in evaluated(text)] == ["reptile", "scratch"]
    again = snakemake(fresh)
    assert again.returncode == 0 and trained(again.stdout) == LEAP and evaluated(again.stdout) == ITS_EVALUATION
    check_whole(fresh, finished, "all")


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_run_that_is_told_to_stop_says_so_and_is_resumed(begun, finished, command):
    parent, run = start(begun, ROWS, command=command)
    run.send_signal(signal.SIGTERM)
    run.resume()
    assert parent.wait(PATIENCE) != 0
    text = (begun / "snakemake.log").read_text()
    name = "leap, 1 tasks" if command == "train" else "leap, evaluation"
    assert f"{name}: stopped by SIGTERM; if started again, it continues" in text
    assert "non-zero exit status 75" in text and "Traceback" not in text
    again = to_rows(begun)
    assert again.returncode == 0 and trained(again.stdout) == (LEAP if command == "train" else [])
    check_whole(begun, finished)


def test_an_evaluation_that_is_killed_keeps_what_it_has_evaluated(begun, finished):
    parent, run = start(begun, ROWS, command="evaluate")
    first = begun / f"{HERE}/checkpoints/leap/seed0-tasks1-evaluated.pt"
    step_to(run, first)
    run.kill()
    assert parent.wait(PATIENCE) != 0
    assert "Error in rule evaluate" in (begun / "snakemake.log").read_text()
    made = first.stat().st_mtime_ns
    again = to_rows(begun)
    assert again.returncode == 0 and trained(again.stdout) == [] and evaluated(again.stdout) == ITS_EVALUATION
    assert first.stat().st_mtime_ns == made  # it was read, and not made again
    check_whole(begun, finished)


def test_a_snakemake_that_is_killed_leaves_a_lock_and_runs_that_are_not_disturbed(begun, finished):
    parent, run = start(begun, ROWS)
    parent.kill()
    parent.wait()
    check_one_error(to_rows(begun), "Directory cannot be locked", "--unlock")
    assert snakemake(begun, "--unlock").returncode == 0
    check_one_error(snakemake(begun, STATE), "another process is at work on this run", "Wait until it has ended")
    run.resume()
    run.wait(PATIENCE)
    again = to_rows(begun)
    assert again.returncode == 0, again.stdout
    assert trained(again.stdout) == []  # what the orphan computed is not computed again
    assert evaluated(again.stdout) == ITS_EVALUATION
    check_whole(begun, finished)


def test_a_second_snakemake_in_the_same_folder_is_refused(begun, finished):
    parent, run = start(begun, ROWS)
    check_one_error(to_rows(begun), "Directory cannot be locked")
    run.resume()
    assert parent.wait(PATIENCE) == 0
    check_whole(begun, finished)


@pytest.fixture
def mount():
    """A function that mounts file systems, which are unmounted at the end."""
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("needs root, to mount a small file system")
    mounted = []

    def mount(folder, *options):
        try:
            subprocess.run(["mount", *options, str(folder)], check=True, capture_output=True, text=True)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no mounting here: {error.stderr.strip()}")
        mounted.extend({folder} - set(mounted))

    yield mount
    for folder in reversed(mounted):
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk(fresh, finished, mount):
    edit(fresh / "config.yaml", lambda config: config["methods"].update({NAME: ["leap"]}))
    folder = fresh / f"results/{SIZE}"
    folder.mkdir()
    mount(folder, "-t", "tmpfs", "-o", "size=40k", "tmpfs")
    check_one_error(to_rows(fresh), "cannot be written (No space left on device)", "Make room")
    mount(folder, "-o", "remount,size=20m")
    assert to_rows(fresh).returncode == 0
    check_whole(fresh, finished, methods=["leap"])


def test_a_disk_that_fills_up_during_a_run_leaves_the_last_checkpoint(tmp_path, mount, made_up_alphabets):
    """The command is called without the workflow, on a disk that becomes full at some moment."""
    mount(tmp_path, "-t", "tmpfs", "-o", "size=1m", "tmpfs")
    command = [NAME, "--method", "leap", "--n-tasks", 1, "--seeds", 0, "--data", made_up_alphabets, "--settings", SMALL]
    command += ["--out", "state.safetensors", "--history", "history.csv", "--checkpoints", "."]
    assert train(tmp_path, *command).returncode == 0
    whole = rows_of(tmp_path / "history.csv")
    (tmp_path / "history.csv").unlink()
    (tmp_path / "state.safetensors").unlink()
    with pytest.raises(OSError, match="No space"):
        (tmp_path / "ballast").write_bytes(bytes(2 << 20))
    full = train(tmp_path, *command)
    assert full.returncode == 1 and "cannot be written (No space left on device)" in full.stdout
    assert "Traceback" not in full.stdout and not (tmp_path / "history.csv").exists()
    (tmp_path / "ballast").unlink()
    again = train(tmp_path, *command)
    assert again.returncode == 0 and "resumed at meta-step" in again.stdout
    assert rows_of(tmp_path / "history.csv") == whole


def test_results_that_cannot_be_written(done, finished, mount):
    folder = done / "results"
    edit(done / f"{SIZE}.yaml", lambda size: size["experiments"][NAME].update(n_tasks=[1, 2]))
    work_out_settings(done)
    mount(folder, "--bind", str(folder))
    mount(folder, "-o", "remount,ro,bind")
    result = to_rows(done)
    assert result.returncode != 0 and "Traceback" not in result.stdout
    assert "Write-protected" in result.stdout or "Read-only file system" in result.stdout
    subprocess.run(["mount", "-o", "remount,rw,bind", str(folder)], check=True)
    edit(done / f"{SIZE}.yaml", lambda size: size["experiments"][NAME].update(n_tasks=[1]))
    check_whole(done, finished)


def test_a_checkpoint_that_is_damaged_of_another_run_or_of_an_older_version(done, finished):
    """For all faults, the run is made again after the checkpoint is deleted. The last one shows this."""
    path = done / CHECKPOINT
    whole = torch.load(path, weights_only=True)
    other = torch.load(done / CHECKPOINT.replace("leap/seeds", "reptile/seeds"), weights_only=True)
    lose(done, STATE, HISTORY, RUN)
    path.write_bytes(path.read_bytes()[:-1000])
    check_one_error(to_rows(done), f"checkpoint {CHECKPOINT} is damaged", "Delete it to start this run from its")
    torch.save(other | {"active": ["0-tasks1", "1-tasks1"]}, path)
    check_one_error(to_rows(done), f"checkpoint {CHECKPOINT} belongs to an unfinished run", "method is 'reptile', this")
    old = json.dumps(json.loads(whole["fingerprint"]) | {"profile": "smoke"})
    torch.save(whole | {"fingerprint": old}, path)
    check_one_error(to_rows(done), f"checkpoint {CHECKPOINT} was written by an older version of leapwarp. Delete it")
    path.unlink()
    again = to_rows(done)
    assert again.returncode == 0 and trained(again.stdout) == LEAP
    check_whole(done, finished)


def test_a_state_that_is_damaged_or_of_another_method(done, finished):
    path = done / STATE
    damaged = bytearray(path.read_bytes())
    damaged[-5] ^= 0xFF
    lose(done, RUN)
    shutil.copy(done / STATE.replace("leap/tasks1", "reptile/tasks1"), path)
    check_one_error(to_rows(done), f"{STATE}: is a state of reptile in {NAME}, needed one of leap in {NAME}")
    path.write_bytes(damaged)
    check_one_error(to_rows(done), f"{STATE}: damaged, found checksum", "Delete it and run its rule again")
    path.unlink()
    again = to_rows(done)
    assert again.returncode == 0 and trained(again.stdout) == LEAP
    check_whole(done, finished)


def test_a_damaged_data_file(done, finished):
    path = done / "results/data/alphabets.safetensors"
    good, bad = path.read_bytes(), bytearray(path.read_bytes())
    bad[-5] ^= 0xFF
    path.write_bytes(bad)
    advice = "Delete it and run `python -m leapwarp.data.prepare` again"
    check_one_error(snakemake(done, RUN), "alphabets.safetensors: damaged, found checksum", advice)
    path.write_bytes(good)
    assert snakemake(done, RUN).returncode == 0
    log = (done / f"{HERE}/logs/train/leap/tasks1/seeds0-1.log").read_text()
    assert "seed 0 and 1 more: resumed at meta-step" in log  # its checkpoint is read, nothing is trained again
    assert rows_of(done / RUN) == rows_of(finished / RUN)
    assert "Nothing to be done" in snakemake(done, RUN).stdout


@pytest.mark.parametrize("name", [RUN, *(pytest.param(name, marks=pytest.mark.full) for name in (HISTORY, ROWS))])
def test_a_damaged_csv(done, finished, name):
    path = done / name
    path.write_text(path.read_text()[:-30])
    if name == HISTORY:
        lose(done, RUN)
    target = TABLE if name == ROWS else ROWS
    check_one_error(snakemake(done, target), f"{name}: found", "Delete the file and run its rule again")
    path.unlink()
    if name == RUN:
        (done / ROWS).unlink(missing_ok=True)
    again = snakemake(done, target)
    assert again.returncode == 0
    assert trained(again.stdout) == (LEAP if name == HISTORY else [])
    assert evaluated(again.stdout) == ([] if name == ROWS else ITS_EVALUATION)
    check_whole(done, finished)


@pytest.mark.parametrize(
    ("file", "change", "trains", "evaluates"),
    [
        (
            "config",
            lambda config: config["methods"][NAME].append("fomaml"),
            [("fomaml", 1, "0 1")],
            [("fomaml", "0-1")],
        ),
        ("config", lambda config: config["methods"][NAME].remove("reptile"), [], []),
        (
            SIZE,
            lambda size: size["experiments"][NAME].update(n_tasks=[1, 2]),
            [("leap", 2, "0 1"), ("reptile", 2, "0 1")],
            [("leap", "0-1"), ("reptile", "0-1")],  # their finished evaluations are kept
        ),
        (
            "config",
            lambda config: config.update(seeds={NAME: 4}),
            [("leap", 1, "2 3"), ("reptile", 1, "2 3")],
            [("leap", "0-3"), ("reptile", "0-3"), ("scratch", "0-3")],
        ),
    ],
    ids=["method", "dropped method", "count", "seeds"],
)
def test_an_edited_config_or_size_trains_only_what_it_changes(done, file, change, trains, evaluates):
    edit(done / f"{file}.yaml", change)
    work_out_settings(done)
    dry = snakemake(done, "--dry-run").stdout
    assert (trained(dry), evaluated(dry)) == (trains, evaluates)


def test_other_data_rerun_everything(fresh):
    (fresh / "results/data/alphabets.safetensors").unlink()
    edit(fresh / "config.yaml", lambda config: config["methods"].update({NAME: ["scratch"]}))
    assert to_rows(fresh).returncode == 0
    assert evaluated(snakemake(fresh, "--dry-run").stdout) == []
    edit(fresh / "config.yaml", lambda config: config["data"].update(source="auto"))
    again = snakemake(fresh, "--dry-run").stdout
    assert "python -m leapwarp.data.prepare --source auto" in again and evaluated(again) == [("scratch", "0-1")]


def test_a_file_of_an_unknown_method_or_count_is_refused_by_name(done):
    for name in (STATE.replace("leap/tasks1", "leep/tasks1"), RUN.replace("seeds0-1", "seedsx")):
        check_one_error(snakemake(done, "--dry-run", name), "MissingRuleException", name)


def test_a_loss_that_is_not_finite(fresh):
    """The same experiment with a learning rate with which training diverges."""
    settings = json.dumps(json.loads(SMALL) | {"inner_lr": 1e30})
    command = [NAME, "--method", "leap", "--n-tasks", 1, "--seeds", 0, "--settings", settings]
    command += ["--data", "results/data/alphabets.safetensors"]
    command += ["--out", "state.safetensors", "--history", "history.csv", "--checkpoints", "checkpoints"]
    result = train(fresh, *command)
    assert result.returncode == 1 and "Traceback" not in result.stdout
    [error] = [line for line in result.stdout.splitlines() if line.startswith("error: ")]
    assert error.startswith("error: leap, 1 tasks: leap, 1 tasks, seed 0, meta-step 0: the training loss of")
    assert "lower the task or meta learning rate" in error
    assert not (fresh / "state.safetensors").exists()


def test_where_every_result_came_from(finished):
    origins = {(run["method"], run["seed"]): run for run in json.loads((finished / f"{HERE}/runs.json").read_text())}
    assert sorted(origins) == [(method, seed) for method in ("leap", "reptile", "scratch") for seed in (0, 1)]
    leap, reptile = origins["leap", 0], origins["reptile", 0]
    assert leap["size"] == SIZE and leap["seconds"] >= leap["training"]["seconds"]["tasks1-seed0"] > 0
    assert leap["settings"]["inner_lr"] == 0.1 and leap["packages"]["torch"] == torch.__version__.split("+")[0]
    assert leap["data_source"] == "made_up" and leap["data_checksum"] == reptile["data_checksum"]
    assert leap["code"] == reptile["code"] and leap["machine"] and leap["device"]
    assert leap["training"]["version"] == leap["version"] and origins["scratch", 0]["training"] == {}
    for row in rows_of(finished / ROWS):
        origin = origins[row["method"], int(row["seed"])]
        assert (row["settings"], row["data_checksum"]) == (origin["settings_hash"], origin["data_checksum"])
