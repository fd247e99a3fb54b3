"""The document of the verdict, as `GET /v1/verdict` answers it."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from registry.core.verdict.evaluation import count
from registry.core.verdict.traffic import REQUESTS_SUCCEED
from wire.finding import Finding, FindingStatus

_TRAFFIC = (
    "services-routable",
    REQUESTS_SUCCEED,
    "endpoints-not-silent",
    "services-not-empty",
    "subscribers-not-rejecting",
    "subscribers-not-stuck",
)
"""Rules about requests that fail now, or soon."""


class Verdict(Struct, frozen=True):
    """Every finding about the registry, as one process sees it."""

    at: Annotated[float, Meta(description="Seconds since 1970, on the clock of the machine that answers.")]
    age: Annotated[float, Meta(description="Seconds since PostgreSQL was asked.")]
    database_id: Annotated[str, Meta(description="Equal in all processes of one registry.")]
    process: Annotated[str, Meta(description="The process that answers: its host and process id.")]
    version: Annotated[str, Meta(description="The version of its program.")]
    ok: Annotated[bool, Meta(description="Nothing fails; there may be warnings.")]
    counts: Annotated[dict[str, int], Meta(description="The number of findings of each status.")]
    findings: Annotated[Sequence[Finding], Meta(description="By category, in the order of a report.")]

    @classmethod
    def of(cls, findings: Sequence[Finding], *, at: float, database_id: str, process: str, version: str) -> "Verdict":
        """Return the verdict that findings make."""
        counts = count(findings)
        return cls(
            at=at,
            age=0.0,
            database_id=database_id,
            process=process,
            version=version,
            ok=not counts[FindingStatus.FAILURE.value],
            counts=counts,
            findings=findings,
        )

    def troubles(self) -> list[Finding]:
        """Return the failures, then the warnings; among each those that cost traffic come first."""
        bad = [*self.of_status("failure"), *self.of_status("warning")]
        return sorted(bad, key=lambda finding: (finding.status != "failure", finding.id not in _TRAFFIC))

    def of_status(self, status: str) -> list[Finding]:
        """Return the findings of a status."""
        return [finding for finding in self.findings if finding.status.value == status]

    @property
    def failing_pairs(self) -> int:
        """The number of pairs of caller and callee whose requests fail."""
        warnings = self.of_status("warning")
        return sum(len(finding.lines) + finding.more for finding in warnings if finding.id == REQUESTS_SUCCEED)

    @property
    def words(self) -> str:
        """The verdict in a few words: ``2 failures, 1 warning``, or ``All well``."""
        numbers = ((self.counts["failure"], "failure"), (self.counts["warning"], "warning"))
        parts = [f"{number} {noun}{'' if number == 1 else 's'}" for number, noun in numbers if number]
        return ", ".join(parts) or "All well"
