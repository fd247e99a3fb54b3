"""The order in which addresses of registries are tried, and how their names are renewed."""

import asyncio
from collections import Counter

import pytest
from harness.examples import examples
from harness.names import Names
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from registrar.registry_client.http_client import Origin
from registrar.registry_client.registries import Registries, RegistryAddress, RegistryUrls


def addresses(registries: Registries) -> list[str]:
    """Return the addresses that would be connected to, in their order."""
    return [registry.address for registry in registries.all]


async def test_every_address_of_a_name_is_a_registry() -> None:
    """Three addresses behind two names are three registries; failures go through all of them."""
    registries = Registries(
        RegistryUrls("http://one:8080/base", "https://two"), Names(one=["10.0.0.1"], two=["::1", "10.0.0.3"])
    )
    await registries.refresh()
    everything = [Origin("10.0.0.1", 8080), Origin("10.0.0.3", 443, "two"), Origin("::1", 443, "two")]
    assert sorted(structs.astuple(registry.origin) for registry in registries.all) == [
        structs.astuple(origin) for origin in everything
    ]
    seen = []
    for _ in range(3):
        seen.append(registries.current)
        registries.advance()
    assert seen == registries.all


async def test_the_name_stays_in_the_request() -> None:
    """The Host header and the certificate's name are those of the URL; its path comes in front of the API's."""
    registry = RegistryAddress("https://registry.internal:8443/base (1)", "10.0.0.1")
    assert registry.origin == Origin("10.0.0.1", 8443, "registry.internal")
    assert registry.host == "registry.internal:8443"
    assert registry.target("/v1/heartbeats?x=1") == "/base%20(1)/v1/heartbeats?x=1"
    assert RegistryAddress("http://[::1]", "::1").origin == Origin("::1", 80)


async def test_the_last_good_addresses_stay() -> None:
    """A resolver that is away takes no registry away."""
    names = Names(one=["10.0.0.1"])
    registries = Registries(RegistryUrls("http://one"), names)
    await registries.refresh()
    names.known.clear()
    await registries.refresh()
    assert addresses(registries) == ["10.0.0.1"]


async def test_what_answered_stays_until_another_has_answered() -> None:
    """DNS that names a dead address takes no registry away; once the new address answers, the old one is left."""
    names = Names(one=["10.0.0.1"])
    registries = Registries(RegistryUrls("http://one"), names)
    await registries.refresh()
    registries.answered(registries.current)
    names.known["one"] = ["10.0.0.2"]
    await registries.refresh()
    assert addresses(registries) == ["10.0.0.2", "10.0.0.1"]
    assert registries.current.address == "10.0.0.2", "the registry may have moved: its new address is tried"
    registries.failed(registries.current)
    assert registries.current.address == "10.0.0.1"
    await registries.refresh()
    assert registries.current.address == "10.0.0.1", "the same answer of DNS is no reason to try again"
    registries.answered(RegistryAddress("http://one", "10.0.0.2"))
    assert addresses(registries) == ["10.0.0.2"]


@pytest.mark.parametrize("lie", [[], ["0.0.0.0"], ["::"], ["224.0.0.1", "ff02::1"]])
async def test_answers_without_a_usable_address_are_no_answers(lie: list[str]) -> None:
    """Resolvers that block a name answer so; the addresses of before stay."""
    names = Names(one=["10.0.0.1"])
    registries = Registries(RegistryUrls("http://one"), names)
    await registries.refresh()
    names.known["one"] = lie
    await registries.refresh()
    assert addresses(registries) == ["10.0.0.1"]


ADDRESSES = st.lists(st.sampled_from([f"10.0.0.{number}" for number in range(1, 9)]), max_size=6, unique=True)


@given(answers=st.lists(st.one_of(st.none(), ADDRESSES), max_size=30), restarts=st.sets(st.integers(0, 40)))
@examples(200)
def test_a_registry_that_works_is_asked_whatever_dns_says(answers: list[list[str] | None], restarts: set[int]) -> None:
    """With any answers of DNS before each attempt: at most one attempt in two goes elsewhere, also after a restart."""

    async def play() -> None:
        names = Names(one=["10.0.0.1"])
        registries = Registries(RegistryUrls("http://one"), names)
        await registries.refresh()
        registries.answered(registries.current)
        misses = 0
        for number, answer in enumerate([*answers, *([["10.0.0.8"]] * 4)]):
            names.known = {} if answer is None else {"one": answer}
            await registries.refresh()
            if number % 3 == 0 and misses == 0:
                registries.advance()
            target = registries.current
            if target.address == "10.0.0.1" and number not in restarts:
                registries.answered(target)
                misses = 0
            else:
                registries.failed(target)
                misses = 1 if target.address == "10.0.0.1" else misses + 1
            assert misses <= 2
            assert "10.0.0.1" in [address.address for address in registries.all]

    asyncio.run(play())


async def test_one_of_many_addresses_that_answers_is_gone_back_to() -> None:
    """Nine dead addresses cost one attempt at a time, and each one in its turn."""
    names = Names(one=[f"10.0.0.{number}" for number in range(1, 11)])
    registries = Registries(RegistryUrls("http://one"), names)
    await registries.refresh()
    good = registries.all[4]
    registries.answered(good)
    tried = set()
    for _ in range(10):
        registries.advance()
        tried.add(registries.current)
        if registries.current != good:
            registries.failed(registries.current)
        assert registries.current == good
    assert tried == set(registries.all)


async def test_a_current_address_stays_current_after_a_lookup() -> None:
    """Looking a name up again moves no connection by itself, and an address that is gone is left."""
    names = Names(one=["10.0.0.1", "10.0.0.2", "10.0.0.3"])
    registries = Registries(RegistryUrls("http://one"), names)
    await registries.refresh()
    registries.advance()
    current = registries.current
    names.known["one"] = ["10.0.0.4", *reversed(names.known["one"])]
    await registries.refresh()
    assert registries.current == current
    names.known["one"] = ["10.0.0.4"]
    await registries.refresh()
    assert addresses(registries) == ["10.0.0.4"]
    assert registries.current.address == "10.0.0.4"


async def test_a_fleet_spreads_over_the_addresses() -> None:
    """Processes start with different addresses of one name."""
    names = Names(one=["10.0.0.1", "10.0.0.2"])
    first: Counter[str] = Counter()
    for _ in range(60):
        registries = Registries(RegistryUrls("http://one"), names)
        await registries.refresh()
        first[registries.current.address] += 1
    assert min(first["10.0.0.1"], first["10.0.0.2"]) > 5


async def test_literal_addresses_are_not_looked_up() -> None:
    """An address needs no resolver."""
    names = Names()
    registries = Registries(RegistryUrls("http://10.0.0.1:8080", "http://[::1]"), names)
    await registries.refresh()
    assert (names.asked, addresses(registries)) == ([], ["10.0.0.1", "::1"])
