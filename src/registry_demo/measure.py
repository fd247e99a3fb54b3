"""One figure of the run, and the bound that it has to keep."""

from dataclasses import dataclass

from registry_demo.process import Process


@dataclass(frozen=True)
class Measure:
    """What was measured, as people read it, and whether it kept its bound."""

    what: str
    value: str
    bound: str
    kept: bool
    suspect: Process
    """Whose log says most when the bound was not kept."""


def duration(what: str, seconds: float | None, bound: float, suspect: Process) -> Measure:
    """Return the measure of something that has to happen within ``bound`` seconds; None: it never did."""
    value = "never" if seconds is None else f"{seconds:.2f} s"
    return Measure(what, value, f"≤ {bound:.2f} s", seconds is not None and seconds <= bound, suspect)


def none_lost(when: str, lost: int, suspect: Process) -> Measure:
    """Return the measure of a while in which no request may fail."""
    return exactly(f"requests lost {when}", lost, 0, suspect)


def at_least(what: str, value: int, wanted: int, suspect: Process) -> Measure:
    """Return the measure of a count that must have reached ``wanted``."""
    return Measure(what, f"{value:,}", f"≥ {wanted:,}", value >= wanted, suspect)


def exactly(what: str, value: int, wanted: int, suspect: Process) -> Measure:
    """Return the measure of a count that has one right value."""
    return Measure(what, f"{value:,}", f"{wanted:,}", value == wanted, suspect)
