"""Every public docstring has an example, which runs by itself and prints the result that it shows."""

import doctest
from pathlib import Path

import pytest
import torch

import leapwarp
from leapwarp.fronts.leap import Task
from leapwarp.fronts.warpgrad import WarpTask

OWNERS = {"Task": Task, "WarpTask": WarpTask}
NAMES = [line.split("(")[0] for line in (Path(__file__).parent / "api.txt").read_text().splitlines()]


def found(name):
    """The public function, class or method of this name."""
    first, *rest = name.split(".")
    owner = OWNERS.get(first) or getattr(leapwarp, first)
    return getattr(owner, rest[0]) if rest else owner


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_a_docstring_is_short_and_runs_by_itself(name):
    (test,) = doctest.DocTestFinder(recurse=False).find(found(name), name, globs={})
    lines = sum(len(example.source.splitlines()) for example in test.examples)
    assert 3 <= lines <= 10, f"{name} has an example of {lines} lines; needed 3 to 10."
    torch.manual_seed(0)
    said = []
    result = doctest.DocTestRunner().run(test, out=said.append)
    assert result.failed == 0, "".join(said)
