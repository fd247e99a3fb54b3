"""Heartbeats that say word for word what was said before, as nearly all of them do."""

from hashlib import blake2b

from registry.directory import Directory
from registry.endpoint import Endpoint

_MOST = 100_000
"""In a generation, of which there are two: 150 bytes each, and nothing kept of the words."""


class Repetitions:
    """Which words were found to say nothing new, and of which endpoint.

    Whether a heartbeat merely renews depends on its words and on the endpoint that is listed, which never changes but
    is replaced. So while that very endpoint is listed, the same words need not be read again.

    Words are known by 128 bits of BLAKE2; nobody can make two that have them in common.
    """

    def __init__(self, directory: Directory, most: int = _MOST) -> None:
        self._directory = directory
        self._most = most
        self._recent: dict[bytes, Endpoint] = {}
        self._former: dict[bytes, Endpoint] = {}

    def __len__(self) -> int:
        return len(self._recent) + len(self._former)

    def endpoint(self, digest: bytes) -> Endpoint | None:
        """Return the endpoint that these words renew; None when they have to be read."""
        found = self._recent.get(digest)
        if found is None:
            found = self._former.get(digest)
            if found is None:
                return None
            self.keep(digest, found)
        return found if self._directory.find(found.key) is found else None

    def keep(self, digest: bytes, endpoint: Endpoint) -> None:
        """Remember that these words renew this endpoint and say nothing else."""
        if len(self._recent) >= self._most:
            self._former, self._recent = self._recent, {}
        self._recent[digest] = endpoint


def digest(*words: bytes) -> bytes:
    """Return what words are known by."""
    return blake2b(b"\n".join(words), digest_size=16).digest()
