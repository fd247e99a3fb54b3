"""Whether registrars renew in time, and none has fallen silent."""

from collections.abc import Iterator

from registryctl.doctor.evidence import Document, Look
from registryctl.doctor.finding import Finding, Mark, judged, skipped
from registryctl.times import ago


def judge(look: Look) -> Iterator[Finding]:
    """Yield the findings of the category."""
    leases = next((state["leases"] for _, state in look.states if state["leases"] is not None), None)
    if leases is None:
        yield skipped("heartbeats-punctual", "leases are in PostgreSQL, which is away")
    else:
        most = 2 * leases["late"] > leases["held"] > 1
        troubles = [f"{_tally(one)}: more than half of the lease is over" for one in leases["services"]]
        if most:
            troubles.insert(0, "most registrars are late: it is the network or the registry, rather than they")
        mark = Mark.FAILURE if most else Mark.WARNING
        yield judged("heartbeats-punctual", troubles, f"leases: {leases['held']}", mark)
    if look.services is None:
        yield skipped("registrars-heard", "no registry is ready")
        return
    now = next((state["at"] for _, state in look.states), 0.0)
    yield judged("registrars-heard", (_silence(one, now) for one in look.silent), "", Mark.WARNING)


def _tally(one: Document) -> str:
    over = f", {one['expired']} expired" if one["expired"] else ""
    return f"{one['service']}: {one['late']} of {one['leases']} late{over}"


def _silence(one: Document, now: float) -> str:
    where = f"{one['service']} {one['endpoint']} of instance {one['instance_id']}"
    since = f"its lease lapsed {ago(now - one['at'])} ago" + ("" if one["listed"] else " and it was removed")
    return f"{where}: {since}; its registrar or machine has stopped, or cannot reach the registry"
