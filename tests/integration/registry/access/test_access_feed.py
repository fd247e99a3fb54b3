"""The credentials that a process reads from PostgreSQL: searches, revocations, and what another process has made."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit, urlunsplit

import pytest
from harness.postgres import Postgres
from msgspec.structs import replace
from prometheus_client import REGISTRY
from sqlalchemy import text
from structlog.testing import capture_logs

from registry.auth.access_table import AccessTable
from registry.auth.credential import Credential, Identity
from registry.auth.grants import Grant
from registry.auth.tokens import SESSION, TOKEN, new_token
from registry.auth.verbs import Verb
from registry.background.access_feed import AccessFeed
from registry.core.clock import Clock
from registry.errors import InvalidError, UnavailableError
from registry.store import credentials as store
from registry.store.database import Database
from registry.store.migration import migrate
from registry.store.sign_ins import add_code

DISCOVER = (Grant((Verb.DISCOVER,)),)
_IDENTITY = (
    "INSERT INTO identities (name, source, match, kind, grants, limits, created_by, updated_at)"
    " VALUES ({}, '[]', '{{}}', 'psql', now())"
)
"""The statement by which a person writes an identity."""
TASK = Identity("shop", "aws", "111122223333:shop", "registrar", DISCOVER)


class Process:
    """The table and the feed of a process, and its connections."""

    def __init__(self, url: str) -> None:
        self.database = Database(url, connections=3, timeout=5)
        self.table = AccessTable()
        self.feed = AccessFeed(self.database, self.table, Clock())


@pytest.fixture(scope="module")
def migrated(server: Postgres) -> str:
    """A database with the schema."""
    return server.migrated_database()


@asynccontextmanager
async def processes(url: str, count: int = 2) -> AsyncIterator[list[Process]]:
    """Lend so many processes that have read the table once."""
    made = [Process(url) for _ in range(count)]
    try:
        for process in made:
            await process.feed.load()
        yield made
    finally:
        for process in made:
            await process.feed.stop()
            await process.database.close()


def sessions(count: int) -> list[Credential]:
    """Return sessions of the identity that end in an hour."""
    new = [new_token(SESSION) for _ in range(count)]
    name, now = f"aws:{TASK.match}/task", time.time()
    return [
        Credential(each.id, each.digest, name, "registrar", now + 3600, created_at=now, identity=TASK.name)
        for each in new
    ]


async def test_the_sessions_of_ten_thousand_registrars_are_found_within_seconds(migrated: str) -> None:
    """After a restart they all come at once; they share statements, of which there are 50 a second at most."""
    async with processes(migrated) as (first, second):
        await store.put_identity(first.database, TASK)
        begun = sessions(10_000)
        async with first.database.transaction() as connection:
            for start in range(0, len(begun), 1_000):
                await store.add_sessions(connection, begun[start : start + 1_000])
        started = time.monotonic()
        # Each is asked for twice, as by a registrar and its second request.
        ids = [session.id for session in begun] * 2
        results = await asyncio.gather(*(second.feed.find_credential(each) for each in ids))
        assert all(results)
        assert time.monotonic() - started < 10
        assert all(second.table.has(each) for each in ids)
        assert "shop" in second.table.identities(), "the identity was made after the table was read"


async def test_made_up_credentials_are_searched_once_in_five_seconds(migrated: str) -> None:
    """They are not found, cost one statement together, and keep no real one waiting."""
    async with processes(migrated) as (first, second):
        statements = 0
        find = store.find_sessions

        async def counted(*arguments: object) -> list[Credential]:
            nonlocal statements
            statements += 1
            return await find(*arguments)  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "find_sessions", counted)
            made_up = [new_token(SESSION).id for _ in range(500)]
            for _ in range(2):
                results = await asyncio.gather(*(second.feed.find_credential(each) for each in made_up))
                assert not any(results)
            assert statements <= 3
            (real,) = sessions(1)
            await store.put_identity(first.database, TASK)
            async with first.database.transaction() as connection:
                await store.add_sessions(connection, [real])
            assert await second.feed.find_credential(real.id)


async def test_a_token_is_good_at_another_process_at_once(migrated: str) -> None:
    """It was made a moment ago, and the other process has not looked since."""
    async with processes(migrated) as (first, second):
        new = new_token(TOKEN)
        token = Credential(new.id, new.digest, "fresh", "machine", 0.0, DISCOVER)
        await store.add_token(first.database, token, 60)
        assert await second.feed.find_credential(new.id)
        header = f"Bearer {new.text}".encode()
        assert second.table.subject_of("10.0.0.1", header, now=time.time()).name == "token:fresh"


@pytest.mark.parametrize("end", ["revoke", "remove the identity", "set it for another role"])
async def test_a_session_that_ended_is_good_nowhere(migrated: str, end: str) -> None:
    """Also if an identity of the same name is there again before the other process looks."""
    async with processes(migrated) as (first, second):
        await store.put_identity(first.database, TASK)
        (session,) = sessions(1)
        async with first.database.transaction() as connection:
            await store.add_sessions(connection, [session])
        assert await second.feed.find_credential(session.id)
        if end == "revoke":
            await store.revoke_credential(first.database, session.id)
        elif end == "remove the identity":
            await store.remove_identity(first.database, TASK.name)
            await store.put_identity(first.database, TASK)
        else:
            await store.put_identity(first.database, replace(TASK, match="111122223333:web"))
        await second.feed.follow()
        header = b"Bearer hcs_" + session.id.encode() + b"_" + b"A" * 43
        problem = second.table.subject_of("10.0.0.1", header, now=time.time()).problem
        assert problem
        assert second.table.has(session.id) is (end == "set it for another role")


async def test_a_read_that_overlaps_a_revocation_never_undoes_it(migrated: str) -> None:
    """A look that began before the revocation must not replace what was read after it."""
    async with processes(migrated, 1) as (process,):
        new = new_token(TOKEN)
        token = Credential(new.id, new.digest, "raced", "machine", 0.0, DISCOVER)
        await store.add_token(process.database, token, 60)
        await process.feed.refresh()
        read, halfway, go_on = store.read_access, asyncio.Event(), asyncio.Event()

        async def slow(connection: object) -> store.AccessRows:
            rows = await read(connection)  # type: ignore[arg-type]
            if not halfway.is_set():
                halfway.set()
                await go_on.wait()
            return rows

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store, "read_access", slow)
            other = Credential(new_token(TOKEN).id, b"x" * 32, "other", "machine", 0.0, DISCOVER)
            await store.add_token(process.database, other, 60)
            looking = asyncio.create_task(process.feed.follow())
            await halfway.wait()
            await store.revoke_credential(process.database, new.id)
            refreshing = asyncio.create_task(process.feed.refresh())
            await asyncio.sleep(0.05)
            go_on.set()
            await asyncio.gather(looking, refreshing)
        assert process.table.tokens()[new.id].revoked_at is not None


async def test_what_a_person_writes_into_the_table_is_read(migrated: str, server: Postgres) -> None:
    """In psql nobody raises the generation; the table is read as a whole twice a minute."""
    async with processes(migrated, 1) as (process,):
        new = new_token(TOKEN)
        await store.add_token(process.database, Credential(new.id, new.digest, "psql", "machine", 0.0, DISCOVER), 60)
        await process.feed.follow()
        await asyncio.to_thread(
            server.execute, "UPDATE credentials SET revoked_at = now() WHERE name = 'psql'", url=migrated
        )
        await process.feed.follow()
        assert process.table.tokens()[new.id].revoked_at is None
        with pytest.MonkeyPatch.context() as patch:
            now = time.monotonic
            patch.setattr("registry.background.access_feed.time.monotonic", lambda: now() + 31)
            await process.feed.follow()
        assert process.table.tokens()[new.id].revoked_at is not None


@pytest.mark.parametrize(
    "bad",
    [
        _IDENTITY.format("'bad', 'network', '10.0.0.1/8', 'machine'"),
        _IDENTITY.format("'bad', 'ldap', 'x', 'machine'"),
        _IDENTITY.format("'bad', 'dns', 'x', 'robot'"),
        "UPDATE credentials SET networks = '[\"10.0.0.1/8\"]' WHERE name = 'bad'",
        "UPDATE credentials SET networks = '{\"a\": 1}' WHERE name = 'bad'",
        "UPDATE credentials SET kind = 'robot' WHERE name = 'bad'",
        "UPDATE credentials SET grants = '[{\"verbs\": [\"fly\"]}]' WHERE name = 'bad'",
        "UPDATE credentials SET created_at = '-infinity' WHERE name = 'bad'",
        "UPDATE credentials SET created_at = '0044-03-15 BC' WHERE name = 'bad'",
        "UPDATE credentials SET expires_at = 'infinity' WHERE name = 'bad'",
        "UPDATE credentials SET login_at = '20000-01-01' WHERE name = 'bad'",
        f"UPDATE credentials SET grants = '{'[' * 3000}{']' * 3000}' WHERE name = 'bad'",
        "UPDATE credentials SET networks = '[1e400]' WHERE name = 'bad'",
        _IDENTITY.format("'bad', 'dns', 'x', 'machine'").replace("now()", "'0044-03-15 BC'"),
    ],
)
async def test_a_row_that_cannot_be_read_allows_nothing_and_hinders_no_other(
    server: Postgres, migrated: str, bad: str
) -> None:
    """A person in psql or a newer version wrote it; a revocation has to be read all the same, and the row is named."""
    async with processes(migrated, 1) as (process,):
        good, broken = new_token(TOKEN), new_token(TOKEN)
        for new, name in ((good, "good"), (broken, "bad")):
            await store.add_token(process.database, Credential(new.id, new.digest, name, "machine", 0.0, DISCOVER), 60)
        await asyncio.to_thread(server.execute, bad, url=migrated)
        try:
            await process.feed.load()
            await store.revoke_credential(process.database, good.id)
            with capture_logs() as logs:
                await process.feed.refresh()
                await process.feed.follow()
            assert process.table.tokens()[good.id].revoked_at is not None
            assert "bad" not in process.table.identities()
            header = f"Bearer {broken.text}".encode()
            subject = process.table.subject_of("10.0.0.1", header, now=time.time())
            assert bool(subject.problem) is bad.startswith("UPDATE")
            assert not [line for line in logs if line["log_level"] == "error"], "logged once, by the first reading"
            assert REGISTRY.get_sample_value("registry_access_rows_unreadable") == 1
            ((row, reason),) = process.table.unreadable.items()
            assert ("bad" in row, bool(reason)) == (True, True)
            if bad.startswith("UPDATE"):
                await store.revoke_credential(process.database, broken.id)
        finally:
            await asyncio.to_thread(server.execute, "DELETE FROM identities WHERE name = 'bad'", url=migrated)
            await asyncio.to_thread(
                server.execute, "DELETE FROM credentials WHERE name IN ('good', 'bad')", url=migrated
            )


async def test_text_of_another_encoding_costs_its_row_alone(server: Postgres) -> None:
    """A database in SQL_ASCII takes every byte; the driver of PostgreSQL would give up the whole result."""
    name = f"ascii_{uuid.uuid4().hex[:12]}"
    await asyncio.to_thread(
        server.execute, f"CREATE DATABASE {name} ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0"
    )
    url = urlunsplit(urlsplit(server.url)._replace(path=f"/{name}"))
    await migrate(url, 10)
    async with processes(url, 1) as (process,):
        good, broken = new_token(TOKEN), new_token(TOKEN)
        for new, token in ((good, "good"), (broken, "bad")):
            await store.add_token(process.database, Credential(new.id, new.digest, token, "machine", 0.0, DISCOVER), 60)
        await asyncio.to_thread(
            server.execute, f"UPDATE credentials SET name = E'b\\377d' WHERE id = '{broken.id}'", url=url
        )
        await store.revoke_credential(process.database, broken.id)
        await process.feed.refresh()
        assert list(process.table.tokens()) == [good.id]
        assert list(process.table.unreadable) == [f"token b\\xffd ({broken.id})"]


async def test_a_stored_change_stands_where_reading_it_fails(migrated: str) -> None:
    """A defect of the reading is counted and logged, and the request that stored the change succeeds."""

    async def broken(_connection: object) -> store.AccessRows:
        raise InvalidError("a defect")

    async with processes(migrated, 1) as (process,):
        before = REGISTRY.get_sample_value("registry_access_read_failures_total") or 0.0
        with pytest.MonkeyPatch.context() as patch, capture_logs() as logs:
            patch.setattr(store, "read_access", broken)
            await store.put_identity(process.database, TASK)
            await process.feed.refresh()
            with pytest.raises(InvalidError):
                await process.feed.follow()
        assert [line["event"] for line in logs] == ["access_not_refreshed"]
        assert REGISTRY.get_sample_value("registry_access_read_failures_total") == before + 2
        await process.feed.follow()
        assert not process.table.away


async def test_a_revoked_session_takes_its_login_with_it(migrated: str) -> None:
    """The renewals of a stolen session end too, also one that is under way; another login goes on."""
    async with processes(migrated, 1) as (process,):
        await store.put_identity(process.database, TASK)
        stolen, renewed, envoys, other = (replace(each, login_at=1_000.0) for each in sessions(4))
        other = replace(other, login_at=2_000.0)
        async with process.database.transaction() as connection:
            await store.add_sessions(connection, [stolen, renewed, replace(envoys, discovers=True), other])
        async with process.database.transaction() as thief:
            (underway,) = (replace(each, login_at=1_000.0) for each in sessions(1))
            await thief.execute(text("SELECT FROM credentials WHERE id = :id FOR UPDATE"), {"id": renewed.id})
            revoking = asyncio.create_task(store.revoke_credential(process.database, stolen.id))
            await asyncio.sleep(0.3)
            await store.add_sessions(thief, [underway])
        await revoking
        async with process.database.session() as connection:
            ids = [each.id for each in (stolen, renewed, envoys, underway, other)]
            assert [each.id for each in await store.find_sessions(connection, ids)] == [other.id]


async def test_a_token_that_is_rotated_twice_keeps_its_lifetime(migrated: str) -> None:
    """The text of the first successor may be lost; the overlap has shortened the token alone."""
    async with processes(migrated, 1) as (process,):
        new = new_token(TOKEN)
        token = Credential(new.id, new.digest, "twice", "machine", 0.0, DISCOVER)
        await store.add_token(process.database, token, 86_400.0)
        for _ in range(2):
            successor = Credential(new_token(TOKEN).id, b"x" * 32, "", "machine", 0.0)
            made = await store.rotate_token(process.database, new.id, successor, ttl=None, overlap=60.0)
            assert made.expires_at - made.created_at == pytest.approx(86_400.0)


async def codes(database: Database) -> list[bytes]:
    """Return the digests of the codes that are stored."""
    async with database.session() as connection:
        return sorted((await connection.execute(text("SELECT digest FROM sign_in_codes"))).scalars())


async def test_nothing_is_deleted_by_a_clock_that_is_alone(migrated: str, server: Postgres) -> None:
    """A clock that is set 40 days ahead would delete every token for good; the two have to agree."""
    async with processes(migrated, 1) as (process,):
        new = new_token(TOKEN)
        token = Credential(new.id, new.digest, "ended", "machine", 0.0, DISCOVER)
        await store.add_token(process.database, token, 60)
        end = "UPDATE credentials SET expires_at = now() - interval '31 days' WHERE name = 'ended'"
        await asyncio.to_thread(server.execute, end, url=migrated)
        with pytest.MonkeyPatch.context() as patch, capture_logs() as logs:
            now = time.time
            patch.setattr("registry.store.database.time.time", lambda: now() - 40 * 86_400)
            await process.feed.follow()
            await process.feed.load()
            await add_code(process.database, b"ended", parent=new.id, created_by="", ttl=-60.0)
            await add_code(process.database, b"another", parent=new.id, created_by="", ttl=-60.0)
            assert await codes(process.database) == [b"another", b"ended"]
        await add_code(process.database, b"new", parent=new.id, created_by="", ttl=60.0)
        assert await codes(process.database) == [b"new"]
        assert "credentials_not_pruned" in [line["event"] for line in logs]
        assert new.id in process.table.tokens()
        async with process.database.session() as connection:
            await store.prune_credentials(connection)
            assert new.id not in [each.id for each in (await store.read_access(connection)).tokens]


async def test_a_search_fails_fast_while_postgresql_is_away() -> None:
    """One request a second waits for it, and the others are answered at once."""
    process = Process("postgresql://nobody@127.0.0.1:1/nothing")
    reasons = []
    for _ in range(3):
        with pytest.raises(UnavailableError) as caught:
            await process.feed.find_credential(new_token(SESSION).id)
        reasons.append(str(caught.value))
    known = "the credential is not known to this process, and PostgreSQL is away"
    assert reasons == ["PostgreSQL is away", known, known]
    await process.database.close()


async def test_a_database_that_takes_no_writes_is_as_one_that_is_away(migrated: str, server: Postgres) -> None:
    """No session can be renewed in it, so those of Envoys have to go on; tokens are read all the same."""
    async with processes(migrated, 1) as (process,):
        await store.put_identity(process.database, TASK)
        (session,) = sessions(1)
        envoys = replace(session, discovers=True, expires_at=time.time() + 0.5)
        process.table.add_session(envoys)
        await process.feed.follow()
        process.table.used = {"some-token"}
        name = urlsplit(migrated).path.removeprefix("/")
        await asyncio.to_thread(server.execute, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        try:
            await process.database.close()
            await _until(process.feed.follow, lambda: time.time() > envoys.expires_at)
            process.feed.expire()
            assert process.table.contents(time.time()).credentials
            assert process.table.used == {"some-token"}, "noted later"
        finally:
            await asyncio.to_thread(server.execute, f"ALTER DATABASE {name} RESET default_transaction_read_only")
            await process.database.close()


async def _until(work: Callable[[], Awaitable[None]], done: Callable[[], bool]) -> None:
    while not done():
        await work()
        await asyncio.sleep(0.1)
