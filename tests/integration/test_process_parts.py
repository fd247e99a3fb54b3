"""Who is answered 200 by a process finds what was stored at that process, also right after an outage."""

import asyncio
import time
from collections.abc import AsyncIterator, Generator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.background import change_feed
from registry.background.change_feed import ChangeFeed
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.abilities import Abilities
from registry.core.admission import Admission, Limits
from registry.core.audit import AuditQueue
from registry.core.snapshot import Snapshot, SnapshotDelta
from registry.errors import UnavailableError
from registry.process import RegistryProcess
from registry.settings import load_settings
from registry.store import change_feed as feed
from registry.store.database import Database, Session
from registry.usecases.audit import Audit
from registry.usecases.registration import Registrations
from registry.xds import eds
from wire.model import Registration

_CUT = text(
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = 'headcount-registry feed'"
)
PAUSE = 60.0
"""Seconds that the feed would pause after its connection was lost: longer than any test waits."""


class Parts:
    """The parts of a process that store what it is told and follow what was stored."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.directory = SnapshotCache()
        settings = load_settings()
        self.changes = ChangeFeed(database, self.directory, settings)
        admission = Admission(Limits.of(settings), self.directory.service_count, self.directory.endpoint_count)
        audit = Audit(AuditQueue(), self.directory.clock)
        self.registrations = Registrations(
            Policy(), database, self.directory, self.changes, Abilities(20), admission, audit
        )

    async def put(self, address: str, service: str = "shop") -> None:
        """Register an endpoint."""
        told = Registration("i-1", 1, ttl=600.0)
        await self.registrations.register(Principal("test"), (service, address, 80), told)

    def lists(self, address: str) -> bool:
        """Tell whether an endpoint is listed."""
        return self.directory.find(("shop", address, 80)) is not None


@pytest.fixture
async def parts(database: str) -> AsyncIterator[Parts]:
    """A process that follows its database."""
    store = Database(database, connections=10, timeout=5)
    found = Parts(store)
    following = asyncio.create_task(found.changes.run())
    async with asyncio.timeout(10):
        while not found.directory.ready:
            await asyncio.sleep(0.01)
    yield found
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await found.registrations.close()
    await store.close()


async def test_a_write_after_an_outage_is_listed_when_it_is_answered(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The change feed pauses ever longer while PostgreSQL is away; a write that is stored ends its pause."""
    await parts.put("10.0.0.1")
    assert parts.lists("10.0.0.1")
    monkeypatch.setattr(change_feed, "_MIN_RETRY_DELAY", PAUSE)
    monkeypatch.setattr(change_feed, "_MAX_RETRY_DELAY", PAUSE)
    parts.changes._pause = PAUSE
    async with parts.database.session() as connection:
        assert (await connection.execute(_CUT)).scalar_one() == 1
    async with asyncio.timeout(5):
        while parts.changes._following:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.2)
    begun = time.monotonic()
    await parts.put("10.0.0.2")
    assert parts.lists("10.0.0.2")
    assert time.monotonic() - begun < 0.9, "it was not read at once"


async def test_a_write_that_is_stored_while_the_feed_still_fails_ends_the_next_pause(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is heard although nobody waited for it at that moment."""
    await parts.put("10.0.0.1")
    monkeypatch.setattr(change_feed, "_MAX_RETRY_DELAY", PAUSE)
    listen, refused = parts.database.listen, asyncio.Event()

    @asynccontextmanager
    async def refuse_once(heard: Any, lost: Any) -> AsyncIterator[Any]:
        if not refused.is_set():
            # The write comes while the attempt is under way.
            parts.changes.nudge("shop", 2**40)
            parts.changes._pause = PAUSE
            refused.set()
            raise UnavailableError("not yet")
        async with listen(heard, lost) as connection:
            yield connection

    monkeypatch.setattr(parts.database, "listen", refuse_once)
    async with parts.database.session() as connection:
        assert (await connection.execute(_CUT)).scalar_one() == 1
    await refused.wait()
    async with asyncio.timeout(5):
        while not parts.changes._following:
            await asyncio.sleep(0.01)


def leads(replica: RegistryProcess) -> bool:
    """Tell whether a process sweeps."""
    return replica.sweeper.leads


async def test_every_part_is_stopped_even_when_one_fails(database: str, tmp_path: Path) -> None:
    """A disk that is full when the snapshot is kept leaves no connection and no lead behind."""
    replica = RegistryProcess(load_settings(data_dir=tmp_path), database)
    await replica.start()
    async with asyncio.timeout(10):
        while not leads(replica):
            await asyncio.sleep(0.05)

    async def fail(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    for part, name in (
        (replica.disk_copies.snapshot, "keep"),
        (replica.reports, "leave"),
        (replica.registrations, "close"),
    ):
        setattr(part, name, fail)
    await replica.stop()
    assert not leads(replica)
    other = Database(database, connections=1, timeout=5)
    async with other.session() as connection:
        open_connections = text(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            " AND backend_type = 'client backend'"
        )
        async with asyncio.timeout(5):
            while (await connection.execute(open_connections)).scalar_one():
                await asyncio.sleep(0.05)
    await other.close()


async def test_changes_of_other_services_pass_a_large_one(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one service is applied in many turns the others are read, and the large one is there in the end."""
    passed: list[bool] = []
    reached, done = asyncio.Event(), asyncio.Event()

    def slowly(snapshot: Snapshot, _database_id: str) -> Generator[None, None, None]:
        while snapshot.service == "large" and not done.is_set():
            reached.set()
            # A turn is over by then.
            time.sleep(0.001)
            yield

    monkeypatch.setattr(eds, "prepare", slowly)
    large = asyncio.create_task(parts.put("10.0.0.1", "large"))
    async with asyncio.timeout(10):
        await reached.wait()
        for number in (1, 2):
            await parts.put(f"10.0.0.{number}")
            passed.append(parts.directory.find(("large", "10.0.0.1", 80)) is None and parts.lists(f"10.0.0.{number}"))
        done.set()
        await large
        while parts.directory.find(("large", "10.0.0.1", 80)) is None:
            await asyncio.sleep(0.01)
    assert passed == [True, True]


@pytest.mark.parametrize("failing", [False, True])
async def test_others_that_pass_neither_stop_a_large_service_nor_hold_it_up(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, failing: bool
) -> None:
    """Others that always change have half of the time; a defect in reading them leaves the large one as it is."""
    applying, passes, read = False, 0, feed.steps

    def prepare(snapshot: Snapshot, _database_id: str) -> Generator[None, None, None]:
        nonlocal applying
        if snapshot.service == "large":
            applying = True
            for _ in range(60):
                parts.changes.nudge("shop")
                time.sleep(0.001)
                yield
            applying = False

    async def steps(connection: Session, held: Mapping[str, int]) -> list[SnapshotDelta]:
        nonlocal passes
        if applying:
            passes += 1
            if failing:
                raise ValueError("a defect")
            await asyncio.sleep(0.2)
        return await read(connection, held)

    monkeypatch.setattr(eds, "prepare", prepare)
    monkeypatch.setattr(feed, "steps", steps)
    with capture_logs() as logs:
        await parts.put("10.0.0.1", "large")
        async with asyncio.timeout(10):
            while parts.directory.find(("large", "10.0.0.1", 80)) is None:
                await asyncio.sleep(0.01)
    assert 1 <= passes <= 20
    assert not [each for each in logs if each["event"] == "service_not_followed"]
