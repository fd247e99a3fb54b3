"""How long a connection lives: rules about its age, its silence, and what never comes. Pure; time is an argument."""

import random
from typing import Final, Literal, NamedTuple

EndReason = Literal[
    "client",
    "protocol_error",
    "flood",
    "oversized",
    "keepalive",
    "stalled",
    "idle",
    "max_age",
    "shutdown",
    "no_room",
    "failed",
]
"""Why a connection ended: the client closed it, or what of the rest made this process close it."""

KEEPALIVE_INTERVAL: Final = 20.0
"""Seconds without a byte of the client after which it gets a PING."""
KEEPALIVE_TIMEOUT: Final = 10.0
"""Seconds that it may take to answer."""
STALL_TIMEOUT: Final = 30.0
"""Seconds for which the transport may take nothing more, or a frame, header or message may be incomplete."""
PREFACE_TIMEOUT: Final = 10.0
"""Seconds from the begin of a connection to the end of its preface."""
IDLE_TIMEOUT: Final = 300.0
"""Seconds for which a connection may be open without a stream."""
AGE_SPREAD: Final = 0.2
"""Share of the age by which connections differ, so that those of one moment do not end in one moment."""


class Verdict(NamedTuple):
    """A decision about a connection.

    Attributes:
        action: ``ping`` asks the client for a sign of life, ``drain`` lets its streams end, ``end`` cuts them.
        reason: why.
    """

    action: Literal["ping", "drain", "end"]
    reason: EndReason


_PING: Final = Verdict("ping", "keepalive")


class Lifetime:
    """The times of one connection. All are monotonic.

    Args:
        now: the time, as in every call.
        max_age: seconds after which it ends, give or take a fifth; 0: never.
        expires_at: when it ends however young it is, as its client's certificate expires; None: never.
    """

    __slots__ = (
        "_heard_at",
        "_opened_at",
        "_pinged_at",
        "age_at",
        "begun",
        "idle_since",
        "incomplete_since",
        "paused_since",
    )

    def __init__(self, now: float, max_age: float, expires_at: float | None = None) -> None:
        self._opened_at = self._heard_at = now
        """When the client was last heard. Written by hear() and ping()."""
        self._pinged_at: float | None = None
        """When the PING was sent that is not answered; None: there is none."""
        self.begun = False
        """Whether the preface has come. Written by the connection, as all that follow."""
        self.idle_since: float | None = now
        """Since when there is no stream; None: there are some."""
        self.incomplete_since: float | None = None
        """Since when a frame, a header or a message is incomplete; None: none is."""
        self.paused_since: float | None = None
        """Since when the transport takes nothing; None: it does."""
        spread = random.uniform(1 - AGE_SPREAD, 1 + AGE_SPREAD)  # noqa: S311  # no secret
        ages = [at for at in (now + max_age * spread if max_age else None, expires_at) if at is not None]
        self.age_at: float | None = min(ages, default=None)
        """When the connection is to end for its age; None: never, or it ends already."""

    def hear(self, now: float) -> None:
        """Note a sign of life."""
        self._heard_at, self._pinged_at = now, None

    def ping(self, now: float) -> None:
        """Note that the client was asked for a sign of life."""
        self._pinged_at = now

    def check(self, now: float) -> Verdict | None:
        """Return what is to be done now; None: nothing."""
        if not self.begun:
            return Verdict("end", "idle") if now >= self._opened_at + PREFACE_TIMEOUT else None
        if _is_over(self.paused_since, STALL_TIMEOUT, now) or _is_over(self.incomplete_since, STALL_TIMEOUT, now):
            return Verdict("end", "stalled")
        if _is_over(self._pinged_at, KEEPALIVE_TIMEOUT, now) and self.paused_since is None:
            return Verdict("end", "keepalive")
        if _is_over(self.age_at, 0.0, now):
            return Verdict("drain", "max_age")
        if _is_over(self.idle_since, IDLE_TIMEOUT, now):
            return Verdict("drain", "idle")
        silent = _is_over(self._heard_at, KEEPALIVE_INTERVAL, now)
        # A transport that takes nothing would not take a PING either.
        return _PING if silent and self._pinged_at is None and self.paused_since is None else None

    def next_check(self, now: float) -> float:
        """Return when to check again, if nothing happens before."""
        if not self.begun:
            return self._opened_at + PREFACE_TIMEOUT
        times = [
            self.age_at,
            None if self.paused_since is None else self.paused_since + STALL_TIMEOUT,
            None if self.incomplete_since is None else self.incomplete_since + STALL_TIMEOUT,
            None if self._pinged_at is None else self._pinged_at + KEEPALIVE_TIMEOUT,
            self._heard_at + KEEPALIVE_INTERVAL,
        ]
        return min((at for at in times if at is not None and at > now), default=now + KEEPALIVE_INTERVAL)


def _is_over(since: float | None, seconds: float, now: float) -> bool:
    return since is not None and now >= since + seconds
