"""The leader's work on shifts: steps, aborts, one that fails alone, another leader, and PostgreSQL away."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlsplit

import msgspec
import pytest
from harness.postgres import Postgres

from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.background.change_feed import ChangeFeed
from registry.background.shifts import _MAX_PAUSE, EndpointTotals, Shifts
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.abilities import Abilities
from registry.core.admission import Admission, Limits
from registry.core.audit import AuditQueue
from registry.core.history import EventFilter
from registry.core.shares import Share
from registry.core.shift import GONE_AFTER, MAX_LOOK_GAP, Shift
from registry.core.shift_plan import ShiftPlan
from registry.core.shift_statistics import Counts
from registry.errors import UnavailableError
from registry.settings import load_settings
from registry.store.database import Database
from registry.store.history import find_events
from registry.usecases.audit import Audit
from registry.usecases.registration import Registrations
from registry.usecases.shifts import TrafficShifts
from wire.model import Registration

ANN = Principal("ann")
PLAN = ShiftPlan("revision=b", (10.0, 100.0), 1.0, 1.0, 20, "ann", "")
GOOD = EndpointTotals({"10.0.0.1:80": Counts(900, 1), "10.0.0.2:80": Counts(100, 0)}, 2, 2)
BAD = EndpointTotals({"10.0.0.1:80": Counts(900, 1), "10.0.0.2:80": Counts(10, 5)}, 2, 2)
NOBODY = EndpointTotals({}, 0, 0)


class World:
    """What a process has for shifts, and figures that the test sets."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.cache = SnapshotCache()
        settings = load_settings()
        self.feed = ChangeFeed(database, self.cache, settings)
        audit = Audit(AuditQueue(), self.cache.clock)
        admission = Admission(Limits.of(settings), self.cache.service_count, self.cache.endpoint_count)
        self.registrations = Registrations(Policy(), database, self.cache, self.feed, Abilities(20), admission, audit)
        self.orders = TrafficShifts(Policy(), database, self.cache, self.feed, audit)
        self.figures: dict[str, EndpointTotals] = {}
        self.leads = True
        self.shifts = self.leader()

    def leader(self) -> Shifts:
        """Return the job of a process that has just begun to lead."""
        return Shifts(
            self.database,
            self.cache,
            self.feed,
            lambda: self.leads,
            self.figures_of,
        )

    async def figures_of(self, service: str, _within: float) -> EndpointTotals:
        """Return the figures of a service."""
        return self.figures.get(service, NOBODY)

    async def begin(self, service: str, plan: ShiftPlan = PLAN) -> None:
        """Register an endpoint of each revision, and begin a shift."""
        for number, revision in ((1, "a"), (2, "b")):
            registration = Registration(f"i-{number}", 1, ttl=600.0, revision=revision)
            address = f"10.0.0.{number}"
            await self.registrations.register(ANN, (service, address, 80), registration)
        await self.orders.start(ANN, service, plan)

    async def shift(self, service: str) -> Shift:
        """Return a shift as it is stored."""
        return await self.orders.get(ANN, service)

    async def look(self, seconds: float = MAX_LOOK_GAP) -> None:
        """Look once, as if so many seconds had passed since the last look."""
        await self.shifts.advance()
        age(self.shifts, seconds)


def age(shifts: Shifts, seconds: float = MAX_LOOK_GAP) -> None:
    """Let a leader believe that its last look was so many seconds ago, and the last failures long ago."""
    for watched in shifts._watched.values():
        watched.looked_at -= seconds
    for service, failure in shifts._failures.items():
        shifts._failures[service] = msgspec.structs.replace(failure, again_at=failure.again_at - _MAX_PAUSE)


async def steps_of(world: World, service: str) -> list[str]:
    """Return the kinds of a shift's events, the oldest first."""
    recorded = await find_events(world.database, EventFilter(service=service))
    return [event.kind for event in reversed(recorded) if event.kind.startswith("shift_")]


@pytest.fixture
async def world(database: str) -> AsyncIterator[World]:
    """A process that follows its database."""
    store = Database(database, connections=10, timeout=2)
    made = World(store)
    following = asyncio.create_task(made.feed.run())
    async with asyncio.timeout(30):
        while not made.cache.ready:
            await asyncio.sleep(0.01)
    yield made
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await made.registrations.close()
    await store.close()


async def test_a_good_one_is_done_and_a_bad_one_is_taken_back(world: World, server: Postgres, database: str) -> None:
    """Each step and its shares are stored together; a row that cannot be read, or is refused, keeps back no other."""
    for service in ("good", "bad", "unknown", "garbled", "refused"):
        await world.begin(service)
    world.figures = {"good": GOOD, "bad": BAD, "garbled": GOOD, "refused": GOOD}
    await asyncio.to_thread(server.execute, "UPDATE shifts SET shift = 'x' WHERE service = 'garbled'", url=database)
    await asyncio.to_thread(
        server.execute,
        "ALTER TABLE events ADD CONSTRAINT no CHECK (service <> 'refused' OR kind <> 'shift_step') NOT VALID",
        url=database,
    )
    for _ in range(4):
        await world.look()
    assert (await world.shift("good")).state == "done"
    bad = await world.shift("bad")
    assert (bad.state, bad.changed_by) == ("aborted", "registry")
    assert "5 of 10 attempts at revision=b failed" in bad.reason
    unknown = await world.shift("unknown")
    assert (unknown.state, unknown.step) == ("running", 0)
    assert set(world.shifts._failures) == {"garbled", "refused"}
    # A row may take seconds to fail: it is left alone for a while, and longer each time.
    assert min(failure.pause for failure in world.shifts._failures.values()) > _MAX_PAUSE / 2
    await world.shifts.advance()
    failed = dict(world.shifts._failures)
    await world.shifts.advance()
    assert all(world.shifts._failures[service] is failure for service, failure in failed.items())
    await world.look()
    assert (await world.shift("refused")).step == 0
    await _until_served(world, {"good": 100.0, "bad": 0.0, "unknown": 10.0})
    # The row that cannot be read is replaced by a new shift.
    await world.orders.start(ANN, "garbled", PLAN)
    await asyncio.to_thread(server.execute, "ALTER TABLE events DROP CONSTRAINT no", url=database)
    for _ in range(4):
        await world.look()
    assert (await world.shift("garbled")).state == "done"
    assert (await world.shift("refused")).state == "done"


async def _until_served(world: World, percents: Mapping[str, float]) -> None:
    async with asyncio.timeout(30):
        while any(
            (shares := world.cache.get(service).shares) is None or shares.groups != (Share("revision=b", percent),)
            for service, percent in percents.items()
        ):
            await asyncio.sleep(0.02)


async def test_another_leader_goes_on_where_the_last_one_stopped(world: World) -> None:
    """By what was stored some seconds ago, and an order that came in between wins over what was looked at before."""
    await world.begin("shop", ShiftPlan("revision=b", (10.0, 100.0), 60.0, 1.0, 20, "ann", ""))
    world.figures = {"shop": GOOD}
    await world.look()
    world.shifts._watched["shop"].noted_at = 0.0
    await world.look()
    waited = (await world.shift("shop")).waited
    assert waited >= MAX_LOOK_GAP
    world.leads = False
    await world.look()
    assert not world.shifts._watched
    world.leads, world.shifts = True, world.leader()
    await world.look()
    assert world.shifts._watched["shop"].shift.waited >= waited
    await world.orders.order(ANN, "shop", "pause", "")
    world.figures = {"shop": BAD}
    await world.look()
    assert (await world.shift("shop")).state == "paused"
    # Its rows are as old as before the pause: what it decides now is not stored.
    world.shifts._watched.clear()
    await world.orders.order(ANN, "shop", "resume", "")
    await world.look()
    assert (await world.shift("shop")).state == "aborted"


async def test_shares_that_another_hand_has_set_pause_it(world: World, server: Postgres, database: str) -> None:
    """A registry that knows no shifts sets them; they stay until the shift is resumed."""
    await world.begin("shop")
    stored = '{"groups":[{"selector":"revision=b","percent":90}],"actor":"bob","reason":"","set_at":1}'
    await asyncio.to_thread(
        server.execute,
        f"UPDATE services SET shares = '{stored}', version = version + 1, change = change + 1 WHERE name = 'shop'",
        url=database,
    )
    world.figures = {"shop": BAD}
    await world.look()
    assert (await world.shift("shop")).state == "paused"
    await _until_served(world, {"shop": 90.0})
    await world.orders.order(ANN, "shop", "resume", "")
    await _until_served(world, {"shop": 10.0})


async def test_it_holds_while_postgresql_is_away(world: World, server: Postgres, database: str) -> None:
    """Nothing is decided from memory; afterwards the shift goes on as if no time had passed."""
    await world.begin("shop", ShiftPlan("revision=b", (10.0, 100.0), 60.0, 1.0, 20, "ann", ""))
    world.figures = {"shop": GOOD}
    await world.look()
    name = urlsplit(database).path.removeprefix("/")
    await asyncio.to_thread(server.execute, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
    await asyncio.to_thread(
        server.execute, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    )
    world.figures = {"shop": BAD}
    with pytest.raises(UnavailableError):
        await world.look()
    await asyncio.to_thread(server.execute, f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
    assert world.shifts._watched["shop"].shift.state == "running"
    await world.look(3600.0)
    assert (await world.shift("shop")).state == "aborted"


async def test_it_holds_while_its_service_cannot_be_read(world: World) -> None:
    """What a process cannot read has no endpoints there, and may have all of them in PostgreSQL."""
    await world.begin("shop")
    cache = SnapshotCache()
    cache.doubt("shop")
    world.shifts = Shifts(world.database, cache, world.feed, lambda: True, world.figures_of)
    for _ in range(4):
        await world.look(GONE_AFTER)
    assert set(world.shifts._failures) == {"shop"}
    assert (await world.shift("shop")).state == "running"
    audit = Audit(AuditQueue(), cache.clock)
    orders = TrafficShifts(Policy(), world.database, cache, world.feed, audit)
    with pytest.raises(UnavailableError, match="cannot read the service shop"):
        await orders.order(ANN, "shop", "abort", "")
    assert (await world.shift("shop")).state == "running"


async def test_two_leaders_make_each_step_once(world: World) -> None:
    """As for a moment when the lease of the first one has ended and it does not know yet."""
    await world.begin("shop")
    world.figures = {"shop": GOOD}
    leaders = [world.leader(), world.leader()]
    for _ in range(8):
        await asyncio.gather(*(leader.advance() for leader in leaders))
        for leader in leaders:
            assert not leader._failures
            age(leader)
    assert await steps_of(world, "shop") == ["shift_started", "shift_step", "shift_done"]


async def test_a_connection_that_freezes_within_a_step_makes_it_once(
    world: World, server: Postgres, database: str
) -> None:
    """Nobody knows whether it was stored; the other shift goes on meanwhile, and this one afterwards."""
    if server.source != "embedded":
        pytest.skip("the processes of PostgreSQL are on another machine, or in a container")
    for service in ("frozen", "other"):
        await world.begin(service)
        world.figures[service] = GOOD
    await world.look()
    blocked = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    # The step has locked the service by then, and keeps it locked while it is frozen.
    with server.holding("SELECT FROM shifts WHERE service = 'frozen' FOR UPDATE", url=database):
        looking = asyncio.create_task(world.look())
        async with asyncio.timeout(30):
            while not (found := await asyncio.to_thread(server.execute, blocked, url=database)):
                await asyncio.sleep(0.02)
        os.kill(found[0][0], signal.SIGSTOP)
    try:
        await looking
        await world.look()
        await world.look()
        assert (await world.shift("other")).state == "done"
        assert (await world.shift("frozen")).step == 0
        assert set(world.shifts._failures) == {"frozen"}
    finally:
        os.kill(found[0][0], signal.SIGCONT)
    async with asyncio.timeout(60):
        while (await world.shift("frozen")).state != "done":
            await world.look()
    for service in ("frozen", "other"):
        assert await steps_of(world, service) == ["shift_started", "shift_step", "shift_done"]


async def test_a_backup_that_is_restored_during_a_shift_goes_on_from_there(
    world: World, server: Postgres, database: str
) -> None:
    """From an earlier step; and a shift that began after it is not taken for the one that the leader remembers."""
    await world.begin("shop", msgspec.structs.replace(PLAN, every=8.0))
    row = "SELECT shift, serial, (SELECT shares FROM services WHERE name = 'shop') AS shares FROM shifts"
    ((shift, serial, shares),) = await asyncio.to_thread(server.execute, row, url=database)
    world.figures = {"shop": GOOD}
    while (await world.shift("shop")).step == 0:
        await world.look()
    await world.look()
    restored = (
        "WITH back AS (UPDATE shifts SET shift = $1, serial = $2)"
        " UPDATE services SET shares = $3, version = version + 9, change = change + 9"
    )
    await asyncio.to_thread(server.execute, restored, shift, serial, shares, url=database)
    await world.look()
    assert (await world.shift("shop")).step == 0
    while (await world.shift("shop")).step == 0:
        await world.look()
    await world.look()
    remembered = world.shifts._watched["shop"].shift
    await asyncio.to_thread(server.execute, "DELETE FROM shifts", url=database)
    await world.orders.start(ANN, "shop", msgspec.structs.replace(PLAN, selector="revision=a"))
    assert (await world.shift("shop")).serial != remembered.serial
    world.figures = {"shop": BAD}
    await world.look()
    begun = await world.shift("shop")
    assert (begun.plan.selector, begun.step, begun.state) == ("revision=a", 0, "running")


@pytest.mark.parametrize("number", [12, pytest.param(200, marks=pytest.mark.proof)])
async def test_of_many_shifts_one_that_is_locked_keeps_back_no_other(
    world: World, server: Postgres, database: str, number: int
) -> None:
    """Nor does one whose row is garbled; and a row that an older version has written goes on."""
    names = [f"s{each:03}" for each in range(number)]
    for first in range(0, len(names), 10):
        await asyncio.gather(*map(world.begin, names[first : first + 10]))
    world.figures = dict.fromkeys(names, GOOD)
    new = ',"holding":0.0,"absent":0.0,"released":false'
    older = f"UPDATE shifts SET shift = replace(shift, '{new}', '') WHERE shift LIKE '%{new}%' RETURNING service"
    assert len(await asyncio.to_thread(server.execute, older, url=database)) == number
    await asyncio.to_thread(server.execute, "UPDATE shifts SET shift = '{}' WHERE service = 's005'", url=database)
    with server.holding("SELECT FROM services WHERE name = 's007' FOR UPDATE", url=database):
        for _ in range(3):
            await world.look()
        assert set(world.shifts._failures) == {"s005", "s007"}
        looking = asyncio.create_task(world.look())
        done = "SELECT count(*) FROM shifts WHERE state = 'done'"
        async with asyncio.timeout(60):
            while (await asyncio.to_thread(server.execute, done, url=database))[0][0] < number - 2:
                assert not looking.done(), "the locked one was waited for before the others"
                await asyncio.sleep(0.02)
        await looking
    async with asyncio.timeout(60):
        while (await world.shift("s007")).state != "done":
            await world.look()
    assert set(world.shifts._failures) == {"s005"}


async def test_a_group_that_is_renamed_and_a_service_that_is_gone_end_their_shifts(
    world: World, server: Postgres, database: str
) -> None:
    """Deployed in place as another revision, nothing is left of the group; a service that is gone loses its share."""
    for service in ("renamed", "gone"):
        await world.begin(service)
        world.figures[service] = NOBODY
    again = Registration("i-2", 2, ttl=600.0, revision="c")
    await world.registrations.register(ANN, ("renamed", "10.0.0.2", 80), again)
    removed = (
        "WITH service AS (UPDATE services SET version = version + 1, change = change + 1 WHERE name = 'gone'"
        " RETURNING change, pg_notify('headcount_changes', name || ' ' || change))"
        " UPDATE endpoints SET removed_at = now(), change = service.change FROM service WHERE service = 'gone'"
    )
    await asyncio.to_thread(server.execute, removed, url=database)
    async with asyncio.timeout(30):
        while world.cache.get("gone").endpoints:
            await asyncio.sleep(0.02)
    for _ in range(int(GONE_AFTER / MAX_LOOK_GAP) + 2):
        await world.look()
    renamed, gone = await world.shift("renamed"), await world.shift("gone")
    assert (renamed.state, gone.state) == ("aborted", "aborted")
    assert renamed.reason == "aborted at 10 %: revision=b has had no endpoint for 10m"
    assert gone.reason.startswith("aborted at 10 %: gone has had no endpoint for 10m")
    await _until_served(world, {"renamed": 0.0})
    async with asyncio.timeout(30):
        while world.cache.get("gone").shares is not None:
            await asyncio.sleep(0.02)
