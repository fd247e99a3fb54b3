"""The Envoys that poll for the mesh configuration, as far as they are seen. No I/O."""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from registry.core.mesh_subscriber import Certainty, MeshReport

_GONE_AFTER = 60.0
"""Seconds without a poll after which an Envoy is taken to have stopped, if it usually polls more often."""
_USUAL_PAUSES = 3.0
"""Pauses of a slower one after which it is."""


class Poller(Struct, frozen=True, order=True):
    """An Envoy that polls: its node id, its address, and its version."""

    node_id: str
    address: str
    envoy: str = ""


class MeshFleet(Struct, frozen=True):
    """The Envoys that poll for clusters, listeners or routes.

    Attributes:
        pollers: by node.cluster.
        complete: whether an Envoy that is not among them does not poll.
    """

    pollers: Mapping[str, Sequence[Poller]] = {}
    complete: bool = True

    def may_poll(self, cluster: str) -> bool:
        """Return whether an Envoy of a node.cluster polls, or may poll unseen."""
        return not self.complete or bool(self.pollers.get(cluster))


def make_fleet(reports: Iterable[MeshReport], now: float, certain: Certainty) -> MeshFleet:
    """Return the Envoys that poll, by what all processes report.

    Args:
        reports: the reports of all processes.
        now: the database's time.
        certain: what can be said of Envoys without a report. A process that has just started has not seen those
            whose polls it gets, and does not prove that they are gone.
    """
    pollers: dict[str, set[Poller]] = {}
    for report in reports:
        patience = max(_GONE_AFTER, _USUAL_PAUSES * (report.pause or 0.0))
        if report.held or now - report.seen_at <= patience:
            pollers.setdefault(report.cluster, set()).add(Poller(report.node_id, report.address, report.envoy))
    ordered = {cluster: sorted(seen) for cluster, seen in pollers.items()}
    return MeshFleet(ordered, certain.watched and not certain.overlooked)
