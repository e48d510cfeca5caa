"""The examples run, and their output shows what they claim."""

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.py")))
def test_an_example_runs_and_learns(name, capsys):
    names = runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    said = capsys.readouterr().out
    if name == "own_loop":
        assert names["results"]["Leap"] < 0.5 * names["results"]["fresh"]
    elif name == "resume":
        assert "going on at meta-step 4" in said and "equal to the bit: True" in said
    elif name == "resnet18_warps":
        assert "warp           81,920 numbers in   2 tensors" in said and "frozen" in said
        assert not names["net"].bn1.training and names["net"].layer2[1].warp.weight.requires_grad
    else:
        losses = [float(value) for value in re.findall(r"loss (\d+\.\d+)", said)]
        assert losses[-1] < 0.9 * losses[0]
    assert f"`{name}.py`" in (EXAMPLES / "README.md").read_text()
