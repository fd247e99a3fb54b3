"""The Envoys of one node.cluster as people look at them: the version that each shows of each kind. No I/O."""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from meshconfig.resource import Kind
from registry.core.mesh import KINDS, ServedNode, ServedSets
from registry.core.mesh_subscriber import MeshReport


class ShownVersion(Struct, frozen=True):
    """The version of one kind that an Envoy shows in its polls.

    Attributes:
        name: the route configuration; empty for clusters and listeners.
        version: the version in its last poll, which is what it has accepted; None: none of this registry's.
        served: the version that it is served; None: nothing was defined.
        refused: the newest version that it was sent and did not take; None: it refuses nothing.
        denied: whether access control refuses its polls.
    """

    name: str
    version: int | None
    served: int | None
    refused: int | None
    denied: bool

    @property
    def current(self) -> bool:
        """Whether it shows what it is served."""
        return self.version is not None and self.version == self.served

    @property
    def refuses(self) -> bool:
        """Whether it refuses what it is served."""
        return self.refused is not None and not self.current


class MeshEnvoy(Struct, frozen=True):
    """One Envoy. Copies that share a node id and an address count as one.

    Attributes:
        node_id: the id of its node.
        address: the address that it polls from.
        envoy: its version of Envoy.
        last_seen: the time of its last poll or response, by the database's clock.
        held: whether a poll of it is held now.
        shown: the versions that it shows, by kind; a kind that it does not poll for is missing.
    """

    node_id: str
    address: str
    envoy: str
    last_seen: float
    held: bool
    shown: Mapping[Kind, Sequence[ShownVersion]]

    @property
    def current(self) -> bool:
        """Whether it shows everything that it is served."""
        return all(each.current for shown in self.shown.values() for each in shown)

    @property
    def refuses(self) -> bool:
        """Whether it refuses something, or its polls are refused."""
        return any(each.refuses or each.denied for shown in self.shown.values() for each in shown)


def envoys_of(reports: Iterable[MeshReport], node: ServedNode | None) -> list[MeshEnvoy]:
    """Return the Envoys of a node.cluster, those first that do not show what they are served.

    Args:
        reports: what all processes have seen of them.
        node: what they are served; None: nothing was ever defined for them.
    """
    by_envoy: dict[tuple[str, str], dict[tuple[Kind, str], MeshReport]] = {}
    for report in reports:
        kind = next((kind for kind in KINDS if kind == report.kind), None)
        if kind is None:
            continue
        seen = by_envoy.setdefault((report.node_id, report.address), {})
        before = seen.get((kind, report.name))
        # It may have gone from one process to another.
        if before is None or before.seen_at < report.seen_at:
            seen[kind, report.name] = report
    envoys = [_envoy(key, seen, {} if node is None else node.sets_for(key[0])) for key, seen in by_envoy.items()]
    return sorted(envoys, key=lambda each: (not each.refuses, each.current, each.node_id, each.address))


def _envoy(key: tuple[str, str], seen: Mapping[tuple[Kind, str], MeshReport], served: ServedSets) -> MeshEnvoy:
    newest = max(seen.values(), key=lambda report: report.seen_at)
    shown = {kind: list(_shown(kind, seen, served)) for kind in KINDS}
    return MeshEnvoy(
        *key,
        newest.envoy,
        newest.seen_at,
        any(report.held for report in seen.values()),
        {kind: versions for kind, versions in shown.items() if versions},
    )


def _shown(kind: Kind, seen: Mapping[tuple[Kind, str], MeshReport], served: ServedSets) -> Iterable[ShownVersion]:
    for (of_kind, name), report in sorted(seen.items()):
        if of_kind == kind:
            version = _served_version(served, kind, name)
            yield ShownVersion(name, report.version, version, report.refused, report.denied)


def _served_version(served: ServedSets, kind: Kind, name: str) -> int | None:
    """Return the version at which a set is served, or the resource of a name in it."""
    served_set = served.get(kind)
    if served_set is None:
        return None
    if not name:
        return served_set.version
    resource = served_set.resources.get(name)
    return None if resource is None else resource.version
