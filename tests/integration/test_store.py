"""The store on a real PostgreSQL: what is written is what is read, in an order that all agree on."""

import asyncio
import contextlib
import datetime as dt
import json
import random
import re
import time
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection
from functools import partial
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from harness.postgres import Postgres
from harness.process import free_port
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from sqlalchemy import insert, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection

from registry.background.change_feed import ChangeFeed
from registry.background.sweeper import Sweeper
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.abilities import Ability
from registry.core.changeset import Changeset
from registry.core.endpoint import Endpoint, Key, Override
from registry.core.history import EventFilter, RecordedEvent
from registry.core.lease import Lease
from registry.core.snapshot import Snapshot
from registry.core.versions import MAX_LOST_VERSIONS
from registry.errors import NotFoundError, RefusedError, RegistryError, UnavailableError
from registry.settings import Settings
from registry.store import change_feed as feed
from registry.store import changeset_writer, history, leases, pruning
from registry.store.database import CHANNEL, FORGET_LOCK, Database, read_clock
from registry.store.driver import Driver, Statement
from registry.store.forgetting import forget_services
from registry.store.migration import migrate_now
from registry.store.restored import read_identity
from registry.store.service_locks import StoredVersion
from registry.store.single_change import SINGLE_CHANGE
from registry.store.tables import events
from registry.store.transaction import (
    change_at_addresses,
    change_endpoint_by_operator,
    change_service,
    change_unroutable,
)
from registry.usecases.lease_renewal import LeaseRenewals
from wire.address import parse_ip
from wire.model import Registration, Report, check_metadata, same_json

KEY: Key = ("shop", "10.0.0.1", 80)
FULL = Registration(
    instance_id="arn:aws:ecs:eu-west-1:1:task/t",
    incarnation=1_763_600_000_000,
    health=Report.DEGRADED,
    revision="abc",
    region="eu-west-1",
    zone="eu-west-1a",
    canary=True,
    weight=7,
    repository="shop-repo",
    metadata={"stage": "prod", "tier": 1, "share": 1.0, "on": True, "none": None, "deep": {"list": [1, {"b": "ü"}]}},
    detail="200 in 3 ms",
    ttl=12.5,
)


def told(instance: str = "i-1", incarnation: int = 1, **fields: Any) -> Registration:
    """Return a registration with a lease of 20 s."""
    return Registration(instance, incarnation, **({"ttl": 20.0} | fields))


@pytest.fixture
async def store(database: str) -> AsyncIterator[Database]:
    """A database with the schema."""
    opened = Database(database, connections=10, timeout=20)
    yield opened
    await opened.close()


async def change(
    store: Database, key: Key, act: Callable[[Changeset], object], *, creates_services: bool = False
) -> dict[str, StoredVersion]:
    """Let an act work on one key."""
    founded = {key[0]} if creates_services else set()
    return await change_at_addresses(
        store, {key[0]}, {key[1:]}, lambda changeset: void(act(changeset)), creates_services=founded
    )


def void(_result: object) -> None:
    """Drop a result."""


async def register(store: Database, key: Key, registration: Registration) -> dict[str, StoredVersion]:
    """Register an endpoint."""
    return await change(
        store, key, lambda changeset: changeset.register(key, registration, "test"), creates_services=True
    )


def renewal(endpoint: Endpoint) -> tuple[int, int, int]:
    """Return what a heartbeat names that changes nothing: the endpoint, its incarnation and its change."""
    return (endpoint.id, endpoint.registration.incarnation, endpoint.change)


async def renewed(connection: AsyncConnection, told: Collection[tuple[int, int, int]]) -> frozenset[int]:
    """Renew leases of which none is locked; return whose were."""
    found = await leases.renew(connection, told)
    assert found.locked == frozenset()
    return found.renewed


async def remove(store: Database, key: Key) -> dict[str, StoredVersion]:
    """Remove an endpoint as the sweeper does."""
    return await change_service(store, key[0], lambda changeset, _expired: changeset.remove(key))


async def test_a_large_service_is_not_loaded_for_one_endpoint(store: Database) -> None:
    """A removal, and an operator's deregistration, load what they decide about: the service is locked meanwhile."""
    keys: list[Key] = [("shop", f"10.0.0.{number}", 80) for number in range(1, 31)]
    for number, key in enumerate(keys):
        await register(store, key, told(health=Report.HEALTHY if number else Report.UNHEALTHY))
    loaded: list[int] = []
    counted: list[tuple[int, int]] = []

    def deregister(changeset: Changeset, routable: int, recent: int) -> None:
        loaded.append(len(changeset.all_listed()))
        counted.append((routable, recent))
        changeset.deregister_by_operator(keys[1], "", "test")

    def remove_left(changeset: Changeset) -> None:
        loaded.append(len(changeset.all_listed()))
        assert any(endpoint.routable for endpoint in changeset.all_listed())
        changeset.remove(keys[1])

    await change_endpoint_by_operator(store, keys[1], 60.0, deregister)
    await change_endpoint_by_operator(store, keys[2], 60.0, lambda _, *counts: counted.append(counts))
    unread = [endpoint.id for endpoint in (await read(store)).endpoints.values() if endpoint.key in keys[10:15]]
    await change_endpoint_by_operator(store, keys[2], 60.0, lambda _, *counts: counted.append(counts), unread)
    await change_unroutable(store, "shop", remove_left)
    # Rows in quarantine are in no answer, and must not widen the share that may leave.
    assert counted == [(29, 0), (28, 1), (23, 1)]
    assert loaded == [1, 2 + 10]
    assert len((await read(store)).endpoints) == 29
    assert await change_unroutable(store, "unknown", remove_left) == {}
    assert await change_endpoint_by_operator(store, ("unknown", "10.0.0.1", 80), 60.0, deregister) == {}


async def read(store: Database, service: str = "shop", since: int = 0) -> Snapshot:
    """Return a service as a new process reads it."""
    async with store.session() as connection:
        steps = await feed.steps(connection, {service: since})
    return Snapshot(service).advance(steps[0])


async def execute(store: Database, statement: str, **arguments: object) -> Any:
    """Run one statement and return its only value, if it has one."""
    async with store.session() as connection:
        result = await connection.execute(text(statement), arguments)
        return result.scalar() if result.returns_rows else None


async def test_a_renewal_of_what_an_endpoint_was_is_not_acknowledged(store: Database) -> None:
    """Not even in the same batch as one of what it is: who has been replaced must hear of it."""
    await register(store, KEY, told("i-1"))
    (old,) = (await read(store)).endpoints.values()
    await register(store, KEY, told("i-1", 2))
    (new,) = (await read(store)).endpoints.values()
    assert old.id == new.id
    async with contextlib.aclosing(LeaseRenewals(store, Ability("renew", 20))) as heartbeats:
        answers = [heartbeats.renew([one]) for one in (old, old, new)]
        assert await asyncio.gather(*answers) == [[False], [False], [True]]


async def test_renewals_go_on_by_another_connection_when_postgresql_closes_theirs(store: Database) -> None:
    """They keep one, and a restart of PostgreSQL ends it while nobody renews."""
    await register(store, KEY, told())
    (endpoint,) = (await read(store)).endpoints.values()
    async with contextlib.aclosing(LeaseRenewals(store, Ability("renew", 20))) as heartbeats:
        assert await heartbeats.renew([endpoint]) == [True]
        await execute(
            store,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'UPDATE leases SET renewed_at%'",
        )
        await asyncio.sleep(0.1)
        assert await heartbeats.renew([endpoint]) == [True]


async def close_all(store: Database) -> None:
    """End every other connection to the database, as a restart of PostgreSQL does."""
    await execute(
        store,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    await asyncio.sleep(0.1)


async def fill(store: Database) -> None:
    """Leave several idle connections in the pool."""
    async with contextlib.AsyncExitStack() as lent:
        for _ in range(6):
            connection = await lent.enter_async_context(store.session())
            await connection.execute(text("SELECT 1"))


async def test_writes_after_a_restart_of_postgresql_meet_no_connection_of_before(
    store: Database, database: str
) -> None:
    """However many of them the pool keeps: each would be a change, or a batch of renewals, that is refused."""
    await register(store, KEY, told())
    (endpoint,) = (await read(store)).endpoints.values()
    await fill(store)
    elsewhere = Database(database, connections=1, timeout=20)
    async with (
        contextlib.aclosing(LeaseRenewals(store, Ability("renew", 20))) as heartbeats,
        contextlib.AsyncExitStack() as closing,
    ):
        closing.push_async_callback(elsewhere.close)
        assert await heartbeats.renew([endpoint]) == [True]
        await close_all(elsewhere)
        assert await heartbeats.renew([endpoint]) == [True]
        await register(store, KEY, told(weight=2))


async def test_a_change_reads_the_endpoints_at_its_places_alone(database: str) -> None:
    """Also by the plans that its connection made while there were none, and before PostgreSQL has counted them."""
    store = Database(database, connections=1, timeout=20)
    await register(store, KEY, told())
    await execute(
        store,
        "INSERT INTO endpoints OVERRIDING SYSTEM VALUE SELECT (jsonb_populate_record(known, jsonb_build_object("
        " 'id', known.id + n, 'address', known.address + n))).*"
        " FROM endpoints AS known, generate_series(1, 5000) AS n",
    )
    read = "SELECT seq_tup_read FROM pg_stat_user_tables, pg_stat_force_next_flush() WHERE relname = 'endpoints'"
    await execute(store, read)
    before = await execute(store, read)
    await register(store, KEY, told(weight=2))
    await execute(store, read)
    assert await execute(store, read) - before < 5000
    await store.close()


async def test_a_renewal_reads_its_leases_alone(store: Database) -> None:
    """Also by the plan that was made while there was one."""
    await register(store, KEY, told())
    (endpoint,) = (await read(store)).endpoints.values()
    reads = "SELECT seq_tup_read FROM pg_stat_user_tables, pg_stat_force_next_flush() WHERE relname = 'leases'"
    async with contextlib.aclosing(LeaseRenewals(store, Ability("renew", 20))) as heartbeats:
        assert await heartbeats.renew([endpoint]) == [True]
        for number in range(2, 102):
            await register(store, ("shop", f"10.0.1.{number}", 80), told(f"i-{number}"))
        before = await execute(store, reads)
        for _ in range(20):
            assert await heartbeats.renew([endpoint]) == [True]
    # What the connection has counted is told at its end.
    await asyncio.sleep(0.2)
    assert await execute(store, reads) == before


async def test_a_change_waits_but_once_for_a_postgresql_that_does_not_answer(database: str) -> None:
    """Not for the answer to its rollback too; and the connection is given to nobody else."""
    store = Database(database, connections=1, timeout=2)
    begun = asyncio.get_running_loop().time()
    with pytest.raises(UnavailableError, match="slow"):  # noqa: PT012  # the block is what raises it
        async with store.driver_transaction() as driver:
            # A frozen host's: it takes what is sent, and says nothing.
            driver.connection._transport.pause_reading()
            await driver.run(Statement(text("SELECT 1")))
    assert asyncio.get_running_loop().time() - begun < 3.5
    await register(store, KEY, told())
    await store.close()


async def test_renewals_after_a_defect_begin_with_a_connection_of_their_own(database: str) -> None:
    """And tell of an outage as one, when there is none to be had."""
    store = Database(database, connections=1, timeout=0.5)
    await register(store, KEY, told())
    (endpoint,) = (await read(store)).endpoints.values()
    async with contextlib.AsyncExitStack() as closing:
        closing.push_async_callback(store.close)
        heartbeats = await closing.enter_async_context(contextlib.aclosing(LeaseRenewals(store, Ability("renew", 20))))
        with pytest.raises(asyncpg.DataError):
            await heartbeats.renew([replace(endpoint, change=2**70)])
        async with store.session():
            with pytest.raises(UnavailableError, match="connections"):
                await heartbeats.renew([endpoint])
        assert await heartbeats.renew([endpoint]) == [True]


async def test_who_listens_after_a_restart_of_postgresql_hears_of_changes(store: Database, database: str) -> None:
    """Though the pool had nothing but closed connections to lend."""
    await fill(store)
    elsewhere = Database(database, connections=1, timeout=20)
    async with contextlib.AsyncExitStack() as closing:
        closing.push_async_callback(elsewhere.close)
        await close_all(elsewhere)
        heard = asyncio.Event()
        async with store.listen({CHANNEL: lambda _told: heard.set()}, lambda: None):
            await register(elsewhere, KEY, told())
            async with asyncio.timeout(3):
                await heard.wait()


async def test_who_reads_on_a_closed_connection_that_listened_is_told_of_an_outage(store: Database) -> None:
    """And is given no other one in its place, which would hear nothing."""
    await register(store, KEY, told())
    with pytest.raises(UnavailableError, match="away"):  # noqa: PT012  # the block is what raises it
        async with store.listen({CHANNEL: lambda _told: None}, lambda: None) as connection:
            await close_all(store)
            await feed.steps(connection, {"shop": 0})


@pytest.mark.parametrize(
    ("address", "registration"),
    [
        ("10.0.0.1", FULL),
        ("2001:db8::5", FULL),
        ("10.0.0.1", told()),
        ("10.0.0.1", told(health=Report.UNHEALTHY, draining=True)),
    ],
)
async def test_an_endpoint_is_read_as_it_was_written(store: Database, address: str, registration: Registration) -> None:
    """Every field, set or unset, survives; so do the moments."""
    key = ("shop", address, 65_535)
    written: list[Endpoint] = []

    def decide(changeset: Changeset) -> None:
        changeset.register(key, registration, "test")
        written.append(changeset.entries[0].after)

    committed = await change_at_addresses(store, {"shop"}, {key[1:]}, decide, creates_services={"shop"})
    snapshot = await read(store)
    (found,) = snapshot.ordered()
    # It is one more of its service, and fills no place: the transaction says so once the rules have run.
    assert found.spare_since == found.registered_at
    assert found == replace(written[0], id=found.id, change=snapshot.change, spare_since=found.spare_since)
    assert found.registration == registration
    assert found.id > 0
    assert committed == {"shop": StoredVersion(snapshot.version, snapshot.change)}
    assert json.dumps(found.registration.metadata, sort_keys=True) == json.dumps(registration.metadata, sort_keys=True)


async def test_every_moment_of_a_life_survives(store: Database) -> None:
    """Lapsed, leaving and not routable: as judged, also through change_service."""
    await register(store, KEY, told())
    await change_service(store, "shop", lambda changeset, _expired: changeset.lapse(KEY, changeset.now))
    lapsed = (await read(store)).endpoints[KEY[1:]]
    assert lapsed.lapsed_at == lapsed.unroutable_at == lapsed.changed_at
    await change(store, KEY, lambda changeset: changeset.deregister(KEY, None, None, "test"))
    left = (await read(store)).endpoints[KEY[1:]]
    assert left.leaving_at == left.changed_at > lapsed.changed_at
    assert (left.lapsed_at, left.unroutable_at) == (lapsed.lapsed_at, lapsed.unroutable_at)
    await change(store, KEY, lambda changeset: changeset.register(KEY, told(incarnation=2), "test"))
    back = (await read(store)).endpoints[KEY[1:]]
    assert (back.lapsed_at, back.leaving_at, back.unroutable_at) == (None, None, None)
    assert (back.id, back.registered_at > left.registered_at) == (left.id, True)


async def test_an_override_survives_with_its_endpoint(store: Database) -> None:
    """It is read with the endpoint, waits for its instance to come back, and goes when it is cleared."""
    override = Override(
        weight=5,
        drain=True,
        actor="anna",
        reason="hot",
        set_at=1e9,
        expires_at=2e9 + 0.25,
        instance_id="i-1",
        canary=True,
    )
    await register(store, KEY, told())
    await change(store, KEY, lambda changeset: changeset.override(KEY, override, "anna"))
    assert (await read(store)).endpoints[KEY[1:]].override == override
    await remove(store, KEY)
    await register(store, KEY, told(incarnation=2))
    assert (await read(store)).endpoints[KEY[1:]].override == override
    async with store.session() as connection:
        assert await leases.ended_overrides(connection, await read_clock(connection)) == []
    endless = replace(override, expires_at=None, weight=None, drain=False, canary=False)
    await change(store, KEY, lambda changeset: changeset.override(KEY, endless, "anna"))
    assert (await read(store)).endpoints[KEY[1:]].override == endless
    await change(store, KEY, lambda changeset: changeset.clear_override(KEY, "anna"))
    assert (await read(store)).endpoints[KEY[1:]].override is None
    assert await execute(store, "SELECT count(*) FROM overrides") == 0


async def test_an_override_does_not_fall_on_the_next_instance_at_the_address(store: Database) -> None:
    """It is stored with its instance, also while nothing is listed there, and forgotten when another one comes."""
    override = Override(weight=5, drain=True, actor="anna", reason="hot", set_at=1e9, expires_at=None)
    await register(store, KEY, told())
    await change(store, KEY, lambda changeset: changeset.override(KEY, override, "anna"))
    assert await execute(store, "SELECT instance_id FROM overrides") == "i-1"
    await remove(store, KEY)
    assert await execute(store, "SELECT count(*) FROM overrides") == 1
    await register(store, KEY, told("i-2"))
    next_one = (await read(store)).endpoints[KEY[1:]]
    assert (next_one.override, next_one.routable) == (None, True)
    assert await execute(store, "SELECT count(*) FROM overrides") == 0


async def test_an_override_of_who_is_not_listed_can_be_taken_back(store: Database) -> None:
    """Once; then there is nothing to take back, which is said."""
    override = Override(weight=5, drain=True, actor="anna", reason="hot", set_at=1e9, expires_at=None)
    await register(store, KEY, told())
    await change(store, KEY, lambda changeset: changeset.override(KEY, override, "anna"))
    await remove(store, KEY)
    await change(store, KEY, lambda changeset: changeset.clear_override(KEY, "anna"))
    assert await execute(store, "SELECT count(*) FROM overrides") == 0
    with pytest.raises(NotFoundError):
        await change(store, KEY, lambda changeset: changeset.clear_override(KEY, "anna"))


async def test_an_ended_override_is_found(store: Database) -> None:
    """By the key of its endpoint."""
    await register(store, KEY, told())
    past = Override(weight=5, drain=False, actor="anna", reason="", set_at=1.0, expires_at=2.0)
    await change(store, KEY, lambda changeset: changeset.override(KEY, past, "anna"))
    async with store.session() as connection:
        assert await leases.ended_overrides(connection, 1.5) == []
        assert await leases.ended_overrides(connection, await read_clock(connection)) == [KEY]
    await change(store, KEY, lambda changeset: changeset.end_override(KEY))
    assert (await read(store)).endpoints[KEY[1:]].override is None


_REPORTS: list[dict[str, Any]] = [
    {"health": Report.UNHEALTHY},
    {"health": Report.HEALTHY, "weight": 7, "metadata": {"a": [1, "b"]}, "repository": "x"},
    {"detail": "of no interest to Envoy"},
    {"incarnation": 9, "revision": "r2", "canary": True, "zone": "z", "region": "r", "expected": 3},
    {"draining": True, "incarnation": 9},
]
_TIME = re.compile(r"\d{4}-\d\d-\d\dT[0-9:.+]+")
_ROWS = (
    "SELECT string_agg((kind, reason, actor, status, version)::text, '' ORDER BY id) FROM events WHERE service = :name",
    "SELECT (to_jsonb(leases) - 'endpoint_id')::text FROM leases, endpoints WHERE id = endpoint_id AND service = :name",
    "SELECT (version, change, floor, timeline)::text FROM services WHERE name = :name",
    "SELECT (to_jsonb(endpoints) - '{id,service,address}'::text[])::text FROM endpoints WHERE service = :name",
)


async def test_one_statement_stores_what_several_do(store: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the usual change, each row is the same but for its times, whichever way it went; and it is notified."""
    heard: list[str] = []
    statements: list[Statement] = []
    run = Driver.run

    async def noting(self: Driver, statement: Statement, **parameters: object) -> None:
        statements.append(statement)
        await run(self, statement, **parameters)

    async def play(service: str, address: str) -> list[str]:
        await register(store, (service, address, 80), told())
        for report in _REPORTS:
            await register(store, (service, address, 80), told(**report))
        return [_TIME.sub("", str(await execute(store, statement, name=service))) for statement in _ROWS]

    monkeypatch.setattr(Driver, "run", noting)
    async with store.listen({CHANNEL: heard.append}, lambda: None):
        one = await play("one", "10.0.0.1")
        assert statements.count(SINGLE_CHANGE) == len(_REPORTS)
        monkeypatch.setattr(changeset_writer, "_is_single", lambda *_: False)
        assert await play("two", "10.0.0.2") == one
        assert statements.count(SINGLE_CHANGE) == len(_REPORTS)
        async with asyncio.timeout(20):
            while len(heard) < 2 * (1 + len(_REPORTS)):
                await asyncio.sleep(0.01)
    assert [each for each in heard if each.startswith("one")] == [
        each.replace("two", "one") for each in heard if each.startswith("two")
    ]


async def test_versions_count_what_envoys_see(store: Database) -> None:
    """Every change counts as a change, those that are visible as a version as well, and a heartbeat as nothing."""
    seen = [
        await register(store, KEY, told()),
        await register(store, KEY, told()),
        await register(store, KEY, told(detail="slow")),
        await register(store, KEY, told(detail="slow", weight=5)),
        await register(store, KEY, told("i-2", detail="slow", weight=5)),
        await remove(store, KEY),
        await remove(store, KEY),
    ]
    numbers = [(one["shop"].version, one["shop"].change) for one in seen]
    assert numbers == [(1, 1), (1, 1), (1, 2), (2, 3), (3, 4), (4, 5), (4, 5)]
    async with store.session() as connection:
        assert await feed.service_versions(connection) == {"shop": StoredVersion(4, 5)}


async def test_a_row_that_cannot_be_read_takes_no_other_with_it(store: Database) -> None:
    """Poison never spreads, not even from the database: feed and sweeper go on without it."""
    await register(store, KEY, told())
    await register(store, ("shop", "10.0.0.2", 80), told("i-2"))
    await execute(store, "UPDATE endpoints SET health = 'GREAT' WHERE instance_id = 'i-1'")
    assert [one.registration.instance_id for one in (await read(store)).ordered()] == ["i-2"]
    await remove(store, ("shop", "10.0.0.2", 80))
    assert (await read(store)).ordered() == []


async def test_a_takeover_across_services_counts_in_both(store: Database) -> None:
    """The service that lost the address is locked, changed and told, though nobody named it."""
    await register(store, KEY, told())
    committed = await register(store, ("cart", *KEY[1:]), told("i-2"))
    assert committed == {"shop": StoredVersion(2, 2), "cart": StoredVersion(1, 1)}
    assert [one.status.value for one in (await read(store)).ordered()] == ["DRAINING"]


async def test_a_refusal_stores_nothing(store: Database) -> None:
    """Numbers, events and leases stay, and no service comes into being."""
    await register(store, KEY, told(incarnation=5))
    with pytest.raises(RegistryError):
        await register(store, KEY, told(incarnation=4))
    async with store.session() as connection:
        assert await feed.service_versions(connection) == {"shop": StoredVersion(1, 1)}
    assert len(await history.find_events(store, EventFilter())) == 1
    for act in ("drain", "deregister"):
        with pytest.raises(NotFoundError):
            await change(store, ("typo", *KEY[1:]), partial(_leave, act))
    assert await execute(store, "SELECT string_agg(name, ' ') FROM services") == "shop"


def _leave(act: str, changeset: Changeset) -> None:
    getattr(changeset, act)(("typo", *KEY[1:]), None, None, "test")


async def test_a_tombstone_refuses_until_it_is_pruned(store: Database) -> None:
    """Its incarnation stays away, also from another process; then the row is gone, and its lease and all."""
    await register(store, KEY, told())
    await change(store, KEY, lambda changeset: changeset.deregister(KEY, None, None, "test"))
    await remove(store, KEY)
    with pytest.raises(RegistryError, match="for good"):
        await register(store, KEY, told())
    await pruning.prune(store, tombstones=3600, history=3600, most_events=10**7)
    assert await execute(store, "SELECT count(*) FROM endpoints") == 1
    await pruning.prune(store, tombstones=0, history=0, most_events=10**7)
    assert await execute(store, "SELECT count(*) FROM endpoints") == 0
    assert await execute(store, "SELECT count(*) FROM events") == 0


async def test_tombstones_that_cannot_be_pruned_stop_no_other(store: Database) -> None:
    """Of five services one is refused and one is locked; the tombstones of the others and old events go."""
    keys: list[Key] = [(f"shop-{number}", f"10.0.0.{number}", 80) for number in range(5)]
    for key in keys:
        await register(store, key, told())
        await change(
            store, key, partial(Changeset.deregister, key=key, instance_id=None, incarnation=None, actor="test")
        )
        await remove(store, key)
    await execute(store, "ALTER TABLE services ADD CONSTRAINT x CHECK (name <> 'shop-1' OR floor = 0) NOT VALID")
    await execute(store, "UPDATE services SET floor = 0")
    async with store.transaction() as connection:
        await connection.execute(text("SELECT FROM services WHERE name = 'shop-3' FOR UPDATE"))
        await pruning.prune(store, tombstones=0, history=0, most_events=10**7)
    assert await execute(store, "SELECT string_agg(service, ' ' ORDER BY service) FROM endpoints") == "shop-1 shop-3"
    assert await execute(store, "SELECT count(*) FROM events") == 0


async def test_tombstones_that_take_too_long_keep_no_history_and_no_other_tombstone(
    store: Database, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a service whose tombstones are not deleted in time, these alone stay, and the caller learns of it."""
    monkeypatch.setattr(pruning, "_MAX_SERVICES_PER_DELETE", 1)
    for key in (KEY, ("web", "10.0.0.2", 80)):
        await register(store, key, told())
        await change(
            store, key, partial(Changeset.deregister, key=key, instance_id=None, incarnation=None, actor="test")
        )
        await remove(store, key)
    await execute(
        store,
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(30); RETURN old; END $$",
    )
    await execute(
        store,
        "CREATE TRIGGER slow BEFORE DELETE ON endpoints FOR EACH ROW WHEN (old.service = 'shop')"
        " EXECUTE FUNCTION slow()",
    )
    impatient = Database(database, connections=2, timeout=0.5)
    # The order is random; most calls begin with the other service.
    for _ in range(20):
        with pytest.raises(UnavailableError):
            await pruning.prune(impatient, tombstones=0, history=0, most_events=10**7)
        assert await execute(store, "SELECT count(*) FROM events") == 0
        if await execute(store, "SELECT count(*) FROM endpoints") == 1:
            break
    assert await execute(store, "SELECT string_agg(service, ' ') FROM endpoints") == "shop"
    await impatient.close()


async def test_a_service_that_cannot_be_raised_keeps_no_other_from_being_followed(store: Database) -> None:
    """It goes on from memory with what was served, and is raised once PostgreSQL takes it."""
    other: Key = ("web", "10.0.1.1", 80)
    await register(store, KEY, told())
    directory = SnapshotCache()
    followed = ChangeFeed(store, directory, Settings(migrate=False))
    await followed._check_database()
    async with store.session() as connection:
        await followed._resynchronise(connection)
        served = directory.get("shop")
        await execute(store, "UPDATE services SET version = version - 1, change = change - 1")
        await execute(store, "ALTER TABLE services ADD CONSTRAINT x CHECK (name <> 'shop' OR version < 5) NOT VALID")
        await register(store, other, told())
        for _ in range(2):
            await followed._resynchronise(connection)
        assert len(directory.get("web").endpoints) == 1
        assert directory.get("shop") is served
        await execute(store, "ALTER TABLE services DROP CONSTRAINT x")
        await followed._resynchronise(connection)
        assert directory.get("shop").version > served.version


async def test_a_version_that_a_subscriber_brings_is_not_forgotten_by_a_failure(store: Database) -> None:
    """An edge brings it once; PostgreSQL fails while it is looked up, and has it given out by nobody later on."""
    await register(store, KEY, told())
    directory = SnapshotCache()
    followed = ChangeFeed(store, directory, Settings(migrate=False))
    await followed._check_database()
    async with store.session() as connection:
        await followed._resynchronise(connection)
        held = directory.get("shop").version + 3
        directory.claim_ahead("shop", held)
    await execute(store, "ALTER TABLE endpoints RENAME TO elsewhere")
    with pytest.raises(UnavailableError):  # the session says what the error is
        async with store.session() as connection:
            await followed._catch_up(connection)
    await execute(store, "ALTER TABLE elsewhere RENAME TO endpoints")
    async with store.session() as connection:
        await followed._catch_up(connection)
    assert directory.get("shop").version > held


@pytest.mark.parametrize(
    ("first_number", "empty", "kept"),
    [
        pytest.param(10, True, False, id="forgotten"),
        pytest.param(1, True, True, id="lost, because its numbers are greater than any that was forgotten"),
        pytest.param(10, False, True, id="lost, because it has an endpoint"),
    ],
)
async def test_only_what_was_forgotten_is_dropped(
    store: Database, first_number: int, *, empty: bool, kept: bool
) -> None:
    """A service that a fail-over lost is answered from memory as before."""
    await register(store, KEY, told())
    if empty:
        await remove(store, KEY)
    directory = SnapshotCache()
    followed = ChangeFeed(store, directory, Settings(migrate=False))
    await followed._check_database()
    async with store.session() as connection:
        await followed._resynchronise(connection)
        await execute(store, "DELETE FROM endpoints")
        await execute(store, "DELETE FROM services")
        await execute(store, "UPDATE registry_state SET first_number = :n, timeline = timeline - 1", n=first_number)
        followed.nudge("shop")
        await followed._resynchronise(connection)
        assert directory.knows("shop") is kept
        await register(store, KEY, told(weight=7))
        await followed._resynchronise(connection)
        assert [one.registration.weight for one in directory.get("shop").endpoints.values()] == [7]


async def many_events(store: Database, count: int, *, days: float) -> None:
    """Write a long history of an endpoint that has left."""
    await execute(
        store,
        "INSERT INTO events (at, service, address, port, instance_id, kind, reason, actor, status, version)"
        f" SELECT now() - interval '{days} days', 'old', '10.9.9.9', 80, 'i', 'health', '', 'x', 'HEALTHY', 1"
        f" FROM generate_series(1, {count})",
    )


async def test_a_history_is_pruned_faster_than_it_can_grow(store: Database) -> None:
    """One call deletes all that is too old, in short transactions, and keeps what the endpoints were at the cut."""
    await register(store, KEY, told())
    await many_events(store, 12_000, days=8)
    await pruning.prune(store, tombstones=3600, history=7 * 86_400, most_events=10**7)
    # The last one says what that endpoint was when the history that is kept begins.
    assert await execute(store, "SELECT count(*) FROM events") == 2


async def test_an_errand_hides_no_state_of_the_past(store: Database) -> None:
    """The past is told by the last event that has a status, also where an errand is the newest before the cut."""
    await register(store, KEY, told())
    await execute(
        store,
        "INSERT INTO events (at, service, address, port, instance_id, kind, reason, actor, status, version)"
        " SELECT at, service, address, port, instance_id, 'errand_asked', 'tap', 'ann', '', version FROM events",
    )
    await execute(store, "UPDATE events SET at = at - interval '8 days'")
    for left in (2, 1):
        (standing,) = await history.latest_events_at(store, "shop", time.time())
        assert (standing.kind, standing.status) == ("registered", "HEALTHY")
        assert await execute(store, "SELECT count(*) FROM events") == left
        await pruning.prune(store, tombstones=3600, history=7 * 86_400, most_events=10**7)


async def test_a_history_that_is_too_long_loses_its_oldest_events(store: Database) -> None:
    """However young they are; no change is refused for it, and what is listed keeps its last event."""
    await register(store, KEY, told())
    await many_events(store, 12_000, days=0)
    await register(store, ("shop", "10.0.0.2", 80), told("i-2"))
    cut = await pruning.prune(store, tombstones=3600, history=7 * 86_400, most_events=1_000)
    left = await execute(store, "SELECT count(*) FROM events")
    # The newest, and what the two endpoints that were listed before them were.
    assert (cut, left) == (11_000, 1_002)
    assert await execute(store, "SELECT count(*) FROM events WHERE service = 'shop'") == 2
    assert await pruning.prune(store, tombstones=3600, history=7 * 86_400, most_events=1_000) == 0


async def test_whoever_cuts_the_history_tells_when(store: Database) -> None:
    """`check` and the console ask the process that sweeps; a history that is merely old is not cut."""
    directory = SnapshotCache()
    directory.mark_ready(0.0)
    options = Settings(max_events=1_000)
    sweeper = Sweeper(store, directory, ChangeFeed(store, directory, options), options)
    try:
        await sweeper.sweep()
        assert sweeper.leads
        await many_events(store, 900, days=8)
        await sweeper.prune()
        assert sweeper.history_cut_ago() is None
        await many_events(store, 1_500, days=0)
        await sweeper.prune()
        ago = sweeper.history_cut_ago()
        assert ago is not None
        assert 0 <= ago < 20
    finally:
        await sweeper.resign()


async def test_a_removal_is_a_step(store: Database) -> None:
    """A reader that holds the endpoint is told that it is gone; one that holds nothing reads the rest."""
    await register(store, KEY, told())
    await register(store, ("shop", "10.0.0.2", 80), told("i-2"))
    held = await read(store)
    await remove(store, KEY)
    async with store.session() as connection:
        (step,) = await feed.steps(connection, {"shop": held.change})
    assert (step.whole, step.listed, [address_port for address_port, _ in step.removed]) == (False, [], [KEY[1:]])
    assert held.advance(step).endpoints == (await read(store)).endpoints


async def test_who_is_below_the_floor_reads_the_service_whole(store: Database) -> None:
    """Pruned tombstones cannot tell it what to drop."""
    await register(store, KEY, told())
    stale = await read(store)
    await register(store, ("shop", "10.0.0.2", 80), told("i-2"))
    await remove(store, KEY)
    fresh = stale.advance((await steps(store, stale.change))[0])
    await pruning.prune(store, tombstones=0, history=3600, most_events=10**7)
    (step,) = await steps(store, stale.change)
    assert (step.whole, step.removed) == (True, [])
    assert stale.advance(step).endpoints == fresh.endpoints
    (step,) = await steps(store, fresh.change)
    assert (step.whole, step.listed, step.removed) == (False, [], [])


async def steps(store: Database, since: int) -> list[Any]:
    """Return what became of the shop since a change."""
    async with store.session() as connection:
        return list(await feed.steps(connection, {"shop": since, "never": 0}))


async def test_a_service_without_endpoints_is_a_whole_step_of_nothing(store: Database) -> None:
    """It is known, and empty; one that was never named is not in the answer."""
    await register(store, KEY, told())
    await remove(store, KEY)
    (step,) = await steps(store, 0)
    assert (step.service, step.whole, step.listed, step.removed) == ("shop", True, [], [])


@pytest.mark.parametrize(
    ("served", "raised"),
    [
        pytest.param((9, 20), (9, 20), id="both were lost"),
        pytest.param((9, 2), (9, 3), id="the version was lost"),
        pytest.param((1, 20), (2, 20), id="the change was lost, and other versions were made since"),
        pytest.param((1, 2), None, id="nothing was lost"),
    ],
)
async def test_numbers_are_raised_above_those_that_were_served(
    store: Database, served: tuple[int, int], raised: tuple[int, int] | None
) -> None:
    """After a fail-over none comes back with other content, and who holds the old ones reads the service whole.

    Further than any loss: another process may have served numbers that are greater.
    """
    await register(store, KEY, told())
    await register(store, KEY, told(detail="d"))
    await register(store, KEY, told(detail="d", weight=5))
    await feed.raise_above(store, "shop", *served)
    async with store.session() as connection:
        now = (await feed.service_versions(connection))["shop"]
    if raised is None:
        assert now == StoredVersion(2, 3)
    else:
        assert MAX_LOST_VERSIONS <= now.version - raised[0] == now.change - raised[1] < 2 * MAX_LOST_VERSIONS
        (step,) = await steps(store, now.change - 1)
        assert step.whole
        assert [one.registration.weight for one in step.listed] == [5]


async def test_a_service_that_was_lost_altogether_is_raised_too(store: Database) -> None:
    """Its first registration after the fail-over has a number that nobody has seen."""
    await feed.raise_above(store, "shop", 9, 20)
    after = (await register(store, KEY, told()))["shop"]
    assert MAX_LOST_VERSIONS < after.version - 9 == after.change - 20 <= 2 * MAX_LOST_VERSIONS


async def fail_over(store: Database) -> None:
    """Let all that is stored be of another timeline than PostgreSQL's, as it is on a standby that was promoted."""
    await execute(store, "UPDATE services SET timeline = coalesce(timeline, headcount_timeline()) - 1")
    await execute(store, "UPDATE registry_state SET timeline = timeline - 1")


async def abandon(store: Database, key: Key) -> StoredVersion:
    """Register an endpoint and remove it, tombstone and history too; return the numbers that are left."""
    await register(store, key, told())
    after = (await remove(store, key))[key[0]]
    await execute(store, "DELETE FROM endpoints WHERE service = :name", name=key[0])
    await execute(store, "DELETE FROM events WHERE service = :name", name=key[0])
    return after


async def known(store: Database) -> list[str]:
    """Return the services that are stored."""
    async with store.session() as connection:
        return sorted(await feed.service_versions(connection))


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param(lambda store: register(store, KEY, told("i-2")), id="an endpoint"),
        pytest.param(
            lambda store: execute(
                store,
                "INSERT INTO overrides (service, address, port, drain, actor, reason, set_at)"
                " VALUES ('shop', '10.0.0.1', 80, true, 'a', 'r', now())",
            ),
            id="an override",
        ),
        pytest.param(
            lambda store: execute(
                store,
                "INSERT INTO events (at, service, instance_id, kind, reason, actor, status, version)"
                " VALUES (now() - interval '59 s', 'shop', '', 'k', 'r', 'a', '', 1)",
            ),
            id="an event",
        ),
        pytest.param(lambda store: execute(store, "UPDATE services SET created_at = now()"), id="its youth"),
    ],
)
async def test_only_a_service_without_anything_is_forgotten(store: Database, kept: Callable[[Database], Any]) -> None:
    """Whatever there is of it keeps it, and its numbers."""
    await abandon(store, KEY)
    await execute(store, "UPDATE services SET created_at = now() - interval '1 h'")
    await kept(store)
    await forget_services(store, 60)
    assert await known(store) == ["shop"]
    assert await execute(store, "SELECT first_number FROM registry_state") == 0


async def test_a_tombstone_keeps_its_service(store: Database) -> None:
    """It refuses late heartbeats still."""
    await register(store, KEY, told())
    await remove(store, KEY)
    await pruning.prune(store, tombstones=3600, history=0, most_events=10**7)
    assert await known(store) == ["shop"]
    await pruning.prune(store, tombstones=0, history=0, most_events=10**7)
    assert await known(store) == []


async def test_a_service_that_comes_back_begins_above_what_it_was(store: Database) -> None:
    """So does any other that is founded; who knows anything of before reads it whole."""
    before = await abandon(store, KEY)
    await abandon(store, ("cart", "10.0.0.2", 80))
    await forget_services(store, 0)
    assert await known(store) == []
    assert await execute(store, "SELECT first_number FROM registry_state") == max(before.version, before.change) > 1
    after = (await register(store, KEY, told()))["shop"]
    assert after == StoredVersion(max(before.version, before.change) + 1, max(before.version, before.change) + 1)
    (step,) = await steps(store, after.change - 1)
    assert step.whole
    assert len(step.listed) == 1
    (step,) = await steps(store, after.change)
    assert not step.whole
    assert (await register(store, ("pay", "10.0.0.3", 80), told()))["pay"] == after


async def test_the_first_number_never_falls(store: Database) -> None:
    """A service with small numbers that is forgotten after one with great ones leaves it as it was."""
    await abandon(store, KEY)
    await execute(store, "UPDATE services SET version = 70, change = 900")
    await forget_services(store, 0)
    await execute(store, "INSERT INTO services (name) VALUES ('cart')")
    await execute(store, "UPDATE services SET version = 1, change = 1")
    await forget_services(store, 0)
    assert await known(store) == []
    assert (await register(store, KEY, told()))["shop"] == StoredVersion(901, 901)


async def test_a_refused_registration_leaves_no_service_above_the_first_number(store: Database) -> None:
    """It has numbers, and no endpoint: nobody may see it as a service that was emptied."""
    await abandon(store, KEY)
    await forget_services(store, 0)
    assert await change(store, KEY, lambda _changeset: None, creates_services=True) == {}
    assert await known(store) == []


async def test_what_an_older_registry_founds_begins_above_the_first_number(store: Database) -> None:
    """It names neither version nor change."""
    before = await abandon(store, KEY)
    await forget_services(store, 0)
    await execute(store, "INSERT INTO services (name, timeline) VALUES ('shop', headcount_timeline())")
    async with store.session() as connection:
        assert await feed.service_versions(connection) == {"shop": StoredVersion(before.change, before.change)}
    assert await execute(store, "SELECT floor FROM services") == before.change + 1


async def test_a_service_that_comes_back_after_a_fail_over_begins_far_on(store: Database) -> None:
    """It may have come back before, and all of that may be lost."""
    before = await abandon(store, KEY)
    await forget_services(store, 0)
    await execute(store, "UPDATE registry_state SET timeline = timeline - 1")
    after = (await register(store, KEY, told()))["shop"]
    assert MAX_LOST_VERSIONS < after.version - before.change == after.change - before.change <= 2 * MAX_LOST_VERSIONS
    await execute(store, "UPDATE registry_state SET timeline = timeline - 1")
    again = (await register(store, ("pay", "10.0.0.3", 80), told()))["pay"]
    assert again.version > before.change + 3 * MAX_LOST_VERSIONS


async def test_a_forgotten_service_whose_numbers_were_served_greater_comes_back_above_them(store: Database) -> None:
    """And above what may be founded now."""
    await abandon(store, KEY)
    await execute(store, "UPDATE services SET version = 900, change = 900")
    await forget_services(store, 0)
    await feed.raise_above(store, "shop", 9, 20)
    await feed.raise_above(store, "cart", 10**6, 10**6)
    async with store.session() as connection:
        now = await feed.service_versions(connection)
    assert now["shop"].version >= 900
    assert now["cart"].version > 10**6


async def test_nothing_is_forgotten_while_a_service_is_founded(store: Database) -> None:
    """And a founding that waits for a forgetting begins above what that leaves."""
    before = await abandon(store, KEY)
    async with store.transaction() as connection:
        await connection.execute(text("INSERT INTO services (name) VALUES ('cart')"))
        await forget_services(store, 0)
        assert await known(store) == ["shop"]
    await execute(store, "DELETE FROM services WHERE name = 'cart'")
    async with store.transaction() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": FORGET_LOCK})
        await connection.execute(text("DELETE FROM services"))
        await connection.execute(text("UPDATE registry_state SET first_number = :n"), {"n": before.change})
        comes = asyncio.create_task(execute(store, "INSERT INTO services (name) VALUES ('shop') RETURNING version"))
        await asyncio.sleep(0.2)
        assert not comes.done()
    assert await comes == before.change


async def test_a_registration_that_meets_the_forgetting_of_its_service_founds_it(store: Database) -> None:
    """It was there when the transaction began, and is gone when that locks it."""
    before = await abandon(store, KEY)
    async with store.transaction() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": FORGET_LOCK})
        await connection.execute(text("SELECT FROM services FOR UPDATE"))
        comes = asyncio.create_task(register(store, KEY, told()))
        await asyncio.sleep(0.2)
        await connection.execute(text("DELETE FROM services"))
        await connection.execute(text("UPDATE registry_state SET first_number = :n"), {"n": before.change})
        assert not comes.done()
    assert (await comes)["shop"] == StoredVersion(before.change + 1, before.change + 1)


async def test_a_service_without_room_is_refused_once(store: Database) -> None:
    """It is not taken for one that was forgotten meanwhile."""
    changesets: list[Changeset] = []
    assert (
        await change_at_addresses(
            store, {"shop"}, {KEY[1:]}, changesets.append, creates_services={"shop"}, max_new_services=0
        )
        == {}
    )
    assert [one.unadmitted_services for one in changesets] == [{"shop"}]


async def test_registering_and_forgetting_at_once_never_repeats_a_number(store: Database) -> None:
    """Three services come and go while all is forgotten as soon as it can be."""
    published: defaultdict[str, list[StoredVersion]] = defaultdict(list)
    over = asyncio.Event()

    async def forget() -> None:
        while not over.is_set():
            await pruning.prune(store, tombstones=0, history=0, most_events=10**7)

    async def forgotten() -> bool:
        """Tell whether at least one service was forgotten, which raises the first number of the next ones."""
        return bool(await execute(store, "SELECT first_number FROM registry_state"))

    async def come_and_go(name: str, address: str) -> None:
        key = (name, address, 80)
        for number in range(1, 1_000):
            published[name].append((await register(store, key, told(incarnation=number)))[name])
            gone = await remove(store, key)
            published[name].append(gone[name])
            if number >= 30 and await forgotten():
                break

    forgets = asyncio.create_task(forget())
    await asyncio.gather(*(come_and_go(f"shop-{n}", f"10.0.0.{n}") for n in (1, 2, 3)))
    over.set()
    await forgets
    for numbers in published.values():
        assert len(numbers) >= 60
        assert all(a.version < b.version and a.change < b.change for a, b in pairwise(numbers))
    assert await forgotten()


async def test_a_service_that_cannot_be_forgotten_keeps_no_other(store: Database) -> None:
    """One is refused, one is locked: the others go."""
    for number in range(4):
        await abandon(store, (f"shop-{number}", f"10.0.0.{number}", 80))
    await execute(store, "CREATE TABLE x (name text REFERENCES services)")
    await execute(store, "INSERT INTO x VALUES ('shop-1')")
    async with store.transaction() as connection:
        await connection.execute(text("SELECT FROM services WHERE name = 'shop-3' FOR UPDATE"))
        await forget_services(store, 0)
    assert await known(store) == ["shop-1", "shop-3"]


async def test_the_timeline_is_that_of_the_log(store: Database) -> None:
    """Read of what is written to, not of the last checkpoint, which may be of before a promotion."""
    told_by_name = await execute(store, "SELECT pg_walfile_name(pg_current_wal_lsn())")
    assert await execute(store, "SELECT headcount_timeline()") == int(told_by_name[:8], 16) > 0


async def test_an_ordinary_role_may_ask_for_the_timeline(store: Database) -> None:
    """It needs no privilege beyond those on the tables."""
    role = f"headcount_{uuid.uuid4().hex[:12]}"
    async with store.transaction() as connection:
        for statement in (f"CREATE ROLE {role}", f"SET LOCAL ROLE {role}"):
            await connection.execute(text(statement))
        assert (await connection.execute(text("SELECT headcount_timeline()"))).scalar_one() > 0
        await connection.rollback()


async def test_where_there_is_no_log_to_ask_all_is_one_timeline(store: Database) -> None:
    """Writes go on, and nothing is raised."""
    await register(store, KEY, told())
    # What stands in for a PostgreSQL without that function: one that fails, and is found first.
    await execute(store, "CREATE SCHEMA shadow")
    await execute(
        store,
        "CREATE FUNCTION shadow.pg_current_wal_lsn() RETURNS pg_lsn LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE feature_not_supported; END $$",
    )
    await execute(store, "ALTER FUNCTION headcount_timeline() SET search_path = shadow, pg_catalog")
    assert await execute(store, "SELECT headcount_timeline()") == 0
    first = (await register(store, KEY, told(weight=5)))["shop"]
    assert (await register(store, KEY, told(weight=6)))["shop"] == StoredVersion(first.version + 1, first.change + 1)


async def test_the_first_change_on_another_timeline_reuses_no_number(store: Database) -> None:
    """It is far beyond whatever was lost, once, and readers of before read the service whole."""
    await register(store, KEY, told())
    await fail_over(store)
    after = (await register(store, KEY, told(weight=5)))["shop"]
    assert MAX_LOST_VERSIONS < after.version == after.change <= 2 * MAX_LOST_VERSIONS + 2
    (step,) = await steps(store, after.change - 2)
    assert step.whole
    again = (await register(store, KEY, told(weight=6)))["shop"]
    assert again == StoredVersion(after.version + 1, after.change + 1)
    (step,) = await steps(store, after.change)
    assert not step.whole


async def test_a_change_of_nothing_on_another_timeline_moves_the_numbers_on_too(store: Database) -> None:
    """What a transaction has seen of a fail-over is stored and told, whatever becomes of its change."""
    await register(store, KEY, told())
    await fail_over(store)
    heard = asyncio.Event()
    async with store.listen({CHANNEL: lambda _name: heard.set()}, lambda: None):
        await change(store, KEY, lambda _changeset: None)
        async with asyncio.timeout(5):
            await heard.wait()
    assert (await read(store)).version > MAX_LOST_VERSIONS


async def test_a_service_that_is_founded_after_a_fail_over_begins_far_on(store: Database) -> None:
    """It may have been founded before, with all of its numbers lost; until it has an endpoint it is not there."""
    await fail_over(store)
    assert await change(store, KEY, lambda _changeset: None, creates_services=True) == {}
    assert await steps(store, 0) == []
    after = (await register(store, KEY, told()))["shop"]
    assert MAX_LOST_VERSIONS < after.version == after.change <= 2 * MAX_LOST_VERSIONS
    (step,) = await steps(store, after.change - 1)
    assert step.whole
    assert (await register(store, KEY, told(weight=1)))["shop"].version == after.version + 1


async def test_a_service_that_an_older_registry_founded_goes_on_counting(store: Database) -> None:
    """Without a timeline it is taken to be of the database's first; after a fail-over it moves on once."""
    await register(store, KEY, told())
    await execute(store, "UPDATE services SET timeline = NULL")
    assert (await register(store, KEY, told(weight=1)))["shop"] == StoredVersion(2, 2)
    await execute(store, "UPDATE registry_state SET timeline = timeline - 1")
    after = (await register(store, KEY, told(weight=2)))["shop"]
    assert after.version > MAX_LOST_VERSIONS
    assert (await register(store, KEY, told(weight=3)))["shop"].version == after.version + 1


async def test_credit_on_another_timeline_reuses_no_change(store: Database) -> None:
    """The first write after a fail-over may be the sweeper's."""
    await register(store, KEY, told())
    await change(store, KEY, lambda changeset: changeset.deregister(KEY, None, None, "x"))
    await fail_over(store)
    async with store.session() as connection:
        now = await read_clock(connection)
        await leases.store_sweep_time(store, now)
        _, last = await leases.last_sweep(connection)
        assert last is not None
        assert last == pytest.approx(now, abs=1e-6)
    await leases.credit_all(store, last, now + 30)
    assert (await read(store)).change > MAX_LOST_VERSIONS


async def test_only_who_is_served_without_a_lease_gets_one(store: Database) -> None:
    """A whole one, by the incarnation and the change that it has; who left or lapsed gets none."""
    places = [("shop", f"10.0.0.{number}", 80) for number in range(1, 5)]
    for number, key in enumerate(places):
        await register(store, key, told(f"i-{number}", incarnation=7, ttl=20.0))
    await change(store, places[2], lambda changeset: changeset.deregister(places[2], None, None, "x"))
    lost, kept, _, lapsed = (await read(store)).ordered()
    await change(store, places[3], lambda changeset: changeset.lapse(places[3], 0.0))
    await execute(store, f"DELETE FROM leases WHERE endpoint_id = {lost.id}")
    async with store.session() as connection:
        now = await read_clock(connection)
        assert await leases.endpoints_without_lease(connection) == {"shop": [lost.id]}
        given = await leases.grant_missing(store, "shop", [lost.id, kept.id, lapsed.id], now)
        assert given == [lost.id]
        assert await leases.endpoints_without_lease(connection) == {}
        found = await leases.lease_of(connection, lost.id)
        assert found is not None
        assert found.expires_at == pytest.approx(now + 20.0, abs=1e-3)
        assert await leases.lease_of(connection, lapsed.id) is None
        # A lease too many makes up for none that is missing.
        await execute(store, f"UPDATE leases SET endpoint_id = {lapsed.id} WHERE endpoint_id = {kept.id}")
        assert await leases.endpoints_without_lease(connection) == {"shop": [kept.id]}
        (fresh,) = (one for one in (await read(store)).ordered() if one.id == lost.id)
        assert await renewed(connection, {renewal(fresh)}) == {lost.id}


async def test_a_lease_is_renewed_by_its_incarnation(store: Database) -> None:
    """Renewals of older or unknown ones match nothing; neither do those of who lapsed or left."""
    other: Key = ("shop", "10.0.0.2", 80)
    await register(store, KEY, told(incarnation=5))
    await register(store, other, told("i-2"))
    first, second = (await read(store)).ordered()
    async with store.session() as connection:
        known = {renewal(first), renewal(second), (999, 1, 1)}
        assert await renewed(connection, known) == {first.id, second.id}
        strange = {(first.id, 4, first.change), (second.id, 2, second.change)}
        assert await renewed(connection, strange) == set()
    await register(store, KEY, told(incarnation=6))
    await change(store, other, lambda changeset: changeset.deregister(other, None, None, "x"))
    async with store.session() as connection:
        assert await renewed(connection, {renewal(first), renewal(second)}) == set()
        again = (await read(store)).endpoints[KEY[1:]]
        assert await renewed(connection, {renewal(again)}) == {first.id}


ACTS: dict[str, Callable[[Changeset], object]] = {
    "another health": lambda changeset: changeset.register(KEY, told(health=Report.UNHEALTHY), "x"),
    "what no Envoy sees": lambda changeset: changeset.register(KEY, told(detail="slow"), "x"),
    "a drain": lambda changeset: changeset.drain(KEY, None, None, "x"),
    "a deregistration": lambda changeset: changeset.deregister(KEY, None, None, "x"),
    "an override": lambda changeset: changeset.override(KEY, Override(5, False, "anna", "", 1e9, None), "anna"),
    "a suspicion": lambda changeset: changeset.suspect(KEY, "x"),
    "a lapse": lambda changeset: changeset.lapse(KEY, changeset.now),
    "another instance": lambda changeset: changeset.register(KEY, told("i-2"), "x"),
    "a removal": lambda changeset: changeset.remove(KEY),
}


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS)
async def test_nobody_renews_who_takes_an_endpoint_for_what_it_was(
    store: Database, act: Callable[[Changeset], object]
) -> None:
    """A process that has not heard of the last change must not renew, and answer for a state that is not stored.

    Who has heard of it renews, unless nothing is left that could be.
    """
    await register(store, KEY, told())
    (before,) = (await read(store)).ordered()
    await change(store, KEY, act)
    async with store.session() as connection:
        assert await renewed(connection, {renewal(before)}) == set()
        for after in (await read(store)).ordered():
            ended = after.lapsed_at is not None or after.leaving_at is not None
            assert await renewed(connection, {renewal(after)}) == (set() if ended else {after.id})


async def test_a_registration_that_changes_nothing_can_be_renewed(store: Database) -> None:
    """Its lease is of the change that the endpoint is of, not of the service's newest one."""
    await register(store, KEY, told())
    await register(store, ("shop", "10.0.0.2", 80), told("i-2"))
    await register(store, KEY, told())
    (first, second) = (await read(store)).ordered()
    assert (first.change, second.change) == (1, 2)
    async with store.session() as connection:
        assert await renewed(connection, {renewal(first), renewal(second)}) == {first.id, second.id}


async def test_a_change_after_an_invisible_one_is_found_by_its_number(store: Database) -> None:
    """The change of an endpoint is that which last touched it, through either kind of transaction."""
    await register(store, KEY, told())
    assert (await read(store)).endpoints[KEY[1:]].change == 1
    await change_service(store, "shop", lambda changeset, _expired: changeset.suspect(KEY, "x"))
    assert (await read(store)).endpoints[KEY[1:]].change == 2
    assert await execute(store, "SELECT change FROM leases") == 2


async def test_a_renewal_starts_the_lease_anew(store: Database) -> None:
    """From the database's now, for its own ttl; the reading of all leases tells it to the microsecond."""
    await register(store, KEY, told(ttl=7.5))
    (endpoint,) = (await read(store)).ordered()
    async with store.session() as connection:
        granted = (await leases.all_leases(connection)).get(endpoint.id)
        await leases.renew(connection, {renewal(endpoint)})
        renewed = (await leases.all_leases(connection)).get(endpoint.id)
    assert granted is not None
    assert renewed is not None
    assert renewed.renewed_at > granted.renewed_at == endpoint.changed_at
    assert renewed.expires_at - renewed.renewed_at == pytest.approx(7.5)


async def test_who_renews_in_time_does_not_lapse(store: Database) -> None:
    """Between the look at expired leases and the lapse a heartbeat may come; while it comes its lease is held."""
    await register(store, KEY, told())
    (endpoint,) = (await read(store)).ordered()
    await execute(store, "UPDATE leases SET expires_at = now() - interval '1 s'")
    async with store.session() as connection:
        now = await read_clock(connection)
        (candidate,) = await leases.expired_leases(connection, now)
        assert await leases.expired_leases(connection, now - 2) == []
    assert (candidate.endpoint_id, candidate.service) == (endpoint.id, "shop")
    judged: list[object] = []
    expiries = {endpoint.id: candidate.expired_at}
    await change_service(store, "shop", lambda _, expired: judged.append(set(expired)), expiries=expiries)
    async with store.transaction() as renewing:
        await leases.renew(renewing, {renewal(endpoint)})
        await change_service(store, "shop", lambda _, expired: judged.append(set(expired)), expiries=expiries)
    await change_service(store, "shop", lambda _, expired: judged.append(set(expired)), expiries=expiries)
    # Also when PostgreSQL's clock was set, by which the new lease has expired as well.
    await execute(store, "UPDATE leases SET expires_at = now() - interval '300 s'")
    await change_service(store, "shop", lambda _, expired: judged.append(set(expired)), expiries=expiries)
    assert judged == [{endpoint.id}, set(), set(), set()]


async def _lease_at(store: Database, number: int, renewed: float, ttl: float = 20.0) -> int:
    """Register an endpoint whose lease was renewed so many seconds ago, also in the future; return its id."""
    key: Key = ("shop", f"10.0.0.{number}", 80)
    await register(store, key, told(f"i-{number}", ttl=ttl))
    endpoint_id = (await read(store)).endpoints[key[1:]].id
    await execute(
        store,
        "UPDATE leases SET renewed_at = now() - make_interval(secs => :ago),"
        " expires_at = now() - make_interval(secs => :ago) + make_interval(secs => ttl) WHERE endpoint_id = :id",
        ago=renewed,
        id=endpoint_id,
    )
    return endpoint_id


async def test_many_leases_are_read_by_several_statements(store: Database) -> None:
    """Whatever is due between two of them uses the connection, and what leaves meanwhile is in neither twice."""
    for number in range(5):
        await register(store, ("shop", f"10.0.1.{number}", 80), told(f"i-{number}"))
    endpoints = (await read(store)).ordered()
    pauses: list[str] = []
    async with store.session() as connection:

        async def between() -> None:
            pauses.append((await feed.read_state(connection))[0])

        for leases_per_read, statements in ((1, 6), (2, 3), (5, 2), (6, 1)):
            pauses.clear()
            found = await leases.all_leases(connection, between, leases_per_read)
            assert len(pauses) == statements - 1
            assert len(found) == len(endpoints)
            assert all(found.get(each.id) is not None for each in endpoints)


async def _leases(store: Database) -> dict[int, Lease]:
    """Return all leases by their endpoint."""
    async with store.session() as connection:
        found = await leases.all_leases(connection)
    numbers = range(1, 1000)
    return {number: lease for number in numbers if (lease := found.get(number)) is not None}


async def _credit(store: Database, gap: float) -> None:
    """Credit the gap of so many seconds up to the database's now; a negative one is a clock that was set back."""
    async with store.transaction() as connection:
        now, _ = await leases.last_sweep(connection)
        swept = text("UPDATE registry_state SET last_sweep_at = to_timestamp(:last)")
        await connection.execute(swept, {"last": now - gap})
    await leases.credit_all(store, now - gap, now)


async def test_a_credit_counts_as_a_sweep(store: Database) -> None:
    """So it is never given twice, whatever fails after it."""
    await register(store, KEY, told())
    async with store.session() as connection:
        assert (await leases.last_sweep(connection))[1] is None
        await _credit(store, 300.0)
        now, last = await leases.last_sweep(connection)
    assert last is not None
    assert 0 <= now - last < 2


async def test_a_gap_is_credited_from_the_last_renewal_on(store: Database) -> None:
    """Who renewed during the gap was not kept from it until then, and gets no more than what followed."""
    silent = await _lease_at(store, 1, renewed=310.0)
    lately = await _lease_at(store, 2, renewed=40.0)
    fresh = await _lease_at(store, 3, renewed=0.0)
    before = await _leases(store)
    await _credit(store, 300.0)
    after = await _leases(store)
    moved = {one: after[one].expires_at - before[one].expires_at for one in before}
    assert moved[silent] == pytest.approx(300.0, abs=1.0)
    assert moved[lately] == pytest.approx(40.0, abs=1.0)
    assert moved[fresh] == pytest.approx(0.0, abs=1.0)
    assert all(after[one].renewed_at == before[one].renewed_at for one in before)
    # What was left of the lease when the gap began is left when it ends; nobody has more than a whole lease.
    async with store.session() as connection:
        now, _ = await leases.last_sweep(connection)
    assert after[silent].expires_at - now == pytest.approx(10.0, abs=1.5)
    assert after[lately].expires_at - now == pytest.approx(20.0, abs=1.5)


async def test_a_credit_by_an_old_reading_of_the_clock_takes_no_time_from_a_removal(store: Database) -> None:
    """A process is stopped between its look at the clock and the credit: who left meanwhile has its whole delay."""
    await register(store, KEY, told())
    async with store.session() as connection:
        now, _ = await leases.last_sweep(connection)
    await change_at_addresses(
        store, {KEY[0]}, {KEY[1:]}, lambda changeset: void(changeset.drain(KEY, None, None, "test"))
    )
    before = (await read(store, KEY[0])).endpoints[KEY[1:]].unroutable_at
    assert before is not None
    assert before > now
    await execute(store, "UPDATE registry_state SET last_sweep_at = to_timestamp(:last)", last=now - 300)
    await leases.credit_all(store, now - 300, now)
    assert (await read(store, KEY[0])).endpoints[KEY[1:]].unroutable_at == before


async def test_time_that_another_process_has_credited_is_not_credited_again(store: Database) -> None:
    """Nor does what passed since count as swept: who was stopped before it gave credit finds that it came too late."""
    await _lease_at(store, 1, renewed=50.0)
    await _credit(store, 40.0)
    before = await _leases(store)
    async with store.session() as connection:
        now, last = await leases.last_sweep(connection)
        await leases.credit_all(store, now - 300.0, now - 20.0)
        assert (await leases.last_sweep(connection))[1] == last
    assert await _leases(store) == before


async def test_a_credit_by_an_old_reading_of_the_clock_shortens_no_lease(store: Database) -> None:
    """The clock is set forwards between the reading and the credit: who renewed since then keeps a whole lease."""
    renewed = await _lease_at(store, 1, renewed=0.0)
    before = (await _leases(store))[renewed]
    read_at = before.renewed_at - 300.0
    await execute(store, "UPDATE registry_state SET last_sweep_at = to_timestamp(:last)", last=read_at - 1.0)
    await leases.credit_all(store, read_at - 1.0, read_at)
    assert (await _leases(store))[renewed] == before


async def test_a_clock_that_was_set_back_begins_every_lease_anew(store: Database) -> None:
    """Who renewed on the old clock would be held for ever, and who could not renew since must not lapse for it."""
    await _lease_at(store, 1, renewed=-295.0)
    await _lease_at(store, 2, renewed=2.0)
    await _lease_at(store, 3, renewed=30.0)
    await _credit(store, -300.0)
    async with store.session() as connection:
        now, _ = await leases.last_sweep(connection)
    for lease in (await _leases(store)).values():
        assert lease.expires_at - now == pytest.approx(20.0, abs=1.5)
        assert lease.renewed_at <= now


async def test_a_suspect_does_not_begin_anew_when_the_clock_is_set_back(store: Database) -> None:
    """Its lease has expired, and its time as a suspect stays what it was."""
    suspect = await _lease_at(store, 1, renewed=-200.0)
    await change_service(store, "shop", lambda changeset, _: changeset.suspect(("shop", "10.0.0.1", 80), "x"))
    before = await _leases(store)
    await _credit(store, -300.0)
    after = await _leases(store)
    assert after[suspect].expires_at - before[suspect].expires_at == pytest.approx(-300.0, abs=0.1)


async def test_what_waits_for_its_removal_waits_for_the_gap_as_well(store: Database) -> None:
    """I3: a service that had lapsed before the registry was away is not emptied by the time in which it was away.

    Who was deregistered shows that it is out of rotation for the whole delay, in time in which somebody swept.
    Tombstones are as they were. It is a change: processes judge by it whether a removal is due.
    """
    lapsed, left, gone = (("shop", f"10.0.0.{number}", 80) for number in (1, 2, 3))
    for number, key in enumerate((lapsed, left, gone), 1):
        await register(store, key, told(f"i-{number}"))
    for key in (lapsed, gone):
        await change_service(store, "shop", partial(_lapse, key))
    await remove(store, gone)
    await change(store, left, lambda changeset: changeset.deregister(left, None, None, "x"))
    moments = "SELECT lapsed_at, unroutable_at, leaving_at, removed_at FROM endpoints ORDER BY id"

    async def rows() -> list[Any]:
        async with store.session() as connection:
            return [tuple(row) for row in await connection.execute(text(moments))]

    before = await rows()
    async with store.session() as connection:
        numbers = await feed.service_versions(connection)
        await _credit(store, 1000.0)
        credited = await feed.service_versions(connection)
        now, _ = await leases.last_sweep(connection)
    after = await rows()
    assert credited["shop"].version == numbers["shop"].version
    assert credited["shop"].change == numbers["shop"].change + 1
    shift = dt.timedelta(seconds=1000)
    assert [after[0][index] - before[0][index] for index in (0, 1)] == pytest.approx([shift, shift], abs=TICK)
    assert after[1][2] == before[1][2]
    assert after[1][1].timestamp() == pytest.approx(now, abs=1.0)
    assert after[2] == before[2]


@pytest.mark.parametrize("gap", [300.0, -300.0])
async def test_a_service_that_is_refused_holds_up_no_credit(store: Database, gap: float) -> None:
    """Its own removals are passed over: the leases of all are credited, and the removals of the other services."""
    for number, service in enumerate(("a", "b", "c", "d"), 1):
        await register(store, (service, f"10.0.0.{number}", 80), told(f"i-{number}", health=Report.UNHEALTHY))
    await execute(store, "ALTER TABLE services ADD CONSTRAINT refused CHECK (name <> 'c' OR change < 2)")
    await execute(store, "UPDATE endpoints SET unroutable_at = now() + interval '1 hour'")
    async with store.session() as connection:
        before = await feed.service_versions(connection)
        await _credit(store, gap)
        after = await feed.service_versions(connection)
        now, last = await leases.last_sweep(connection)
    assert [name for name in before if after[name].change > before[name].change] == ["a", "b", "d"]
    assert last is not None
    assert now - last < 2
    for lease in (await _leases(store)).values():
        assert lease.expires_at - now == pytest.approx(20.0, abs=1.5)


TICK = dt.timedelta(milliseconds=1)


def _lapse(key: Key, changeset: Changeset, _expired: object) -> None:
    changeset.lapse(key, changeset.now)


async def test_a_credit_is_heard_of_and_hinders_no_heartbeat(store: Database) -> None:
    """What was moved is read by those who follow, and its lease is renewed by who has read it."""
    await register(store, KEY, told(health=Report.UNHEALTHY))
    held = await read(store)
    await _credit(store, 1000.0)
    fresh = held.advance((await steps(store, held.change))[0])
    assert fresh.endpoints == (await read(store)).endpoints
    (endpoint,) = fresh.ordered()
    async with store.session() as connection:
        assert await renewed(connection, {renewal(endpoint)}) == {endpoint.id}


async def test_the_population_is_counted_by_service(store: Database) -> None:
    """Those that live, and those that lapsed lately, also if they are removed meanwhile."""
    for number in range(4):
        await register(store, ("shop", f"10.0.1.{number}", 80), told(f"i-{number}"))
    await change_service(store, "shop", lambda changeset, _: changeset.lapse(("shop", "10.0.1.0", 80), changeset.now))
    await change_service(store, "shop", lambda changeset, _: changeset.lapse(("shop", "10.0.1.1", 80), changeset.now))
    await remove(store, ("shop", "10.0.1.0", 80))
    async with store.session() as connection:
        now = await read_clock(connection)
        live, lately = await leases.count_endpoints(connection, now, 60)
        assert (live, lately) == ({"shop": 2}, {"shop": 2})
        assert await leases.count_endpoints(connection, now + 120, 60) == ({"shop": 2}, {"shop": 0})
        assert await leases.services_with_departed(connection, now, 0) == ["shop"]
        assert await leases.services_with_departed(connection, now, 60) == []


async def test_one_process_leads(database: str, store: Database) -> None:
    """The lead passes on when its connection ends."""
    other = Database(database, connections=1, timeout=5)
    async with store.session() as mine, other.session() as theirs:
        assert await leases.try_lead(mine, 60)
        assert not await leases.try_lead(theirs, 60)
        await mine.invalidate()
        for _ in range(50):
            if await leases.try_lead(theirs, 60):
                break
            await asyncio.sleep(0.02)
        else:
            pytest.fail("nobody leads")
    await other.close()


async def test_the_lead_is_lost_by_silence(database: str, store: Database) -> None:
    """A process that is frozen keeps its connections open; PostgreSQL ends the one that leads."""
    other = Database(database, connections=1, timeout=5)

    async def freeze() -> None:
        async with store.session() as mine, other.session() as theirs:
            assert await leases.try_lead(mine, 1.0)
            assert not await leases.try_lead(theirs, 60)
            async with asyncio.timeout(10):
                while not await leases.try_lead(theirs, 60):
                    await asyncio.sleep(0.1)
            await mine.execute(text("SELECT 1"))

    with pytest.raises(UnavailableError):
        await freeze()
    await other.close()


async def test_who_is_refused_the_lead_keeps_its_connection(database: str, store: Database) -> None:
    """It goes back into the pool, where it must not be ended for a silence that is nothing there."""
    other = Database(database, connections=1, timeout=5)
    async with store.session() as mine:
        assert await leases.try_lead(mine, 60)
        async with other.session() as theirs:
            assert not await leases.try_lead(theirs, 0.3)
        await asyncio.sleep(1)
        assert await execute(other, "SHOW idle_session_timeout") == "0"
        assert await execute(other, "SHOW application_name") == "headcount-registry"
        await mine.invalidate()
    await other.close()


PLACES = [("10.0.0.1", 80), ("10.0.0.2", 80), ("2001:db8::1", 80)]
SERVICES = ["shop", "cart", "pay", "job"]


class Storm:
    """Transactions of every kind, on two databases' connections, and the numbers that they returned."""

    def __init__(self, databases: list[Database]) -> None:
        self.databases = databases
        self.chance = random.Random(7)
        self.seen: dict[str, list[StoredVersion]] = defaultdict(list)

    async def run(self, count: int) -> None:
        """Run this many transactions at once."""
        kinds = [self.places] * 6 + [self.sweep] * 2 + [self.renew] * 3 + [self.credit, self.prune]
        chosen = [self.chance.choice(kinds) for _ in range(count)]
        await asyncio.gather(*(act(self.databases[number % 2]) for number, act in enumerate(chosen)))

    def note(self, committed: dict[str, StoredVersion]) -> None:
        """Remember the numbers of a commit."""
        for service, numbers in committed.items():
            self.seen[service].append(numbers)

    async def places(self, store: Database) -> None:
        """Register and deregister at several places of several services."""
        keys = [(self.chance.choice(SERVICES), *self.chance.choice(PLACES)) for _ in range(self.chance.randint(1, 4))]

        def decide(changeset: Changeset) -> None:
            for key in keys:
                instance = f"i-{self.chance.randint(1, 3)}"
                with contextlib.suppress(RegistryError):
                    changeset.register(
                        key, told(instance, self.chance.randint(1, 1000), weight=self.chance.randint(1, 3)), "x"
                    )
                    if self.chance.random() < 0.2:
                        changeset.deregister(key, None, None, "x")

        services, places = {key[0] for key in keys}, {key[1:] for key in keys}
        self.note(await change_at_addresses(store, services, places, decide, creates_services=services))

    async def sweep(self, store: Database) -> None:
        """Lapse or remove some endpoints of a service."""
        removes = self.chance.random() < 0.5

        def decide(changeset: Changeset, _expired: object) -> None:
            for row in changeset.all_listed()[:2]:
                if removes:
                    changeset.remove(row.key)
                else:
                    changeset.lapse(row.key, changeset.now)

        async with store.session() as connection:
            held = await leases.expired_leases(connection, await read_clock(connection) + 3600)
        expiries = {candidate.endpoint_id: candidate.expired_at for candidate in held}
        self.note(await change_service(store, self.chance.choice(SERVICES), decide, expiries=expiries))

    async def renew(self, store: Database) -> None:
        """Renew every lease that there is."""
        async with store.session() as connection:
            held = await connection.execute(text("SELECT endpoint_id, incarnation, change FROM leases"))
            await leases.renew(connection, {(row.endpoint_id, row.incarnation, row.change) for row in held})

    async def credit(self, store: Database) -> None:
        """Move every lease, by a gap or by a clock that was set back a little."""
        await _credit(store, self.chance.choice([0.001, -0.001]))

    async def prune(self, store: Database) -> None:
        """Delete every tombstone."""
        await pruning.prune(store, tombstones=0, history=3600, most_events=10**7)


async def test_crossing_writers_never_wait_for_one_another(database: str) -> None:
    """Two processes with 200 transactions at once: no deadlock, no version skipped or used twice, one history."""
    both = [Database(database, connections=12, timeout=30) for _ in range(2)]
    storm = Storm(both)
    directory = SnapshotCache()
    stop = asyncio.Event()

    async def follow() -> None:
        async with both[0].session() as connection:
            while not stop.is_set():
                directory.apply(await feed.steps(connection, directory.known_changes(SERVICES)))
                await asyncio.sleep(0.005)

    follower = asyncio.create_task(follow())
    await storm.run(220)
    stop.set()
    await follower
    async with both[0].session() as connection:
        numbers = await feed.service_versions(connection)
        directory.apply(await feed.steps(connection, directory.known_changes(SERVICES)))
    for service in SERVICES:
        assert {one.version for one in storm.seen[service]} - {0} == set(range(1, numbers[service].version + 1))
        # Credits count changes too, and return nothing.
        assert {one.change for one in storm.seen[service]} <= set(range(numbers[service].change + 1))
        fresh = await read(both[1], service)
        assert directory.get(service).endpoints == fresh.endpoints
        assert directory.get(service).version == fresh.version
    for each in both:
        await each.close()


async def test_events_say_what_happened(store: Database) -> None:
    """Each with its service's version, the newest first, narrowed down as asked."""
    await register(store, KEY, told())
    await register(store, ("cart", "2001:db8::1", 81), told("i-2"))
    await register(store, KEY, told(health=Report.UNHEALTHY, detail="503"))
    found = await history.find_events(store, EventFilter())
    assert [(one.service, one.kind, one.version) for one in found] == [
        ("shop", "health", 2),
        ("cart", "registered", 1),
        ("shop", "registered", 1),
    ]
    newest = found[0]
    assert (newest.address, newest.port, newest.instance_id, newest.status) == ("10.0.0.1", 80, "i-1", "UNHEALTHY")
    assert (newest.reason, newest.actor) == ("HEALTHY to UNHEALTHY: 503", "test")

    async def count(**wanted: Any) -> int:
        return len(await history.find_events(store, EventFilter(**wanted)))

    assert await count(service="cart") == 1
    assert await count(address_port=("2001:db8::1", 81)) == 1
    assert await count(kind="registered") == 2
    assert await count(since=newest.at) == 1
    assert await count(limit=2) == 2
    assert await count(after=(newest.transaction, newest.id)) == 2
    assert await history.newest_position(store) == (newest.transaction, newest.id)


async def test_no_event_is_missed_when_a_transaction_commits_late(store: Database) -> None:
    """What began before is waited for, so a follower that goes on from the last one it saw sees all, in one order."""
    start = await history.newest_position(store)
    assert start == (0, 0)

    async def follow(position: tuple[int, int]) -> list[RecordedEvent]:
        wanted = EventFilter(after=position, newest_first=False, settled=True)
        return list(await history.find_events(store, wanted))

    row = {"service": "late", "address": "10.0.0.9", "port": 1, "instance_id": "i", "kind": "k", "reason": ""}
    async with store.transaction() as late:
        now = (await late.execute(text("SELECT now()"))).scalar_one()
        await late.execute(insert(events), [row | {"actor": "", "status": "", "version": 1, "at": now}])
        await register(store, KEY, told())
        assert await follow(start) == []
        # Who follows nothing is shown what is there.
        assert [one.service for one in await history.find_events(store, EventFilter())] == ["shop"]
    # Not at once: any transaction that writes on the same server, a vacuum's among them, is waited for as well.
    async with asyncio.timeout(20):
        while len(shown := [one.service for one in await follow(start)]) < 2:
            await asyncio.sleep(0.02)
    assert shown == ["late", "shop"]
    positions = [(one.transaction, one.id) for one in await follow(start)]
    assert positions == sorted(positions)
    assert [one.service for one in await follow(positions[0])] == ["shop"]


@pytest.fixture
def elsewhere(server: Postgres) -> str:
    """Another database of the same server."""
    return server.migrated_database()


async def test_a_follower_waits_for_who_writes_anywhere_on_the_server(
    server: Postgres, elsewhere: str, store: Database
) -> None:
    """PostgreSQL numbers the transactions of all its databases in one row, and so one of another database counts."""
    with server.holding("SELECT pg_current_xact_id()", url=elsewhere):
        await register(store, KEY, told())
        wanted = EventFilter(after=(0, 0), newest_first=False, settled=True)
        assert await history.find_events(store, wanted) == []
    async with asyncio.timeout(20):
        while not await history.find_events(store, wanted):
            await asyncio.sleep(0.02)


async def test_a_change_is_notified_by_its_service_and_number(store: Database) -> None:
    """Once its transaction has committed, and not when nothing changed."""
    heard: list[str] = []
    async with store.listen({CHANNEL: heard.append}, lambda: None):
        await register(store, KEY, told())
        await register(store, KEY, told())
        await register(store, ("cart", *KEY[1:]), told("i-2"))
        await feed.raise_above(store, "pay", 1, 1)
        for _ in range(100):
            if "pay" in heard:
                break
            await asyncio.sleep(0.01)
    assert heard[0] == "shop 1"
    # The newcomer took the address over. What is raised is read whatever its number.
    assert sorted(heard[1:]) == ["cart 1", "pay", "shop 2"]


async def test_a_connection_that_listens_tells_when_it_is_lost(store: Database) -> None:
    """Fault 15: the follower hears of it and can start anew."""
    lost = asyncio.Event()
    async with store.listen({CHANNEL: lambda _name: None}, lost.set) as connection:
        pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
        await execute(store, "SELECT pg_terminate_backend(:pid)", pid=pid)
        async with asyncio.timeout(5):
            await lost.wait()


async def test_a_lease_that_is_locked_holds_up_no_other(store: Database) -> None:
    """It is named, the rest is renewed at once, and the connection's own patience is what it was."""
    for number in range(1, 6):
        await register(store, ("shop", f"10.0.0.{number}", 80), told(f"i-{number}"))
    endpoints = (await read(store)).ordered()
    batch = {renewal(one) for one in endpoints} | {(10**9, 1, 1)}
    async with store.session() as connection:
        patience = (await connection.execute(text("SHOW lock_timeout"))).scalar_one()
        async with store.transaction() as holding:
            locked = text("SELECT FROM leases WHERE endpoint_id = :id FOR UPDATE")
            await holding.execute(locked, {"id": endpoints[2].id})
            async with asyncio.timeout(3):
                found = await leases.renew(connection, batch)
        assert found.locked == {endpoints[2].id}
        assert found.renewed == {one.id for one in endpoints} - found.locked
        assert (await connection.execute(text("SHOW lock_timeout"))).scalar_one() == patience != "200ms"
        assert await renewed(connection, batch) == {one.id for one in endpoints}


async def test_who_goes_by_an_older_reading_is_not_told_that_it_renewed(store: Database) -> None:
    """Of two in one batch that take an endpoint for different things, only the one that is right is acknowledged."""
    await register(store, KEY, told())
    (older,) = (await read(store)).ordered()
    await register(store, KEY, told(health=Report.UNHEALTHY))
    (newer,) = (await read(store)).ordered()
    async with contextlib.aclosing(LeaseRenewals(store, Ability("renew", 20))) as heartbeats:
        both = [heartbeats.renew([older]), heartbeats.renew([newer])]
        assert await asyncio.gather(*both) == [[False], [True]]


async def test_as_many_as_a_service_has_may_fall_silent_at_once(store: Database) -> None:
    """More than a statement takes arguments: whoever cannot be looked at would never lapse."""
    await register(store, KEY, told())
    judged: list[set[int]] = []
    many = dict.fromkeys(range(10**6, 10**6 + 40_000), 0.0)
    await change_service(store, "shop", lambda _, expired: judged.append(set(expired)), expiries=many)
    assert judged == [set()]


async def test_batches_that_want_the_same_in_other_orders_never_fail(store: Database) -> None:
    """Whatever order PostgreSQL comes upon the leases in, each is renewed, or named as locked for the next time."""
    for number in range(1, 41):
        await register(store, ("shop", f"10.0.0.{number}", 80), told(f"i-{number}"))
    every = {renewal(one) for one in (await read(store)).endpoints.values()}
    ids = {one[0] for one in every}

    async def hold_backwards() -> None:
        # The other order than that of renewals, one after the other.
        async with store.transaction() as connection:
            for one in sorted(ids, reverse=True):
                await connection.execute(text("UPDATE leases SET ttl = ttl WHERE endpoint_id = :id"), {"id": one})

    async def renew_all() -> None:
        async with store.session() as connection:
            for _ in range(5):
                found = await leases.renew(connection, every)
                assert found.renewed | found.locked == ids

    async with asyncio.TaskGroup() as tasks:
        for _ in range(3):
            tasks.create_task(renew_all())
        for _ in range(2):
            tasks.create_task(hold_backwards())


async def test_postgresql_being_away_is_an_outage() -> None:
    """Nobody listens: connecting fails at once and says what is away; why is for the log alone."""
    away = Database(f"postgresql://nobody@127.0.0.1:{free_port()}/none", connections=1, timeout=2)
    with pytest.raises(UnavailableError, match=r"^PostgreSQL is away$") as caught:
        await register(away, KEY, told())
    assert "Connect" in caught.value.cause
    with pytest.raises(UnavailableError):
        await read_identity(away)
    await away.close()


async def test_a_missing_database_is_an_outage(database: str) -> None:
    """It may be created, or restored, while this process waits."""
    parts = urlsplit(database)
    missing = Database(urlunsplit(parts._replace(path=f"{parts.path}_gone")), connections=1, timeout=2)
    with pytest.raises(UnavailableError, match="PostgreSQL has no database of the name") as caught:
        await read_identity(missing)
    assert "does not exist" in caught.value.cause
    await missing.close()


async def test_a_missing_schema_says_what_to_run(empty_database: str) -> None:
    """REGISTRY_MIGRATE=false before `registry migrate`: the process waits for it, and says so."""
    empty = Database(empty_database, connections=1, timeout=2)
    with pytest.raises(UnavailableError, match="run `registry migrate`"):
        await read_identity(empty)
    await asyncio.to_thread(migrate_now, empty_database, 10)
    assert len((await read_identity(empty)).id) == 8
    await empty.close()


async def test_slowness_and_locks_are_outages(database: str, store: Database) -> None:
    """Fault 13: a statement or a lock that takes longer than the timeout, and a pool without a connection."""
    impatient = Database(database, connections=1, timeout=0.3)
    await register(store, KEY, told())
    with pytest.raises(UnavailableError, match=SLOW):
        await execute(impatient, "SELECT pg_sleep(2)")
    async with store.transaction() as holder:
        await holder.execute(text("SELECT 1 FROM services FOR UPDATE"))
        with pytest.raises(UnavailableError, match=SLOW):
            await register(impatient, KEY, told(weight=5))
    async with impatient.session():
        with pytest.raises(UnavailableError, match="are in use"):
            await execute(impatient, "SELECT 1")
    await register(impatient, KEY, told(weight=5))
    await impatient.close()


SLOW = r"^PostgreSQL is too slow, or another session holds a lock for too long$"


async def test_a_server_that_takes_no_writes_is_an_outage(store: Database) -> None:
    """A standby before its promotion."""
    with pytest.raises(UnavailableError, match="PostgreSQL refuses writes") as caught:
        await execute(
            store, "SELECT setval('endpoints_id_seq', 5) FROM set_config('transaction_read_only', 'on', true)"
        )
    assert "read-only" in caught.value.cause


async def test_a_killed_connection_is_an_outage_once(store: Database) -> None:
    """Fault 11: the next transaction has a new connection."""
    with pytest.raises(UnavailableError):
        async with store.transaction() as connection:
            await connection.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
    assert await execute(store, "SELECT 1") == 1


async def test_defects_are_no_outages(store: Database) -> None:
    """What fails the same way each time must not make clients try for ever, nor take a batch with it."""
    with pytest.raises(ProgrammingError):
        await execute(store, "SELECT what is this")
    with pytest.raises(DBAPIError) as caught:
        await execute(store, "SELECT CAST(:number AS bigint)", number=2**70)
    assert not isinstance(caught.value, UnavailableError)
    with pytest.raises(asyncpg.DataError, match="int32"):
        await register(store, KEY, told(weight=2**40))
    with pytest.raises(ZeroDivisionError):
        await change(store, KEY, lambda _changeset: 1 // 0)


async def test_a_refusal_of_one_row_is_none_of_all(store: Database) -> None:
    """Whoever stores many at once is told that the others may be stored."""
    with pytest.raises(RefusedError, match="check violation") as caught:
        await register(store, ("shop", "10.0.0.1", 0), told())
    assert caught.value.row_specific


@settings(max_examples=25, deadline=None)
@given(
    found=st.lists(
        st.ip_addresses() | st.integers(0, 2**40).map(lambda n: f"::{n >> 16:x}:{n & 0xFFFF:x}"), max_size=40
    )
)
def test_postgresql_writes_addresses_as_we_do(server: Postgres, found: list[Any]) -> None:
    """An address is part of a key: it must come back letter by letter."""
    taken = []
    for address in found:
        try:
            taken.append(parse_ip(str(address)))
        except ValueError:
            continue
    rows = server.execute("SELECT host(one::inet) AS host FROM unnest($1::text[]) AS one", taken)
    assert [row["host"] for row in rows] == taken


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-(2.0**53), 2.0**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=25, deadline=None)
@given(found=st.lists(st.dictionaries(st.text(max_size=5), json_values, max_size=5), max_size=20))
def test_postgresql_keeps_metadata_as_it_is(server: Postgres, found: list[dict[str, Any]]) -> None:
    """Else each heartbeat would differ from what is stored, and be a change."""
    taken = []
    for metadata in found:
        try:
            check_metadata(metadata)
        except ValueError:
            continue
        taken.append(metadata)
    rows = server.execute(
        "SELECT one::jsonb AS kept FROM unnest($1::text[]) AS one", [json.dumps(one) for one in taken]
    )
    assert all(same_json(json.loads(row["kept"]), one) for row, one in zip(rows, taken, strict=True))
