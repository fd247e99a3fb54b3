"""The abilities of a registry process: to accept connections, to renew leases, and to store changes.

A process that lacks one of them hears nothing of healthy endpoints, whose leases then expire by the process's fault.
The failures are reported to all processes (``registry.core.processes``), so that the sweeper can credit leases for
them. Times are those of a monotonic clock and are arguments.
"""

import math
from typing import Literal

from msgspec import Struct

AbilityName = Literal["accept", "renew", "change"]

MIN_FAILURE_DURATION = 2.0
"""Seconds for which a failure lasts at least: a process that fails every other time does not work."""


class Failure(Struct, frozen=True):
    """A process's report that it lacks an ability now.

    Attributes:
        ability: the ability that it lacks.
        seconds: for how long in all, since it last had the ability for a whole lease time.
        total: no attempt has succeeded meanwhile; otherwise some attempts succeed and others fail.
        reason: the cause, for people; it may name hosts and users.
    """

    ability: AbilityName
    seconds: float
    total: bool
    reason: str


class Ability:
    """One ability of a process, by the attempts of the code that uses it.

    A failure lasts until an attempt succeeds, and for at least ``MIN_FAILURE_DURATION`` seconds. It also ends when
    nothing was attempted for half a lease time, because it proves nothing any more. Seconds of failure add up until
    no failure has occurred for a whole lease time, so that repeated short failures count together.

    Args:
        name: the name of the ability.
        lease: seconds of a lease, within which each endpoint sends several heartbeats.
    """

    def __init__(self, name: AbilityName, lease: float) -> None:
        self.name = name
        self._lease = lease
        # When the failure under way began; None: there is none.
        self._began: float | None = None
        # When an attempt last failed.
        self._failed_at = -math.inf
        # When an attempt last succeeded.
        self._worked_at = -math.inf
        # The first success after the last failed attempt; None: there was none yet.
        self._recovered_at: float | None = None
        # Seconds of the failures before the one under way.
        self._seconds = 0.0
        # When the last of these ended.
        self._ended_at = -math.inf
        # The reason of the last failed attempt.
        self._reason = ""

    def failed(self, reason: str, now: float) -> None:
        """Record an attempt that failed by the fault of this process or of PostgreSQL, not of the request."""
        self._end_if_over(now)
        if self._began is None:
            if now - self._ended_at >= self._lease:
                self._seconds = 0.0
            self._began = now
        self._failed_at, self._recovered_at, self._reason = now, None, reason

    def refused(self, reason: str, now: float) -> None:
        """Record an attempt that PostgreSQL refused for a reason in the row itself.

        That is no failure of the process while other attempts succeed. Where none has succeeded for half a lease time
        it counts as one, because a trigger or a constraint may refuse every row.
        """
        if now - self._worked_at >= self._lease / 2:
            self.failed(reason, now)

    def worked(self, now: float) -> None:
        """Record an attempt that succeeded; called for each batch of heartbeats, so it costs next to nothing."""
        self._worked_at = now
        if self._recovered_at is None:
            self._recovered_at = now

    def failure(self, now: float) -> Failure | None:
        """Return the failure under way, or None."""
        self._end_if_over(now)
        if self._began is None:
            return None
        total = self._worked_at <= max(self._began, now - self._lease / 2)
        return Failure(self.name, self._seconds + now - self._began, total, self._reason)

    def _end_if_over(self, now: float) -> None:
        if self._began is None:
            return
        end = self._failed_at + max(MIN_FAILURE_DURATION, self._lease / 2)
        if self._recovered_at is not None:
            end = min(end, max(self._recovered_at, self._failed_at + MIN_FAILURE_DURATION))
        if end <= now:
            self._seconds += end - self._began
            self._began, self._ended_at = None, end


class Abilities:
    """All abilities of one process.

    Attributes:
        accept: to accept connections; the acceptor reports connections that it had to refuse.
        renew: to renew leases, which nearly every heartbeat asks for.
        change: to store changes of endpoints: registrations, drains and heartbeats with a new state.
    """

    def __init__(self, lease: float) -> None:
        self.accept = Ability("accept", lease)
        self.renew = Ability("renew", lease)
        self.change = Ability("change", lease)

    def failures(self, now: float) -> list[Failure]:
        """Return the failures under way."""
        failures = (ability.failure(now) for ability in (self.accept, self.renew, self.change))
        return [failure for failure in failures if failure is not None]
