"""Heartbeats whose bytes and sender are the same as before, as nearly all are, by their hash."""

from hashlib import blake2b

from msgspec import Struct

from registry.cache.snapshot_cache import SnapshotCache
from registry.core.endpoint import Endpoint

_MAX_ENTRIES = 100_000
"""Entries of a generation, of which there are two. An entry takes 180 bytes, and has no heartbeat and no endpoint."""


class _Entry(Struct, frozen=True, gc=False):
    """The endpoint that a heartbeat only renews; a tuple with its key in it would take three times as much."""

    service: str
    address: str
    port: int
    endpoint_id: int
    change: int
    database_id: str
    """The database of these numbers."""


class HeartbeatCache:
    """The heartbeats that only renew a lease, and the endpoint of each.

    Whether a heartbeat only renews depends on its bytes and on the listed endpoint, whose `change` grows with each
    change of it. While that is the same, the same bytes need not be decoded again. An entry has the endpoint's numbers
    and not the endpoint: one that was replaced may have 8 KiB of metadata.

    Heartbeats are told apart by 128 bits of BLAKE2, of which nobody can construct two that are equal.

    Args:
        cache: where the listed endpoints are.
        max_entries: of each of the two generations.
    """

    def __init__(self, cache: SnapshotCache, max_entries: int = _MAX_ENTRIES) -> None:
        self._cache = cache
        self._max_entries = max_entries
        self._recent: dict[bytes, _Entry] = {}
        """The generation that is being filled. Written by _keep(). An entry may be stale: endpoint() checks it."""
        self._former: dict[bytes, _Entry] = {}
        """The generation before. Replaced by _keep() when the recent one is full."""

    def __len__(self) -> int:
        return len(self._recent) + len(self._former)

    def endpoint(self, digest: bytes) -> Endpoint | None:
        """Return the endpoint that a heartbeat only renews; None if the heartbeat has to be decoded."""
        entry = self._recent.get(digest)
        if entry is None:
            entry = self._former.get(digest)
            if entry is None:
                return None
            self._keep(digest, entry)
        endpoint = self._cache.find((entry.service, entry.address, entry.port))
        if endpoint is None or endpoint.change != entry.change or endpoint.id != entry.endpoint_id:
            return None
        return endpoint if self._cache.database_id == entry.database_id else None

    def keep(self, digest: bytes, endpoint: Endpoint) -> None:
        """Remember that a heartbeat only renews this endpoint."""
        self._keep(digest, _Entry(*endpoint.key, endpoint.id, endpoint.change, self._cache.database_id))

    def _keep(self, digest: bytes, entry: _Entry) -> None:
        if len(self._recent) >= self._max_entries:
            self._former, self._recent = self._recent, {}
        self._recent[digest] = entry


def digest(*parts: bytes) -> bytes:
    """Return the hash of a heartbeat."""
    return blake2b(b"\n".join(parts), digest_size=16).digest()
