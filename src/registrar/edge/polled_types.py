"""The types of resources that Envoys poll an edge for, by the paths that they post to."""

from msgspec import Struct

_TYPE = "type.googleapis.com/envoy.config"


class PolledType(Struct, frozen=True):
    """One type of resource.

    Attributes:
        kind: how its path names it.
        type_url: the type URL of its resources.
        type_url_bytes: the same, as it stands in a poll.
        wildcard: whether a poll without names asks for all resources of its node.
        of_node: whether its resources are those of one node; otherwise they are the same for all.
        stepped: whether a version is a revision and a step, like ``7.2``, and an answer that was refused waits for a
            newer one.
    """

    kind: str
    type_url: str
    type_url_bytes: bytes
    wildcard: bool = False
    of_node: bool = False
    stepped: bool = False

    @property
    def path(self) -> str:
        """The path that Envoy posts its polls to."""
        return f"/v3/discovery:{self.kind}"


def _mesh_type(kind: str, name: str, *, wildcard: bool) -> PolledType:
    url = f"{_TYPE}.{name}"
    return PolledType(kind, url, url.encode(), wildcard, of_node=True, stepped=True)


_ENDPOINTS_URL = f"{_TYPE}.endpoint.v3.ClusterLoadAssignment"
ENDPOINTS = PolledType("endpoints", _ENDPOINTS_URL, _ENDPOINTS_URL.encode())
"""EDS: the assignment of a service, the same for all nodes."""
CLUSTERS = _mesh_type("clusters", "cluster.v3.Cluster", wildcard=True)
LISTENERS = _mesh_type("listeners", "listener.v3.Listener", wildcard=True)
ROUTES = _mesh_type("routes", "route.v3.RouteConfiguration", wildcard=False)

TYPES = (ENDPOINTS, CLUSTERS, LISTENERS, ROUTES)
BY_PATH = {polled.path: polled for polled in TYPES}
