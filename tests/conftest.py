import json

import pytest
import torch

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
