"""Examining the system, once or until nothing fails."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.text import Text

from registryctl.catalogue import CHECKS
from registryctl.doctor.checks.all import judge
from registryctl.doctor.finding import Finding
from registryctl.doctor.observation import Observer
from registryctl.doctor.report import failed
from registryctl.output import Screen
from registryctl.settings import Settings

_PAUSE = 1.0


def examine(settings: Settings, envoys: Sequence[str]) -> list[Finding]:
    """Return the finding of every check."""
    return list(judge(Observer(settings, envoys).look()))


def examine_until_well(settings: Settings, envoys: Sequence[str], patience: float, screen: Screen) -> list[Finding]:
    """Examine again and again while something fails, for so many seconds; return the last findings."""
    begun = time.monotonic()
    with _spinner(screen) as tell:
        while True:
            findings = examine(settings, envoys)
            passed = time.monotonic() - begun
            if not failed(findings) or passed + _PAUSE >= patience:
                return findings
            worst = CHECKS[failed(findings)[0].id].holds
            tell(f"waiting until {worst} ({passed:.0f} s of {patience:g} s)")
            time.sleep(_PAUSE)


@contextmanager
def _spinner(screen: Screen) -> Iterator[Callable[[str], None]]:
    """Show on a terminal that something goes on, on a line that vanishes."""
    if not screen.err.is_terminal:
        yield lambda _text: None
        return
    with screen.err.status(Text("looking", "dim"), spinner="dots", spinner_style="cyan") as status:
        yield lambda text: status.update(Text(text, "dim"))
