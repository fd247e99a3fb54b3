"""Attempts at the endpoints of a service under a shift."""

from collections import deque
from collections.abc import Iterable

import pytest

from registry.cooperative import at_once
from registry.core.endpoint_attempts import (
    MAX_CALLERS,
    MAX_WATCHED_ENDPOINTS,
    EndpointTable,
    ServiceImage,
    endpoint_counts_in_steps,
)
from registry.core.traffic import Attempts, EndpointCounts, Reporting
from wire.traffic_digest import Edge, EdgeCounts, EdgeEndpoint, EndpointAttempts

GOOD, BAD = "10.0.0.5:8080", "10.0.0.6:8080"


def images_of(table: EndpointTable, now: float) -> list[ServiceImage]:
    """Return all services of a table, at once."""
    return at_once(table.images_in_steps(now))


def counts_of(images: Iterable[tuple[float, Iterable[ServiceImage]]], service: str, within: float) -> EndpointCounts:
    """Return the attempts at a service's endpoints, at once."""
    return at_once(endpoint_counts_in_steps(images, service, within))


def listed(endpoint: str) -> bool:
    """Return whether the service has this endpoint."""
    return endpoint in (GOOD, BAD)


def edge(**attempts: tuple[int, int]) -> Edge:
    """Return an edge with attempts at these endpoints."""
    names = {"good": GOOD, "bad": BAD}
    endpoints = tuple(EdgeEndpoint(names[name], EndpointAttempts(*counts)) for name, counts in attempts.items())
    return Edge("shop", EdgeCounts(completed=10), (), endpoints)


def test_attempts_since_a_step_began_are_counted() -> None:
    """And none of before it."""
    table = EndpointTable()
    for second in range(0, 60, 2):
        table.take(edge(good=(9, 0), bad=(1, 1)), ("front", "i-1"), 1000.0 + second, listed)
    images = images_of(table, 1060.0)
    assert counts_of([(0.0, images)], "shop", 20).endpoints == {GOOD: Attempts(90, 0), BAD: Attempts(10, 10)}
    assert counts_of([(0.0, images)], "shop", 3_600).endpoints[GOOD] == Attempts(270, 0)
    assert counts_of([(0.0, images)], "users", 20).endpoints == {}


def test_callers_that_count_are_told_from_those_that_do_not() -> None:
    """A registrar of before sends no endpoints; a caller without traffic does not count."""
    table = EndpointTable()
    table.take(edge(good=(1, 0)), ("front", "i-1"), 1000.0, listed)
    table.take(edge(), ("front", "i-2"), 1000.0, listed)
    table.take(edge(good=(1, 0)), ("batch", "i-3"), 900.0, listed)
    assert counts_of([(0.0, images_of(table, 1001.0))], "shop", 60).reporting == Reporting(1, 2)


def test_processes_are_added_up_by_age() -> None:
    """Each has its own clock, and its image may be some seconds old."""
    tables = EndpointTable(), EndpointTable()
    tables[0].take(edge(good=(5, 1)), ("front", "i-1"), 1000.0, listed)
    tables[1].take(edge(good=(7, 2)), ("front", "i-2"), 500_000.0, listed)
    images = [(4.0, images_of(tables[0], 1001.0)), (0.0, images_of(tables[1], 500_001.0))]
    assert counts_of(images, "shop", 10).endpoints == {GOOD: Attempts(12, 3)}
    assert counts_of(images, "shop", 3).endpoints == {GOOD: Attempts(7, 2)}
    assert counts_of(images, "shop", 10).reporting == Reporting(2, 2)


@pytest.mark.parametrize("after", [100.0, 3_000.0, 3_700.0])
def test_old_slots_are_joined_and_then_forgotten(after: float) -> None:
    """No attempt is lost for an hour, and the table stays small."""
    table = EndpointTable()
    for second in range(0, 600, 2):
        table.take(edge(good=(1, 1)), ("front", "i-1"), 900.0 + second, listed)
    deque(table.forget_in_steps(1500.0 + after), maxlen=0)
    images = images_of(table, 1500.0 + after)
    total = counts_of([(0.0, images)], "shop", 10_000).endpoints.get(GOOD)
    assert total == (Attempts(300, 300) if after < 3_000 else total)
    slots = [len(each.slots) for image in images for each in image.endpoints]
    assert sum(slots) <= 21
    assert images == [] if after > 3_600 else images


@pytest.mark.parametrize("within", [0.0, 7.0, 45.0, 200.0, 3_600.0, 10_000.0])
def test_one_service_is_counted_without_those_beside_it(within: float) -> None:
    """As in the image of all, with no more slots than the time asked for has."""
    table = EndpointTable()
    for second in range(0, 900, 2):
        table.take(edge(good=(9, 0), bad=(1, 1)), ("front", "i-1"), 1000.0 + second, listed)
    table.take(
        Edge("users", EdgeCounts(completed=10), (), edge(good=(1, 0)).endpoints), ("front", "i-1"), 1900.0, listed
    )
    deque(table.forget_in_steps(1900.0), maxlen=0)
    images = at_once(table.image_of_in_steps("shop", 1900.0, within))
    assert [image.service for image in images] == ["shop"]
    expected = counts_of([(0.0, images_of(table, 1900.0))], "shop", within)
    assert counts_of([(0.0, images)], "shop", within) == expected
    assert max(slot.age for image in images for each in image.endpoints for slot in each.slots) <= within + 30.0
    assert at_once(table.image_of_in_steps("nobody", 1900.0, within)) == []


def test_invented_endpoints_take_no_place() -> None:
    """A forger cannot fill the places of a service, so that its own endpoints are not counted."""
    table = EndpointTable()
    invented = tuple(
        EdgeEndpoint(f"10.9.{number // 256}.{number % 256}:80", EndpointAttempts(1, 1))
        for number in range(MAX_WATCHED_ENDPOINTS)
    )
    table.take(Edge("shop", EdgeCounts(completed=10), (), invented), ("forged", "i-9"), 1000.0, listed)
    table.take(edge(good=(5, 1)), ("front", "i-1"), 1000.0, listed)
    # One that has left since goes on being counted.
    table.take(edge(good=(5, 0)), ("front", "i-1"), 1002.0, lambda endpoint: False)
    counts = counts_of([(0.0, images_of(table, 1003.0))], "shop", 60)
    assert counts.endpoints == {GOOD: Attempts(10, 1)}


def test_many_endpoints_and_callers_are_gone_through_in_steps() -> None:
    """Polls and heartbeats go on in between, and so do digests."""
    table = EndpointTable()
    endpoints = tuple(EdgeEndpoint(f"10.0.{n // 250}.{n % 250}:80", EndpointAttempts(5, 1)) for n in range(500))
    for number in range(500):
        sent = Edge("shop", EdgeCounts(completed=10), (), endpoints if number == 0 else ())
        table.take(sent, ("front", f"i-{number}"), 1000.0, lambda endpoint: True)
    imaging = table.images_in_steps(1001.0)
    for number, _ in enumerate(imaging):
        table.take(edge(good=(1, 0)), ("late", f"i-{number}"), 1001.0, lambda endpoint: True)
    assert number >= 525
    (image,) = images_of(table, 1001.0)
    assert (len(image.endpoints), len(image.callers)) == (501, 501 + number)
    assert sum(1 for _ in endpoint_counts_in_steps([(0.0, [image])], "shop", 60)) >= 525


def test_invented_callers_cost_nobody_but_their_sender() -> None:
    """Callers are bounded, and those of the principal with the most give way."""
    table = EndpointTable()
    table.take(edge(good=(1, 0)), ("front", "i-1"), 1000.0, listed, "front")
    for number in range(MAX_CALLERS + 100):
        table.take(edge(), (f"forged-{number}", "i"), 1001.0, listed, "forger")
    (image,) = images_of(table, 1002.0)
    assert len(image.callers) <= MAX_CALLERS
    assert ("front", "i-1") in {(caller, node) for caller, node, *_ in image.callers}
