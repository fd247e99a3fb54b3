"""Signal handlers for the time between the start of Python and the start of the event loop.

The kernel drops a signal for PID 1 of a container unless a handler is installed (pid_namespaces(7)). In any other
process the default action of SIGHUP, SIGUSR1 and SIGUSR2 is to end it (signal(7)).
"""

import os
import signal
from types import FrameType

_STOP = (signal.SIGTERM, signal.SIGINT)
_FOR_THE_APP = (signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)

# Whether the event loop handles signals now; set once, by take_over().
_taken_over = False
# Whether a SIGHUP came before that; written by the handler, read by take_over().
_reload_wanted = False


def install_handlers(*, with_app: bool) -> None:
    """Install handlers: SIGTERM and SIGINT exit with 0; SIGHUP and the app's signals do not end the process."""
    for number in _STOP:
        signal.signal(number, _stop)
    for number in (signal.SIGHUP, *(_FOR_THE_APP if with_app else ())):
        signal.signal(number, _keep)


def take_over() -> bool:
    """Leave signals to the event loop from now on, and return whether a SIGHUP came before."""
    global _taken_over  # noqa: PLW0603 - a process has one set of signal handlers
    _taken_over = True
    return _reload_wanted


def _stop(_number: int, _frame: FrameType | None) -> None:
    # The loop restores this handler when it is closed; by then the process has its exit status.
    if not _taken_over:
        # Nothing is registered and no app is started, so there is nothing to undo. An exception could be swallowed
        # by a module that is being imported.
        os._exit(0)


def _keep(number: int, _frame: FrameType | None) -> None:
    global _reload_wanted  # noqa: PLW0603 - as above
    _reload_wanted = _reload_wanted or number == signal.SIGHUP
