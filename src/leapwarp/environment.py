"""The environment variables of jobs. Nothing here imports torch or matplotlib.

Settings of a cluster's modules, a notebook or a shell must not change the results of a job or make it fail. So the
variables that matter are set here, for the jobs of Snakemake (`workflow/rules/common.smk`) and for programs that are
called by hand.
"""

import os
import tempfile
from collections.abc import Mapping, MutableMapping
from pathlib import Path

FIXED = {
    # Jobs share a machine. If they were bound to "the first core", all would be bound to the same one.
    "OMP_PROC_BIND": "false",
    "KMP_AFFINITY": "disabled",
    # One thread for each job (host.settle), also in libraries that are loaded before torch.
    "OMP_NUM_THREADS": "1",
    "OMP_DYNAMIC": "false",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",  # a notebook's backend is missing in a job, so matplotlib cannot be imported
    "PYTHONUTF8": "1",  # for Python processes that start from here; files are opened with an explicit encoding
    "PYTHONHASHSEED": "0",
    "GIT_OPTIONAL_LOCKS": "0",  # many jobs read the commit at the same time
}
DROPPED = (
    *("OMP_PLACES", "GOMP_CPU_AFFINITY", "OMP_THREAD_LIMIT", "OMP_SCHEDULE", "KMP_HW_SUBSET", "KMP_ALL_THREADS"),
    *("OPENBLAS_MAIN_FREE", "GOTOBLAS_MAIN_FREE"),
    *("OMP_STACKSIZE", "OMP_WAIT_POLICY", "OMP_NESTED"),
    *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"),  # float32 means float32
    *("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "ATEN_CPU_CAPABILITY", "MKL_CBWR"),
    *("TORCH_LOGS", "TORCH_LOGS_OUT", "TORCH_TRACE", "TORCH_COMPILE_DEBUG"),  # torch fails with an unknown name
    *("MKL_VERBOSE", "ONEDNN_VERBOSE", "DNNL_VERBOSE"),
    *("BASH_ENV", "ENV", "CDPATH", "GREP_OPTIONS", "SHELLOPTS", "BASHOPTS"),  # of the shells that start jobs
    *("PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONOPTIMIZE", "PYTHONWARNINGS", "PYTHONIOENCODING", "PYTHONDEVMODE"),
    *("MATPLOTLIBRC",),
)
GIT = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE", "GIT_COMMON_DIR",
       "GIT_PREFIX", "GIT_EXTERNAL_DIFF", "GIT_CEILING_DIRECTORIES", "GIT_DISCOVERY_ACROSS_FILESYSTEM")  # fmt: skip
"""variables that git sets in hooks and aliases, and that may name another repository"""


def of_job(given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a job, from the environment `given` of its caller."""
    kept = {name: value for name, value in given.items() if name not in DROPPED and name not in GIT}
    kept |= FIXED
    if "MPLCONFIGDIR" not in kept and not _is_writable(Path(kept.get("HOME") or os.path.expanduser("~"))):
        kept["MPLCONFIGDIR"] = os.path.join(tempfile.gettempdir(), "leapwarp-matplotlib")  # for its font list
    return kept


def settle(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set this process's environment to that of a job. Call it before torch and matplotlib are imported."""
    found = of_job(environment)
    for name in set(environment) - set(found):
        del environment[name]
    environment.update(found)


def settle_drawing() -> None:
    """Let matplotlib draw into files only. It reads this variable once, when it is imported."""
    os.environ["MPLBACKEND"] = FIXED["MPLBACKEND"]


def of_git(given: Mapping[str, str]) -> dict[str, str]:
    """The environment for calls of git: with English messages, and without variables that name another repository."""
    return of_job(given) | {"LC_ALL": "C", "LANGUAGE": "C"}


def _is_writable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
