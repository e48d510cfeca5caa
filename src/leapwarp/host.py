"""What a process that trains on a CPU core asks of its machine."""

import ctypes
import platform

import torch

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # parameters of glibc's mallopt
_MEBIBYTE = 1 << 20


def settle() -> None:
    """One thread, and memory that is kept: call it once, at the start of a job.

    A neighbour on the machine slows two threads down by far more than the second one gains. And glibc gives every
    freed activation back to the system, so that each step gets its memory anew and pays a page fault for every 4 kB
    of it: a tenth of the time of a small network (docs/log.md). Elsewhere than on Linux with glibc, memory is left
    as it is. On a GPU, convolutions are kept in full float32 and deterministic.
    """
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32, and a resumed run must repeat its numbers
    torch.backends.cudnn.deterministic = True
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, 32 * _MEBIBYTE)  # the largest that glibc takes
        libc.mallopt(_TRIM_THRESHOLD, 1024 * _MEBIBYTE)
        libc.mallopt(_TOP_PAD, 64 * _MEBIBYTE)


def pick_device(name: str) -> torch.device:
    """`auto` is the GPU where there is one; raises ValueError for a device that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {name!r} cannot be used here ({reason}); take auto, cpu or cuda.") from None
    return device
