"""The effective values of every caller, gateway and edge, and where each comes from."""

from collections.abc import Mapping

from msgspec import Struct

from meshconfig.definition.dependency import Dependency
from meshconfig.definition.edge import Edge
from meshconfig.definition.gateway import Gateway
from meshconfig.definition.mesh import Mesh
from meshconfig.definition.service import Objectives
from meshconfig.position import Position


class Origin(Struct, frozen=True):
    """Where an effective value was written.

    Attributes:
        layer: ``route``, ``dependency``, ``callee``, ``mesh`` or ``built in``, as people name it; of a gateway's or an
            edge's own values ``gateway`` or ``edge``.
        position: the place in a file.
    """

    layer: str
    position: Position


class Caller(Struct, frozen=True):
    """One service with what it calls; everything is merged and complete.

    Attributes:
        service: its name, which is Envoy's node.cluster.
        dependencies: what its app may call, in the order of their names; each has its name, cluster, hosts and at least
            one route, and each route has the effective value of every policy.
        targets: clusters that only splits, shadows and external authorization lead to, as dependencies without routes.
        origins: where each effective value comes from, by its path, such as ``user.routes[0].retry.attempts``.
    """

    service: str
    dependencies: tuple[Dependency, ...] = ()
    targets: tuple[Dependency, ...] = ()
    origins: Mapping[str, Origin] = {}


class Configuration(Struct, frozen=True):
    """A whole repository of definitions, checked and merged.

    Attributes:
        mesh: the settings that all share.
        callers: every service of the repository, by name.
        gateways: every gateway, by name.
        edges: every edge, by name.
        targets: for each gateway and edge by name, its use of each service that a file describes, by the service's
            name, as a dependency without routes: its ``defaults`` over the callee's, the mesh's and the built-in ones.
            A service that is not there is used as the gateway's or edge's ``defaults`` say.
        target_origins: for each gateway and edge by name, where the values of these uses come from: by the service's
            name and the path of the value, such as ``retry.attempts``. Under the empty name stand those of a service
            that no file describes.
        objectives: what callers may expect of each service that says so.
        origins: where the values of the mesh, the gateways and the edges come from, by their path, such as
            ``mesh.egress.port``, ``gateways.staging.hosts`` or ``edges.www.sites[0].routes[1].timeout``.
    """

    mesh: Mesh = Mesh()
    callers: Mapping[str, Caller] = {}
    gateways: Mapping[str, Gateway] = {}
    edges: Mapping[str, Edge] = {}
    targets: Mapping[str, Mapping[str, Dependency]] = {}
    target_origins: Mapping[str, Mapping[str, Mapping[str, Origin]]] = {}
    objectives: Mapping[str, Objectives] = {}
    origins: Mapping[str, Origin] = {}
