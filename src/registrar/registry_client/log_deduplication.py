"""Log events of an outage of the registry: one when it begins and one when it ends."""

import time

from registrar.event_log import EventLogger

log = EventLogger(__name__)


class LogDeduplication:
    """Logs the transitions between failed and answered requests, and not each of them.

    Attributes:
        reason: why the last request failed; None when it was answered.
        refused: whether a registry refused the last request, and answers otherwise.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.refused = False
        # Monotonic time of the first failure of an outage; None while requests are answered.
        self._since: float | None = None

    def began(self, reason: str, registry: str, *, refused: bool = False) -> None:
        """Record a failed request; the first one is logged, and the first of another kind."""
        if self._since is None or refused is not self.refused:
            log.warning("heartbeats_refused" if refused else "registry_away", registry=registry, reason=reason)
        if self._since is None:
            self._since = time.monotonic()
        self.reason, self.refused = reason, refused

    def ended(self, registry: str) -> None:
        """Record an answered request; the first one after a failure is logged."""
        self.reason, self.refused = None, False
        if self._since is not None:
            away = round(time.monotonic() - self._since, 1)
            self._since = None
            log.info("registry_back", registry=registry, away_seconds=away)
