"""What can go wrong while the workflow runs (docs/reliability.md): one clear error, and nothing computed is lost."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
import yaml
from calls import NAME, caught, experiments, rows_of, snakemake, snakemake_command

pytestmark = pytest.mark.slow
RUN = f"results/smoke/{NAME}/runs/leap/tasks1/seeds0-1.csv"
CHECKPOINT = f"results/smoke/{NAME}/checkpoints/leap/tasks1/seed1.pt"
ROWS = f"results/smoke/{NAME}/rows.csv"


def edit(folder, change):
    config = yaml.safe_load((folder / "config.yaml").read_text())
    change(config)
    (folder / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.fixture
def fresh(tmp_path, empty):
    return shutil.copytree(empty, tmp_path / "here")


@pytest.fixture
def done(tmp_path, finished):
    """A copy of `finished` to do damage in."""
    return shutil.copytree(finished, tmp_path / "here")


def lose(folder):
    """Remove the results of the run of leap, and what was made of them: snakemake asks for a file that is used up."""
    (folder / RUN).unlink()
    (folder / ROWS).unlink()


def check_whole(folder, finished):
    """Everything is there, with the rows of a run that nothing happened to, and snakemake agrees."""
    assert rows_of(folder / ROWS) == rows_of(finished / ROWS)
    assert "Nothing to be done" in snakemake(folder).stdout
    left = [path for path in (folder / "results").rglob(".*") if path.name != ".gitkeep"]
    assert not left, left  # no locks, no half-written files


def check_one_error(result, *messages):
    assert result.returncode != 0
    assert "Traceback" not in result.stdout, result.stdout
    for message in messages:
        assert message in result.stdout, result.stdout


def start(folder, *args):
    """snakemake in the background, until the run of leap holds its lock. -> snakemake, the run"""
    with open(folder / "snakemake.log", "w") as log:
        parent = subprocess.Popen(snakemake_command("--cores", "1", *args), cwd=folder, stdout=log, stderr=log)
    return parent, caught(folder, parent, "leap")[0]


def test_a_run_that_is_killed_is_resumed(fresh, finished):
    parent, run = start(fresh)
    run.kill()
    assert parent.wait(120) != 0
    text = (fresh / "snakemake.log").read_text()
    assert "Error in rule run" in text and "logs/leap/tasks1/seeds0-1.log" in text
    others = experiments(text)
    assert [method for method, _, _ in others] == ["leap", "reptile", "scratch"]  # one failure did not stop them
    again = snakemake(fresh)
    assert again.returncode == 0 and experiments(again.stdout) == [("leap", 1, "0 1")]
    check_whole(fresh, finished)


def test_a_run_that_is_told_to_stop_says_so_and_is_resumed(fresh, finished):
    parent, run = start(fresh)
    run.send_signal(signal.SIGTERM)
    run.resume()
    assert parent.wait(120) != 0
    text = (fresh / "snakemake.log").read_text()
    assert "leap, 1 tasks: stopped by SIGTERM; started again, it goes on" in text
    assert "non-zero exit status 75" in text and "Traceback" not in text
    assert snakemake(fresh).returncode == 0
    check_whole(fresh, finished)


def test_a_snakemake_that_is_killed_leaves_a_lock_and_runs_that_are_not_disturbed(fresh, finished):
    parent, run = start(fresh)
    parent.kill()
    parent.wait()
    check_one_error(snakemake(fresh), "Directory cannot be locked", "--unlock")
    assert snakemake(fresh, "--unlock").returncode == 0
    check_one_error(snakemake(fresh, RUN), "another process is at work on this run", "Wait until it has ended")
    run.resume()
    run.wait(60)
    again = snakemake(fresh)
    assert again.returncode == 0, again.stdout
    assert ("leap", 1, "0 1") not in experiments(again.stdout)  # what the orphan computed is not computed again
    check_whole(fresh, finished)


def test_a_second_snakemake_in_the_same_folder_is_refused(fresh, finished):
    parent, run = start(fresh)
    check_one_error(snakemake(fresh), "Directory cannot be locked")
    run.resume()
    assert parent.wait(120) == 0
    check_whole(fresh, finished)


@pytest.fixture
def mount():
    """Mounts, taken away at the end."""
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
    folder = fresh / "results/smoke"
    folder.mkdir()
    mount(folder, "-t", "tmpfs", "-o", "size=100k", "tmpfs")
    check_one_error(snakemake(fresh), "cannot be written (No space left on device)", "Make room")
    mount(folder, "-o", "remount,size=20m")
    assert snakemake(fresh).returncode == 0
    check_whole(fresh, finished)


def test_a_disk_that_fills_up_during_a_run_leaves_the_last_checkpoint(tmp_path, mount, made_up_alphabets):
    """Beside the workflow: a disk that is full from some moment on."""
    mount(tmp_path, "-t", "tmpfs", "-o", "size=1m", "tmpfs")
    command = [sys.executable, "-m", f"leapwarp.experiments.{NAME}", "--profile", "smoke", "--method", "leap"]
    command += ["--n-tasks", "1", "--seeds", "0", "--data", str(made_up_alphabets)]
    command += ["--out", "rows.csv", "--checkpoints", "."]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    whole = rows_of(tmp_path / "rows.csv")
    (tmp_path / "rows.csv").unlink()
    with pytest.raises(OSError, match="No space"):
        (tmp_path / "ballast").write_bytes(bytes(2 << 20))
    full = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert full.returncode == 1 and "cannot be written (No space left on device)" in full.stderr
    assert "Traceback" not in full.stderr and not (tmp_path / "rows.csv").exists()
    (tmp_path / "ballast").unlink()
    again = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    assert "resumed at meta-step" in again.stdout
    assert rows_of(tmp_path / "rows.csv") == whole


def test_results_that_cannot_be_written(done, finished, mount):
    folder = done / "results"
    edit(done, lambda config: config["experiments"][NAME]["smoke"].update(n_tasks=[1, 2]))
    mount(folder, "--bind", str(folder))
    mount(folder, "-o", "remount,ro,bind")
    result = snakemake(done)
    assert result.returncode != 0 and "Traceback" not in result.stdout
    assert "Write-protected" in result.stdout or "Read-only file system" in result.stdout
    subprocess.run(["mount", "-o", "remount,rw,bind", str(folder)], check=True)
    edit(done, lambda config: config["experiments"][NAME]["smoke"].update(n_tasks=[1]))
    check_whole(done, finished)


def test_a_damaged_checkpoint(done, finished):
    path = done / CHECKPOINT
    path.write_bytes(path.read_bytes()[:-1000])
    lose(done)
    check_one_error(snakemake(done), f"checkpoint {CHECKPOINT} is damaged", "Delete it to start this run from its")
    path.unlink()
    again = snakemake(done)
    assert again.returncode == 0 and experiments(again.stdout) == [("leap", 1, "0 1")]
    check_whole(done, finished)


def test_a_checkpoint_of_another_run(done, finished):
    other = done / CHECKPOINT.replace("leap/tasks1", "reptile/tasks1")
    run = torch.load(other, weights_only=True)
    torch.save(run | {"finished": False}, done / CHECKPOINT)
    lose(done)
    check_one_error(snakemake(done), f"checkpoint {CHECKPOINT} is of an unfinished run", "method is 'reptile', this")
    (done / CHECKPOINT).unlink()
    assert snakemake(done).returncode == 0
    check_whole(done, finished)


def test_a_damaged_data_file(done, finished):
    path = done / "results/data/alphabets.safetensors"
    good, bad = path.read_bytes(), bytearray(path.read_bytes())
    bad[-5] ^= 0xFF
    path.write_bytes(bad)
    advice = "Delete it and run `python -m leapwarp.data.prepare` again"
    check_one_error(snakemake(done), "alphabets.safetensors: damaged, found checksum", advice)
    path.write_bytes(good)
    assert snakemake(done).returncode == 0
    log = (done / f"results/smoke/{NAME}/logs/leap/tasks1/seeds0-1.log").read_text()
    assert "seed 1: resumed at meta-step" in log  # evaluated again, not trained again
    check_whole(done, finished)


@pytest.mark.parametrize("name", [RUN, ROWS])
def test_a_damaged_csv(done, finished, name):
    path = done / name
    path.write_text(path.read_text()[:-30])
    check_one_error(snakemake(done), f"{name}: found", "Delete the file and run its rule again")
    path.unlink()
    again = snakemake(done)
    assert again.returncode == 0
    assert experiments(again.stdout) == ([("leap", 1, "0 1")] if name == RUN else [])
    check_whole(done, finished)


@pytest.mark.parametrize(
    ("change", "runs"),
    [
        (lambda config: None, []),
        (lambda config: config.update(device="cpu"), []),
        (lambda config: config["experiments"][NAME]["smoke"].update(mem_mb=999, runtime=99), []),
        (lambda config: config["experiments"][NAME]["quick"].update(n_tasks=[2]), []),
        (lambda config: config["experiments"][NAME]["methods"].append("fomaml"), [("fomaml", 1, "0 1")]),
        (lambda config: config["experiments"][NAME]["methods"].remove("reptile"), []),
        (
            lambda config: config["experiments"][NAME]["smoke"].update(n_tasks=[1, 2]),
            [("leap", 2, "0 1"), ("reptile", 2, "0 1")],
        ),
        (
            lambda config: config["experiments"][NAME]["smoke"].update(seeds=4),
            [("leap", 1, "2 3"), ("reptile", 1, "2 3"), ("scratch", 0, "0 1 2 3")],
        ),
    ],
    ids=["nothing", "device", "resources", "another size", "method", "dropped method", "count", "seeds"],
)
def test_an_edited_config_reruns_only_what_it_changes(done, change, runs):
    edit(done, change)
    assert experiments(snakemake(done, "--dry-run").stdout) == runs


def test_other_data_rerun_everything(fresh):
    (fresh / "results/data/alphabets.safetensors").unlink()
    edit(fresh, lambda config: config["experiments"][NAME].update(methods=[]))
    assert snakemake(fresh).returncode == 0
    assert experiments(snakemake(fresh, "--dry-run").stdout) == []
    edit(fresh, lambda config: config["data"].update(source="auto"))
    again = snakemake(fresh, "--dry-run").stdout
    assert "python -m leapwarp.data.prepare --source auto" in again and experiments(again) == [("scratch", 0, "0 1")]


def test_a_file_of_an_unknown_method_or_count_is_refused_by_name(done):
    for name in (RUN.replace("leap/tasks1", "leep/tasks1"), RUN.replace("seeds0-1", "seedsx")):
        check_one_error(snakemake(done, "--dry-run", name), "MissingRuleException", name)


def test_a_loss_that_is_not_finite(fresh):
    """The same experiment with a learning rate at which nothing can converge."""
    code = f"""
from dataclasses import replace
from leapwarp.experiments import {NAME} as experiment
experiment.PROFILES["smoke"] = replace(experiment.SMOKE, inner_lr=1e30)
experiment.cli()
"""
    command = [sys.executable, "-c", code, "--profile", "smoke", "--method", "leap", "--n-tasks", "1", "--seeds", "0"]
    command += ["--data", "results/data/alphabets.safetensors", "--out", "rows.csv", "--checkpoints", "checkpoints"]
    result = subprocess.run(command, cwd=fresh, capture_output=True, text=True)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert result.stderr.startswith("error: leap, 1 tasks: leap, 1 tasks, seed 0, meta-step 0: the training loss of")
    assert "lower the task or meta learning rate" in result.stderr
    assert not (fresh / "rows.csv").exists()


def test_where_every_result_came_from(finished):
    origins = {run["method"]: run for run in json.loads((finished / f"results/smoke/{NAME}/runs.json").read_text())}
    assert sorted(origins) == ["leap", "reptile", "scratch"]
    leap, reptile = origins["leap"], origins["reptile"]
    assert leap["seeds"] == [0, 1] and sorted(leap["seconds"]) == ["0", "1"]
    assert leap["settings"]["inner_lr"] == 0.1 and leap["packages"]["torch"] == torch.__version__.split("+")[0]
    assert leap["data_source"] == "made_up" and leap["data_checksum"] == reptile["data_checksum"]
    assert leap["code"] == reptile["code"] and leap["machine"] and leap["device"]
    for row in rows_of(finished / ROWS):
        origin = origins[row["method"]]
        assert (row["settings"], row["data_checksum"]) == (origin["settings_hash"], origin["data_checksum"])
