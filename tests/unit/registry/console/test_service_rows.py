"""The rows of services in the console's lists are what they would be if nothing were kept."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from unit.registry.http.lists.world import ANYBODY, START, STEPS, World
from unit.registry.making import endpoint

from registry.auth.grants import Grant
from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.subject import Subject
from registry.auth.verbs import Verb
from registry.console.service_rows import ServiceRows, service_row_of
from registry.core.presence import MAX_LOST_AGE
from registry.errors import UnauthenticatedError


def check(world: World, rows: ServiceRows) -> None:
    """Compare the rows with new ones."""
    cache = world.cache
    snapshots = [cache.get(name) for name in sorted(cache.services())]
    expected = [service_row_of(each, each.presence(world.clock.time, cache.desired_counts)) for each in snapshots]
    assert asyncio.run(rows.all(ANYBODY)) == expected


@settings(deadline=None)
@given(st.data())
def test_rows_follow_every_change(data: st.DataObject) -> None:
    """Whatever was kept of the state before."""
    world = World()
    rows = ServiceRows(world.catalog)
    for step in data.draw(st.lists(STEPS, min_size=1, max_size=8)):
        step(world, data.draw)
        check(world, rows)


async def test_a_row_is_made_once_until_a_loss_is_too_old() -> None:
    """The same object for as long as the service is the same."""
    world = World()
    rows = ServiceRows(world.catalog)
    world.change("cart", endpoint(2, "cart"))
    lost = endpoint(1, lost_at=START, removed_at=START)
    world.change("shop", endpoint(1), endpoint(3))
    world.change("shop", lost=(lost,), removed=[((lost.address, lost.port), lost.id)])
    cart, shop = await rows.all(ANYBODY)
    assert shop.warnings == ["1 lost"]
    again = await rows.all(ANYBODY)
    assert again[0] is cart
    assert again[1] is shop
    world.clock.time = START + MAX_LOST_AGE
    later = await rows.all(ANYBODY)
    assert later[0] is cart
    assert later[1].warnings == []


async def test_rows_are_of_what_a_principal_may_read() -> None:
    """Also those that were made for another one."""
    world = World(Policy("on"))
    rows = ServiceRows(world.catalog)
    for name in ("cart", "shop"):
        world.change(name, endpoint(1, name))
    for services, expected in ((("*",), ["cart", "shop"]), (("shop",), ["shop"])):
        principal = Principal("10.0.0.9", subject=Subject("token:x", "operator", [Grant((Verb.READ,), services)]))
        assert [row.name for row in await rows.all(principal)] == expected
    with pytest.raises(UnauthenticatedError):
        await rows.all(ANYBODY)
