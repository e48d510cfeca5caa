"""The workflow on SLURM. `make test-slurm` starts one on this machine's loopback. A dry run only needs the plugin."""

import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import yaml
from calls import (
    NAME,
    PATIENCE,
    REPO,
    SIZE,
    caught,
    edit,
    jobs_of,
    rows_of,
    snakemake,
    snakemake_command,
    step_to,
)

from leapwarp import plan

pytestmark = pytest.mark.skipif(
    not find_spec("snakemake_executor_plugin_slurm"), reason="needs the SLURM plugin: make test-slurm installs it"
)
HERE = REPO / "tests/slurm"
PROFILE = ["--workflow-profile", str(REPO / "workflow/profiles/slurm")]
# For a test: no accounting database, and no minutes between two looks at the queue.
# The plugin looks after 2 seconds and, where nothing has ended, waits 10 more than before: after 14, then after 36.
QUICKLY = ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "5"]


OTHERS = {  # experiments that test_workflow.py leaves out, and methods of which their tables can be made
    "leap_ablation": ["leap_length_stabiliser"],
    "warp_ablation": ["warp_leap"],
    "natural_gradient": ["warp_linear", "sgd"],
    "theorem1": ["beta_0.01"],
    "geometry": ["linear_warp"],
    "surfaces": ["warpgrad", "gd"],
    "maze": ["rnn"],
    "few_shot_tiered": ["maml"],
    "inner_cost": ["leap"],
    "multicv": ["scratch"],
    "multi_shot": ["leap", "sgd_large"],
}
ON_A_CORE = {"maze", "sine", "surfaces", "inner_cost", "theorem1", "geometry", "atari"}  # the others take a GPU


@pytest.mark.slow
def test_each_run_of_paper_asks_for_what_it_needs(tmp_path):
    shutil.copy(REPO / "config.yaml", tmp_path)
    size = yaml.safe_load((REPO / "workflow/sizes/paper.yaml").read_text())
    for entry in size["experiments"].values():  # a whole job of training and a part of one; the others are alike
        entry["seeds"] = entry.get("seeds_per_job", 1) + 1
        if "n_tasks" in entry:
            entry["n_tasks"] = sorted({entry["n_tasks"][0], entry["n_tasks"][-1]})
    size["experiments"]["atari"]["chain"]["meta_steps"] = 2
    path = tmp_path / "short.yaml"  # which gets the memory and time of `paper`
    path.write_text(yaml.safe_dump(size))
    result = snakemake(tmp_path, *PROFILE, "--dry-run", "--config", "size=short.yaml")
    assert result.returncode == 0, result.stdout
    blocks = [block for block in result.stdout.split("\n[") if re.search(r"rule (train|evaluate\w*):", block)]
    for name, jobs in jobs_of(str(path)).items():
        mine = [block for block in blocks if f"experiment={name}, " in block]
        training = [method for method in jobs.methods if jobs.about.methods[method].trains and not jobs.chain]
        assert len(mine) == len(training) * len(plan.counts_of(jobs)) * -(-len(jobs.seeds) // jobs.seeds_per_job) + len(
            jobs.methods
        ) * -(-len(jobs.seeds) // jobs.seeds_per_evaluation)
        for block in mine:
            asked = re.search(r"resources: (.*)\n", block).group(1).split(", ")
            assert f"gpu={int(name not in ON_A_CORE)}" in asked and "slurm_partition=gpu" in asked
            assert "slurm_extra=--signal=TERM@300" in asked
            runtime, memory = (
                int(re.search(rf"{key}=(\d+)", " ".join(asked)).group(1)) for key in ("runtime", "mem_mb")
            )
            assert runtime >= 60 and memory >= 2000
    games = [block for block in result.stdout.split("\n[") if "rule atari_game:" in block]
    assert len(games) == 2 * 16 * size["experiments"]["atari"]["seeds"] and all(
        "runtime=1440" in block and "gpu=1" not in block for block in games
    )


def test_the_profile_has_what_the_default_one_has():
    default, slurm = (
        yaml.safe_load((REPO / f"workflow/profiles/{name}/config.yaml").read_text()) for name in ("default", "slurm")
    )
    same = default.keys() - {"cores", "set-resources"}
    assert {key: slurm.get(key) for key in same} == {key: default[key] for key in same}
    for rule, resources in default["set-resources"].items():
        assert resources.get("gpu") == slurm["set-resources"][rule].get("gpu"), rule


def daemons(sandbox):
    """The SLURM processes that the test has started and that still run."""
    pids = [int(path.read_text()) for path in sandbox.glob("*.pid")]
    return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A SLURM of one node with 8 CPUs and 4 simulated GPUs, which is removed completely afterwards."""
    if "LEAPWARP_TEST_SLURM" not in os.environ:
        pytest.skip("starts a SLURM on this machine: make test-slurm")
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip("needs root on Debian or Ubuntu")
    sandbox = tmp_path_factory.mktemp("slurm")
    sandbox.parent.chmod(0o755)
    environment = os.environ | {"SLURM_SANDBOX": str(sandbox)}
    try:
        up = subprocess.run([HERE / "up.sh"], env=environment, timeout=PATIENCE, stderr=subprocess.PIPE, text=True)
        assert up.returncode == 0, up.stderr
        started = daemons(sandbox)
        assert len(started) == 3
        yield sandbox
    finally:
        subprocess.run([HERE / "down.sh"], env=environment, check=True, timeout=PATIENCE)
    assert not [p for p in started if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert not Path("/etc/slurm/slurm.conf").exists() and not Path("/etc/slurm/gres.conf").exists()


def submitted(output):
    return re.findall(r"has been submitted with SLURM jobid (\d+)", output)


@pytest.mark.slurm
@pytest.mark.full
def test_the_smoke_size_on_slurm(slurm, tmp_path):
    """The experiments that test_workflow.py leaves out, with a method or two, in few jobs, give all local results."""
    size = yaml.safe_load((REPO / "workflow/sizes/smoke.yaml").read_text())
    for entry in size["experiments"].values():
        if "n_tasks" in entry:
            entry["n_tasks"] = entry["n_tasks"][:1]
    (tmp_path / "smoke.yaml").write_text(yaml.safe_dump(size))
    changes = {"size": "smoke.yaml", "experiments": list(OTHERS), "methods": OTHERS}
    if "LEAPWARP_DATA" not in os.environ:
        changes["data"] = {"source": "glyphs", "dir": ""}
    shutil.copy(REPO / "config.yaml", tmp_path)
    edit(tmp_path / "config.yaml", lambda config: config.update(changes))
    result = snakemake(tmp_path, *PROFILE, *QUICKLY, "--group-components", "train_smoke=12", "evaluate_smoke=12")
    assert result.returncode == 0, result.stdout[-5000:]
    assert 1 < len(set(submitted(result.stdout))) < 15
    for rule in ("prepare", "gather", "table", "figures_maze"):  # seconds: not worth a job
        assert f"localrule {rule}:" in result.stdout
    for name in OTHERS:
        assert (tmp_path / f"results/smoke/{name}/rows.csv").exists()
    assert "Nothing to be done" in snakemake(tmp_path).stdout


@pytest.mark.slurm
def test_jobs_that_are_killed_or_whose_time_is_over_are_resumed(slurm, tmp_path, empty):
    """One training is killed, and another training and an evaluation reach their time limits."""
    rows = f"results/{SIZE}/{NAME}/rows.csv"
    home, folder = (shutil.copytree(empty, tmp_path / name) for name in ("home", "here"))
    assert snakemake(home, rows).returncode == 0
    here = folder / f"results/{SIZE}/{NAME}"
    log = folder / "snakemake.log"
    asks = [f"{rule}:{what}" for rule in ("train", "evaluate") for what in ("mem_mb=2000", "runtime=60", "gpu=1")]
    command = snakemake_command(rows, *PROFILE, *QUICKLY, "--set-resources", *asks)
    with open(log, "w") as file:
        parent = subprocess.Popen(command, cwd=folder, stdout=file, stderr=file)
    # Both are stopped after their first meta-step: one by kill -9, one by SLURM, five minutes before its time is over.
    over, killed = caught(folder, parent, "leap", "reptile")
    devices = {process.environ()["CUDA_VISIBLE_DEVICES"] for process in (over, killed)}
    jobs = [process.environ()["SLURM_JOB_ID"] for process in (over, killed)]
    assert len(devices) == 2 and devices <= set("0123") and len(set(jobs)) == 2
    step_to(killed, here / "checkpoints/reptile/seeds0_1-tasks1.pt")
    killed.kill()
    step_to(over, here / "checkpoints/leap/seeds0_1-tasks1.pt")
    end(over, jobs[0])
    [evaluation] = caught(folder, parent, "leap", command="evaluate")
    step_to(evaluation, here / "checkpoints/leap/seed0-tasks1-evaluated.pt")
    end(evaluation, evaluation.environ()["SLURM_JOB_ID"])
    assert parent.wait(PATIENCE) == 0, log.read_text()

    text = log.read_text()
    assert len(set(submitted(text))) == 8  # two trainings twice, three evaluations of which one twice
    assert text.count("stopped by SIGTERM; if started again") >= 2 and "non-zero exit status 75" in text
    for method in ("leap", "reptile"):
        again = here / f"logs/train/{method}/tasks1/seeds0-1.log"
        assert "seed 0 and 1 more: resumed at meta-step" in again.read_text()
    assert "localrule gather:" in text  # seconds: not worth a job
    assert rows_of(folder / rows) == rows_of(home / rows) != []
    assert "Nothing to be done" in snakemake(folder, rows).stdout


def end(run, job):
    """Let SLURM end a suspended run, by shortening its limit to the five minutes that are left for saving.

    The limit counts from the job's start, which on a slow machine may be minutes ago.
    """
    ran = subprocess.run(["squeue", "-h", "-j", job, "-o", "%M"], check=True, capture_output=True, text=True).stdout
    seconds = sum(int(part) * 60**place for place, part in enumerate(reversed(re.split("[:-]", ran.strip()))))
    subprocess.run(["scontrol", "update", f"JobId={job}", f"TimeLimit={seconds // 60 + 5}"], check=True)
    run.wait(PATIENCE)  # SLURM wakes what is suspended when it sends the signal: nothing else lets this run end
