"""Heartbeats that say word for word what was said before, as nearly all of them do."""

from hashlib import blake2b

from registry.cache.snapshot_cache import SnapshotCache
from registry.core.endpoint import Endpoint, Key

_MOST = 100_000
"""In a generation, of which there are two: 400 bytes each, and nothing kept of the words or of replaced endpoints."""

_Known = tuple[Key, int, int, str]
"""An endpoint as it was when words were judged by it: its key, its id, its change, and the database of these."""


class HeartbeatCache:
    """Which words were found to say nothing new, and of which endpoint.

    Whether a heartbeat merely renews depends on its words and on the endpoint that is listed, which has another change
    after each change. So while it is listed with the same one, the same words need not be read again. It is known by
    its numbers and not kept: an endpoint that was replaced may have 8 KiB of metadata.

    Words are known by 128 bits of BLAKE2; nobody can make two that have them in common.
    """

    def __init__(self, cache: SnapshotCache, most: int = _MOST) -> None:
        self._cache = cache
        self._most = most
        self._recent: dict[bytes, _Known] = {}
        self._former: dict[bytes, _Known] = {}

    def __len__(self) -> int:
        return len(self._recent) + len(self._former)

    def endpoint(self, digest: bytes) -> Endpoint | None:
        """Return the endpoint that these words renew; None when they have to be read."""
        known = self._recent.get(digest)
        if known is None:
            known = self._former.get(digest)
            if known is None:
                return None
            self._keep(digest, known)
        key, endpoint_id, change, database_id = known
        found = self._cache.find(key)
        if found is None or found.change != change or found.id != endpoint_id:
            return None
        return found if self._cache.database_id == database_id else None

    def keep(self, digest: bytes, endpoint: Endpoint) -> None:
        """Remember that these words renew this endpoint and say nothing else."""
        self._keep(digest, (endpoint.key, endpoint.id, endpoint.change, self._cache.database_id))

    def _keep(self, digest: bytes, known: _Known) -> None:
        if len(self._recent) >= self._most:
            self._former, self._recent = self._recent, {}
        self._recent[digest] = known


def digest(*words: bytes) -> bytes:
    """Return what words are known by."""
    return blake2b(b"\n".join(words), digest_size=16).digest()
