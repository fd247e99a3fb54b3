"""Checks whether leases expire as they should: some process sweeps, and nothing holds expiry up."""

from collections.abc import Iterator

from registryctl.doctor.evidence import Document, Evidence
from registryctl.doctor.finding import Finding, FindingStatus, conclude, counted, skipped
from registryctl.pauses import pause_text
from wire.duration import ago

_EFFECTS = {
    "expiry": "its silent endpoints stay served",
    "removal": "endpoints that are gone stay listed",
    "missing_lease": "endpoints without a lease stay served",
    "override_end": "an override stays in force past its end",
}


def evaluate(evidence: Evidence) -> Iterator[Finding]:
    """Yield the findings of the category."""
    yield from _sweeps(evidence)
    yield _complete(evidence)
    yield _leased(evidence)
    if evidence.expiry is None:
        yield skipped("expiry-not-paused", "pauses are in PostgreSQL, which is away")
        yield skipped("guard-inactive", "pauses are in PostgreSQL, which is away")
        return
    now = next((state["at"] for _, state in evidence.states), 0.0)
    pauses = [pause_text(pause, now) for pause in evidence.expiry["pauses"]]
    yield conclude("expiry-not-paused", "expiry is paused", pauses, status=FindingStatus.WARNING)
    suspects = [_suspect(suspect) for suspect in evidence.expiry["suspects"]]
    held = counted(len(suspects), "endpoint", "endpoints")
    headline = f"the mass-expiry guard holds {held}"
    yield conclude("guard-inactive", headline, suspects, status=FindingStatus.WARNING)


def _sweeps(evidence: Evidence) -> Iterator[Finding]:
    sweepers = [state["sweeper"] for _, state in evidence.states if state["database"]["answers"]]
    if not sweepers:
        yield skipped("sweeper-leads", "PostgreSQL is away, which holds the lead")
        yield skipped("sweeps-happen", "PostgreSQL is away, which knows when")
        return
    leader = next((sweeper["leader"] for sweeper in sweepers if sweeper["leader"] is not None), None)
    yield conclude(
        "sweeper-leads",
        "no process sweeps for expired leases",
        [] if leader is not None else ["no process holds the lead: expired leases stay served"],
        fact="" if leader is None else f"by way of {leader['address'] or 'a Unix socket'}",
    )
    # Registries of an earlier version do not say it.
    judgements = [sweeper["overdue"] for sweeper in sweepers if "overdue" in sweeper]
    if not judgements:
        yield skipped("sweeps-happen", "no registry process is new enough to say whether sweeps are overdue")
        return
    latest = min((sweeper["swept_ago"] for sweeper in sweepers if sweeper["swept_ago"] is not None), default=None)
    # The registry decides; a process that saw a sweep is right where another one has not read of it yet.
    overdue = all(judgements)
    last = "no process has swept yet" if latest is None else f"the last sweep was {ago(latest)} ago"
    yield conclude(
        "sweeps-happen",
        "sweeps are overdue",
        [f"{last}: expired leases stay served"] if overdue else [],
        fact="none yet since the start" if latest is None else f"the last one {latest:.1f} s ago",
    )


def _complete(evidence: Evidence) -> Finding:
    """Check which services the leader could not change; the other processes do not know it."""
    reports = [state["sweeper"].get("refused") for _, state in evidence.states]
    if all(report is None for report in reports):
        return skipped("sweeps-complete", "none of the registries that were asked sweeps, and only that one knows")
    refusals = [refusal for report in reports if report is not None for refusal in report]
    services = {refusal["service"] for refusal in refusals}
    headline = counted(len(services), "service is passed over by sweeps", "services are passed over by sweeps")
    return conclude("sweeps-complete", headline, [_refusal(refusal) for refusal in refusals])


def _leased(evidence: Evidence) -> Finding:
    """Check whether endpoints lost their lease: without one, nothing would ever expire them."""
    counts = [state["leases"].get("missing", 0) for _, state in evidence.states if state["leases"] is not None]
    if not counts:
        return skipped("leases-present", "PostgreSQL is away, which holds the leases")
    missing = max(counts)
    replaced = sum(state["sweeper"].get("leases_replaced", 0) for _, state in evidence.states)
    troubles = []
    if missing:
        troubles.append(f"{missing} endpoints are served and have no lease: the sweeper gives each a whole one")
    if replaced:
        troubles.append(f"{replaced} endpoints had no lease and got one since the registries started")
    headline = (
        counted(missing, "endpoint is served without a lease", "endpoints are served without a lease")
        if missing
        else counted(replaced, "endpoint had lost its lease", "endpoints had lost their leases")
    )
    return conclude("leases-present", headline, troubles, status=FindingStatus.WARNING)


def _refusal(refusal: Document) -> str:
    where = refusal["endpoint"] and f" {refusal['endpoint']}"
    effect = _EFFECTS[refusal["action"]]
    seconds = ago(refusal["seconds"])
    return f"{refusal['service']}{where} is passed over for {seconds}, {effect}: {refusal['reason']}"


def _suspect(suspect: Document) -> str:
    return f"{suspect['service']} {suspect['endpoint']} is served though its lease is over: {suspect['reason']}"
