"""The installed package: a wheel that works with three packages, stable public names, and types."""

import inspect
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import leapwarp

REPO = Path(__file__).parents[2]
API = Path(__file__).parent / "api.txt"
# What comes with leapwarp[experiments], what torch and tqdm do without, and what only some systems have.
ABSENT = [
    *("ale_py", "gymnasium", "jinja2", "jsonschema", "matplotlib", "numpy", "pandas", "PIL", "yaml", "scipy"),
    *("snakemake", "torchvision", "fcntl"),
]


def signature(function):
    """Names and defaults: `(loss, scaler=None)`."""
    parts = []
    for name, each in inspect.signature(function).parameters.items():
        default = getattr(each.default, "__name__", repr(each.default))
        parts.append(name if each.default is each.empty else f"{name}={default}")
    return f"({', '.join(parts)})"


def signatures():
    """Every public name with its signature, and the public methods of the fronts and their tasks."""
    from leapwarp.fronts.leap import Task
    from leapwarp.fronts.warpgrad import WarpTask

    for name in leapwarp.__all__:
        yield f"{name}{signature(getattr(leapwarp, name))}"
    for owner in (leapwarp.Leap, Task, leapwarp.WarpGrad, WarpTask):
        for name, method in inspect.getmembers(owner, inspect.isfunction):
            if not name.startswith("_"):
                yield f"{owner.__name__}.{name}{signature(method)}"


def test_public_names_and_signatures_are_those_of_the_kept_list():
    """If you change one, change the list too, and add a line to CHANGELOG.md."""
    assert "\n".join(signatures()) + "\n" == API.read_text()
    assert set(leapwarp.__all__) <= set(dir(leapwarp))
    assert all(getattr(leapwarp, name).__doc__ for name in leapwarp.__all__)


@pytest.mark.parametrize("name", ["inner", "learners", "optim", "problem", "trees"])
def test_modules_are_there_after_import_leapwarp(name):
    """As documents and messages write them: `leapwarp.optim.adam`."""
    code = f"import leapwarp, inspect; assert inspect.ismodule(leapwarp.{name}) and {name!r} in dir(leapwarp)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_the_package_imports_no_torch():
    code = "import sys, leapwarp; assert 'torch' not in sys.modules; leapwarp.Leap; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_wheel_and_sdist_work_outside_the_tree_with_three_packages(tmp_path):
    for name in ("src", "pyproject.toml", "README.md", "LICENSE"):
        copy = shutil.copytree if (REPO / name).is_dir() else shutil.copy
        copy(REPO / name, tmp_path / name)
    build = "from setuptools.build_meta import build_sdist, build_wheel; build_sdist('dist'); build_wheel('dist')"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path, check=True, capture_output=True)
    (sdist,), (wheel,) = ((tmp_path / "dist").glob(pattern) for pattern in ("*.tar.gz", "*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "empty")
        metadata = archive.read(next(n for n in archive.namelist() if n.endswith("METADATA"))).decode()
    required = re.findall(r"^Requires-Dist: ([a-z-]+)(?![^\n]*extra ==)", metadata, re.MULTILINE)
    assert required == ["safetensors", "torch", "tqdm"]
    assert (tmp_path / "empty/leapwarp/py.typed").exists()
    with tarfile.open(sdist) as archive:  # has all that the wheel is made of
        archive.extractall(tmp_path / "again", filter="data")
    (source,) = (tmp_path / "again").iterdir()
    subprocess.run(
        [sys.executable, "-c", build.replace("build_sdist('dist'); ", "")], cwd=source, check=True, capture_output=True
    )
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(source / "dist" / wheel.name) as second:
        assert sorted(first.namelist()) == sorted(second.namelist())
    (example,) = re.findall(r"```python\n(.*?)```", (REPO / "README.md").read_text(), re.DOTALL)
    assert len(list(filter(None, example.splitlines()))) <= 12
    modules = "leapwarp.learners, leapwarp.fit, leapwarp.evaluate, leapwarp.models.convnet"
    code = f"import sys\nsys.modules |= dict.fromkeys({ABSENT})\nimport {modules}\n{example}\nprint(leapwarp.__file__)"
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "empty")}
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == str(tmp_path / "empty/leapwarp/__init__.py")
