"""Log events of an outage of the registry: one when it begins and one when it ends."""

import time

from registrar.event_log import EventLogger

log = EventLogger(__name__)


class LogDeduplication:
    """Logs the transitions between failed and answered requests, and not each of them.

    Attributes:
        reason: why the last request failed; None when it was answered.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        # Monotonic time of the first failure of an outage; None while requests are answered.
        self._since: float | None = None

    def began(self, reason: str, registry: str) -> None:
        """Record a failed request; the first one is logged."""
        self.reason = reason
        if self._since is None:
            self._since = time.monotonic()
            log.warning("registry_away", registry=registry, reason=reason)

    def ended(self, registry: str) -> None:
        """Record an answered request; the first one after a failure is logged."""
        self.reason = None
        if self._since is not None:
            away = round(time.monotonic() - self._since, 1)
            self._since = None
            log.info("registry_back", registry=registry, away_seconds=away)
