"""Checks whether clocks agree: leases go by PostgreSQL's alone, and what people read goes by all of them."""

from collections.abc import Iterator

from registryctl.doctor.evidence import Evidence
from registryctl.doctor.finding import Finding, FindingStatus, conclude, skipped

MAX_DIFFERENCE = 2.0
"""Seconds by which two clocks may differ."""


def evaluate(evidence: Evidence) -> Iterator[Finding]:
    """Yield the findings of the category."""
    asked = [(registry, registry.state) for registry in evidence.answering if registry.state is not None]
    if not asked:
        yield skipped("clock-registry", "no registry reports its state")
        yield skipped("clock-postgresql", "no registry reports its state")
        return
    offsets = [(registry.url, state["at"] - registry.asked_at, registry.took / 2) for registry, state in asked]
    wrong = [
        f"{url} is {abs(offset):.1f} s {_direction(offset)} this machine"
        for url, offset, error in offsets
        if abs(offset) - error > MAX_DIFFERENCE
    ]
    headline = "the registry's clock differs from this machine's"
    yield conclude("clock-registry", headline, wrong, status=FindingStatus.WARNING)
    databases = [(prefix, state["database"]) for prefix, state in evidence.states if state["database"]["answers"]]
    if not databases:
        yield skipped("clock-postgresql", "PostgreSQL is away")
        return
    wrong = [
        f"{prefix}PostgreSQL is {abs(database['clock_ahead']):.1f} s {_direction(database['clock_ahead'])} the registry"
        for prefix, database in databases
        if abs(database["clock_ahead"]) - database["took"] / 2 > MAX_DIFFERENCE
    ]
    headline = "PostgreSQL's clock differs from the registry's"
    yield conclude("clock-postgresql", headline, wrong, status=FindingStatus.WARNING)


def _direction(offset: float) -> str:
    return "ahead of" if offset > 0 else "behind"
