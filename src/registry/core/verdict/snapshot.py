"""Rules about the snapshot: whether discovery is answered from the present, and a start without PostgreSQL works."""

from registry.core.status import SnapshotState, StateView
from registry.core.verdict.facts import Facts
from registry.core.verdict.finding import Conclusion, Rule, about_service, conclude
from wire.duration import ago
from wire.finding import FindingStatus, counted

MAX_MISSED_READS = 5
"""Comparisons with PostgreSQL that may be missed."""

MAX_DISK_LAG = 60.0
"""Seconds after which the snapshot on disk should have caught up; it is written every five."""


def _fresh(facts: Facts) -> Conclusion:
    reason = _reason_stale(facts.state.snapshot)
    return conclude(
        "discovery is not answered from what PostgreSQL says now",
        [reason] if reason else [],
        fact=f"services: {facts.services}, endpoints: {facts.endpoints}",
    )


def _reason_stale(snapshot: SnapshotState) -> str:
    if not snapshot.ready:
        return "nothing was read yet, neither from PostgreSQL nor from disk"
    if snapshot.stale:
        return f"served from disk, {ago(snapshot.archive_ago)} old: PostgreSQL was not read since the start"
    if snapshot.read_ago is not None and snapshot.read_ago > MAX_MISSED_READS * snapshot.read_every:
        every = f"it should be every {snapshot.read_every:g} s"
        return f"last compared with PostgreSQL {ago(snapshot.read_ago)} ago; {every}"
    return ""


def _readable(facts: Facts) -> Conclusion:
    lines = [
        about_service(service, f"{service}: {consequence}; the registry's log says why")
        for services, consequence in (
            (facts.unavailable, "this process answers 503 for it"),
            (facts.outdated, "it is served as it was"),
        )
        for service in services
    ]
    return conclude(counted(len(lines), "service cannot be read", "services cannot be read"), lines)


def _on_disk(facts: Facts) -> Conclusion:
    reason = _reason_not_kept(facts.state)
    headline = "the last state is not on disk: a start without PostgreSQL would serve an older one, or none"
    return conclude(headline, [reason] if reason else [], status=FindingStatus.WARNING)


def _reason_not_kept(state: StateView) -> str:
    snapshot = state.snapshot
    running = state.at - state.process.started_at
    if snapshot.stale or snapshot.archive_current or running < MAX_DISK_LAG:
        return ""
    if snapshot.archive_ago is None:
        return "nothing was ever written; the registry's log says why, at `snapshot_not_kept`"
    if snapshot.archive_ago <= MAX_DISK_LAG:
        return ""
    return f"the state on disk is {ago(snapshot.archive_ago)} old"


RULES = (
    Rule("snapshot-fresh", "discovery is answered from what PostgreSQL says now", _fresh, "process"),
    Rule("services-readable", "this process can read every service", _readable, "process"),
    Rule("snapshot-on-disk", "the last state is kept on disk for a start without PostgreSQL", _on_disk, "process"),
)
