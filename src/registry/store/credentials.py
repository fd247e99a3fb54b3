"""The statements on credentials and identities."""

from collections.abc import Collection, Sequence
from typing import Any

import msgspec
import structlog
from msgspec import Struct
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    LargeBinary,
    Text,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection

from registry.auth.credential import MAX_TTL, Credential, Identity
from registry.errors import InvalidError, NotFoundError
from registry.store.credential_rows import (
    credential_row,
    credentials_from,
    identities_from,
    identity_row,
    select_credentials,
    select_identities,
)
from registry.store.database import Database, read_agreed_clock, read_clock
from registry.store.rows import moment
from registry.store.tables import credentials, identities, registry_state

log = structlog.get_logger()

_KEPT_AFTER_END = "30 days"
"""How long a static token that ended is listed; a session is deleted as soon as no registry could accept it."""
_SESSION_GRACE = "13 hours"
_MAX_PRUNED = 10_000
"""Credentials that are deleted at once."""

_BUMP = update(registry_state).values(access_generation=registry_state.c.access_generation + 1)
_IS_TOKEN = and_(credentials.c.identity == "", credentials.c.parent == "")
_REVOKED = select(func.convert_to(credentials.c.id, func.getdatabaseencoding(), type_=LargeBinary)).where(
    ~_IS_TOKEN, credentials.c.revoked_at.is_not(None)
)
_STATE = select(registry_state.c.access_generation, func.extract("epoch", func.clock_timestamp()).label("now"))
# Every process notes and prunes. Rows that another one holds are left to it, so that none waits for another.
_PRUNE = text(
    "DELETE FROM credentials WHERE id IN (SELECT id FROM credentials"  # noqa: S608  # of constants
    f" WHERE expires_at < CAST(:now AS timestamptz) - interval '{_SESSION_GRACE}'"
    " AND (identity <> '' OR parent <> ''"
    f" OR expires_at < CAST(:now AS timestamptz) - interval '{_KEPT_AFTER_END}')"
    f" LIMIT {_MAX_PRUNED} FOR UPDATE SKIP LOCKED)"
)
_NOTE_USED = text(
    "UPDATE credentials SET used_at = date_trunc('hour', clock_timestamp()) WHERE id IN (SELECT id FROM credentials"
    " WHERE id = ANY(CAST(:ids AS text[]))"
    " AND (used_at IS NULL OR used_at < clock_timestamp() - interval '1 hour') FOR UPDATE SKIP LOCKED)"
)


class AccessState(Struct, frozen=True):
    """The number of changes of tokens and identities, and PostgreSQL's time."""

    generation: int
    now: float


class AccessRows(Struct, frozen=True):
    """All static tokens and identities, and the ids of sessions that were revoked.

    Attributes:
        tokens: those whose rows can be read.
        identities: those whose rows can be read.
        revoked: the ids of sessions.
        unreadable: the tokens and identities that are left out, with the reason.
    """

    tokens: list[Credential]
    identities: list[Identity]
    revoked: list[str]
    unreadable: dict[str, str]


async def read_access_state(connection: AsyncConnection) -> AccessState:
    """Return how often tokens and identities have changed."""
    row = (await connection.execute(_STATE)).one()
    return AccessState(row.access_generation, float(row.now))


async def read_access(connection: AsyncConnection) -> AccessRows:
    """Return everything that a process keeps in memory; sessions it reads when they are used."""
    tokens = (await connection.execute(select_credentials().where(_IS_TOKEN))).all()
    rules = (await connection.execute(select_identities().order_by(identities.c.name))).all()
    revoked = await connection.execute(_REVOKED)
    unreadable: dict[str, str] = {}
    return AccessRows(
        credentials_from(tokens, "token", unreadable),
        identities_from(rules, unreadable),
        # An id that is no ASCII is none of ours, and nobody uses it.
        [credential_id.decode(errors="replace") for credential_id in revoked.scalars()],
        unreadable,
    )


async def find_session(connection: AsyncConnection, session_id: str) -> Credential | None:
    """Return a session; None if there is none of this id."""
    sessions = await find_sessions(connection, [session_id])
    return sessions[0] if sessions else None


async def find_sessions(connection: AsyncConnection, ids: Collection[str]) -> list[Credential]:
    """Return those sessions of some ids that there are and that were not revoked."""
    query = select_credentials().where(
        credentials.c.id == func.any(bindparam("ids", list(ids), ARRAY(Text))),
        ~_IS_TOKEN,
        credentials.c.revoked_at.is_(None),
    )
    unreadable: dict[str, str] = {}
    sessions = credentials_from((await connection.execute(query)).all(), "session", unreadable)
    for row, reason in unreadable.items():
        log.warning("access_row_unreadable", row=row, reason=reason)
    return sessions


async def add_token(database: Database, token: Credential, ttl: float) -> Credential:
    """Store a static token, and return it with PostgreSQL's times.

    Raises:
        InvalidError: a living token has this name already.
    """
    async with database.transaction() as connection:
        await lock_state(connection)
        now = await read_clock(connection)
        await _refuse_taken(connection, token.name, now, replaced=token.successor_of)
        stored = msgspec.structs.replace(token, created_at=now, expires_at=now + ttl)
        await connection.execute(insert(credentials), credential_row(stored) | {"lifetime": ttl})
        await bump_generation(connection)
    return stored


async def rotate_token(
    database: Database, token_id: str, successor: Credential, *, ttl: float | None, overlap: float
) -> Credential:
    """Store a successor with the name, kind, grants and networks of a token, which ends after the overlap.

    Args:
        database: where credentials are.
        token_id: the id of the token that is replaced.
        successor: its id, digest and maker; everything else is the replaced token's.
        ttl: seconds until the successor ends; None: as long as the replaced token was made for, also where an earlier
            rotation has shortened that one.
        overlap: seconds until the replaced token ends, if it does not end before.

    Raises:
        NotFoundError: there is no such token, or it ended.
    """
    async with database.transaction() as connection:
        await lock_state(connection)
        now = await read_clock(connection)
        before = await _living(connection, token_id, now)
        query = select(credentials.c.lifetime).where(credentials.c.id == token_id)
        made_for: float | None = (await connection.execute(query)).scalar()
        # A person may have written any number into the row.
        if ttl is None:
            ttl = min(before.expires_at - before.created_at, MAX_TTL)
            # A person may have written any number into the row.
            if made_for is not None and 0 < made_for <= MAX_TTL:
                ttl = made_for
        stored = msgspec.structs.replace(
            before,
            id=successor.id,
            digest=successor.digest,
            created_by=successor.created_by,
            created_at=now,
            expires_at=now + ttl,
            successor_of=before.id,
            used_at=None,
        )
        await connection.execute(insert(credentials), credential_row(stored) | {"lifetime": ttl})
        ends = moment(min(before.expires_at, now + overlap))
        await connection.execute(update(credentials).where(credentials.c.id == token_id).values(expires_at=ends))
        await bump_generation(connection)
    return stored


async def revoke_credential(database: Database, credential_id: str) -> None:
    """Revoke a token, or a session and all others of its login; what is revoked already stays so.

    Raises:
        NotFoundError: there is none of this id.
    """
    async with database.transaction() as connection:
        await lock_state(connection)
        if (await connection.execute(select(literal(1)).where(credentials.c.id == credential_id))).first() is None:
            raise NotFoundError(f"there is no token of the id {credential_id}")
        concerned = or_(credentials.c.id == credential_id, _of_same_login(credential_id))
        await revoke_all(connection, concerned, await read_clock(connection))
        await bump_generation(connection)


def _of_same_login(session_id: str) -> ColumnElement[bool]:
    """Return the condition for the sessions of one login; of a static token it concerns nothing.

    The values stay in PostgreSQL, so that a row that nobody can read is revoked too.
    """
    session = credentials.alias("session")

    def same(column: ColumnElement[Any]) -> ColumnElement[bool]:
        value = select(session.c[column.key or ""]).where(session.c.id == session_id).scalar_subquery()
        return column.is_not_distinct_from(value)

    return and_(
        credentials.c.identity != "", *map(same, (credentials.c.identity, credentials.c.name, credentials.c.login_at))
    )


async def revoke_all(connection: AsyncConnection, concerned: ColumnElement[bool], now: float) -> list[str]:
    """Revoke the living credentials that a condition concerns, and return their ids.

    A renewal that is under way holds the row of its session. It is waited for, and its successors are seen by the next
    statement alone, so statements follow until one sees none.
    """
    living = concerned & credentials.c.revoked_at.is_(None)
    statement = update(credentials).where(living).values(revoked_at=moment(now)).returning(credentials.c.id)
    revoked: list[str] = []
    while ids := (await connection.execute(statement)).scalars().all():
        revoked += ids
    return revoked


async def add_sessions(connection: AsyncConnection, sessions: Sequence[Credential]) -> None:
    """Store sessions, in the transaction of a login."""
    await connection.execute(insert(credentials), [credential_row(session) for session in sessions])


async def put_identity(database: Database, identity: Identity) -> Identity:
    """Create an identity or replace it, and return it with PostgreSQL's time.

    Raises:
        InvalidError: another identity matches the same.
    """
    async with database.transaction() as connection:
        await lock_state(connection)
        query = select(identities.c.name).where(
            identities.c.source == identity.source, identities.c.match == identity.match
        )
        other = (await connection.execute(query)).scalar()
        if other not in (None, identity.name):
            raise InvalidError(
                f"the identity {other} matches {identity.match} already; change that one, or remove it first", "$.match"
            )
        stored = msgspec.structs.replace(identity, updated_at=await read_clock(connection))
        values = identity_row(stored)
        statement = upsert(identities).values(**values)
        await connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_=values))
        await bump_generation(connection)
    return stored


async def remove_identity(database: Database, name: str) -> None:
    """Remove an identity, which ends its sessions.

    Raises:
        NotFoundError: there is none of this name.
    """
    async with database.transaction() as connection:
        await lock_state(connection)
        if (await connection.execute(delete(identities).where(identities.c.name == name))).rowcount == 0:
            raise NotFoundError(f"there is no identity {name}")
        # Revoked and not deleted: a process that knows a session has to learn of it, also if an identity of the same
        # name was made before it looked.
        revoked_at = moment(await read_clock(connection))
        living = (credentials.c.identity == name) & credentials.c.revoked_at.is_(None)
        await connection.execute(update(credentials).where(living).values(revoked_at=revoked_at))
        await bump_generation(connection)


async def note_used(connection: AsyncConnection, ids: Collection[str]) -> None:
    """Note that tokens were used now; which of them matters to the hour."""
    await connection.execute(_NOTE_USED, {"ids": list(ids)})


async def prune_credentials(connection: AsyncConnection) -> None:
    """Delete credentials that ended long ago.

    Raises:
        ClocksDifferError: PostgreSQL's clock is not that of this process, and one of them may be far ahead.
    """
    await connection.execute(_PRUNE, {"now": moment(await read_agreed_clock(connection))})


async def bump_generation(connection: AsyncConnection) -> None:
    """Let every process read tokens, identities and revoked sessions again."""
    await connection.execute(_BUMP)


async def lock_state(connection: AsyncConnection) -> None:
    """Let changes of credentials follow each other, so that none is missed between two generations."""
    await connection.execute(select(registry_state.c.singleton).with_for_update())


async def _refuse_taken(connection: AsyncConnection, name: str, now: float, replaced: str) -> None:
    query = select(credentials.c.id).where(
        _IS_TOKEN,
        credentials.c.name == name,
        credentials.c.id != replaced,
        credentials.c.revoked_at.is_(None),
        credentials.c.expires_at > moment(now),
    )
    if (await connection.execute(query)).first() is not None:
        raise InvalidError(
            f"a token named {name} is in use, and endpoints are owned by that name; choose another one, rotate that "
            "token, or revoke it",
            "$.name",
        )


async def _living(connection: AsyncConnection, token_id: str, now: float) -> Credential:
    query = select_credentials().where(credentials.c.id == token_id, _IS_TOKEN)
    row = (await connection.execute(query)).one_or_none()
    unreadable: dict[str, str] = {}
    tokens = credentials_from([] if row is None else [row], "token", unreadable)
    for described, reason in unreadable.items():
        raise InvalidError(f"the row of the {described} cannot be read: {reason}; revoke it, and create a new one")
    if not tokens or tokens[0].revoked_at is not None or tokens[0].expires_at <= now:
        raise NotFoundError(f"there is no token of the id {token_id}, or it has ended; create a new one")
    return tokens[0]
