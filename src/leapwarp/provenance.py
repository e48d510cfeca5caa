"""The provenance of numbers: version and sources of the code, packages, machine."""

import hashlib
import json
import os
import platform
import site
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from leapwarp import __version__, environment

DIGITS = 12  # characters of a hash that are shown and compared
PACKAGES = ("torch", "torchvision", "numpy", "pandas", "ale-py")


def digest(value: Any) -> str:
    """A short hash of a value that JSON can write."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:DIGITS]


def version() -> str:
    """The version, with the commit if the package runs from a checkout: 0.1.0+g1a2b3c4, or ...dirty if changed."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        command, settled = ["git", "-C", str(folder), *arguments], environment.of_git(os.environ)
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, timeout=20, env=settled)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", __file__)  # not the checkout of another project that contains site-packages
        changed = git("status", "--porcelain", "--untracked-files=normal", "--", ".")
        return f"{__version__}+g{git('rev-parse', '--short=7', 'HEAD')}{'.dirty' if changed else ''}"
    except (OSError, UnicodeError, subprocess.SubprocessError):
        return __version__


def code() -> str:
    """A hash of the source files that results depend on.

    These are the modules of this package that the process has imported; all files in the folder of a user's experiment
    and the modules beside it; and other imported modules that are not installed, such as those on PYTHONPATH.
    """
    package, installed = Path(__file__).parent, {Path(path) for path in (sys.prefix, sys.base_prefix)}
    installed |= {Path(path) for path in (*sysconfig.get_paths().values(), *site.getsitepackages())}
    found: dict[str, Path] = {}
    for name, module in list(sys.modules.items()):
        path = Path(getattr(module, "__file__", None) or "")
        if path.suffix != ".py" or not path.is_file():
            continue
        if path.is_relative_to(package):
            found[path.relative_to(package).as_posix()] = path
        elif name.split(".")[0] == "leapwarp":
            files = [*path.parent.rglob("[!.]*.py"), *path.parent.parent.glob("[!.]*.py")]
            found |= {each.relative_to(path.parent.parent).as_posix(): each for each in files if each.is_file()}
        elif name != "__main__" and not any(path.is_relative_to(folder) for folder in installed):
            found[name] = path
    return digest({name: found[name].read_text(encoding="utf-8", errors="replace") for name in sorted(found)})


def packages() -> dict[str, str]:
    """Versions of Python and of those `PACKAGES` that are installed."""

    def version_of(name: str) -> str | None:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:  # such as the emulators, which only one experiment needs
            return None

    found = {name: version_of(name) for name in PACKAGES}
    return {"python": platform.python_version()} | {name: number for name, number in found.items() if number}


def machine(device: torch.device) -> str:
    """The model of the processor or GPU, without the machine's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        model = platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} cores"
