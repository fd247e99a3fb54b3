"""Entry points of `registry` and `registryctl`: the command line, or an error that names the missing extra.

`pip install headcount` installs both commands, and only what the sidecar needs. This module imports nothing else.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_NOT_INSTALLED = 2
_OWN = {"registry", "registrar", "registryctl", "registry_demo", "wire"}
_VERBS_OF_SERVICES = ("serve", "migrate")
"""Verbs that run as the first process of a container, or as a unit."""


def registry() -> None:
    """Run the registry's command line."""
    if sys.argv[1:2] and sys.argv[1] in _VERBS_OF_SERVICES:
        _end_at_stop_signals()
    with _extra("registry", "demo" if "demo" in sys.argv[1:2] else "server"):
        from registry.cli import main  # noqa: PLC0415  # it needs the extra

        main()


def registryctl() -> None:
    """Run the operator's command line."""
    with _extra("registryctl", "ctl"):
        from registryctl.cli import main  # noqa: PLC0415  # it needs the extra

        main()


@contextmanager
def _extra(command: str, extra: str) -> Iterator[None]:
    """Exit with status 2 and a sentence for a package that is not installed; raise for our own modules."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in _OWN or not missing:
            raise
        sys.stderr.write(
            f"{command}: the package {missing} is not installed; `{command}` needs the extra {extra}: "
            f"pip install 'headcount[{extra}]'\n"
        )
        raise SystemExit(_NOT_INSTALLED) from None


def _end_at_stop_signals() -> None:
    """End the process with status 0 at a stop signal that comes during the imports, which take a second.

    The kernel drops a signal for the first process of a container unless that process has a handler for it. When the
    imports are done, `registry.cli` replaces this handler by one that undoes what was started.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _exit_at_once)


def _exit_at_once(_number: int, _frame: FrameType | None) -> None:
    # Nothing is started yet that would have to be undone, and an exception could be swallowed by an import.
    os._exit(0)
