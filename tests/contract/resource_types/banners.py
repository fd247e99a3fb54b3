"""A resource type of the tests that is keyed by the node's cluster, and is asked for without names: a banner."""

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable

from registry.cache.standing_watches import Changed, StandingWatch, StandingWatches
from registry.errors import UnavailableError
from registry.xds.resource_cache import Resource, ResourceCache, ResourceNames
from registry.xds.resources import Api, ResourceType
from wire.node import Node

BANNERS = ResourceType("banners", order=11, type_urls={"v3": "type.googleapis.com/test.Banner"}, wildcard=True)


class Banner(Resource):
    """A banner of a cluster at one version."""

    database_id = "banners"
    version = 0

    def __init__(self, version: int, name: str, text: str) -> None:
        self.version = version
        self._content = {"@type": BANNERS.type_urls["v3"], "name": name, "text": text}

    def json(self, _api: Api) -> bytes:
        """Return the banner."""
        return json.dumps(self._content).encode()


class _Watch:
    def __init__(
        self, watches: "dict[_Watch, str]", cluster: str, names: Collection[str] | None, wake: Callable[[], None]
    ) -> None:
        self._watches = watches
        self.names = names
        self.wake = wake
        watches[self] = cluster

    def cancel(self) -> None:
        self._watches.pop(self, None)


class BannerCache(ResourceCache):
    """The banners of each cluster, all at the version of the last change of the cluster's."""

    database_id = "banners"

    def __init__(self) -> None:
        self.sure = True
        """Whether this process has read the banners. Cleared by tests, set by mark_sure()."""
        self.claims: list[tuple[str, int]] = []
        self._versions: dict[str, int] = {}
        self._banners: dict[str, dict[str, Banner]] = {}
        self._watches: dict[_Watch, str] = {}
        self._standing: defaultdict[str, StandingWatches] = defaultdict(StandingWatches)
        """The standing watches of each cluster."""

    def publish(self, cluster: str, version: int, **texts: str) -> None:
        """Replace the banners of a cluster, and wake its nodes."""
        changed = {*texts, *self._banners.get(cluster, ())}
        self._versions[cluster] = version
        self._banners[cluster] = {name: Banner(version, name, text) for name, text in texts.items()}
        for name in changed:
            self._standing[cluster].note(name)
        for watch, watched in list(self._watches.items()):
            if watched == cluster and (watch.names is None or changed.intersection(watch.names)):
                self._wake(watch)

    def mark_sure(self) -> None:
        """Take note that the banners were read, and wake everybody who waits."""
        self.sure = True
        for watches in self._standing.values():
            watches.note_all()
        for watch in list(self._watches):
            self._wake(watch)

    def find(self, node: Node, name: str) -> Banner | None:
        """Return a banner of the node's cluster."""
        if not self.sure:
            raise UnavailableError("the banners were not read yet")
        return self._banners.get(node.cluster, {}).get(name)

    def names(self, node: Node) -> ResourceNames:
        """Return the names of all banners of the node's cluster."""
        if not self.sure:
            raise UnavailableError("the banners were not read yet")
        return ResourceNames(self._versions.get(node.cluster, 0), tuple(self._banners.get(node.cluster, ())))

    def watch(self, node: Node, names: Collection[str] | None, wake: Callable[[], None]) -> _Watch:
        """Wait for a change of these banners of the node's cluster; None: of any."""
        return _Watch(self._watches, node.cluster, names, wake)

    def standing_watch(self, node: Node, names: Iterable[str] | None, changed: Changed) -> StandingWatch:
        """Watch these banners of the node's cluster; None: all."""
        return self._standing[node.cluster].add(names, changed)

    def claim_ahead(self, _node: Node, name: str, version: int) -> None:
        """Note a version that this process has not read."""
        self.claims.append((name, version))

    def _wake(self, watch: _Watch) -> None:
        watch.cancel()
        asyncio.get_running_loop().call_soon(watch.wake)
