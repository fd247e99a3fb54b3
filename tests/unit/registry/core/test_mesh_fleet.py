"""The Envoys that poll for the mesh configuration, and what may be removed although none is seen."""

from registry.core.mesh_fleet import Poller, make_fleet
from registry.core.mesh_subscriber import Certainty, MeshReport

NOW = 1_000.0
WATCHED = Certainty(watched=True, overlooked=False)


def report(cluster: str, seen_at: float, *, held: bool = False, pause: float | None = None) -> MeshReport:
    """Return a report about an Envoy of a node.cluster."""
    return MeshReport(
        process="p1",
        kind="clusters",
        name="",
        node_id="e1",
        address="10.0.0.1",
        cluster=cluster,
        envoy="1.40.0",
        version=5,
        refused=None,
        refused_at=None,
        denied=False,
        started_at=None,
        first_seen=0.0,
        polled_at=seen_at,
        seen_at=seen_at,
        held=held,
        pause=pause,
    )


def test_silence_is_absence_only_where_every_process_watched_for_long() -> None:
    """A registry that has just started, or had no room for all, has not seen every Envoy that polls."""
    assert not make_fleet([], NOW, WATCHED).may_poll("web")
    for doubt in (Certainty(watched=False, overlooked=False), Certainty(watched=False, overlooked=True)):
        assert make_fleet([], NOW, doubt).may_poll("web")


def test_an_envoy_polls_until_it_was_silent_for_a_minute_or_three_of_its_pauses() -> None:
    """One whose poll is held has not stopped, however long ago it came."""
    reports = [
        report("lately", NOW - 59),
        report("gone", NOW - 61),
        report("slow", NOW - 61, pause=30.0),
        report("held", NOW - 500, held=True),
    ]
    fleet = make_fleet(reports, NOW, WATCHED)
    assert sorted(fleet.pollers) == ["held", "lately", "slow"]
    assert fleet.pollers["slow"] == [Poller("e1", "10.0.0.1", "1.40.0")]
