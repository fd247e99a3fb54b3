"""What a registry process can do for endpoints, and since when it cannot: accept connections, renew leases, change.

A process that cannot do one of these hears nothing of healthy endpoints. The sweeper has to know, because their leases
expire by the process's fault. Times are those of a monotonic clock and are arguments.
"""

import math
from typing import Literal

from msgspec import Struct

AbilityName = Literal["accept", "renew", "change"]

MIN_FAILURE_DURATION = 2.0
"""Seconds after a failure in which a success does not end it: a process that fails half of the time does not work."""


class Failure(Struct, frozen=True):
    """A process's report that it cannot do something now.

    Attributes:
        ability: what it cannot do.
        seconds: for how long in all since it last worked calmly, which is for a lease time without a failure.
        total: nothing of the kind has worked meanwhile; otherwise some attempts work and others fail.
        reason: what was found, for people; it may name hosts and users.
    """

    ability: AbilityName
    seconds: float
    total: bool
    reason: str


class Ability:
    """Whether one thing works, as those who do it report.

    A failure lasts until an attempt succeeds, and for at least ``MIN_FAILURE_DURATION`` seconds. It also ends when
    nothing was attempted for half a lease time, because it proves nothing any more. Seconds of failure add up until
    no failure has occurred for a whole lease time, so that repeated short failures count together.

    Args:
        name: of the ability.
        lease: seconds of a lease, within which each endpoint is heard several times.
    """

    def __init__(self, name: AbilityName, lease: float) -> None:
        self.name = name
        self._lease = lease
        # When the failure that lasts began; None while everything works.
        self._began: float | None = None
        self._failed_at = -math.inf
        self._worked_at = -math.inf
        # The first success after the last failure.
        self._recovered_at: float | None = None
        # Of the failures before this one, and when the last of them ended.
        self._seconds = 0.0
        self._ended_at = -math.inf
        self._reason = ""

    def failed(self, reason: str, now: float) -> None:
        """Take note that an attempt failed by this process's fault or PostgreSQL's, not by that of the request."""
        self._settle(now)
        if self._began is None:
            if now - self._ended_at >= self._lease:
                self._seconds = 0.0
            self._began = now
        self._failed_at, self._recovered_at, self._reason = now, None, reason

    def refused(self, reason: str, now: float) -> None:
        """Take note that PostgreSQL refused an attempt for a reason that lies in its own row.

        That is no failure of the process while others work. Where nothing has worked for half a lease time, it is as
        good as one: a trigger or a constraint may refuse every row.
        """
        if now - self._worked_at >= self._lease / 2:
            self.failed(reason, now)

    def worked(self, now: float) -> None:
        """Take note that an attempt worked. Called for each batch, so it does next to nothing."""
        self._worked_at = now
        if self._recovered_at is None:
            self._recovered_at = now

    def failure(self, now: float) -> Failure | None:
        """Return the failure that lasts, if there is one."""
        self._settle(now)
        if self._began is None:
            return None
        total = self._worked_at <= max(self._began, now - self._lease / 2)
        return Failure(self.name, self._seconds + now - self._began, total, self._reason)

    def _settle(self, now: float) -> None:
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
        accept: to accept connections; the acceptor reports what it had to refuse.
        renew: to renew leases, which nearly every heartbeat asks for.
        change: to store what is new of an endpoint: registrations, drains and changed heartbeats.
    """

    def __init__(self, lease: float) -> None:
        self.accept = Ability("accept", lease)
        self.renew = Ability("renew", lease)
        self.change = Ability("change", lease)

    def failures(self, now: float) -> list[Failure]:
        """Return the failures that last."""
        found = (ability.failure(now) for ability in (self.accept, self.renew, self.change))
        return [failure for failure in found if failure is not None]
