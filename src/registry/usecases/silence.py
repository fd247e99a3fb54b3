"""Silences of endpoints, from memory."""

from collections.abc import Iterable

from registry.cache.snapshot_cache import SnapshotCache
from registry.core.endpoint import Endpoint
from registry.core.lease import Lease
from registry.core.silence import Silence, pause_of, silence_of


class Silences:
    """Tells the silence of endpoints that the caller has read, by what this process knows.

    Args:
        cache: where leases, pauses and the database's clock are.
        max_hold: seconds for which the guard keeps a silent endpoint.
    """

    def __init__(self, cache: SnapshotCache, max_hold: float) -> None:
        self._cache = cache
        self._max_hold = max_hold

    def of(self, endpoint: Endpoint) -> Silence | None:
        """Return the silence of an endpoint; None when it is not silent."""
        return self.with_lease(endpoint, self._cache.leases.get(endpoint.id))

    def longest(self, endpoints: Iterable[Endpoint]) -> float:
        """Return the seconds for which the one of some endpoints is kept that has been kept the longest."""
        now = self._cache.clock.now()
        return max((silence.held_for(now) for silence in map(self.of, endpoints) if silence), default=0.0)

    def with_lease(self, endpoint: Endpoint, lease: Lease | None) -> Silence | None:
        """Return the silence of an endpoint whose lease the caller has read."""
        cache = self._cache
        if endpoint.suspect_since is None:
            return None
        pause = pause_of(endpoint.service, cache.pauses)
        return silence_of(endpoint, lease, cache.clock.now(), self._max_hold, pause)
