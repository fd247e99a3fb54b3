"""The log of defects that end a stream or a connection: thousands of clients may come upon the same one."""

from typing import Final

import structlog

from registry.core.token_bucket import TokenBucket

log = structlog.get_logger()

_MAX_LOGGED: Final = 1.0
"""Defects that are logged a second."""
_MAX_LOGGED_AT_ONCE: Final = 10.0
"""Defects that are logged after a time without any."""


class Failures:
    """Logs the defects of all connections of a process, with their tracebacks, one a second at most.

    Args:
        now: monotonic seconds.
    """

    def __init__(self, now: float) -> None:
        self._logged = TokenBucket(_MAX_LOGGED, _MAX_LOGGED_AT_ONCE, now)
        self._left_out = 0
        """Defects since the last one that was logged. Written by note()."""

    def note(self, event: str, peer: str, error: BaseException, now: float) -> None:
        """Log a defect, and how many came before it that were not logged."""
        if self._logged.take(now):
            log.error(event, peer=peer, left_out=self._left_out, exc_info=error)
            self._left_out = 0
        else:
            self._left_out += 1
