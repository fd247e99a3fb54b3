"""The Envoys that poll for the mesh configuration, as far as they are seen. No I/O."""

from collections.abc import Mapping, Sequence

from msgspec import Struct


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
