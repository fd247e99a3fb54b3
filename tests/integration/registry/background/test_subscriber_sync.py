"""Taking the roll of very many subscribers: what it may cost those who poll meanwhile."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from harness.postgres import Postgres
from harness.process import free_port

from registry.background import subscriber_sync
from registry.background.subscriber_sync import SubscriberSync
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.snapshot import SnapshotDelta
from registry.core.subscriber import SUBSCRIBER_TIMEOUT, Subscribers, Subscription
from registry.core.subscriber_status import SubscriberFilter, SubscriberReport
from registry.store import subscribers as store
from registry.store.database import Database
from registry.store.migration import migrate_now
from registry.store.subscribers import SubscriberMemory
from registry.xds.grpc.streams import Streams
from wire.node import Node

MANY = 5_000


@pytest.fixture
async def postgresql() -> AsyncIterator[Database]:
    """PostgreSQL, away."""
    database = Database(f"postgresql://127.0.0.1:{free_port()}/x", connections=3, timeout=5)
    yield database
    await database.close()


def take_part(database: Database) -> tuple[SubscriberSync, Callable[[str, str], None]]:
    """Return a census of many subscribers, each of one service of a hundred; and what lets somebody poll."""
    cache = SnapshotCache()
    cache.set_database("db")
    cache.mark_ready(0.0)
    cache.apply(SnapshotDelta(f"s-{number}", 7, 7) for number in range(100))
    subscribers = Subscribers()

    def poll(node: str, service: str) -> None:
        now = time.monotonic()
        found = subscribers.find(Node(node, "web", "za"), "10.0.0.9", (service,), "v3", now)
        found.poll("db:7", now)
        found.answer(304, "", now)

    for number in range(MANY):
        poll(f"i-{number}", f"s-{number % 100}")
    return SubscriberSync(database, cache, subscribers, Streams((), cache.clock), "own"), poll


async def test_only_those_who_are_asked_for_are_looked_at(
    postgresql: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The roll of one service, or of one node, costs as much as there is in it, and not as there is in all."""
    taken, _ = take_part(postgresql)
    seen: list[Subscription] = []
    sightings = taken._reports_of

    def watched(one: Subscription) -> Iterator[SubscriberReport]:
        seen.append(one)
        return sightings(one)

    monkeypatch.setattr(taken, "_reports_of", watched)
    roll = await taken.list_subscribers(SubscriberFilter(service="s-3"))
    assert (len(roll.statuses), len(seen), roll.complete) == (MANY // 100, MANY // 100, False)
    assert {one.report.service for one in roll.statuses} == {"s-3"}
    seen.clear()
    roll = await taken.list_subscribers(SubscriberFilter(node_id="i-3"))
    assert ([one.report.node_id for one in roll.statuses], len(seen)) == (["i-3"], 1)


async def test_polls_go_on_while_the_roll_is_taken(postgresql: Database) -> None:
    """Whoever waits for the loop has many turns before all subscribers are counted."""
    taken, _ = take_part(postgresql)
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    assert len((await taken.list_subscribers(SubscriberFilter())).statuses) == MANY
    assert await taken.states() == {"current": MANY}
    beside.cancel()
    assert turns > 3 * MANY / 100


async def test_many_who_ask_at_once_are_told_one_roll(postgresql: Database) -> None:
    """It is taken once, and told again for a time that grows with it; then it is taken anew."""
    taken, poll = take_part(postgresql)
    rolls = await asyncio.gather(*(taken.list_subscribers(SubscriberFilter()) for _ in range(20)))
    assert all(roll is rolls[0] for roll in rolls)
    poll("i-new", "s-new")
    assert len((await taken.list_subscribers(SubscriberFilter())).statuses) == MANY
    await asyncio.sleep(MANY * subscriber_sync._CACHE_SECONDS_PER_REPORT)
    assert len((await taken.list_subscribers(SubscriberFilter())).statuses) == MANY + 1


async def test_who_asked_first_may_leave_first(postgresql: Database) -> None:
    """Others who wait for the same roll get it all the same."""
    taken, _ = take_part(postgresql)
    first, second = (
        asyncio.create_task(taken.list_subscribers(SubscriberFilter())),
        asyncio.create_task(taken.list_subscribers(SubscriberFilter())),
    )
    await asyncio.sleep(0)
    first.cancel()
    assert len((await second).statuses) == MANY


async def test_a_postgresql_that_hangs_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process knows is told soon, and that it may lack some."""
    monkeypatch.setattr(subscriber_sync, "_QUERY_TIMEOUT", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        database = Database(f"postgresql://127.0.0.1:{mute.getsockname()[1]}/x", connections=1, timeout=60)
        taken, _ = take_part(database)
        async with asyncio.timeout(10):
            roll = await taken.list_subscribers(SubscriberFilter(service="s-1"))
    assert (len(roll.statuses), roll.complete) == (MANY // 100, False)


async def test_a_turn_tells_a_bounded_part_and_everybody_in_time(
    postgresql: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was to be told counts as told, so that nothing is repeated at once; the next turn goes on from there."""
    monkeypatch.setattr(subscriber_sync, "MAX_REPORTS_PUBLISHED", 2_000)
    taken, poll = take_part(postgresql)
    turns = [{one.node_id for one in await taken._due_reports(time.monotonic())} for _ in range(4)]
    assert [len(turn) for turn in turns] == [2_000, 2_000, 1_000, 0]
    assert len(set.union(*turns)) == MANY
    poll("i-new", "s-new")
    assert [one.node_id for one in await taken._due_reports(time.monotonic())] == ["i-new"]
    # As before, beginning with those who have waited longest, however many always have news.
    later = time.monotonic() + 20
    for number in range(MANY):
        poll(f"i-{number}", f"s-{number % 100}")
    first = {one.node_id for one in await taken._due_reports(later)}
    second = {one.node_id for one in await taken._due_reports(later)}
    assert (len(first), len(second), first & second) == (2_000, 2_000, set())


async def test_a_failed_turn_is_not_repeated(postgresql: Database) -> None:
    """While PostgreSQL is away, what was to be told is dropped; who polls on is told of again within 15 seconds."""
    taken, _ = take_part(postgresql)
    await taken.publish()
    assert await taken._due_reports(time.monotonic()) == []


async def test_while_somebody_is_not_remembered_the_roll_is_not_complete(server: Postgres, database: str) -> None:
    """This process's own refusals, and those that another one told of within 15 minutes."""
    await asyncio.to_thread(migrate_now, database, 10)
    own = Database(database, connections=3, timeout=5)
    taken, _ = take_part(own)
    assert (await taken.list_subscribers(SubscriberFilter(service="s-1"))).complete
    await store.store_memory(own, "another:1", SubscriberMemory(50_000, time.time() - 10), time.time())
    roll = await taken.list_subscribers(SubscriberFilter(service="s-2"))
    assert (roll.others, roll.complete) == (True, False)
    assert roll.refused_ago == pytest.approx(10, abs=1)
    await store.store_memory(
        own, "another:1", SubscriberMemory(50_000, time.time() - SUBSCRIBER_TIMEOUT - 5), time.time()
    )
    assert (await taken.list_subscribers(SubscriberFilter(service="s-3"))).complete
    taken._subscribers.find(Node("i"), "a", tuple(map(str, range(17))), "v3", time.monotonic())
    roll = await taken.list_subscribers(SubscriberFilter(service="s-4"))
    assert (roll.others, roll.complete) == (True, False)
    await own.close()
