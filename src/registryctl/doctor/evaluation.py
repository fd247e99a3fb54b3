"""Evaluation of the evidence by every check, in the order in which an operator would look."""

from collections.abc import Iterator

from registryctl.doctor.catalogue import CHECKS
from registryctl.doctor.checks import (
    access,
    clocks,
    envoy,
    expiry,
    postgresql,
    registrars,
    registry,
    replicas,
    services,
    snapshot,
    subscribers,
)
from registryctl.doctor.evidence import Evidence
from registryctl.doctor.finding import Finding, skipped

_OF_THE_WHOLE = (access, postgresql, snapshot, replicas, clocks, expiry, registrars, services, subscribers)
"""The categories that need an answer of some registry."""


def evaluate(evidence: Evidence) -> Iterator[Finding]:
    """Yield the finding of every check; those of an Envoy once for each that was named."""
    yield from registry.evaluate(evidence)
    if evidence.answering:
        for category in _OF_THE_WHOLE:
            yield from category.evaluate(evidence)
    else:
        apart = ("registry", "envoy")
        yield from (
            skipped(check.id, "no registry answers") for check in CHECKS.values() if check.category not in apart
        )
    yield from envoy.evaluate(evidence)
