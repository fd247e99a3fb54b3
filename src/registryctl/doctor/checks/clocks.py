"""Checks whether the registry's clock agrees with this machine's: what people read goes by both."""

from collections.abc import Iterator

from registryctl.doctor.evidence import Evidence
from registryctl.doctor.finding import conclude, skipped
from wire.finding import Finding, FindingStatus

MAX_DIFFERENCE = 2.0
"""Seconds by which two clocks may differ."""


def evaluate(evidence: Evidence) -> Iterator[Finding]:
    """Yield the findings of the category."""
    if not evidence.verdicts:
        yield skipped("clock-registry", "no registry gives its verdict")
        return
    offsets = [
        (registry.url, verdict.at - registry.asked_at, registry.took / 2) for _, registry, verdict in evidence.verdicts
    ]
    wrong = [
        f"{url} is {abs(offset):.1f} s {'ahead of' if offset > 0 else 'behind'} this machine"
        for url, offset, error in offsets
        if abs(offset) - error > MAX_DIFFERENCE
    ]
    headline = "the registry's clock differs from this machine's"
    yield conclude("clock-registry", headline, wrong, status=FindingStatus.WARNING)
