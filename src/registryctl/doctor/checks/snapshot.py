"""Whether discovery is answered from the present, and whether a start without PostgreSQL would work."""

from collections.abc import Iterator

from registryctl.doctor.evidence import Document, Look
from registryctl.doctor.finding import Finding, Mark, judged, skipped
from registryctl.times import ago

_OLD = 5
"""Comparisons with PostgreSQL that may be missed."""

_KEPT_WITHIN = 60.0
"""Seconds after which the snapshot on disk should have caught up; it is written every five."""


def judge(look: Look) -> Iterator[Finding]:
    """Yield the findings of the category."""
    if not look.states:
        yield skipped("snapshot-fresh", "no registry tells its state")
        yield skipped("snapshot-on-disk", "no registry tells its state")
        return
    troubles = [(where, _age(state["snapshot"])) for where, state in look.states]
    numbers = look.states[0][1]["snapshot"]
    yield judged(
        "snapshot-fresh",
        (f"{where}{said}" for where, said in troubles if said),
        f"services: {numbers['services']}, endpoints: {numbers['endpoints']}",
    )
    kept = [(where, _kept(state)) for where, state in look.states]
    yield judged("snapshot-on-disk", (f"{where}{said}" for where, said in kept if said), "", Mark.WARNING)


def _age(snapshot: Document) -> str:
    if not snapshot["ready"]:
        return "nothing was read yet, neither from PostgreSQL nor from disk"
    if snapshot["stale"]:
        return f"served from disk, {ago(snapshot['archive_ago'])} old: PostgreSQL was not read since the start"
    if snapshot["read_ago"] > _OLD * snapshot["read_every"]:
        every = f"it should be every {snapshot['read_every']:g} s"
        return f"last compared with PostgreSQL {ago(snapshot['read_ago'])} ago; {every}"
    return ""


def _kept(state: Document) -> str:
    snapshot = state["snapshot"]
    running = state["at"] - state["process"]["started_at"]
    if snapshot["stale"] or snapshot["archive_current"] or running < _KEPT_WITHIN:
        return ""
    if snapshot["archive_ago"] is None:
        return "nothing was ever written; the log says why, at `snapshot_not_kept`"
    return f"what is there is {ago(snapshot['archive_ago'])} old" if snapshot["archive_ago"] > _KEPT_WITHIN else ""
