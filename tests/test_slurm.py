"""The workflow on SLURM: `make test-slurm` sets one up on this machine's loopback; a dry run needs the plugin only."""

import os
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
import yaml
from calls import NAME, REPO, caught, experiments, rows_of, snakemake, snakemake_command, step_to

pytestmark = pytest.mark.skipif(
    not find_spec("snakemake_executor_plugin_slurm"), reason="needs the SLURM plugin: make test-slurm installs it"
)
HERE = Path(__file__).parent / "slurm"
PROFILE = ["--workflow-profile", str(REPO / "workflow/profiles/slurm")]
# For a test: no accounting database, and no minutes between two looks at the queue.
QUICKLY = ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "8", "--latency-wait", "5"]


@pytest.mark.slow
def test_each_run_of_paper_asks_for_what_it_needs(tmp_path):
    shutil.copy(REPO / "config.yaml", tmp_path)
    result = snakemake(tmp_path, *PROFILE, "--dry-run", "--config", "profile=paper")
    assert result.returncode == 0, result.stdout
    config = yaml.safe_load((REPO / "config.yaml").read_text())["experiments"]
    for name, block in config.items():
        size = block["paper"]
        n_runs = len(block["methods"]) * len(size.get("n_tasks", [0])) * size["seeds"] // size["seeds_per_job"]
        n_runs += len(block.get("baselines", []))
        pattern = rf"experiment={name}, method=.*\n(?: +priority: .*\n)? +resources: (.*)\n"
        found = re.findall(pattern, result.stdout)
        assert len(found) == n_runs
        for resources in found:
            for asked in (
                f"mem_mb={size['mem_mb']}",
                f"runtime={size['runtime']}",
                f"gpu={size['gpu']}",
                "slurm_partition=gpu",
            ):
                assert asked in resources.split(", ")
            assert "slurm_extra=--signal=TERM@300" in resources


def test_the_profile_has_what_the_default_one_has():
    default, slurm = (
        yaml.safe_load((REPO / f"workflow/profiles/{name}/config.yaml").read_text()) for name in ("default", "slurm")
    )
    assert {key: slurm.get(key) for key in default.keys() - {"cores"}} == {
        key: default[key] for key in default.keys() - {"cores"}
    }


def daemons(sandbox):
    """What the sandbox has started and what still runs."""
    pids = [int(path.read_text()) for path in sandbox.glob("*.pid")]
    return [psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)]


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    """A SLURM of one node with 8 CPUs and 4 GPUs to pretend; afterwards nothing of it is left."""
    if "LEAPWARP_TEST_SLURM" not in os.environ:
        pytest.skip("starts a SLURM on this machine: make test-slurm")
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip("needs root on Debian or Ubuntu")
    sandbox = tmp_path_factory.mktemp("slurm")
    sandbox.parent.chmod(0o755)
    environment = os.environ | {"SLURM_SANDBOX": str(sandbox)}
    try:
        up = subprocess.run([HERE / "up.sh"], env=environment, timeout=120, stderr=subprocess.PIPE, text=True)
        assert up.returncode == 0, up.stderr
        started = daemons(sandbox)
        assert len(started) == 3
        yield sandbox
    finally:
        subprocess.run([HERE / "down.sh"], env=environment, check=True, timeout=60)
    assert not [p for p in started if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    assert not Path("/etc/slurm/slurm.conf").exists() and not Path("/etc/slurm/gres.conf").exists()


def submitted(output):
    return re.findall(r"has been submitted with SLURM jobid (\d+)", output)


@pytest.mark.slurm
def test_the_smoke_profile_on_slurm(slurm, tmp_path):
    """Every experiment, cut to its first two methods at one task count, in few jobs; results as complete as at home."""
    config = yaml.safe_load((REPO / "config.yaml").read_text()) | {"profile": "smoke"}
    for block in config["experiments"].values():
        block["methods"] = block["methods"][:2]
        if "n_tasks" in block["smoke"]:
            block["smoke"]["n_tasks"] = block["smoke"]["n_tasks"][:1]
        if "meta_steps" in block["smoke"]:  # a chain, of jobs that are not grouped
            block["smoke"] |= {"meta_steps": 1, "games": 2}
    if "LEAPWARP_DATA" not in os.environ:
        config["data"] = {"source": "glyphs", "dir": ""}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    result = snakemake(tmp_path, *PROFILE, *QUICKLY, "--group-components", "smoke=12")
    assert result.returncode == 0, result.stdout[-5000:]
    assert 1 < len(set(submitted(result.stdout))) < 10
    for rule in ("prepare", "gather", "table", "figures_omniglot_leap"):  # seconds: not worth a job
        assert f"localrule {rule}:" in result.stdout
    for name in config["experiments"]:
        assert (tmp_path / f"results/smoke/{name}/rows.csv").exists()
    assert "Nothing to be done" in snakemake(tmp_path).stdout


@pytest.mark.slurm
def test_a_killed_job_and_one_whose_time_is_over_are_resumed(slurm, tmp_path, empty, finished):
    folder = shutil.copytree(empty, tmp_path / "here")
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["experiments"][NAME]["smoke"]["gpu"] = 1
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    checkpoints = folder / f"results/smoke/{NAME}/checkpoints"
    log = folder / "snakemake.log"
    command = snakemake_command(*PROFILE, *QUICKLY, "--group-components", "smoke=1")
    with open(log, "w") as file:
        parent = subprocess.Popen(command, cwd=folder, stdout=file, stderr=file)
    # Both are stopped after their first meta-step: one by kill -9, one by SLURM, five minutes before its time is over.
    over, killed = caught(folder, parent, "leap", "reptile")
    devices = {process.environ()["CUDA_VISIBLE_DEVICES"] for process in (over, killed)}
    jobs = [process.environ()["SLURM_JOB_ID"] for process in (over, killed)]
    assert len(devices) == 2 and devices <= set("0123") and len(set(jobs)) == 2
    step_to(killed, checkpoints / "reptile/tasks1/seed0.pt")
    killed.kill()
    step_to(over, checkpoints / "leap/tasks1/seed0.pt")
    subprocess.run(["scontrol", "update", f"JobId={jobs[0]}", "TimeLimit=5"], check=True)
    over.wait(120)  # SLURM wakes what is suspended when it sends the signal: nothing else lets this run end
    assert parent.wait(170) == 0, log.read_text()

    text = log.read_text()
    assert len(set(submitted(text))) == 5  # three runs, two of them twice
    assert "stopped by SIGTERM; started again" in text and "non-zero exit status 75" in text
    for method in ("leap", "reptile"):
        again = folder / f"results/smoke/{NAME}/logs/{method}/tasks1/seeds0-1.log"
        assert "seed 0: resumed at meta-step" in again.read_text()
    rows = f"results/smoke/{NAME}/rows.csv"
    assert rows_of(folder / rows) == rows_of(finished / rows)
    assert experiments(snakemake(folder).stdout) == []
