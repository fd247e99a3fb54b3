"""What the doctor found, in plain words, with what to do about it."""

import enum
from collections.abc import Sequence

from msgspec import Struct


class Verdict(enum.StrEnum):
    """How bad it is; only FAIL makes the exit status 1."""

    OK = "ok"
    NOTE = "note"
    WARN = "warn"
    FAIL = "FAIL"


class Finding(Struct, frozen=True):
    """One observation.

    Attributes:
        verdict: how bad it is.
        said: what was found.
        fix: how to mend it; empty when nothing has to be mended.
    """

    verdict: Verdict
    said: str
    fix: str = ""

    def __str__(self) -> str:
        mend = f"\n         fix: {self.fix}" if self.fix else ""
        return f"  {self.verdict:<4}   {self.said}{mend}"


class Section(Struct, frozen=True):
    """What was found about one subject."""

    title: str
    findings: Sequence[Finding]

    def __str__(self) -> str:
        return "\n".join([self.title, *map(str, self.findings)])

    @property
    def failed(self) -> bool:
        """Whether something has to be mended."""
        return any(finding.verdict is Verdict.FAIL for finding in self.findings)
