"""Resources that cannot be encoded, so that each is tried and logged once for a version, not for each stream."""

from collections.abc import Hashable

import structlog

from registry.errors import UnavailableError

log = structlog.get_logger()

_MAX_KEPT = 1_000
"""Resources that are remembered; beyond it all are tried and logged once more."""


class Unencodable:
    """Remembers what could not be encoded.

    Args:
        event: the name of the line of the log.
    """

    def __init__(self, event: str) -> None:
        self._event = event
        self._versions: dict[Hashable, tuple[Hashable, str]] = {}
        """The version of each resource that could not be encoded, and the words about it. Written by refuse()."""

    def check(self, key: Hashable, version: Hashable) -> None:
        """Refuse a resource that could not be encoded before.

        Raises:
            UnavailableError: it could not.
        """
        kept = self._versions.get(key) if self._versions else None
        if kept is not None and kept[0] == version:
            raise UnavailableError(kept[1])

    def refuse(self, key: Hashable, version: Hashable, words: str, error: Exception, **facts: str) -> UnavailableError:
        """Log why a resource cannot be encoded, and return what is to be raised, now and later."""
        log.error(self._event, exc_info=error, **facts)
        if len(self._versions) >= _MAX_KEPT:
            self._versions.clear()
        self._versions[key] = version, words
        return UnavailableError(words)
