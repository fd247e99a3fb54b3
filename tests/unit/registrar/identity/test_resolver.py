"""The instance of the process, and the address of its endpoints."""

from pathlib import Path

import pytest

from registrar.errors import AddressError
from registrar.identity.configured import Configured
from registrar.identity.interfaces import interface_addresses
from registrar.identity.refusal import accept, advertisable
from registrar.identity.resolver import resolve_identity, resolve_location
from registrar.identity.source import Answer, Facts, Location
from registrar.identity.spec import EndpointSpec
from registrar.identity.vm import Vm


class Elsewhere:
    """A source like those to come: it maps ports and knows its zone."""

    name = "elsewhere"
    costly = False

    async def locate(self, spec: EndpointSpec, container: str) -> Answer:
        """Return a mapped port."""
        return Answer("a friend", "said so", Location("10.1.2.3", 32_768))

    async def facts(self) -> Facts:
        """Return everything but the region."""
        return Facts(instance_id="task-1", zone="a")


CONFIGURED = Configured(Facts(region="eu-central-1"))


async def test_a_literal_address_is_taken_as_it_is() -> None:
    """An operator who names an address vouches for it, even for loopback and Docker's bridge."""
    for text in ("127.0.0.1:8080", "172.17.0.2:80", "169.254.3.4:80", "[fe80::1]:80"):
        location = await resolve_location(EndpointSpec.parse(text), [CONFIGURED, Vm()])
        assert location.literal
        assert str(EndpointSpec.parse(text)) == text


async def test_the_first_source_that_knows_wins() -> None:
    """`:port` is answered by the sources in order, and a source may map the port."""
    location = await resolve_location(EndpointSpec.parse(":8080"), [CONFIGURED, Elsewhere(), Vm()])
    assert (location.address, location.port) == ("10.1.2.3", 32_768)


async def test_no_source_is_an_error_that_names_those_asked() -> None:
    """Without any hit the message says who was asked and what to write."""
    with pytest.raises(AddressError, match=r"asked: configuration.*10\.0\.0\.5:8080"):
        await resolve_location(EndpointSpec.parse(":8080"), [CONFIGURED])


@pytest.mark.parametrize("text", ["iface:lo:8080", "cidr:127.0.0.0/8:8080"])
async def test_a_rule_that_finds_loopback_is_refused(text: str) -> None:
    """Only a literal address may be local: a rule that finds one is a mistake."""
    with pytest.raises(AddressError, match="loopback"):
        await resolve_location(EndpointSpec.parse(text), [CONFIGURED])


async def test_an_interface_that_is_not_there_is_an_error() -> None:
    """A named interface is never replaced by another source; the message lists those that exist."""
    with pytest.raises(AddressError, match=r"'nope0' has no address; name one that has: .*lo"):
        await resolve_location(EndpointSpec.parse("iface:nope0:1"), [CONFIGURED, Elsewhere()])


async def test_a_network_without_an_address_here_is_an_error() -> None:
    """A cidr rule that matches nothing lists the addresses that there are."""
    with pytest.raises(AddressError, match=r"within 203\.0\.113\.0/24; it has .*127\.0\.0\.1"):
        await resolve_location(EndpointSpec.parse("cidr:203.0.113.0/24:1"), [CONFIGURED])


async def test_interfaces_and_networks_find_what_the_machine_has() -> None:
    """Each address of this machine is found by its interface and by its network."""
    for name, address in interface_addresses():
        if not advertisable(address) or ":" in address:
            continue
        assert (await CONFIGURED.locate(EndpointSpec.parse(f"iface:{name}:80"), "")).location is not None
        answer = await CONFIGURED.locate(EndpointSpec.parse(f"cidr:{address}/32:80"), "")
        assert answer.location == Location(address, 80)
    assert ("lo", "127.0.0.1") in interface_addresses()


@pytest.mark.parametrize("address", ["", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "app.internal"])
@pytest.mark.parametrize("literal", [True, False])
def test_some_addresses_are_always_refused(address: str, literal: bool) -> None:
    """Empty, unspecified and multicast addresses and host names lead nowhere, whoever names them."""
    with pytest.raises(AddressError, match="address refused"):
        accept(Location(address, 80, literal))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "169.254.1.1", "fe80::1", "172.17.3.4", "::ffff:127.0.0.1"])
def test_local_addresses_are_refused_unless_literal(address: str) -> None:
    """Loopback, link-local and Docker's default bridge mean something else on each machine."""
    assert not advertisable(address)
    assert accept(Location(address, 80, literal=True)).port == 80


@pytest.mark.parametrize("text", ["8080", ":", ":0", ":70000", "app:80", "iface::80", "cidr:10.0.0.0/99:80", "::1:80"])
def test_endpoints_that_cannot_be_read(text: str) -> None:
    """Every other form is refused when the settings are read."""
    with pytest.raises(ValueError, match=r"\w"):
        EndpointSpec.parse(text)


async def test_facts_come_from_the_first_source_that_knows_each() -> None:
    """A configured region and a detected instance id and zone make one identity."""
    identity = await resolve_identity([CONFIGURED, Elsewhere(), Vm()])
    assert (identity.instance_id, identity.region, identity.zone) == ("task-1", "eu-central-1", "a")


async def test_the_instance_id_of_a_machine_is_stable_and_hides_the_machine_id(tmp_path: Path) -> None:
    """It is made from /etc/machine-id, the same each time, and does not contain it."""
    machine_id = tmp_path / "machine-id"
    machine_id.write_text("0123456789abcdef0123456789abcdef\n")
    first, second = [await Vm(machine_id).facts() for _ in range(2)]
    assert first == second
    assert first.instance_id.startswith("vm-")
    assert "0123456789abcdef" not in first.instance_id


@pytest.mark.parametrize("content", [None, "", "uninitialized\n"])
async def test_a_machine_without_an_id_is_called_by_its_host_name(tmp_path: Path, content: str | None) -> None:
    """An image's empty or missing file must not make all of its containers one instance."""
    machine_id = tmp_path / "machine-id"
    if content is not None:
        machine_id.write_text(content)
    assert not (await Vm(machine_id).facts()).instance_id.startswith("vm-")


async def test_each_start_has_a_larger_incarnation() -> None:
    """Two starts a few milliseconds apart differ, as far as the clock is right."""
    first = await resolve_identity([Vm()])
    assert first.incarnation > 1_600_000_000_000
    assert (await resolve_identity([Vm()])).incarnation >= first.incarnation
