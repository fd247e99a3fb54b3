"""Whether leases expire as they should: somebody sweeps, and nothing holds expiry up."""

from collections.abc import Iterator

from registryctl.doctor.evidence import Document, Look
from registryctl.doctor.finding import Finding, Mark, judged, skipped
from registryctl.pauses import pause_text
from registryctl.times import ago


def judge(look: Look) -> Iterator[Finding]:
    """Yield the findings of the category."""
    yield from _sweeps(look)
    yield _complete(look)
    yield _leased(look)
    if look.expiry is None:
        yield skipped("expiry-not-paused", "pauses are in PostgreSQL, which is away")
        yield skipped("guard-inactive", "pauses are in PostgreSQL, which is away")
        return
    now = next((state["at"] for _, state in look.states), 0.0)
    paused = [pause_text(pause, now) for pause in look.expiry["pauses"]]
    yield judged("expiry-not-paused", paused, "", Mark.WARNING)
    yield judged("guard-inactive", map(_suspect, look.expiry["suspects"]), "", Mark.WARNING)


def _sweeps(look: Look) -> Iterator[Finding]:
    known = [state["sweeper"] for _, state in look.states if state["database"]["answers"]]
    if not known:
        yield skipped("sweeper-leads", "PostgreSQL is away, which holds the lead")
        yield skipped("sweeps-happen", "PostgreSQL is away, which knows when")
        return
    leader = next((one["leader"] for one in known if one["leader"] is not None), None)
    troubles = [] if leader is not None else ["nobody holds the lead: expired leases stay served"]
    yield judged(
        "sweeper-leads", troubles, "" if leader is None else f"by way of {leader['address'] or 'a Unix socket'}"
    )
    latest = min((one["swept_ago"] for one in known if one["swept_ago"] is not None), default=None)
    # The registry decides; a process that saw a sweep is right where another one has not read of it yet.
    if all(one["overdue"] for one in known):
        last = "no process has swept yet" if latest is None else f"the last sweep was {ago(latest)} ago"
        yield judged("sweeps-happen", [f"{last}: expired leases stay served"])
    else:
        yield judged("sweeps-happen", [], "none yet since the start" if latest is None else f"{latest:.1f} s ago")


def _complete(look: Look) -> Finding:
    """Judge what the leader could not change; the other processes do not know it."""
    known = [state["sweeper"].get("refused") for _, state in look.states]
    refused = [one for refusals in known if refusals is not None for one in refusals]
    if all(one is None for one in known):
        return skipped("sweeps-complete", "none of the registries that were asked sweeps, and only that one knows")
    return judged("sweeps-complete", map(_refusal, refused))


def _leased(look: Look) -> Finding:
    """Judge whether endpoints lost their lease: without one, nothing would ever expire them."""
    counts = [state["leases"].get("missing", 0) for _, state in look.states if state["leases"] is not None]
    if not counts:
        return skipped("leases-present", "PostgreSQL is away, which holds the leases")
    missing = max(counts)
    replaced = sum(state["sweeper"].get("leases_replaced", 0) for _, state in look.states)
    troubles = []
    if missing:
        troubles.append(f"{missing} endpoints are served and have no lease: the sweeper gives each a whole one")
    if replaced:
        troubles.append(f"{replaced} endpoints had no lease and got one since the registries started")
    return judged("leases-present", troubles, "", Mark.WARNING)


_EFFECTS = {
    "expiry": "its silent endpoints stay served",
    "removal": "endpoints that are gone stay listed",
    "missing_lease": "endpoints without a lease stay served",
    "override_end": "an override stays in force past its end",
}


def _refusal(one: Document) -> str:
    where = one["endpoint"] and f" {one['endpoint']}"
    return (
        f"{one['service']}{where} is passed over for {ago(one['seconds'])}, {_EFFECTS[one['action']]}: {one['reason']}"
    )


def _suspect(one: Document) -> str:
    return f"{one['service']} {one['endpoint']} is served though its lease is over: {one['reason']}"
