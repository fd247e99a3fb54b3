"""What a process knows, and who waits for more."""

import asyncio
from functools import partial

from unit.registry.making import NOW, endpoint, leases

from registry.cache.snapshot_cache import SnapshotCache
from registry.core.snapshot import SnapshotDelta


def step(change: int, *numbers: int, service: str = "shop") -> SnapshotDelta:
    """Return a step that lists these endpoints."""
    return SnapshotDelta(service, change, change, listed=[endpoint(number, service) for number in numbers])


async def test_an_unknown_service_has_version_0() -> None:
    """It is answered, and not listed among those that are known."""
    cache = SnapshotCache()
    assert (cache.get("shop").version, cache.knows("shop"), cache.services()) == (0, False, {})
    cache.apply([step(1, 1)])
    assert (cache.knows("shop"), list(cache.services())) == (True, ["shop"])
    assert cache.known_changes(["shop", "cart"]) == {"shop": 1, "cart": 0}


async def test_an_endpoint_is_found_by_its_key() -> None:
    """Service, address and port, nothing less."""
    cache = SnapshotCache()
    cache.apply([step(1, 1)])
    assert cache.find(("shop", "10.0.0.2", 80)) == endpoint(1)
    assert cache.find(("shop", "10.0.0.2", 81)) is None
    assert cache.find(("cart", "10.0.0.2", 80)) is None


async def test_a_change_wakes_who_waits_for_its_service() -> None:
    """One of several names is enough; others sleep on."""
    cache = SnapshotCache()
    waits = asyncio.create_task(cache.wait(("cart", "shop"), 5))
    sleeps = asyncio.create_task(cache.wait(("pay",), 0.05))
    await asyncio.sleep(0)
    cache.apply([step(1, 1)])
    assert await waits is True
    assert await sleeps is False


async def test_a_step_that_is_not_newer_wakes_nobody() -> None:
    """Nothing changed, so there is nothing to answer."""
    cache = SnapshotCache()
    cache.apply([step(2, 1)])
    waits = asyncio.create_task(cache.wait(("shop",), 0.02))
    await asyncio.sleep(0)
    cache.apply([step(1, 1), step(2, 1)])
    assert await waits is False


async def test_many_waiters_of_one_service_wake_together() -> None:
    """And one that gives up takes nobody with it."""
    cache = SnapshotCache()
    waits = [asyncio.create_task(cache.wait(("shop",), 5)) for _ in range(20)]
    await asyncio.sleep(0)
    waits[0].cancel()
    await asyncio.sleep(0)
    cache.apply([step(1, 1)])
    assert all(await asyncio.gather(*waits[1:]))


async def test_a_change_is_reached_when_it_is_known() -> None:
    """At once if it is already, after several steps if need be, and never beyond the time."""
    cache = SnapshotCache()
    assert not await cache.wait_for_change("shop", 1, 0.01)
    waits = asyncio.create_task(cache.wait_for_change("shop", 3, 5))
    for change in (1, 2, 3):
        await asyncio.sleep(0)
        assert not waits.done()
        cache.apply([step(change, 1)])
    assert await waits
    assert await cache.wait_for_change("shop", 2, 0)


async def test_a_release_wakes_everybody_for_good() -> None:
    """Stopping does not wait for held polls, and no new ones are held."""
    cache = SnapshotCache()
    waits = [asyncio.create_task(cache.wait((name,), 5)) for name in ("shop", "cart")]
    reaches = asyncio.create_task(cache.wait_for_change("shop", 9, 5))
    await asyncio.sleep(0)
    cache.release()
    assert await asyncio.gather(*waits) == [True, True]
    assert await reaches is False
    assert await cache.wait(("shop",), 5) is False


async def test_a_dropped_service_is_as_one_that_never_was() -> None:
    """It counts no more, what is kept on disk is told to change, and who waits for it looks again."""
    cache = SnapshotCache()
    cache.apply([step(1, 1), step(1, 2, service="cart")])
    advances = cache.advances
    waits = asyncio.create_task(cache.wait(("shop",), 5))
    await asyncio.sleep(0)
    cache.drop("shop")
    cache.drop("never")
    assert await waits is True
    assert (cache.knows("shop"), list(cache.services()), cache.service_count()) == (False, ["cart"], 1)
    assert (cache.endpoint_count(), cache.advances) == (1, advances + 1)


async def test_the_greatest_claim_is_kept_until_it_is_taken() -> None:
    """What subscribers hold and this process has not heard of is looked into once."""
    cache = SnapshotCache()
    for service, version in (("shop", 5), ("shop", 9), ("shop", 7), ("cart", 1)):
        cache.claim_ahead(service, version)
    assert cache.take_claims() == {"shop": 9, "cart": 1}
    assert cache.take_claims() == {}


async def test_claims_are_bounded() -> None:
    """Anybody may claim any version of any name; memory does not follow, and the known ones still grow."""
    cache = SnapshotCache()
    for number in range(5000):
        cache.claim_ahead(f"s-{number}", 1)
    cache.claim_ahead("s-0", 7)
    claims = cache.take_claims()
    assert len(claims) == 1000
    assert claims["s-0"] == 7
    cache.claim_ahead("s-4999", 1)
    assert cache.take_claims() == {"s-4999": 1}


async def test_another_database_starts_from_nothing() -> None:
    """Its numbers mean something else, also where they are smaller; until it is read, nothing can be answered."""
    cache = SnapshotCache()
    cache.apply([step(9, 1)])
    cache.read_leases(leases((1, NOW, NOW + 20)), NOW)
    cache.set_database("one")
    cache.mark_ready(0.0)
    waits = asyncio.create_task(cache.wait(("shop",), 5))
    await asyncio.sleep(0)
    assert cache.set_database("two")
    assert (cache.services(), len(cache.leases), cache.ready) == ({}, 0, False)
    assert await waits is True
    cache.apply([step(1, 2)])
    assert cache.get("shop").version == 1


async def test_a_process_that_becomes_ready_wakes_everybody() -> None:
    """What was read before could not be answered yet; a further complete reading has nothing to add."""
    cache = SnapshotCache()
    for become_ready in (partial(cache.mark_ready, 0.0), partial(cache.restore, "one", {})):
        cache.set_database("one")
        waits = [asyncio.create_task(cache.wait((service,), 5)) for service in ("shop", "cart")]
        await asyncio.sleep(0)
        become_ready()
        assert await asyncio.gather(*waits) == [True, True]
        waits = [asyncio.create_task(cache.wait(("shop",), 0.02))]
        await asyncio.sleep(0)
        cache.mark_ready(1.0)
        assert await waits[0] is False
        cache.set_database("two")
