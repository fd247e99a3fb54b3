"""Measurements of the demo, each with the bound that it has to keep."""

from dataclasses import dataclass

from registry_demo.process import Process


@dataclass(frozen=True)
class Measure:
    """One figure of the run, as text, with its bound.

    Attributes:
        subject: what was measured.
        value: the figure.
        bound: the figures that are allowed.
        kept: whether the figure is one of them.
        suspect: the process whose log says most when it is not.
    """

    subject: str
    value: str
    bound: str
    kept: bool
    suspect: Process


def duration(subject: str, seconds: float | None, bound: float, suspect: Process) -> Measure:
    """Return the measure of an event that has to happen within ``bound`` seconds; None: it never did."""
    value = "never" if seconds is None else f"{seconds:.2f} s"
    return Measure(subject, value, f"≤ {bound:.2f} s", seconds is not None and seconds <= bound, suspect)


def none_lost(when: str, lost: int, suspect: Process) -> Measure:
    """Return the measure of a time in which no request may fail."""
    return exactly(f"requests lost {when}", lost, 0, suspect)


def at_least(subject: str, value: int, expected: int, suspect: Process) -> Measure:
    """Return the measure of a count that must have reached ``expected``."""
    return Measure(subject, f"{value:,}", f"≥ {expected:,}", value >= expected, suspect)


def exactly(subject: str, value: int, expected: int, suspect: Process) -> Measure:
    """Return the measure of a count that has one right value."""
    return Measure(subject, f"{value:,}", f"{expected:,}", value == expected, suspect)
