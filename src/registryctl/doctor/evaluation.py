"""Evaluation of the evidence: the verdicts of the registry, and what only a client can know."""

from collections.abc import Iterator

from registryctl.doctor.checks import access, clocks, envoy, registry, replicas
from registryctl.doctor.evidence import Evidence
from registryctl.doctor.merging import Report, merge
from wire.finding import Finding


def evaluate(evidence: Evidence) -> list[Finding]:
    """Return the finding of every check; those of an Envoy once for each that was named."""
    return merge(_reports(evidence))


def _reports(evidence: Evidence) -> Iterator[Report]:
    """Yield the findings in the order in which an operator would look."""
    yield from (("", finding) for finding in registry.evaluate(evidence))
    for prefix, _, verdict in evidence.verdicts:
        yield from ((prefix, finding) for finding in verdict.findings)
    for category in (access, replicas, clocks, envoy):
        yield from (("", finding) for finding in category.evaluate(evidence))
