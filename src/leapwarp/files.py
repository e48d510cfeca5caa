"""Files that appear whole or not at all, errors in one line, and work that only one process does at a time."""

import os
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
    """Yields a temporary path beside `path` that takes its place if the block ends well, and is deleted if not.

    A reader finds the old file or the new one. What a killed process leaves behind, the next writer overwrites.

    Raises:
        OSError: the file cannot be written (a full disk, a folder without write access); says which and what to do.
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
        if error.errno is None:  # one that says what it needs already
            raise
        raise OSError(
            f"{path} cannot be written ({error.strerror}). Needed a folder with room and write access; what was there "
            "before is unchanged. Make room or rights and start again: finished work is kept."
        ) from None
    finally:
        if os.access(path.parent, os.W_OK):
            temporary.unlink(missing_ok=True)


@contextmanager
def one_line(parser: ArgumentParser) -> Iterator[None]:
    """Bad input or a file that cannot be written ends the program with one line that says so, and exit code 1."""
    try:
        yield
    except (ValueError, OSError) as error:
        parser.exit(1, f"error: {error}\n")


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock on the file `path` while the block runs; the lock ends with the process, however that ends.

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
        except OSError as error:  # a file system that has no locks: go on without
            print(f"no lock on {path} ({error.strerror}): see to it that nothing else works on this run", flush=True)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
