"""Quotas of instances and identities, and what each peer may hold."""

import asyncio
import ipaddress
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from itertools import count as numbered

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.registry.making import endpoint, registration

from registry.auth.credential import Limits
from registry.auth.principal import Principal
from registry.auth.subject import Subject
from registry.core.endpoint import Endpoint
from registry.core.peer_limit import MAX_KEYS, PeerSlots, ReachedLimits
from registry.core.quotas import Quotas, QuotaSettings
from registry.errors import LimitError, NotOwnerError
from registry.http.peer_connections import PeerConnections

TOKEN = Principal("10.0.0.9", subject=Subject("token:ci", owner="token:ci", credential="abc"))
TASK = Principal("10.0.0.9", subject=Subject("aws:shop/t1", owner="identity:shop", session_name="t1"))
ANYBODY = Principal("10.0.0.9")

ports = numbered(1_000)
"""Ports of new endpoints."""


def quotas(
    *held: Endpoint, endpoints: int = 3, changes: float = 10.0, services: int = 2, limits: Limits | None = None
) -> Quotas:
    """Return quotas that have counted some endpoints."""
    made = Quotas(QuotaSettings(endpoints, changes, services), lambda _owner: limits or Limits())
    count(made, held)
    return made


def count(made: Quotas, held: Sequence[Endpoint]) -> None:
    """Let quotas count endpoints."""

    async def listed() -> AsyncIterator[Endpoint]:
        for each in held:
            yield each

    asyncio.run(made.count(listed()))


def held_by(number: int, instance: str, owner: str, service: str = "shop") -> Endpoint:
    """Return an endpoint of an instance."""
    return endpoint(number, service, registration(instance), owner=owner)


def refused(made: Quotas, principal: Principal, service: str, instance: str, now: float = 0.0) -> str:
    """Return the limit that refuses a new endpoint; empty if it is let in, and stored."""
    try:
        with made.reserve(principal, (service, "10.1.0.1", next(ports)), instance, None, now):
            pass
    except LimitError as error:
        return error.limit
    return ""


def change(made: Quotas, current: Endpoint, now: float = 0.0) -> None:
    """Let the token change an endpoint."""
    with made.reserve(TOKEN, current.key, "i-1", current, now):
        pass


def test_an_instance_has_so_many_endpoints_and_those_it_has_go_on() -> None:
    """The fourth is refused, while the three change as before; another instance of the owner has its own three."""
    held = [held_by(number, "i-1", "token:ci") for number in range(3)]
    made = quotas(*held)
    assert refused(made, TOKEN, "shop", "i-1") == "instance_endpoints"
    for each in held:
        change(made, each)
    assert [refused(made, TOKEN, "shop", "i-2", now) for now in (1.0, 2.0, 3.0, 4.0)] == [
        "",
        "",
        "",
        "instance_endpoints",
    ]


def test_a_session_is_one_instance_whatever_it_calls_itself() -> None:
    """A task that makes up instances with its session as a component has the endpoints of one instance."""
    made = quotas(held_by(1, "a/t1", "identity:shop"))
    assert refused(made, TASK, "shop", "b/t1") == ""
    assert refused(made, TASK, "shop", "t1:c") == ""
    assert refused(made, TASK, "shop", "d/t1") == "instance_endpoints"


def test_an_identity_has_so_many_services() -> None:
    """Names that it has are free; the limits of the identity replace those of the settings."""
    held = [held_by(1, "i-1", "token:ci", "shop"), held_by(2, "i-2", "token:ci", "web")]
    made = quotas(*held)
    assert refused(made, TOKEN, "web", "i-3") == ""
    assert refused(made, TOKEN, "third", "i-3") == "identity_services"
    raised = quotas(*held, limits=Limits(services=3, endpoints=1))
    assert refused(raised, TOKEN, "third", "i-3") == ""
    assert refused(raised, TOKEN, "fourth", "i-4") == "identity_services"
    assert refused(raised, TOKEN, "shop", "i-1") == "instance_endpoints"


def test_changes_are_limited_by_their_rate() -> None:
    """After a burst of as many as there may be endpoints, ten a second; an adoption is no change."""
    own = held_by(1, "i-1", "token:ci")
    made = quotas(own)
    for _ in range(3):
        change(made, own)
    with pytest.raises(LimitError, match="10 times a second") as limited:
        change(made, own)
    assert (limited.value.limit, limited.value.retry_after) == ("instance_changes", 1.0)
    for _ in range(20):
        change(made, held_by(1, "i-1", ""))
    change(made, own, 0.1)


def test_nothing_is_limited_without_an_owner_or_before_the_first_count() -> None:
    """A sender of whom nothing is proven has no quota of its own, and a process that has just started knows none."""
    made = Quotas(QuotaSettings(0, 1000.0, 0), lambda _owner: Limits(endpoints=0, services=0))
    assert refused(made, TOKEN, "shop", "i-1") == ""
    count(made, [])
    assert refused(made, TOKEN, "shop", "i-2") == "instance_endpoints"
    assert refused(made, ANYBODY, "shop", "i-3") == ""


def test_what_was_registered_is_counted_before_the_next_count() -> None:
    """Endpoints that were let in since the last count are held against the quota, and counted once after it."""
    made = quotas()
    assert [refused(made, TOKEN, "shop", "i-1") for _ in range(4)] == ["", "", "", "instance_endpoints"]
    count(made, [held_by(number, "i-1", "token:ci") for number in range(2)])
    assert [refused(made, TOKEN, "shop", "i-1", 9.0) for _ in range(2)] == ["", "instance_endpoints"]


def test_a_count_that_fails_forgets_nothing() -> None:
    """What was registered since the last good count goes on being held against the quota."""
    made = quotas()
    assert [refused(made, TOKEN, "shop", "i-1") for _ in range(3)] == [""] * 3

    async def broken() -> AsyncIterator[Endpoint]:
        yield held_by(1, "i-1", "token:ci")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        asyncio.run(made.count(broken()))
    assert refused(made, TOKEN, "shop", "i-1", 9.0) == "instance_endpoints"


def test_what_was_refused_is_not_counted() -> None:
    """By its owner, its incarnation or PostgreSQL, after the quotas have let it in."""
    made = quotas(services=1)
    for service in ("shop", "web", "other"):
        with (
            pytest.raises(NotOwnerError),
            made.reserve(TOKEN, (service, "10.1.0.1", 80), "i-1", None, 0.0),
        ):
            raise NotOwnerError
    assert [refused(made, TOKEN, "shop", "i-1", 9.0) for _ in range(4)] == ["", "", "", "instance_endpoints"]
    assert refused(made, TOKEN, "web", "i-2", 9.0) == "identity_services"


def test_a_registration_amid_a_count_is_counted_once() -> None:
    """Whether the count has found it or not, and whether it is stored before the end of the count or after it."""
    made = quotas(endpoints=2)
    early, late = held_by(1, "i-1", "token:ci"), held_by(2, "i-1", "token:ci")
    pending = made.reserve(TOKEN, early.key, "i-1", None, 0.0)
    pending.__enter__()

    async def listed() -> AsyncIterator[Endpoint]:
        with made.reserve(TOKEN, late.key, "i-1", None, 0.0):
            pass
        yield early
        yield late

    asyncio.run(made.count(listed()))
    assert refused(made, TOKEN, "shop", "i-1", 9.0) == "instance_endpoints"
    pending.__exit__(None, None, None)
    count(made, [early])
    assert [refused(made, TOKEN, "shop", "i-1", 9.0) for _ in range(2)] == ["", "instance_endpoints"]
    count(made, [])
    assert (made._reserved, made._recent._endpoints, made._recent._services) == ({}, {}, {}), "nothing is kept"


@given(st.lists(st.tuples(st.sampled_from(["10.0.0.1", "10.0.0.2", "2001:db8::1", "2001:db8::2"]), st.booleans())))
def test_no_peer_holds_more_than_it_may_and_everything_comes_back(steps: list[tuple[str, bool]]) -> None:
    """Addresses of one IPv6 site are one peer; after all is given back there is as much room as at first."""
    slots, held = PeerSlots(), Counter[str]()
    for address, takes in steps:
        if takes and slots.has_room(address, 1, 2):
            slots.take(address, 1)
            held[address] += 1
        elif not takes and held[address]:
            slots.give(address, 1)
            held[address] -= 1
        assert max(held["10.0.0.1"], held["10.0.0.2"], held["2001:db8::1"] + held["2001:db8::2"]) <= 2
    for address, number in held.items():
        slots.give(address, number)
    assert all(slots.has_room(address, 2, 2) for address in held)


def test_connections_beyond_the_limit_are_refused_or_noted() -> None:
    """Where access is closed they are refused; in audit an operator learns who would be, and nobody is."""
    for enforced, limit in ((True, "connections"), (False, "connections_noted")):
        reached = ReachedLimits()
        limited = PeerConnections(PeerSlots([ipaddress.ip_network("10.1.0.0/16")]), 2, reached, enforced=enforced)
        ends = [limited.take("10.0.0.9") for _ in range(3)]
        assert [end is None for end in ends] == [False, False, enforced]
        assert {name: each.count for name, each in reached.reached.items()} == {limit: 1}
        assert all(limited.take(address) for address in ("127.0.0.1", "::1", "10.1.2.3") * 5), "exempt"
        assert limited.take("::ffff:10.0.0.9") is None or not enforced, "the same peer"
        for end in ends:
            if end is not None:
                end()
                end()
        assert limited.take("10.0.0.9"), "an end counts once"


def test_loopback_and_proxies_have_no_limit_and_memory_is_bounded() -> None:
    """An address behind a proxy stands for many clients; made-up addresses are forgotten."""
    slots = PeerSlots([ipaddress.ip_network("10.1.0.0/16")])
    for address in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "10.1.2.3", "local"):
        slots.take(address, 1_000)
        assert slots.has_room(address, 1, 1)
    for number in range(MAX_KEYS + 10):
        assert slots.has_room(f"10.2.{number // 250}.{number % 250}", 1, 1)
    assert len(slots._peers) <= MAX_KEYS
