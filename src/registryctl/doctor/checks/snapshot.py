"""Checks whether discovery is answered from the present, and whether a start without PostgreSQL would work."""

from collections.abc import Iterator

from registryctl.doctor.evidence import Document, Evidence
from registryctl.doctor.finding import Finding, FindingStatus, conclude, skipped
from wire.duration import ago

MAX_MISSED_READS = 5
"""Comparisons with PostgreSQL that may be missed."""

MAX_DISK_LAG = 60.0
"""Seconds after which the snapshot on disk should have caught up; it is written every five."""


def evaluate(evidence: Evidence) -> Iterator[Finding]:
    """Yield the findings of the category."""
    if not evidence.states:
        yield skipped("snapshot-fresh", "no registry reports its state")
        yield skipped("snapshot-on-disk", "no registry reports its state")
        return
    old = [f"{prefix}{reason}" for prefix, state in evidence.states if (reason := _reason_stale(state["snapshot"]))]
    snapshot = evidence.states[0][1]["snapshot"]
    yield conclude(
        "snapshot-fresh",
        "discovery is not answered from what PostgreSQL says now",
        old,
        fact=f"services: {snapshot['services']}, endpoints: {snapshot['endpoints']}",
    )
    behind = [f"{prefix}{reason}" for prefix, state in evidence.states if (reason := _reason_not_kept(state))]
    headline = "the last state is not on disk: a start without PostgreSQL would serve an older one, or none"
    yield conclude("snapshot-on-disk", headline, behind, status=FindingStatus.WARNING)


def _reason_stale(snapshot: Document) -> str:
    if not snapshot["ready"]:
        return "nothing was read yet, neither from PostgreSQL nor from disk"
    if snapshot["stale"]:
        return f"served from disk, {ago(snapshot['archive_ago'])} old: PostgreSQL was not read since the start"
    if snapshot["read_ago"] > MAX_MISSED_READS * snapshot["read_every"]:
        every = f"it should be every {snapshot['read_every']:g} s"
        return f"last compared with PostgreSQL {ago(snapshot['read_ago'])} ago; {every}"
    return ""


def _reason_not_kept(state: Document) -> str:
    snapshot = state["snapshot"]
    running = state["at"] - state["process"]["started_at"]
    if snapshot["stale"] or snapshot["archive_current"] or running < MAX_DISK_LAG:
        return ""
    if snapshot["archive_ago"] is None:
        return "nothing was ever written; the registry's log says why, at `snapshot_not_kept`"
    if snapshot["archive_ago"] <= MAX_DISK_LAG:
        return ""
    return f"the state on disk is {ago(snapshot['archive_ago'])} old"
