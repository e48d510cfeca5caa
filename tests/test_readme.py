"""The code of the README and the guides runs, and the files of the tree exist."""

import re
from pathlib import Path

import pytest
import torch

from leapwarp.trees import alone

PAGE = Path(__file__).parents[1] / "README.md"
GUIDE = PAGE.parent / "docs/library.md"
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)


def run(code, name):
    names: dict = {}
    torch.manual_seed(0)
    exec(compile(code, name, "exec"), names)
    return names


def test_the_example_of_the_readme_is_short_and_learns(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    run(code, "README")
    losses = [float(line.split(": ")[1]) for line in capsys.readouterr().out.splitlines()]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])


@pytest.mark.parametrize("number", [0, 1])
def test_the_fronts_of_the_guide_learn(number, capsys):
    run(BLOCKS[number], f"guide, block {number}")
    first, last = re.findall(r"loss (\d+\.\d+)", capsys.readouterr().out)
    assert float(last) < 0.8 * float(first)


@pytest.mark.parametrize("number", [2, 3])
def test_the_learners_of_the_guide_learn(number, capsys):
    code = BLOCKS[number]
    assert len([line for line in code.splitlines() if line.strip()]) < 30
    names = run(code, f"guide, block {number}")
    first, last = (names["adapted"].loss.mean(0)[i].item() for i in (0, -1))
    assert last < 0.8 * first
    assert "first" in capsys.readouterr().out
    if number == 2:  # Leap beats a random start
        random = names["learner"].init(alone(names["model"].init(names["rng"])))  # the module's own weights
        params, fixed = names["learner"].start(random, names["tasks"])
        scratch = names["adapt"](names["problem"], names["sgd"](0.05), params, fixed, names["tasks"], steps=20)
        assert names["adapted"].loss[:, -1].mean() < 0.8 * scratch.loss[:, -1].mean()


def test_every_file_of_the_tree_exists():
    tree = (PAGE.parent / "docs/tree.md").read_text().split("```")[1]
    top = [line.split()[0].rstrip(",") for line in tree.splitlines() if line and not line.startswith(" ")]
    assert top and all((PAGE.parent / name).exists() for name in top)
    package = tree.split("src/leapwarp/")[1].split("\npaper/")[0]
    names = re.findall(r"^  (\S+?\.py|\S+?/)[ ,]", package, re.MULTILINE)
    assert len(names) > 10 and all((PAGE.parent / "src/leapwarp" / name).exists() for name in names)
