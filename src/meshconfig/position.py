"""Where something stands in a repository of definitions, and what is wrong there."""

from enum import StrEnum

from msgspec import Struct


class Position(Struct, frozen=True, order=True):
    """A place in a file of the repository. Lines and columns count from 1; 0 stands for the whole file."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        """Return it as compilers print it: ``services/web.yaml:12:5``."""
        file = self.file if self.file.isprintable() else repr(self.file)
        return file if not self.line else f"{file}:{self.line}:{self.column}"


BUILT_IN = Position("built in")
"""The origin of values that no file writes."""


class Severity(StrEnum):
    """Whether a fault keeps the definitions from being compiled."""

    ERROR = "error"
    WARNING = "warning"


class Fault(Struct, frozen=True, order=True):
    """One thing that is wrong with the definitions.

    Attributes:
        position: where.
        message: what was written and what is allowed, as a sentence.
        fix: what to do, as a sentence; empty where the message says it.
        severity: a warning does not keep the definitions from being compiled.
        inherent: whether it says the price of what was asked for, which no edit mends; `strict` makes no error of it.
    """

    position: Position
    message: str
    fix: str = ""
    severity: Severity = Severity.ERROR
    inherent: bool = False

    def __str__(self) -> str:
        """Return it as one line: position, severity where it is a warning, message, fix."""
        marked = "" if self.severity is Severity.ERROR else "warning: "
        return f"{self.position}: {marked}{self.message}{f' {self.fix}' if self.fix else ''}"
