"""The log's view of a registry that is away: one line when it begins and one when it ends."""

import time

from registrar.event_log import EventLogger

log = EventLogger(__name__)


class LogDeduplication:
    """Turns failed and answered requests into transitions.

    Attributes:
        reason: why the last request failed; None when it was answered.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self._since: float | None = None

    def began(self, reason: str, registry: str) -> None:
        """A request failed."""
        self.reason = reason
        if self._since is None:
            self._since = time.monotonic()
            log.warning("registry_away", registry=registry, reason=reason)

    def ended(self, registry: str) -> None:
        """A request was answered."""
        self.reason = None
        if self._since is not None:
            away = round(time.monotonic() - self._since, 1)
            self._since = None
            log.info("registry_back", registry=registry, away_seconds=away)
