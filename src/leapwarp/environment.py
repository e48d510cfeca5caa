"""What jobs take from the environment of whoever calls them, and what not. Nothing here imports torch or matplotlib.

A cluster's modules, a notebook or a shell's settings must not change where a job computes, what it writes or whether it
ends. All of that is fixed here, for the jobs of Snakemake (`workflow/rules/common.smk`) and programs run by hand alike.
"""

import os
import tempfile
from collections.abc import Mapping, MutableMapping
from pathlib import Path

FIXED = {
    # Jobs share a machine: bound to "the first core", all of them would be bound to the same one.
    "OMP_PROC_BIND": "false",
    "KMP_AFFINITY": "disabled",
    # One thread a job (host.settle), also in what is loaded before torch.
    "OMP_NUM_THREADS": "1",
    "OMP_DYNAMIC": "false",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",  # a notebook's own is not there in a job, and matplotlib then does not even import
    "PYTHONUTF8": "1",  # for a Python that starts from here; files name their encoding themselves
    "PYTHONHASHSEED": "0",
    "GIT_OPTIONAL_LOCKS": "0",  # many jobs ask for the commit at the same time
}
DROPPED = (
    *("OMP_PLACES", "GOMP_CPU_AFFINITY", "OMP_THREAD_LIMIT", "OMP_SCHEDULE", "KMP_HW_SUBSET", "KMP_ALL_THREADS"),
    *("OPENBLAS_MAIN_FREE", "GOTOBLAS_MAIN_FREE"),
    *("OMP_STACKSIZE", "OMP_WAIT_POLICY", "OMP_NESTED"),
    *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"),  # float32 means float32
    *("ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE", "ATEN_CPU_CAPABILITY", "MKL_CBWR"),
    *("TORCH_LOGS", "TORCH_LOGS_OUT", "TORCH_TRACE", "TORCH_COMPILE_DEBUG"),  # a name that torch does not know ends it
    *("MKL_VERBOSE", "ONEDNN_VERBOSE", "DNNL_VERBOSE"),
    *("BASH_ENV", "ENV", "CDPATH", "GREP_OPTIONS", "SHELLOPTS", "BASHOPTS"),  # of the shells that start jobs
    *("PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONOPTIMIZE", "PYTHONWARNINGS", "PYTHONIOENCODING", "PYTHONDEVMODE"),
    *("MATPLOTLIBRC",),
)
GIT = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE", "GIT_COMMON_DIR",
       "GIT_PREFIX", "GIT_EXTERNAL_DIFF", "GIT_CEILING_DIRECTORIES", "GIT_DISCOVERY_ACROSS_FILESYSTEM")  # fmt: skip
"""which another repository may have set: those of a hook or an alias of git"""


def of_job(given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a job that is started from the environment `given`."""
    kept = {name: value for name, value in given.items() if name not in DROPPED and name not in GIT}
    kept |= FIXED
    if "MPLCONFIGDIR" not in kept and not _is_writable(Path(kept.get("HOME") or os.path.expanduser("~"))):
        kept["MPLCONFIGDIR"] = os.path.join(tempfile.gettempdir(), "leapwarp-matplotlib")  # or it looks for fonts anew
    return kept


def settle(environment: MutableMapping[str, str] = os.environ) -> None:
    """Make this process's environment that of a job: called before torch and matplotlib are imported."""
    found = of_job(environment)
    for name in set(environment) - set(found):
        del environment[name]
    environment.update(found)


def settle_drawing() -> None:
    """Draw into files wherever a report is made: matplotlib looks at this once, when it is imported."""
    os.environ["MPLBACKEND"] = FIXED["MPLBACKEND"]


def of_git(given: Mapping[str, str]) -> dict[str, str]:
    """The environment in which git speaks of the repository it is asked about, whatever a user's language."""
    return of_job(given) | {"LC_ALL": "C", "LANGUAGE": "C"}


def _is_writable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
