"""All categories, in the order in which one would look."""

from collections.abc import Iterator

from registryctl.catalogue import CHECKS
from registryctl.doctor.checks import (
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
from registryctl.doctor.evidence import Look
from registryctl.doctor.finding import Finding, skipped

_OF_THE_WHOLE = (postgresql, snapshot, replicas, clocks, expiry, registrars, services, subscribers)


def judge(look: Look) -> Iterator[Finding]:
    """Yield the finding of every check; those of Envoys for each that was named."""
    yield from registry.judge(look)
    if look.answering:
        for category in _OF_THE_WHOLE:
            yield from category.judge(look)
    else:
        apart = ("registry", "envoy")
        yield from (skipped(one.id, "no registry answers") for one in CHECKS.values() if one.category not in apart)
    yield from envoy.judge(look)
