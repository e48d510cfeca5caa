import json
import shutil

import pytest
import torch
import yaml
from calls import NAME, REPO, SIZE, edit, snakemake

from leapwarp.data.store import write

torch.set_num_threads(1)  # as every job of the workflow has it


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


@pytest.fixture(scope="session")
def empty(tmp_path_factory, made_up_alphabets):
    """A folder with a size of three methods at one task, as a user would copy one, and the data."""
    folder = tmp_path_factory.mktemp("empty")
    shutil.copy(REPO / "config.yaml", folder)
    size = yaml.safe_load((REPO / "workflow/sizes/smoke.yaml").read_text())
    entry = size["experiments"][NAME] | {"n_tasks": [1], "seeds": 2, "seeds_per_job": 2}
    (folder / f"{SIZE}.yaml").write_text(yaml.safe_dump(size | {"experiments": {NAME: entry}}))
    chosen = {"size": f"{SIZE}.yaml", "methods": {NAME: ["scratch", "reptile", "leap"]}}
    edit(folder / "config.yaml", lambda config: config.update(chosen, data={"source": "glyphs", "dir": ""}))
    (folder / "results/data").mkdir(parents=True)
    shutil.copy2(made_up_alphabets, folder / "results/data/alphabets.safetensors")
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory, empty):
    """The same when snakemake has been through."""
    folder = tmp_path_factory.mktemp("finished") / "here"
    shutil.copytree(empty, folder)
    result = snakemake(folder)
    assert result.returncode == 0, result.stdout
    return folder
