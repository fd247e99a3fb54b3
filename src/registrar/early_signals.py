"""Signals between the start of Python and that of the event loop: a stop is heard, and a reload is not fatal.

The kernel drops a signal for the first process of a container unless a handler is there, and for any other process
the default action of SIGHUP, SIGUSR1 and SIGUSR2 is to end it.
"""

import os
import signal
from types import FrameType

_STOP = (signal.SIGTERM, signal.SIGINT)
_FOR_THE_APP = (signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)

# Whether the event loop has taken over; set once, by take_over().
_taken_over = False
_reload_wanted = False


def listen(*, with_app: bool) -> None:
    """End the process with 0 at a SIGTERM or SIGINT, and survive SIGHUP and the signals that are meant for an app."""
    for number in _STOP:
        signal.signal(number, _stop)
    for number in (signal.SIGHUP, *(_FOR_THE_APP if with_app else ())):
        signal.signal(number, _keep)


def take_over() -> bool:
    """Leave signals to the event loop from now on; return whether a reload was asked for before."""
    global _taken_over  # noqa: PLW0603 - a process has one set of signal handlers
    _taken_over = True
    return _reload_wanted


def _stop(_number: int, _frame: FrameType | None) -> None:
    # Afterwards this is the handler again, while the process ends with a status that it has already.
    if not _taken_over:
        # Nothing is registered and no app is started: there is nothing to undo, and an exception could be
        # swallowed by whatever is being imported.
        os._exit(0)


def _keep(number: int, _frame: FrameType | None) -> None:
    global _reload_wanted  # noqa: PLW0603 - as above
    _reload_wanted = _reload_wanted or number == signal.SIGHUP
