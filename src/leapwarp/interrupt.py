"""Runs that are told to stop: they keep what they have and leave with an exit code of their own.

SLURM announces the end of a job's time by a signal, a preempted job gets one, and so does a run whose terminal is
interrupted. A learner's state is a value that is replaced once a meta-step, so a run may be stopped anywhere: what
`fit` saves is the last whole meta-step.
"""

import signal
from types import FrameType

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, try again
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Interrupted(BaseException):
    """The name of the signal. Not an Exception: nothing that handles errors on the way may take it for one."""


_received: list[str] = []


def watch() -> None:
    """From now on the first of SIGNALS raises `Interrupted` in the main thread; those after it are ignored."""
    _received.clear()
    for number in SIGNALS:
        signal.signal(number, _stop)


def received() -> str | None:
    """The name of the signal, also where it was raised inside a library that swallowed `Interrupted` or made another
    error of it, as those written in C do."""
    return _received[0] if _received else None


def _stop(number: int, frame: FrameType | None) -> None:
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    _received.append(signal.Signals(number).name)
    raise Interrupted(_received[0])
