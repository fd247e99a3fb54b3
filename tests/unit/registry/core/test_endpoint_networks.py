"""Where endpoints may be."""

import ipaddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from registry.core.endpoint_networks import EndpointNetworks, Network
from registry.setting_types import listens_on_loopback
from wire.address import parse_ip

ORDINARY = EndpointNetworks((), loopback=False)
ON_LOOPBACK = EndpointNetworks((), loopback=True)
LINK = ["169.254.169.254", "169.254.170.2", "fe80::1", "fd00:ec2::254", "fd00:ec2::23"]
NOWHERE = [
    "240.0.0.1",
    "255.255.255.255",
    "0.1.2.3",
    "fec0::1",
    "4000::1",
    "100::1",
    "::ffff:0:a00:5",
    "64:ff9b:1::a00:5",
]
CARRYING = ["2002:7f00:1::1", "2002:a9fe:a9fe::", "64:ff9b::7f00:1", "64:ff9b::a9fe:aa02", "2001:0:7f00:1::"]
UNICAST = ["10.0.0.5", "192.0.2.1", "100.64.0.1", "203.0.113.9", "1.1.1.1", "223.255.255.254", "2001:db8::5", "fd00::1"]


def networks(*named: str) -> EndpointNetworks:
    """Return what an operator allows."""
    return EndpointNetworks([ipaddress.ip_network(text) for text in named], loopback=False)


@pytest.mark.parametrize("address", [*LINK, *NOWHERE, *CARRYING])
def test_what_is_no_endpoint_on_another_machine_is_refused(address: str) -> None:
    """Metadata services, reserved addresses, and IPv6 that carries an IPv4 address of such a kind."""
    assert not ORDINARY.allows(parse_ip(address))
    assert not ON_LOOPBACK.allows(parse_ip(address)) or "7f00" in address


@pytest.mark.parametrize("address", [*UNICAST, "2002:a00:5::1", "64:ff9b::a00:5"])
def test_every_other_unicast_address_is_allowed(address: str) -> None:
    """Private, shared and public networks, and IPv4 behind a translator."""
    assert ORDINARY.allows(parse_ip(address))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
def test_loopback_is_allowed_where_everybody_is_on_it(address: str) -> None:
    """The registry listens on loopback alone; IPv4 in IPv6 is the same address."""
    assert ON_LOOPBACK.allows(parse_ip(address))
    assert not ORDINARY.allows(parse_ip(address))


def test_what_is_named_is_all_that_is_allowed() -> None:
    """Special networks have to be named themselves: a wide one does not allow them."""
    named = networks("10.0.0.0/8", "2001:db8::/32")
    assert [named.allows(address) for address in ("10.9.9.9", "2001:db8::1", "11.0.0.1", "127.0.0.1")] == [
        True,
        True,
        False,
        False,
    ]
    assert [
        networks("0.0.0.0/0", "::/0").allows(address) for address in ("10.0.0.5", "127.0.0.1", "::1", "fe80::1")
    ] == [
        True,
        False,
        False,
        False,
    ]
    beside = networks("0.0.0.0/0", "127.0.0.0/8", "169.254.0.0/16")
    assert [beside.allows(address) for address in ("10.0.0.5", "127.0.0.1", "169.254.1.1", "240.0.0.1")] == [
        True,
        True,
        True,
        False,
    ]
    assert networks("127.0.0.5/32").allows("127.0.0.5")
    assert not networks("127.0.0.5/32").allows("127.0.0.1")
    assert not networks("64:ff9b::/96").allows("64:ff9b::a00:5")
    assert networks("64:ff9b::/96", "10.0.0.0/8").allows("64:ff9b::a00:5")


def test_it_says_what_is_allowed() -> None:
    """In the words of an error."""
    assert str(ORDINARY) == "every unicast address that is not loopback, link-local or reserved"
    assert str(networks("10.0.0.0/8", "127.0.0.0/8")) == "10.0.0.0/8, 127.0.0.0/8"


ADDRESSES = (
    st.ip_addresses().map(str)
    | st.ip_addresses(v=6, network="::/64").map(str)
    | st.sampled_from([*LINK, *NOWHERE, *CARRYING, *UNICAST])
)
NETWORKS = st.lists(
    st.builds(
        lambda address, length: ipaddress.ip_network(f"{address}/{length}", strict=False),
        st.ip_addresses(v=4)
        | st.sampled_from([ipaddress.ip_address(address) for address in ("127.0.0.1", "169.254.1.1", "10.0.0.1")]),
        st.integers(0, 32),
    ),
    min_size=1,
    max_size=4,
)


@given(ADDRESSES)
@example("::ffff:169.254.169.254")
def test_nothing_is_allowed_that_python_knows_to_be_special(text: str) -> None:
    """Whatever is written is first brought into its canonical form."""
    try:
        address = ipaddress.ip_address(parse_ip(text))
    except ValueError:
        return
    if ORDINARY.allows(str(address)):
        special = (address.is_loopback, address.is_link_local, address.is_multicast, address.is_unspecified)
        assert not any(special)
        assert not address.is_reserved or address in ipaddress.ip_network("64:ff9b::/96")


@given(NETWORKS, st.ip_addresses(v=4))
def test_an_allowed_address_is_in_a_named_network(named: list[Network], address: ipaddress.IPv4Address) -> None:
    """And one that is in a named network and not special is allowed, however the networks overlap."""
    allowed = EndpointNetworks(named, loopback=True).allows(str(address))
    within = any(address in network for network in named)
    assert within or not allowed
    if within and ORDINARY.allows(str(address)):
        assert allowed


@pytest.mark.parametrize(
    ("listen", "loopback"),
    [("127.0.0.1:8080", True), ("[::1]:8080", True), ("localhost:1", True), ("0.0.0.0:8080", False), ("[::]:1", False)],
)
def test_a_listener_on_loopback_is_known(listen: str, loopback: bool) -> None:
    """By its address; a name other than localhost is taken for one that others can reach."""
    assert listens_on_loopback(listen) is loopback
    assert not listens_on_loopback("registry.internal:8080")
