import fcntl
import json
import os
import shutil

import pytest
import torch
import yaml
from calls import NAME, REPO, SIZE, edit, snakemake, work_out_settings

from leapwarp.data.store import write

torch.set_num_threads(1)  # as in every job of the workflow


def pytest_collection_modifyitems(items):
    """Put whole runs first, so that pytest's two processes have only short tests to distribute at the end."""
    items.sort(key=lambda item: "workflow" not in item.path.parts)


@pytest.fixture(scope="session")
def made_up_alphabets(tmp_path_factory):
    """Eight alphabets of twenty random but consistent characters."""
    stream = torch.Generator().manual_seed(0)
    base = torch.rand(160, 1, 28, 28, generator=stream) > 0.8
    flips = torch.rand(160, 20, 28, 28, generator=stream) > 0.97
    path = tmp_path_factory.mktemp("data") / "alphabets.safetensors"
    tensors = {
        "images": (base ^ flips).to(torch.uint8) * 255,
        "alphabet": torch.arange(8).repeat_interleave(20),
    }
    names = [f"made_up_{i}" for i in range(8)]
    write(path, tensors, {"source": "made_up", "names": json.dumps(names), "licence": "none"})
    return path


def once(tmp_path_factory, name, make):
    """A folder that `make` fills. The first of pytest's processes that needs it makes it for all of them.

    It is as deep in the file system as `tmp_path / "here"`. So copies there have the same relative path to the
    checkout, and Snakemake regards its files as the same.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent / "shared"
    folder = base / name / "here"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder.parent / "made").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            (folder.parent / "made").touch()
    return folder


@pytest.fixture(scope="session")
def empty(tmp_path_factory, made_up_alphabets):
    """A folder with the data and a size of three methods at one task, as a user would write one."""

    def make(folder):
        shutil.copy(REPO / "config.yaml", folder)
        size = yaml.safe_load((REPO / "workflow/sizes/smoke.yaml").read_text())
        entry = size["experiments"][NAME] | {"n_tasks": [1], "n_tasks_per_job": 1, "seeds": 2, "seeds_per_job": 2}
        (folder / f"{SIZE}.yaml").write_text(yaml.safe_dump(size | {"experiments": {NAME: entry}}))
        chosen = {"size": f"{SIZE}.yaml", "methods": {NAME: ["scratch", "reptile", "leap"]}}
        edit(folder / "config.yaml", lambda config: config.update(chosen, data={"source": "glyphs", "dir": ""}))
        (folder / "results/data").mkdir(parents=True)
        shutil.copy2(made_up_alphabets, folder / "results/data/alphabets.safetensors")
        work_out_settings(folder)

    return once(tmp_path_factory, "empty", make)


@pytest.fixture(scope="session")
def finished(tmp_path_factory, empty):
    """The same folder after snakemake has made the rows. (`own` has tables, figures and a page.)"""

    def make(folder):
        shutil.copytree(empty, folder, dirs_exist_ok=True)
        result = snakemake(folder, f"results/{SIZE}/{NAME}/rows.csv")
        assert result.returncode == 0, result.stdout

    return once(tmp_path_factory, "finished", make)


@pytest.fixture(scope="session")
def own(tmp_path_factory):
    """A folder with a user's own experiment and size, after snakemake has made everything."""

    def make(folder):
        shutil.copytree(REPO / "tests/own", folder / "mine")
        (folder / "mine/small.yaml").rename(folder / "small.yaml")
        shutil.copy(REPO / "config.yaml", folder)
        chosen = {"size": "small.yaml", "own_experiments": "mine", "data": {"source": "glyphs", "dir": ""}}
        edit(folder / "config.yaml", lambda config: config.update(chosen))
        work_out_settings(folder)
        result = snakemake(folder, "--cores", "2")
        assert result.returncode == 0, result.stdout[-5000:]

    return once(tmp_path_factory, "own", make)
