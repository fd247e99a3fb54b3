"""The session of a login, and when it is renewed: pure rules, time is an argument.

Ends are moments of the monotonic clock, from the life that the registry's response gives: a wall clock that steps must
neither end a session nor keep one.
"""

import enum
import math

from msgspec import Struct

from registrar.registry_client.login_answer import IssuedToken, LoginAnswer

MAX_RENEWAL = 12 * 3600.0
"""Seconds after a login during which its session can be renewed; the registry's own limit."""
_MIN_LIFE = 60.0
"""Seconds that a session lives at least, whatever a wrong clock makes of its end."""
_MAX_LIFE = MAX_RENEWAL


class Step(enum.Enum):
    """The request that a session needs next."""

    LOGIN = "log in"
    LOGIN_OR_RENEW = "log in, or renew the session while no login succeeds"
    RENEW = "renew the session"


class SessionToken(Struct, frozen=True):
    """A token and the monotonic time of its end."""

    token: str
    ends_at: float

    def __repr__(self) -> str:
        return f"SessionToken((hidden), {self.ends_at})"


class Session(Struct, frozen=True):
    """A session of a registrar and of the Envoy beside it.

    Attributes:
        principal: the registry's name for this process.
        registrar: the token of this process.
        envoy: the token of the Envoy, or None.
        begun_at: monotonic time of the login; a renewal keeps it.
        issued_at: monotonic time of the login or of the last renewal.
    """

    principal: str
    registrar: SessionToken
    envoy: SessionToken | None
    begun_at: float
    issued_at: float

    def renew_at(self, share: float) -> float:
        """Return the monotonic time at which that share of its life is over."""
        return self.issued_at + (self.registrar.ends_at - self.issued_at) * share

    def next_step(self, now: float) -> Step:
        """Return the request that the session needs, at its renewal or later."""
        life = self.registrar.ends_at - self.issued_at
        if now >= self.registrar.ends_at:
            return Step.LOGIN
        if now + life > self.begun_at + MAX_RENEWAL:
            return Step.LOGIN_OR_RENEW
        return Step.RENEW


def begin(answer: LoginAnswer, registry_now: float, now: float) -> Session:
    """Return the session that a login began.

    Args:
        answer: the registry's response.
        registry_now: the time by the clock that the response's ends are of.
        now: monotonic time of the request, so that the session ends here no later than there.
    """
    envoy = None if answer.envoy is None else _relative(answer.envoy, registry_now, now)
    return Session(answer.principal, _relative(answer.registrar, registry_now, now), envoy, now, now)


def renew(session: Session, answer: LoginAnswer, registry_now: float, now: float) -> Session:
    """Return the session after a renewal; the arguments are those of ``begin``."""
    new = begin(answer, registry_now, now)
    return Session(answer.principal or session.principal, new.registrar, new.envoy, session.begun_at, now)


def _relative(issued: IssuedToken, registry_now: float, now: float) -> SessionToken:
    life = issued.expires_at - registry_now
    if not math.isfinite(life):
        life = _MIN_LIFE
    return SessionToken(issued.token, now + min(max(life, _MIN_LIFE), _MAX_LIFE))
