"""Atomic files, error messages of one line, and locks."""

import errno
import os
import re
import traceback
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


@contextmanager
def atomic(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which replaces `path` if the block succeeds, and is deleted if not.

    So a reader finds either the old file or the new one. The next writer overwrites the remains of a killed process.

    Raises:
        OSError: the file cannot be written (a full disk, a folder without write access). The message has the file and
            what to do.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None:  # an error with a full message already
            raise
        raise OSError(
            f"{path} cannot be written ({error.strerror}). Needed a folder with room and write access; what was there "
            "before is unchanged. Make room or change the rights, and start again: finished work is kept."
        ) from None
    finally:
        if os.access(path.parent, os.W_OK):
            temporary.unlink(missing_ok=True)


# The messages of PyTorch, oneDNN, CUDA, numpy, the linker and the system when memory runs out.
_NO_MEMORY = re.compile(
    r"out of memory|not enough memory|allocate memory|unable to allocate|alloc_failed|bad_alloc|defaultcpuallocator"
    r"|could not create a (primitive|memory)|can't start new thread|failed to map segment|cannot allocate",
    re.IGNORECASE,
)
_ADVICE = {
    errno.ENOSPC: "Make room and start again: finished work is kept.",
    errno.EDQUOT: "Make room and start again: finished work is kept.",
    errno.EROFS: "Needed a file system that can be written.",
    errno.EACCES: "Needed the right to read it, or to write there.",
    errno.EPERM: "Needed the right to read it, or to write there.",
    errno.EMFILE: "Raise the number of open files: ulimit -n.",
    errno.ENOENT: "Check the path, or put the file there.",
}


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that caused it, means that memory has run out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError | RuntimeError | ImportError) and _NO_MEMORY.search(str(error)):
        return True
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return before is not None and is_out_of_memory(before)


LOWER = (
    "Lower seeds_per_job (of seeds that train together) or, under settings, tasks_at_a_time, meta_batch or filters, in "
    "the size's file; or run fewer jobs at a time (--cores 1). The last checkpoint is kept: started again, a run goes "
    "on from it"
)


def said(error: BaseException, lower: str = LOWER) -> str:
    """A message of one line for an error, which says what is wrong and what to do.

    The traceback of an unforeseen error is printed to the standard error before (in a job: to its log).

    Args:
        lower: what to do if memory has run out.
    """
    text = " ".join(str(error).split())
    if is_out_of_memory(error):
        return f"out of memory ({text[:200] or type(error).__name__}). {lower}."
    if isinstance(error, OSError) and error.errno is not None:
        name = f"{error.filename}: " if error.filename else ""
        return (
            f"{name}{error.strerror}. {_ADVICE.get(error.errno, 'Mend this and start again: finished work is kept.')}"
        )
    if is_told(error):
        return text
    traceback.print_exception(error)
    frames = [(Path(each.filename), each.lineno) for each in traceback.extract_tb(error.__traceback__)]
    own = [each for each in frames if not _INSTALLED.search(str(each[0]))] or frames
    where = f" in {own[-1][0].parent.name}/{own[-1][0].name}, line {own[-1][1]}" if own else ""
    return (
        f"unexpected {type(error).__name__}{where}: {text[:300] or 'without a text'}. The traceback is in the log; "
        "finished work is kept. If settings, data and files are what you meant, please report this error."
    )


_INSTALLED = re.compile(r"^<|/(site|dist)-packages/|/lib/python3[^/]*/")
"""files of Python and of installed packages, where an error may be raised that code outside them has caused"""

# How Snakemake's log reports that a job was ended by a signal: its name, or the exit code that a shell makes of it.
_ENDED = re.compile(
    r"died with <Signals\.SIG(?P<signal>KILL|ABRT|BUS|SEGV|ILL): |non-zero exit status (?P<code>13[24579])\b"
    r"|SLURM status is: '(?P<slurm>OUT_OF_MEMORY)'"
)
_SIGNALS = {"132": "ILL", "134": "ABRT", "135": "BUS", "137": "KILL", "139": "SEGV"}
_OUTSIDE = {
    "KILL": "was killed from outside, most likely by the system because memory ran out",
    "OUT_OF_MEMORY": "was killed because it took more memory than mem_mb of the profile asks for",
    "ABRT": "was aborted by a library, most likely because memory ran out",
    "BUS": "was ended by the system, most likely because a disk or shared memory (/dev/shm) is full",
    "SEGV": "crashed in a library; please report this, unless the machine is at fault",
    "ILL": "has met an instruction that this processor lacks: PyTorch needs a build for it",
}
_RULE = re.compile(r"^Error in rule (\w+):.*?\n    log: (\S+)", re.MULTILINE | re.DOTALL)


def ended(log: str) -> list[str]:
    """A line for each job in a log of Snakemake that was ended by a signal, and so could not say why."""
    found = []
    for each in _ENDED.finditer(log):
        kind = each["signal"] or each["slurm"] or _SIGNALS[each["code"]]
        where = _RULE.search(log, each.end())
        job = f"a job of rule {where[1]} (log {where[2]})" if where else "a job"
        advice = f" {LOWER}." if kind in ("KILL", "OUT_OF_MEMORY", "ABRT") else ""
        found.append(f"error: {job} {_OUTSIDE[kind]}.{advice}")
    return list(dict.fromkeys(found))


def is_told(error: BaseException) -> bool:
    """Whether code of this package raised the error deliberately, with a full message."""
    if not isinstance(error, ValueError | FloatingPointError | OSError):
        return False
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return frame is None or str(frame.tb_frame.f_globals.get("__name__", "")).partition(".")[0] in (
        "leapwarp",
        "__main__",
    )


@contextmanager
def one_line(parser: ArgumentParser) -> Iterator[None]:
    """Inside this context, every error ends the program with a message of one line and exit code 1."""
    try:
        yield
    except KeyboardInterrupt:
        parser.exit(130, "error: stopped by SIGINT\n")
    except Exception as error:
        parser.exit(1, f"error: {said(error)}\n")


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock on the file `path` while the block runs. The lock is released when the process ends in any way.

    Raises:
        ValueError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            if fcntl is None:
                raise OSError(0, "this system has none")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"another process is at work on this run: it holds {path}. Perhaps a snakemake that was killed left it "
                "behind. Wait until it has ended, or end it, and start again."
            ) from None
        except OSError as error:  # the file system has no locks: continue without one
            print(f"no lock on {path} ({error.strerror}): see to it that nothing else works on this run", flush=True)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
