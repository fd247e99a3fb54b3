"""Processes that tell each other of their streams: what is written, and what is left of a process that is gone."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from harness.postgres import Postgres
from unit.registry.streams import RecordedType, ShownStream

from registry.background.rejection_events import RejectionEvents
from registry.background.subscriber_sync import SubscriberSync
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.processes import ProcessReport
from registry.core.snapshot import SnapshotDelta
from registry.core.subscriber import Subscribers
from registry.core.subscriber_status import ClusterSubscribers, SubscriberFilter
from registry.metrics import DATABASE_REFUSALS
from registry.store import processes
from registry.store.database import Database
from registry.store.migration import migrate_now
from registry.xds.eds import AssignmentCache
from registry.xds.grpc.observer import Rejection
from registry.xds.grpc.streams import StreamEntry, Streams
from registry.xds.resource_cache import ServedType
from registry.xds.resources import ENDPOINTS
from wire.node import Node

NAMES = [f"s-{number}" for number in range(20)]


@pytest.fixture
async def postgresql(server: Postgres, database: str) -> AsyncIterator[Database]:
    """A database with the registry's schema."""
    await asyncio.to_thread(migrate_now, database, 10)
    opened = Database(database, connections=3, timeout=5)
    yield opened
    await opened.close()


class Process:
    """What a registry process knows of streams."""

    def __init__(self, database: Database, name: str) -> None:
        self.name = name
        self.database = database
        self.cache = SnapshotCache()
        self.cache.set_database("db")
        self.cache.mark_ready(0.0)
        self.cache.apply(SnapshotDelta(name, 7, 7) for name in NAMES)
        self.streams = Streams([ServedType(ENDPOINTS, AssignmentCache(self.cache))], self.cache.clock)
        self.subscribers = Subscribers()
        self.sync = SubscriberSync(database, self.cache, self.subscribers, self.streams, name)
        self.sync.process = name

    async def live(self) -> None:
        """Say that it lives."""
        await processes.store_report(self.database, ProcessReport(self.name, self.name, 0.0))

    def open(self, node: str, record: RecordedType) -> StreamEntry:
        """Open a stream."""
        entry = self.streams.observer("DeltaAggregatedResources", "10.0.0.9", 1.0)
        entry.opened(ShownStream(Node(node, "web", "za", "1.40.0"), "envoy", delta=True, records=[record]))
        return entry

    def poll(self, node: str, *names: str) -> None:
        """Let an Envoy poll over REST."""
        now = time.monotonic()
        found = self.subscribers.find(Node(node, "web", "za"), "10.0.0.9", names or ("s-1",), "v3", now)
        found.poll("db:7", now)
        found.answer(304, "", now)

    async def states(self, **wanted: str) -> dict[tuple[str, str], str]:
        """Return the state of each service of each node."""
        return by_service(await self.sync.list_subscribers(SubscriberFilter(**wanted)))


def by_service(listed: ClusterSubscribers) -> dict[tuple[str, str], str]:
    """Return the state of each service of each node."""
    return {(each.report.node_id, each.report.service): each.evaluation.state for each in listed.statuses}


def everything_current() -> RecordedType:
    """Return a type whose client has acknowledged all services."""
    return RecordedType(dict.fromkeys(NAMES, "db:7"))


async def rows_of(database: Database) -> list[tuple[str, int, list[str], float]]:
    """Return what is stored."""
    async with database.session() as connection:
        rows = await connection.exec_driver_sql(
            "SELECT node_id, jsonb_array_length(troubles), services, extract(epoch FROM told_at)"
            " FROM subscriber_streams"
        )
        return [tuple(row) for row in rows]


async def test_a_row_is_a_stream_and_a_change_writes_none(postgresql: Database) -> None:
    """What another process lists has every service; a rejection is written, and what heals takes it back."""
    ours, other = Process(postgresql, "ours"), Process(postgresql, "other")
    await other.live()
    record = everything_current()
    entry = other.open("i-1", record)
    await other.sync.publish()
    written = await rows_of(postgresql)
    assert [(node, troubles, sorted(services)) for node, troubles, services, _ in written] == [
        ("i-1", 0, sorted(NAMES))
    ]
    assert await ours.states() == {("i-1", name): "current" for name in NAMES}
    # Another version everywhere, acknowledged: nothing is written.
    record.held_versions = dict.fromkeys(NAMES, "db:8")
    await other.sync.publish()
    assert await rows_of(postgresql) == written
    record.rejections = {"s-3": Rejection(5.0, "malformed IP address", {"s-3": "db:9"})}
    await other.sync.publish()
    listed = await ours.sync.list_subscribers(SubscriberFilter(service="s-3"))
    assert [status.evaluation.reason for status in listed.statuses] == [
        "refuses version 9 of s-3: malformed IP address"
    ]
    assert await other.sync.states() == {"current": 19, "rejected": 1}
    record.rejections = {}
    await other.sync.publish()
    assert (await ours.states(node_id="i-1"))["i-1", "s-3"] == "current"
    entry.closed(9.0)
    await other.sync.publish()
    assert await rows_of(postgresql) == []


async def test_streams_of_a_dead_process_are_not_current(postgresql: Database) -> None:
    """They are silent until their clients have a stream elsewhere; a process that stops takes its own back."""
    ours, other = Process(postgresql, "ours"), Process(postgresql, "other")
    await other.live()
    other.open("i-1", everything_current())
    await other.sync.publish()
    async with postgresql.transaction() as connection:
        await connection.exec_driver_sql("UPDATE processes SET seen_at = seen_at - interval '30 seconds'")
    assert await ours.states(service="s-1") == {("i-1", "s-1"): "silent"}
    ours.open("i-1", everything_current())
    assert await ours.states(service="s-2") == {("i-1", "s-2"): "current"}
    async with postgresql.transaction() as connection:
        await connection.exec_driver_sql("DELETE FROM processes")
    assert await ours.states(service="s-3", zone="za") == {("i-1", "s-3"): "current"}
    await other.sync.streams.withdraw()
    assert await rows_of(postgresql) == []


async def test_what_postgresql_lost_is_told_again(postgresql: Database) -> None:
    """Its crash empties the table, which is unlogged."""
    other = Process(postgresql, "other")
    for number in range(3):
        other.open(f"i-{number}", everything_current())
    await other.sync.publish()
    assert len(await rows_of(postgresql)) == 3
    async with postgresql.transaction() as connection:
        await connection.exec_driver_sql("TRUNCATE subscriber_streams")
    await other.sync.publish()
    assert await rows_of(postgresql) == []
    other.sync.streams._checked_at = float("-inf")
    await other.sync.publish()
    assert len(await rows_of(postgresql)) == 3


async def test_streams_of_a_restored_backup_are_replaced(postgresql: Database) -> None:
    """It has streams that ended since, and what others said then; the process tells of its own anew, and at once."""
    process = Process(postgresql, "ours")
    await process.live()
    ended, record = process.open("i-1", everything_current()), everything_current()
    process.open("i-2", record)
    await process.sync.publish()
    async with postgresql.transaction() as connection:
        await connection.exec_driver_sql("CREATE TABLE backup AS SELECT * FROM subscriber_streams")
    ended.closed(9.0)
    record.rejections = {"s-3": Rejection(5.0, "malformed IP address", {"s-3": "db:9"})}
    await process.sync.publish()
    now = await rows_of(postgresql)
    async with postgresql.transaction() as connection:
        await connection.exec_driver_sql("TRUNCATE subscriber_streams")
        await connection.exec_driver_sql("INSERT INTO subscriber_streams SELECT * FROM backup")
    await process.sync.publish()
    assert len(await rows_of(postgresql)) == 2, "nothing says yet that it is another database"
    process.cache.set_database("restored")
    await process.sync.publish()
    assert [row[:3] for row in await rows_of(postgresql)] == [row[:3] for row in now]


async def test_a_list_of_too_many_counts_the_rest(postgresql: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those in trouble are in it, and a list of one service is whole."""
    monkeypatch.setattr("registry.background.subscriber_sync.MAX_STREAM_REPORTS", 30)
    ours = Process(postgresql, "ours")
    records = [everything_current() for _ in range(3)]
    for number, record in enumerate(records):
        record.rejections = {"s-3": Rejection(5.0, "no", {"s-3": "db:9"})}
        ours.open(f"i-{number}", record)
    listed = await ours.sync.list_subscribers(SubscriberFilter())
    states = list(by_service(listed).values())
    assert (len(states), states.count("rejected"), listed.unlisted) == (22, 3, 38)
    assert len(await ours.states(service="s-1")) == 3


async def test_a_rejected_version_is_one_event(postgresql: Database) -> None:
    """However many reject it, and however often; of an answer with several services nobody knows which one it is."""
    ours = Process(postgresql, "ours")
    events = RejectionEvents(postgresql, ours.cache.clock)
    entry = ours.open("i-1", everything_current())
    other = ours.open("", everything_current())
    for version in ("db:7", "db:8", "other:9"):
        for each in (entry, other):
            events.note(each, ENDPOINTS, Rejection(5.0, "malformed", {"s-1": version}), "db")
    events.note(entry, ENDPOINTS, Rejection(5.0, "malformed", {"s-1": "db:9", "s-2": "db:9"}), "db")
    events.note(other, ENDPOINTS, Rejection(5.0, "", {"s-2": "db:9"}), "db")
    for _ in range(2):
        await events.write()
    async with postgresql.session() as connection:
        rows = await connection.exec_driver_sql("SELECT kind, service, version, reason FROM events ORDER BY id")
        assert [tuple(row) for row in rows] == [
            ("update_rejected", "s-1", 7, "i-1 at 10.0.0.9 refuses version 7 of s-1: malformed"),
            ("update_rejected", "s-1", 8, "i-1 at 10.0.0.9 refuses version 8 of s-1: malformed"),
            (
                "update_rejected",
                "s-2",
                9,
                "a client without a node id at 10.0.0.9 refuses version 9 of s-2: it gave no reason",
            ),
        ]


async def test_a_turn_writes_a_bounded_part_and_every_stream_has_its_turn(
    postgresql: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while the first ones always have news."""
    monkeypatch.setattr("registry.background.stream_sync._MAX_ROWS_PUBLISHED", 3)
    ours = Process(postgresql, "ours")
    records = [everything_current() for _ in range(8)]
    for number, record in enumerate(records):
        ours.open(f"i-{number}", record)
    for turn in range(4):
        for record in records[:3]:
            record.rejections = {"s-3": Rejection(5.0, f"turn {turn}", {"s-3": "db:9"})}
        await ours.sync.publish()
    assert {node for node, *_ in await rows_of(postgresql)} == {f"i-{number}" for number in range(8)}
    monkeypatch.setattr("registry.background.stream_sync.MAX_NAMES_PUBLISHED", 170)
    ours.open("i-8", everything_current())
    await ours.sync.publish()
    assert len(await rows_of(postgresql)) == 8
    await ours.sync.publish()
    assert not (await ours.sync.list_subscribers(SubscriberFilter(service="s-5"))).complete


async def test_a_refused_name_that_postgresql_cannot_store_keeps_no_stream_back(postgresql: Database) -> None:
    """Refusals quote the name, which may be any text; all streams of the turn are stored together."""
    ours, other = Process(postgresql, "ours"), Process(postgresql, "other")
    await other.live()
    record = RecordedType({"a\0b": ""})
    record.refusals = {"a\0b": "no grant of token:web allows the verb discover for the service a\0b"}
    other.open("i-1", record)
    other.open("i-2", RecordedType({"s-1": "db:7"}))
    await other.sync.publish()
    assert await ours.states() == {("i-1", "ab"): "stuck", ("i-2", "s-1"): "current"}


async def execute(database: Database, *statements: str) -> None:
    """Run statements, as somebody does in psql."""
    async with database.session() as connection:
        for statement in statements:
            await connection.exec_driver_sql(statement)


_REFUSED = "ADD CONSTRAINT refused CHECK (node_id <> 'bad') NOT VALID"


async def test_a_client_whose_row_is_refused_is_left_out_alone(postgresql: Database) -> None:
    """The others are listed, the list says that it may lack some, and the row is stored once PostgreSQL takes it."""
    ours, other = Process(postgresql, "ours"), Process(postgresql, "other")
    await other.live()
    await execute(postgresql, f"ALTER TABLE subscribers {_REFUSED}", f"ALTER TABLE subscriber_streams {_REFUSED}")
    for node in ("a", "bad", "z"):
        other.open(node, everything_current())
        other.poll(node)
    await other.sync.publish()
    listed = await ours.sync.list_subscribers(SubscriberFilter(service="s-1"))
    assert sorted((each.report.node_id, each.report.api) for each in listed.statuses) == [
        ("a", "grpc-delta"),
        ("a", "v3"),
        ("z", "grpc-delta"),
        ("z", "v3"),
    ]
    assert listed.refused_ago is not None
    told_at = {node: at for node, _, _, at in await rows_of(postgresql)}
    other.sync.streams._checked_at = -1e9
    await other.sync.publish()
    # What is stored is not told again because one is not.
    assert {node: at for node, _, _, at in await rows_of(postgresql)} == told_at
    await execute(postgresql, "ALTER TABLE subscriber_streams DROP CONSTRAINT refused")
    other.sync.streams._checked_at = -1e9
    await other.sync.publish()
    assert sorted(node for node, _, _, _ in await rows_of(postgresql)) == ["a", "bad", "z"]


async def test_a_row_that_somebody_has_locked_keeps_no_other_from_being_stored(
    postgresql: Database, server: Postgres, database: str
) -> None:
    """Nor does a name that is too long for an index, of a poll that has short ones as well."""
    ours, other = Process(postgresql, "ours"), Process(postgresql, "other")
    other.poll("locked")
    await other.sync.publish()
    with server.holding("SELECT FROM subscribers WHERE node_id = 'locked' FOR UPDATE", url=database):
        other.poll("locked")
        (subscription,) = other.subscribers
        subscription.published = None
        other.poll("long", "".join(chr(0x4E00 + (number * 7919) % 20000) for number in range(1000)), *NAMES[:9])
        other.poll("other")
        await other.sync.publish()
        listed = await ours.states()
    assert ("other", "s-1") in listed
    assert ("long", "s-1") not in listed


async def test_a_rejection_whose_event_is_refused_keeps_back_no_other(postgresql: Database) -> None:
    """One that is refused is in the log alone; before, it and all later ones were tried for ever."""
    process = Process(postgresql, "ours")
    entry = process.open("i-1", everything_current())
    noted = RejectionEvents(postgresql, process.cache.clock)
    await execute(postgresql, "ALTER TABLE events ADD CONSTRAINT refused CHECK (service <> 's-1') NOT VALID")
    for number in range(3):
        noted.note(entry, ENDPOINTS, Rejection(1.0, "no", {f"s-{number}": "db:7"}), "db")
    await noted.write()
    async with postgresql.session() as connection:
        rows = await connection.exec_driver_sql("SELECT service FROM events ORDER BY id")
        assert [row.service for row in rows] == ["s-0", "s-2"]
    assert not noted._waiting


async def test_what_is_refused_for_all_is_given_up_soon(postgresql: Database) -> None:
    """A trigger that refuses everything is not asked about each of a thousand rows."""
    process = Process(postgresql, "ours")
    await execute(postgresql, "ALTER TABLE subscribers ADD CONSTRAINT refused CHECK (false) NOT VALID")
    for number in range(1000):
        process.poll(f"i-{number}")
    before = DATABASE_REFUSALS.labels("23514")._value.get()
    await process.sync.publish()
    assert DATABASE_REFUSALS.labels("23514")._value.get() - before < 100
