"""Progress of what takes longer than two seconds: a line on standard error, on a terminal a spinner."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from rich.console import Console

QUIET_TIME = 2.0
"""Seconds for which nothing is said: what is done by then needs no words."""
REPEAT_INTERVAL = 10.0
"""Seconds between two lines where no terminal shows a spinner."""


@contextmanager
def progress(console: Console, doing: str) -> Iterator[None]:
    """Say on standard error what is being done, and for how long, if the block takes longer than two seconds.

    Args:
        console: standard error.
        doing: what is done, as ``proving 40 services with Envoy 1.40.0``.
    """
    done = Event()
    thread = Thread(target=_report, args=(console, doing, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _report(console: Console, doing: str, done: Event) -> None:
    started = time.monotonic()
    if done.wait(QUIET_TIME):
        return
    if console.is_terminal:
        with console.status(doing) as status:
            while not done.wait(1.0):
                status.update(f"{doing} ({time.monotonic() - started:.0f}s)")
        return
    console.print(f"{doing} ...", style="dim")
    while not done.wait(REPEAT_INTERVAL):
        console.print(f"{doing} ... ({time.monotonic() - started:.0f}s)", style="dim")
