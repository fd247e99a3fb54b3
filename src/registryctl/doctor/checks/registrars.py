"""Checks whether registrars renew their leases in time, and whether one has fallen silent."""

from collections.abc import Iterator

from registryctl.doctor.evidence import Document, Evidence
from registryctl.doctor.finding import Finding, FindingStatus, conclude, counted, skipped
from wire.duration import ago


def evaluate(evidence: Evidence) -> Iterator[Finding]:
    """Yield the findings of the category."""
    yield _punctual(evidence)
    if evidence.services is None:
        yield skipped("registrars-heard", evidence.unlisted)
        return
    now = next((state["at"] for _, state in evidence.states), 0.0)
    silent = [_silence(endpoint, now) for endpoint in evidence.silent]
    headline = counted(len(silent), "registrar is silent", "registrars are silent")
    yield conclude("registrars-heard", headline, silent, status=FindingStatus.WARNING)


def _punctual(evidence: Evidence) -> Finding:
    leases = next((state["leases"] for _, state in evidence.states if state["leases"] is not None), None)
    if leases is None:
        return skipped("heartbeats-punctual", "leases are in PostgreSQL, which is away")
    late, held = leases["late"], leases["held"]
    most = 2 * late > held > 1
    troubles = [f"{_tally(tally)}: more than half of the lease is over" for tally in leases["services"]]
    if most:
        troubles.insert(0, "most registrars are late: it is the network or the registry, rather than they")
    return conclude(
        "heartbeats-punctual",
        f"{late} of {counted(held, 'lease', 'leases')} {'is' if late == 1 else 'are'} renewed late",
        troubles,
        status=FindingStatus.FAILURE if most else FindingStatus.WARNING,
        fact=f"leases: {held}",
    )


def _tally(tally: Document) -> str:
    over = f", {tally['expired']} expired" if tally["expired"] else ""
    return f"{tally['service']}: {tally['late']} of {tally['leases']} late{over}"


def _silence(endpoint: Document, now: float) -> str:
    where = f"{endpoint['service']} {endpoint['endpoint']} of instance {endpoint['instance_id']}"
    since = f"its lease lapsed {ago(now - endpoint['at'])} ago" + ("" if endpoint["listed"] else " and it was removed")
    return f"{where}: {since}; its registrar or machine has stopped, or cannot reach the registry"
