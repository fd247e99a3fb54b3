"""Rules of errands: which registrars are asked, what they are asked in words, and what has become of an errand.

An operator asks, the registry keeps, and the registrar beside an Envoy takes its errand when it asks for the next one.
All times are PostgreSQL's.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec import Struct

from registry.core.endpoint import Endpoint, Key
from registry.errors import InvalidError
from wire.address import format_endpoint
from wire.errand import (
    READING,
    Arguments,
    Clusters,
    Config,
    ErrandResult,
    LogLevel,
    Requests,
    verb_of,
)

MAX_REGISTRARS = 20
"""Registrars that one question asks, unless it says that it means all."""
MAX_ALL = 200
"""Registrars that one question asks at most."""
COLLECT_TIMEOUT = 15.0
"""Seconds in which a registrar has to ask for its errand; one that works asks again at once after each answer."""
ANSWER_TIMEOUT = 15.0
"""Seconds that a registrar has for the answer, beside those that it is to look."""
RETENTION = 600.0
"""Seconds for which a result is kept, unless others need its place."""
MAX_PER_MINUTE = 6
"""Errands of one registrar in a minute."""
MAX_KEPT = 500
"""Errands that are kept at once, with results of 256 kB at most."""

MAX_CLOCK_STEP = 5.0
"""Seconds that a time may lie in the future: what comes later was noted before PostgreSQL's clock was set back.

Nobody knows how old such an errand is, so it is over: a log level must not change an hour after it was asked.
"""

State = Literal["asked", "collected", "answered", "not_collected", "not_answered", "lost"]
"""``asked``: waits for its registrar. ``collected``: its registrar has it. ``answered``: there is a result.

``not_collected``: its registrar did not ask for it in time. ``not_answered``: it did, and has not answered in time.
``lost``: it asked for the next one instead.
"""


class StoredErrand(Struct, frozen=True):
    """An errand as PostgreSQL keeps it, at a moment of PostgreSQL's clock.

    Attributes:
        now: that moment; the other times are on the same clock, in seconds since 1970.
        callee: the service whose requests are looked at where the errand is of its caller; else empty.
        answer_seconds: from its collection to its answer, at most.
        lost: why no answer is expected any more; None while one is, or has come.
        result: the JSON of its result; None before there is one.
    """

    id: str
    service: str
    address: str
    port: int
    instance_id: str
    arguments: Arguments
    callee: str
    reason: str
    actor: str
    now: float
    asked_at: float
    collect_until: float
    answer_seconds: float
    collected_at: float | None = None
    ended_at: float | None = None
    lost: str | None = None
    result: bytes | None = None

    @property
    def key(self) -> Key:
        """The key of the endpoint whose registrar is asked."""
        return (self.service, self.address, self.port)

    @property
    def endpoint(self) -> str:
        """The same, as ``address:port``."""
        return format_endpoint(self.address, self.port)

    @property
    def seconds_left(self) -> float:
        """The seconds that are left for the answer; for one that was not collected, all of them."""
        since = self.now if self.collected_at is None else self.collected_at
        return max(0.0, since + self.answer_seconds - self.now)

    @property
    def clock_set_back(self) -> bool:
        """Whether PostgreSQL's clock was set back since it was asked or collected."""
        return max(self.asked_at, self.collected_at or 0.0) > self.now + MAX_CLOCK_STEP

    @property
    def state(self) -> State:
        """The state at that moment."""
        if self.result is not None:
            return "answered"
        if self.ended_at is not None:
            return "lost"
        if self.collected_at is None:
            waits = self.now <= self.collect_until and not self.clock_set_back
            return "asked" if waits else "not_collected"
        return "collected" if self.seconds_left > 0 and not self.clock_set_back else "not_answered"

    @property
    def over(self) -> bool:
        """Whether nothing more is waited for."""
        return self.state not in ("asked", "collected")

    @property
    def explanation(self) -> str:
        """The reason why there is no result, and what to do; empty where there is one or may be one."""
        if self.clock_set_back and self.state in ("not_collected", "not_answered"):
            return "PostgreSQL's clock was set back, so that it is not known how old the errand is; ask again"
        if self.state == "not_collected":
            return (
                f"its registrar did not ask for errands within {COLLECT_TIMEOUT:g} s: it is not running, is older than "
                "errands, or has no REGISTRAR_ENVOY_ADMIN; or REGISTRAR_ERRANDS is none, or it is busy with another one"
            )
        if self.state == "not_answered":
            return f"its registrar took the errand, and has not answered within {self.answer_seconds:g} s; ask again"
        if self.state == "lost":
            return f"its registrar {self.lost}"
        return ""


def answer_seconds(arguments: Arguments) -> float:
    """Return how long a registrar may take for its answer."""
    return ANSWER_TIMEOUT + (arguments.seconds if isinstance(arguments, Requests) else 0.0)


def is_reading(arguments: Arguments) -> bool:
    """Return whether an errand only looks at configuration: it changes nothing and sees no request."""
    return isinstance(arguments, READING)


def choose(endpoints: Iterable[Endpoint], limit: int) -> tuple[list[Endpoint], int]:
    """Return the endpoints whose registrars are asked, one of each instance, and how many instances there are.

    Zones take turns, so that an answer from a part of a service shows all of them.
    """
    by_instance: dict[str, Endpoint] = {}
    for endpoint in sorted(endpoints, key=lambda each: each.key):
        if endpoint.alive and endpoint.registration.instance_id:
            by_instance.setdefault(endpoint.registration.instance_id, endpoint)
    zones: dict[str, list[Endpoint]] = {}
    for endpoint in by_instance.values():
        zones.setdefault(endpoint.registration.zone, []).append(endpoint)
    turns = sorted(
        (turn, zone, endpoint.key, endpoint) for zone, group in zones.items() for turn, endpoint in enumerate(group)
    )
    return [endpoint for *_, endpoint in turns[:limit]], len(by_instance)


def in_words(arguments: Arguments, callee: str = "") -> str:
    """Return what is asked, for the history."""
    verb = verb_of(arguments)
    if isinstance(arguments, Clusters):
        return f"{verb} {arguments.cluster}".rstrip()
    if isinstance(arguments, Config):
        return f"{verb} {arguments.section} {arguments.name}".rstrip()
    if isinstance(arguments, LogLevel):
        levels = " ".join(f"{logger}={level}" for logger, level in arguments.loggers.items())
        return f"{verb} {levels} for {arguments.seconds} s"
    filters = (("status", arguments.status), ("method", arguments.method), ("path", _without_query(arguments.path)))
    words = [f"{verb} for {arguments.seconds} s", f"{arguments.percent:g} % of requests"]
    words += [f"{name} {value}" for name, value in filters if value]
    if callee:
        words.append(f"to {callee}")
    return ", ".join(words)


def outcome_in_words(arguments: Arguments, result: ErrandResult) -> str:
    """Return what came of an errand, for the history: never what a request or a configuration holds."""
    verb = verb_of(arguments)
    if result.outcome != "done":
        return f"{verb} {result.outcome}: {result.detail}"
    if result.tap is not None:
        return f"{verb}: {len(result.tap.traces)} requests shown"
    if result.top is not None:
        return f"{verb}: {sum(row.requests for row in result.top.rows)} requests added up"
    if result.log_level is not None:
        return f"{verb}: set, and goes back in {result.log_level.seconds} s"
    return f"{verb}: shown"


def check_all(service: str, confirm: str, *, everything: bool) -> int:
    """Return how many registrars may be asked.

    Raises:
        InvalidError: all are meant, and the service was not named once more.
    """
    if not everything:
        return MAX_REGISTRARS
    if confirm != service:
        raise InvalidError(
            f"all asks every registrar of {service}, up to {MAX_ALL}; confirm has to say {service}", "$.confirm"
        )
    return MAX_ALL


def spare_seconds(ages: Sequence[float]) -> float:
    """Return the seconds until a registrar may be asked again; 0: it may be now.

    Args:
        ages: the seconds since each of its errands was asked; one that is far in the future is not counted.
    """
    recent = sorted(max(0.0, age) for age in ages if -MAX_CLOCK_STEP <= age < 60.0)
    return 0.0 if len(recent) < MAX_PER_MINUTE else max(1.0, 60.0 - recent[MAX_PER_MINUTE - 1])


def _without_query(path: str) -> str:
    return path.partition("?")[0]
