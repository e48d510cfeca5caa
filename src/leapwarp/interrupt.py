"""Signals that tell a run to stop. The run saves its state and ends with its own exit code.

A run gets such a signal before its time limit on SLURM, when a job is preempted, and by Ctrl-C. A learner's state is a
value that is replaced once in a meta-step. So a run can be stopped at any moment, and `fit` saves the state after the
last complete meta-step.
"""

import signal
from types import FrameType

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, try again
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class Interrupted(BaseException):
    """Raised by a signal, with its name. It is not an Exception, so that code that handles errors does not catch it."""


_received: list[str] = []


def watch() -> None:
    """From now on the first signal of SIGNALS raises `Interrupted` in the main thread. Later ones are ignored."""
    _received.clear()
    for number in SIGNALS:
        signal.signal(number, _stop)


def received() -> str | None:
    """The name of the signal that has arrived, or None.

    Some libraries, such as those written in C, swallow `Interrupted` or turn it into another error. This tells of the
    signal in that case too.
    """
    return _received[0] if _received else None


def _stop(number: int, frame: FrameType | None) -> None:
    for other in SIGNALS:
        signal.signal(other, signal.SIG_IGN)
    _received.append(signal.Signals(number).name)
    raise Interrupted(_received[0])
