"""Results of ``registrar doctor`` in plain words, each with what to do about it."""

import enum
from collections.abc import Sequence

from msgspec import Struct


class Severity(enum.StrEnum):
    """How bad a diagnostic is; only FAIL makes the exit status 1."""

    OK = "ok"
    NOTE = "note"
    WARN = "warn"
    FAIL = "FAIL"


class Diagnostic(Struct, frozen=True):
    """One statement about a part of the system, with its fix.

    Attributes:
        severity: how bad it is.
        text: what was observed.
        fix: what to do about it; empty if nothing has to be done.
    """

    severity: Severity
    text: str
    fix: str = ""

    def __str__(self) -> str:
        fix = f"\n         fix: {self.fix}" if self.fix else ""
        return f"  {self.severity:<4}   {self.text}{fix}"


class Section(Struct, frozen=True):
    """The diagnostics of one subject, under its title."""

    title: str
    diagnostics: Sequence[Diagnostic]

    def __str__(self) -> str:
        return "\n".join([self.title, *map(str, self.diagnostics)])
