"""The statements on errands: ask, hand one to its registrar, end it, and read it."""

from collections.abc import Collection, Sequence
from typing import Any

import msgspec
import structlog
from sqlalchemy import ARRAY, Integer, Text, any_, bindparam, delete, func, insert, select, text, tuple_, update
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.ext.asyncio import AsyncConnection

from registry.core.endpoint import Key
from registry.core.errands import (
    COLLECT_TIMEOUT,
    MAX_CLOCK_STEP,
    MAX_KEPT,
    RETENTION,
    StoredErrand,
    answer_seconds,
    in_words,
    spare_seconds,
)
from registry.core.event import EventKind
from registry.errors import LimitError
from registry.store.database import ERRANDS_CHANNEL, Database, read_clock
from registry.store.left_out import SHORT_LOCK
from registry.store.rows import moment
from registry.store.tables import errands, events
from registry.store.times import age_of, epoch
from wire.errand import Arguments, verb_of

log = structlog.get_logger()

_LOCK = 0x45525244
"""The advisory lock under which errands are asked and handed out: their limits are counted."""
_SETTLED_AGE = 120.0
"""Seconds after which an errand is over in any case, and the limit of a minute does not count it any more."""
_MAX_ACTIVE = MAX_KEPT
"""Errands that a process reads to hand out."""

_decode: Any = msgspec.json.Decoder(Arguments).decode
_now = func.clock_timestamp()


def _seconds(column: Any, name: str) -> Any:  # noqa: ANN401  # columns of SQLAlchemy
    return epoch(column).label(name)


_COLUMNS = (
    errands.c.id,
    errands.c.service,
    errands.c.address,
    errands.c.port,
    errands.c.instance_id,
    errands.c.arguments,
    errands.c.callee,
    errands.c.reason,
    errands.c.actor,
    errands.c.answer_seconds,
    errands.c.lost,
    _seconds(_now, "now"),
    _seconds(errands.c.asked_at, "asked"),
    _seconds(errands.c.collect_until, "collect"),
    _seconds(errands.c.collected_at, "collected"),
    _seconds(errands.c.ended_at, "ended"),
)


def _ago(seconds: float) -> Any:  # noqa: ANN401  # an expression of SQLAlchemy
    return _now - func.make_interval(0, 0, 0, 0, 0, 0, seconds)


_BEFORE_CLOCK_STEP = errands.c.asked_at > _ago(-MAX_CLOCK_STEP)
"""Asked before PostgreSQL's clock was set back; such an errand is over."""
_WAITING = errands.c.collected_at.is_(None) & errands.c.ended_at.is_(None) & (errands.c.collect_until >= _now)
_HELD = errands.c.collected_at.is_not(None) & errands.c.ended_at.is_(None)
_ACTIVE = (
    select(*_COLUMNS)
    .where(errands.c.ended_at.is_(None), ~_BEFORE_CLOCK_STEP)
    .where(_WAITING | _HELD)
    .order_by(errands.c.asked_at)
).limit(_MAX_ACTIVE)
_ONE = select(*_COLUMNS, errands.c.result).where(errands.c.id == bindparam("wanted"))
_NOTIFY = text("SELECT pg_notify(:channel, :id)").bindparams(channel=ERRANDS_CHANNEL)
_TAKE_LOCK = text("SELECT pg_advisory_xact_lock(:key)").bindparams(key=_LOCK)
_COUNT = select(func.count()).select_from(errands)
_FORGET = delete(errands).where(
    errands.c.id.in_(
        select(errands.c.id)
        .where((errands.c.asked_at < _ago(RETENTION + 120.0)) | _BEFORE_CLOCK_STEP)
        .with_for_update(skip_locked=True)
    )
)
_MAKE_ROOM = delete(errands).where(
    errands.c.id.in_(
        select(errands.c.id)
        .where(errands.c.asked_at < _ago(_SETTLED_AGE))
        .order_by(errands.c.asked_at)
        .limit(bindparam("surplus", type_=Integer))
        .with_for_update(skip_locked=True)
    )
)
_AGES = select(errands.c.instance_id, age_of(errands.c.asked_at).label("age")).where(
    errands.c.instance_id == any_(bindparam("instances", type_=ARRAY(Text)))
)


class NewErrand(msgspec.Struct, frozen=True):
    """An errand to be stored.

    Attributes:
        id: its random name, which is not guessed.
        version: the version of its service, for the history.
    """

    id: str
    service: str
    address: str
    port: int
    instance_id: str
    version: int


async def ask(  # the columns of an errand
    database: Database, new: Sequence[NewErrand], arguments: Arguments, callee: str, *, actor: str, reason: str
) -> list[StoredErrand]:
    """Store errands, each with an event, and return those that their registrars may still get.

    A registrar that has had its errands of this minute is left out.

    Raises:
        LimitError: all of the registrars have had theirs, or too many errands are kept.
        UnavailableError: nothing was stored.
    """
    async with database.transaction() as connection:
        await connection.execute(_TAKE_LOCK)
        await connection.execute(_FORGET)
        await _make_room(connection, len(new))
        free = await _within_rate(connection, new)
        now = await read_clock(connection)
        await connection.execute(insert(errands), [_row(each, arguments, callee, actor, reason, now) for each in free])
        words = in_words(arguments, callee)
        why = f"{words}: {reason}" if reason else words
        await connection.execute(
            insert(events), [_event(each, "errand_asked", why, actor, now, each.version) for each in free]
        )
        for each in free:
            await connection.execute(_NOTIFY, {"id": each.id})
    return [
        StoredErrand(
            each.id,
            each.service,
            each.address,
            each.port,
            each.instance_id,
            arguments,
            callee,
            reason,
            actor,
            now,
            now,
            now + COLLECT_TIMEOUT,
            answer_seconds(arguments),
        )
        for each in free
    ]


async def _make_room(connection: AsyncConnection, wanted: int) -> None:
    """Forget the oldest errands that are over where too many are kept: nobody uses up the places of all services."""
    kept = int((await connection.execute(_COUNT)).scalar_one())
    if kept + wanted > MAX_KEPT:
        await connection.execute(_MAKE_ROOM, {"surplus": kept + wanted - MAX_KEPT})
        kept = int((await connection.execute(_COUNT)).scalar_one())
    if kept + wanted > MAX_KEPT:
        raise LimitError(
            f"{kept} errands were asked in the last {_SETTLED_AGE:.0f} s, and {MAX_KEPT} may be kept; ask again later",
            "errands",
            60.0,
        )


async def _within_rate(connection: AsyncConnection, new: Sequence[NewErrand]) -> list[NewErrand]:
    ages: dict[str, list[float]] = {}
    for instance, age in await connection.execute(_AGES, {"instances": [each.instance_id for each in new]}):
        ages.setdefault(instance, []).append(float(age))
    waits = {each.instance_id: spare_seconds(ages.get(each.instance_id, ())) for each in new}
    free = [each for each in new if not waits[each.instance_id]]
    if not free:
        seconds = min(waits.values())
        raise LimitError(
            f"the registrar of {new[0].instance_id} had its 6 errands of this minute; ask again in {seconds:.0f} s",
            "errands_per_minute",
            seconds,
        )
    return free


def _row(  # the columns of an errand
    each: NewErrand, arguments: Arguments, callee: str, actor: str, reason: str, now: float
) -> dict[str, Any]:
    return {
        "id": each.id,
        "service": each.service,
        "address": each.address,
        "port": each.port,
        "instance_id": each.instance_id,
        "verb": verb_of(arguments),
        "arguments": msgspec.json.encode(arguments).decode(),
        "callee": callee,
        "reason": reason,
        "actor": actor,
        "asked_at": moment(now),
        "collect_until": moment(now + COLLECT_TIMEOUT),
        "answer_seconds": answer_seconds(arguments),
    }


def _event(
    errand: NewErrand | StoredErrand, kind: EventKind, reason: str, actor: str, now: float, version: int
) -> dict[str, Any]:
    return {
        "at": moment(now),
        "service": errand.service,
        "address": errand.address,
        "port": errand.port,
        "instance_id": errand.instance_id,
        "kind": kind,
        "reason": reason,
        "actor": actor,
        "status": "",
        "version": version,
    }


async def active(database: Database) -> list[StoredErrand]:
    """Return the errands that wait for their registrars, and those that these have, the oldest first.

    Raises:
        UnavailableError: they cannot be read.
    """
    async with database.session() as connection:
        rows = await connection.execute(_ACTIVE)
        return [errand for row in rows if (errand := _read(row)) is not None]


async def find(database: Database, errand_id: str) -> StoredErrand | None:
    """Return an errand with its result, or None if there is none or it is forgotten.

    Raises:
        UnavailableError: it cannot be read.
    """
    async with database.session() as connection:
        row = (await connection.execute(_ONE, {"wanted": errand_id})).first()
        if row is None or float(row.now - row.asked) > RETENTION:
            return None
        return _read(row, None if row.result is None else row.result.encode())


async def collect(database: Database, errand_id: str) -> StoredErrand | None:
    """Mark an errand as collected and return it; None if it was, or its registrar has another one.

    Raises:
        UnavailableError: it could not be stored; it goes on waiting.
    """
    async with database.transaction() as connection:
        await connection.execute(_TAKE_LOCK)
        # All others wait for the lock, so that this waits for no row for long.
        await connection.execute(SHORT_LOCK)
        row = (await connection.execute(_ONE, {"wanted": errand_id})).first()
        errand = None if row is None else _read(row)
        if errand is None or errand.state != "asked" or await _is_busy(connection, errand):
            return None
        await connection.execute(
            update(errands).where(errands.c.id == errand_id).values(collected_at=moment(errand.now))
        )
        return msgspec.structs.replace(errand, collected_at=errand.now)


async def _is_busy(connection: AsyncConnection, errand: StoredErrand) -> bool:
    same = (
        (errands.c.service == errand.service)
        & (errands.c.address == errand.address)
        & (errands.c.port == errand.port)
        & _HELD
    )
    rows = await connection.execute(select(*_COLUMNS).where(same))
    return any(other is not None and not other.over for other in map(_read, rows))


async def give_back(database: Database, errand_id: str) -> None:
    """Let an errand wait again: the registrar that was to get it has disconnected before.

    Raises:
        UnavailableError: it could not be stored.
    """
    async with database.transaction() as connection:
        await connection.execute(update(errands).where(errands.c.id == errand_id).values(collected_at=None))
        await connection.execute(_NOTIFY, {"id": errand_id})


async def lose(database: Database, keys: Collection[Key], why: str) -> list[str]:
    """End the errands that the registrar of some endpoints has and will not answer, and return their ids.

    Raises:
        UnavailableError: it could not be stored.
    """
    # As three arrays, because a row constructor of INET has no array.
    wanted = select(
        func.unnest(
            bindparam("services", type_=ARRAY(Text)),
            bindparam("addresses", type_=ARRAY(INET)),
            bindparam("ports", type_=ARRAY(Integer)),
        )
        .table_valued("service", "address", "port")
        .render_derived("keys")
    )
    query = (
        update(errands)
        .where(tuple_(errands.c.service, errands.c.address, errands.c.port).in_(wanted), _HELD)
        .values(ended_at=_now, lost=why)
        .returning(errands.c.id)
    )
    services, addresses, ports = ([key[part] for key in keys] for part in range(3))
    async with database.transaction() as connection:
        rows = await connection.execute(query, {"services": services, "addresses": addresses, "ports": ports})
        ids = [str(row.id) for row in rows]
        for each in ids:
            await connection.execute(_NOTIFY, {"id": each})
        return ids


async def end(database: Database, errand: StoredErrand, result: bytes, words: str, actor: str, version: int) -> bool:
    """Store the result of an errand with its event; return False if it has one already or is forgotten.

    Raises:
        UnavailableError: it could not be stored.
    """
    async with database.transaction() as connection:
        query = (
            update(errands)
            .where(errands.c.id == errand.id, errands.c.result.is_(None))
            .values(result=result.decode(), ended_at=_now)
            .returning(errands.c.id)
        )
        if (await connection.execute(query)).first() is None:
            return False
        now = await read_clock(connection)
        await connection.execute(insert(events), [_event(errand, "errand_answered", words, actor, now, version)])
        await connection.execute(_NOTIFY, {"id": errand.id})
        return True


async def forget(database: Database) -> None:
    """Delete the errands whose results are kept no longer.

    Raises:
        UnavailableError: they could not be deleted.
    """
    async with database.transaction() as connection:
        await connection.execute(_FORGET)


def _read(row: Any, result: bytes | None = None) -> StoredErrand | None:  # noqa: ANN401  # a row of SQLAlchemy
    try:
        arguments = _decode(row.arguments)
    except msgspec.DecodeError:
        # Of a registry of another version, which is the one to hand it out.
        log.info("errand_not_understood", id=row.id)
        return None
    return StoredErrand(
        row.id,
        row.service,
        str(row.address),
        row.port,
        row.instance_id,
        arguments,
        row.callee,
        row.reason,
        row.actor,
        float(row.now),
        float(row.asked),
        float(row.collect),
        row.answer_seconds,
        None if row.collected is None else float(row.collected),
        None if row.ended is None else float(row.ended),
        row.lost,
        result,
    )
