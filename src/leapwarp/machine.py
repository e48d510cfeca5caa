"""The memory and GPUs of this machine, for the limits of local runs. Nothing here imports torch."""

import os
import re
from collections.abc import Mapping
from pathlib import Path

MEBIBYTE = 1 << 20


def memory_mb(root: Path = Path("/")) -> int | None:
    """The memory that processes may use, in MB: that of the machine, or less if a container has a limit."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not available on this system
        return None
    return min([total, *_limits(root)]) // MEBIBYTE


def _limits(root: Path) -> list[int]:
    """The memory limits of this process's control groups, from the innermost to the outermost."""
    found = []
    try:
        groups = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory") and "memory" not in controllers.split(","):
            continue
        base = root / "sys/fs/cgroup" / ("memory" if controllers else "")
        here = base / path.strip("/")
        for folder in [here, *here.parents]:
            if not folder.is_relative_to(base):
                break
            for name in ("memory.max", "memory.limit_in_bytes"):
                try:
                    found.append(int((folder / name).read_text(encoding="utf-8")))
                except (OSError, ValueError):  # no limit here, or "max"
                    continue
    return found


def gpus(environment: Mapping[str, str] = os.environ, root: Path = Path("/")) -> int:
    """How many NVIDIA GPUs jobs can see."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    present = len(list((root / "proc/driver/nvidia/gpus").glob("*"))) or len(
        [path for path in (root / "dev").glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)]
    )
    if visible is None:
        return present
    named = [each.strip() for each in visible.split(",")]
    shown = named[: next((i for i, each in enumerate(named) if each in ("", "-1", "NoDevFiles")), len(named))]
    return min(present, len(shown))
