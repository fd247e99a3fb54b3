"""Examination of the whole system, once or until no check fails."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.text import Text

from registryctl.doctor.evaluation import evaluate
from registryctl.doctor.observer import Observer
from registryctl.doctor.report import failed
from registryctl.output import Screen
from registryctl.settings import Settings
from wire.finding import Finding

RETRY_INTERVAL = 1.0
"""Seconds between two examinations."""


def examine(settings: Settings, envoys: Sequence[str], suspects: int = 0) -> list[Finding]:
    """Return the finding of every check; ``suspects`` silent endpoints are allowed."""
    return evaluate(Observer(settings, envoys, suspects).observe())


def examine_until_well(
    settings: Settings, envoys: Sequence[str], suspects: int, timeout: float, screen: Screen
) -> list[Finding]:
    """Examine again while a check fails, for ``timeout`` seconds at most; return the last findings."""
    begun = time.monotonic()
    with _spinner(screen) as show:
        while True:
            findings = examine(settings, envoys, suspects)
            elapsed = time.monotonic() - begun
            if not failed(findings) or elapsed + RETRY_INTERVAL >= timeout:
                return findings
            show(f"{failed(findings)[0].headline}; trying again ({elapsed:.0f} s of {timeout:g} s)")
            time.sleep(RETRY_INTERVAL)


@contextmanager
def _spinner(screen: Screen) -> Iterator[Callable[[str], None]]:
    """Show on a terminal that work goes on, on a line that vanishes."""
    if not screen.err.is_terminal:
        yield lambda _text: None
        return
    with screen.err.status(Text("looking", "dim"), spinner="dots", spinner_style="cyan") as status:
        yield lambda text: status.update(Text(text, "dim"))
