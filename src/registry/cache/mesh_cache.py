"""The mesh configuration in memory, as Envoys are served it, and the watches of its next change.

``registry.background.mesh_feed`` replaces nodes; ``registry.xds.mesh`` answers polls from them. Nothing here asks
PostgreSQL. A node in doubt is never taken for nothing: an Envoy without clusters drops every request.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from meshconfig.resource import Kind
from registry.cache.standing_watches import Changed, StandingWatch
from registry.cache.watches import Watch, Watches
from registry.core.mesh import KINDS, ServedNode, ServedSet
from registry.errors import UnavailableError
from wire.node import Node

_NOT_READ = "this process has not read the mesh configuration yet"
_NOT_ON_DISK = "this process has the mesh configuration from disk, which may be older than the definition of {}"


class MeshCache:
    """The resources of every node.cluster; reads are answered from here."""

    def __init__(self) -> None:
        self.revision = 0
        """The newest revision as of the last reading; 0: none was ever applied. Written by the feed and restore()."""
        self.revision_ahead = 0
        """The newest revision that a subscriber holds and PostgreSQL does not know. Raised by claim_ahead()."""
        self.unreadable: Mapping[str, str] = {}
        """Why a node.cluster cannot be read, by its name. Written by note_unreadable(), at each reading."""
        self._database_id = ""
        """Written by set_database() and restore(); empty before the first of them."""
        self._ready = False
        """Set by mark_ready() and restore(), cleared for another database; it stays set while PostgreSQL is away."""
        self._stale = False
        """Whether the state came from disk, and the database was not read since."""
        self._nodes: dict[str, ServedNode] = {}
        """By node.cluster. Written by apply() and restore(), emptied for another database."""
        self._advances = 0
        """The number of changes so far. Raised by apply()."""
        self._watches: Mapping[Kind, Watches] = {kind: Watches() for kind in KINDS}
        """By kind, then by node.cluster."""

    @property
    def database_id(self) -> str:
        """The database whose versions these are."""
        return self._database_id

    @property
    def ready(self) -> bool:
        """Whether there is anything to answer from: a complete reading of the database, or the copy on disk."""
        return self._ready

    @property
    def stale(self) -> bool:
        """Whether the state came from disk, and the database was not read since."""
        return self._stale

    @property
    def advances(self) -> int:
        """The number of changes so far: while it is the same, so is everything that is served."""
        return self._advances

    def __iter__(self) -> Iterator[ServedNode]:
        """Iterate over everything that is served, in no order."""
        return iter(list(self._nodes.values()))

    def __len__(self) -> int:
        """Return the number of nodes of which anything is or was defined."""
        return len(self._nodes)

    def get(self, cluster: str) -> ServedNode | None:
        """Return what a node.cluster is served, for people; None: nothing was ever defined for it."""
        return self._nodes.get(cluster)

    def find(self, kind: Kind, node: Node) -> ServedSet | None:
        """Return the resources of a kind that a node is served; None: none was ever defined.

        Raises:
            UnavailableError: the database has not been read yet and the copy on disk has none, or this node.cluster
                cannot be read.
        """
        served = self._nodes.get(node.cluster)
        resources = None if served is None else served.sets_for(node.id).get(kind)
        if resources is not None:
            return resources
        if not self._ready:
            raise UnavailableError(_NOT_READ)
        if self._stale:
            raise UnavailableError(_NOT_ON_DISK.format(node.cluster))
        if node.cluster in self.unreadable:
            raise UnavailableError(f"the mesh configuration of {node.cluster} cannot be read; the log says why")
        return None

    def set_database(self, database_id: str) -> bool:
        """Set the database whose versions these are, and drop everything that came from another one.

        Returns:
            Whether another database was replaced.
        """
        replaced = self._database_id not in ("", database_id)
        if replaced:
            self._ready = False
            self._nodes.clear()
            self.revision = self.revision_ahead = 0
            self.unreadable = {}
            self._wake_all()
        self._database_id = database_id
        return replaced

    def mark_ready(self) -> None:
        """Take note that the database was read completely; wake all watches if it was not since the start."""
        woken = self._stale or not self._ready
        self._stale, self._ready = False, True
        if woken:
            self._wake_all()

    def apply(self, nodes: Iterable[ServedNode]) -> list[str]:
        """Replace nodes, and wake the watches of what has changed.

        Returns:
            The node.clusters of which this process serves something newer. PostgreSQL has lost it in a fail-over, and
            they stay as they are: versions never decrease.
        """
        lost = []
        for node in nodes:
            before = self._nodes.get(node.cluster)
            if before == node:
                continue
            if before is not None and _is_older(node, before):
                lost.append(node.cluster)
                continue
            self._nodes[node.cluster] = node
            self._advances += 1
            for kind in KINDS:
                if before is None or _is_changed(kind, before, node):
                    self._watches[kind].wake(node.cluster)
        return lost

    def note_unreadable(self, reasons: Mapping[str, str]) -> None:
        """Replace the reasons why a node.cluster cannot be read; wake those that can be again."""
        before, self.unreadable = self.unreadable, reasons
        for cluster in before:
            if cluster not in reasons:
                for watches in self._watches.values():
                    watches.wake(cluster)

    def restore(self, database_id: str, revision: int, nodes: Iterable[ServedNode]) -> None:
        """Begin with the state that an earlier process kept on disk, mark it as stale, and wake all watches.

        Raises:
            ValueError: the database was found to be another one meanwhile.
        """
        if self._database_id not in ("", database_id):
            raise ValueError(f"it is of the database {database_id}, and this one is {self._database_id}")
        self._database_id = database_id
        self.revision = max(self.revision, revision)
        self._nodes = {node.cluster: node for node in nodes} | self._nodes
        self._stale = True
        if not self._ready:
            self._ready = True
            self._wake_all()

    def watch(self, kind: Kind, cluster: str, wake: Callable[[], None]) -> Watch:
        """Call ``wake`` once, in a later turn of the event loop, when a kind of a node.cluster changes."""
        return self._watches[kind].add((cluster,), wake)

    def standing_watch(self, kind: Kind, cluster: str, changed: Changed) -> StandingWatch:
        """Call ``changed`` at each change of a kind of a node.cluster, in a later turn of the event loop.

        It is called with the name of the cluster; with None when this process gets ready or its database is replaced.
        """
        return self._watches[kind].standing.add((cluster,), changed)

    def claim_ahead(self, revision: int) -> None:
        """Take note that a subscriber holds a revision that this process has not read."""
        self.revision_ahead = max(self.revision_ahead, revision)

    def _wake_all(self) -> None:
        for watches in self._watches.values():
            watches.wake_all()


def _is_older(node: ServedNode, before: ServedNode) -> bool:
    """Return whether any set of a node is older than what is served, or missing although it is served."""
    return any(
        kind not in node.sets or node.sets[kind].version < served.version for kind, served in before.sets.items()
    )


def _is_changed(kind: Kind, before: ServedNode, node: ServedNode) -> bool:
    if before.share != node.share or before.share_sets.get(kind) != node.share_sets.get(kind):
        return True
    return before.sets.get(kind) != node.sets.get(kind)
