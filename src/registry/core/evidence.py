"""Evidence of whether an endpoint whose lease expired is dead: what counts, and how sure it is.

The mass-expiry guard holds endpoints that fall silent together, because silence alone does not tell a dead host from a
network that is cut. Evidence does: the word of the platform that ran the instance, and the results of connections that
registry processes and registrars try. ``registry.core.expiry_guard`` says what evidence of each sureness allows.

Only an endpoint whose lease has expired may be judged (``Suspect``). Nothing here touches an endpoint that renews.

The rules take statements as they are: a registrar may lie, and a statement may be old, of another incarnation, or about
a time that has yet to come. Such a statement counts for nothing, and never makes another one invalid. All times are
PostgreSQL's.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from msgspec import Struct

StatementKind = Literal["refused", "unreachable", "connected"]
Sureness = Literal["certain", "strong", "weak", "contrary", "none"]

MAX_BASE_LINE_AGE = 900.0
"""Seconds for which a connection to a healthy endpoint gives its prober a say about it."""
MAX_STATEMENT_AGE = 30.0
"""Seconds for which a refusal or a time-out counts."""
MAX_CONNECTED_AGE = 10.0
"""Seconds for which a connection counts, by whomever it was made, against every other statement."""
MAX_CLOCK_ERROR = 2.0
"""Seconds by which a statement may seem to come from the future, because it was stored after the time was read."""


class Suspect(Struct, frozen=True, gc=False):
    """An endpoint whose lease has expired and that is still served: the only kind that may be judged."""

    endpoint_id: int
    service: str
    address: str
    port: int
    incarnation: int
    expired_at: float


class Statement(Struct, frozen=True, gc=False):
    """The statement of one prober about one endpoint, as it stands after its last attempt.

    A prober makes one only while it has a say (``registry.core.probing``): the attempts were as many and as far apart
    as ``kind`` needs, and its control connections succeeded meanwhile.

    Attributes:
        prober: the random id of a registry process, or the proven identity (else the instance id) of a registrar.
        address: the address that the prober connects from, in its canonical form.
        kind: what the attempts had in common.
        at: when the last attempt ended.
        endpoint_id: the endpoint that it is about.
        incarnation: the incarnation of the instance that it is about.
        reached_at: when the prober last connected to this incarnation while it was healthy; None: never.
        attempts: the number of attempts.
        registrar_of: the service whose registrar the prober is; empty for a registry process.
    """

    prober: str
    address: str
    kind: StatementKind
    at: float
    endpoint_id: int
    incarnation: int
    reached_at: float | None = None
    attempts: int = 1
    registrar_of: str = ""


class PlatformWord(Struct, frozen=True, gc=False):
    """The word of the platform that an instance is gone: ECS stopped its task, or another one has its address.

    An error, throttling, or a platform that cannot be asked is no word at all.
    """

    endpoint_id: int
    incarnation: int
    words: str


class Evidence(Struct, frozen=True, gc=False):
    """The evidence about one suspect: how sure it is, and what it consists of, in words for people."""

    sure: Sureness
    words: str = ""


NO_EVIDENCE = Evidence("none")

_SURE_IN_WORDS: Mapping[Sureness, str] = {
    "certain": "it is dead: {}",
    "strong": "strong evidence that it is dead: {}",
    "weak": "weak evidence that it is dead: {}",
    "contrary": "evidence that it lives: {}",
    "none": "no evidence of whether it is dead: {}",
}


def evidence_in_words(evidence: Evidence) -> str:
    """Return evidence as one line for people."""
    words = evidence.words or "neither its platform nor a probe has told anything lately"
    return _SURE_IN_WORDS[evidence.sure].format(words)


def judge(
    suspect: Suspect, statements: Iterable[Statement], now: float, platform: PlatformWord | None = None
) -> Evidence:
    """Return the evidence about a suspect; the first rule that applies wins.

    Args:
        suspect: the endpoint.
        statements: statements of any probers, about any endpoints.
        now: PostgreSQL's time.
        platform: the platform's word about an endpoint.
    """
    if platform is not None and (platform.endpoint_id, platform.incarnation) == _subject(suspect):
        return Evidence("certain", platform.words)
    counting = [statement for statement in statements if _counts(statement, suspect, now)]
    connected = [statement for statement in counting if statement.kind == "connected"]
    if connected:
        last = max(connected, key=_at)
        return Evidence("contrary", f"{last.address} connected to it {_ago(now - last.at)}")
    last_of_each = _last_of_each(counting)
    refused = [statement for statement in last_of_each if statement.kind == "refused"]
    pair = _pair(refused)
    if pair is not None:
        return Evidence("strong", _describe(pair, now))
    by_process = [statement for statement in refused if not statement.registrar_of]
    if by_process:
        return Evidence("weak", _describe(by_process[:1], now))
    unreachable = [statement for statement in last_of_each if statement.kind == "unreachable"]
    pair = _pair(unreachable, with_registrar=True)
    if pair is not None:
        return Evidence("weak", _describe(pair, now))
    # In words all the same, so that people see that probers tried, and why it is not enough.
    few = next((said for said in (refused, unreachable) if said), None)
    return NO_EVIDENCE if few is None else Evidence("none", f"{_describe(few[:1], now)}; that alone proves nothing")


def _subject(suspect: Suspect) -> tuple[int, int]:
    return suspect.endpoint_id, suspect.incarnation


def _counts(statement: Statement, suspect: Suspect, now: float) -> bool:
    """Return whether a statement is one about this suspect, made lately by a prober that has a say about it."""
    if (statement.endpoint_id, statement.incarnation) != _subject(suspect):
        return False
    if statement.registrar_of and statement.registrar_of != suspect.service:
        return False
    age = now - statement.at
    # Written so that NaN is refused, too.
    if not (age >= -MAX_CLOCK_ERROR and statement.at >= suspect.expired_at):
        return False
    if statement.kind == "connected":
        return age <= MAX_CONNECTED_AGE
    # From its own address, others may be reached or not: that says nothing.
    if not age <= MAX_STATEMENT_AGE or statement.address == suspect.address:
        return False
    return statement.reached_at is not None and 0 <= statement.at - statement.reached_at <= MAX_BASE_LINE_AGE


def _last_of_each(statements: Iterable[Statement]) -> list[Statement]:
    """Return the last statement of each prober, in the order of addresses."""
    last: dict[str, Statement] = {}
    for statement in sorted(statements, key=_order):
        last[statement.prober] = statement
    return sorted(last.values(), key=lambda statement: (bool(statement.registrar_of), statement.address))


def _order(statement: Statement) -> tuple[float, bool, str]:
    # Of two that a prober made at one time, the connection is the later one, which holds the endpoint.
    return statement.at, statement.kind == "connected", statement.address


def _at(statement: Statement) -> float:
    return statement.at


def _pair(statements: Sequence[Statement], *, with_registrar: bool = False) -> tuple[Statement, Statement] | None:
    """Return statements of two probers on two addresses, the first one of a registry process.

    Registrars alone never suffice: whoever runs an instance of the service may run several that lie.
    """
    for first in statements:
        if first.registrar_of:
            continue
        for second in statements:
            apart = second.prober != first.prober and second.address != first.address
            if apart and (second.registrar_of or not with_registrar):
                return first, second
    return None


def _describe(statements: Sequence[Statement], now: float) -> str:
    attempts = min(statement.attempts for statement in statements)
    kind = "refused" if statements[0].kind == "refused" else "timed out"
    addresses = " and ".join(statement.address for statement in statements)
    reached = min(statement.reached_at or 0.0 for statement in statements)
    return f"{kind} {attempts} × by {addresses}, which reached it {_ago(now - reached)}"


def _ago(seconds: float) -> str:
    whole = max(0, round(seconds))
    return f"{whole} s ago" if whole < 120 else f"{round(whole / 60)} min ago"
