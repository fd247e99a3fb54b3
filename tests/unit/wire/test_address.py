"""Addresses that traffic can be sent to, in one spelling."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.address import format_endpoint, is_exposed, parse_endpoint, parse_ip, parse_port


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("10.0.0.5:8080", "10.0.0.5", 8080),
        ("[2001:db8::5]:8080", "2001:db8::5", 8080),
        ("[2001:0DB8:0:0:0:0:0:5]:65535", "2001:db8::5", 65535),
        ("[::ffff:10.0.0.5]:1", "10.0.0.5", 1),
        ("[::1]:80", "::1", 80),
        ("[10.0.0.5]:80", "10.0.0.5", 80),
        ("10.0.0.5:00080", "10.0.0.5", 80),
    ],
)
def test_one_endpoint_has_one_spelling(text: str, address: str, port: int) -> None:
    """IPv6 is compressed, an IPv4 address in IPv6 clothes is IPv4, and ports are decimal."""
    assert parse_endpoint(text) == (address, port)


@pytest.mark.parametrize(
    "text",
    [
        "10.0.0.5",
        ":80",
        "10.0.0.5:",
        "2001:db8::5:8080",
        "[2001:db8::5]",
        "[2001:db8::5:80",
        "2001:db8::5]:80",
        "[[::1]]:80",
        "localhost:80",
        "shop.example.com:80",
        "10.0.0.05:80",
        "10.1:80",
        "167772165:80",
        "10.0.0.5:80\n",
        " 10.0.0.5:80",
        "http://10.0.0.5:80",
        "",
    ],
)
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    """Host names above all: for one of them Envoy rejects a whole answer."""
    with pytest.raises(ValueError, match=r"."):
        parse_endpoint(text)


@pytest.mark.parametrize("text", ["0", "65536", "99999", "100000", "-1", "+80", "8o", "", " 80", "80\n", "٨٠", "²"])
def test_ports_go_from_1_to_65535(text: str) -> None:
    """Envoy rejects port 0 and ports above 65535, and digits are ASCII."""
    with pytest.raises(ValueError, match="is not a port from 1 to 65535"):
        parse_port(text)


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0",
        "::",
        "::ffff:0.0.0.0",
        "224.0.0.1",
        "239.255.255.255",
        "ff02::1",
        "::ffff:224.0.0.1",
        "::10.0.0.5",
        "::2",
    ],
)
def test_addresses_that_nothing_can_be_sent_to_are_refused(text: str) -> None:
    """Unspecified, multicast and IPv4-compatible addresses are no endpoints, however they are written."""
    with pytest.raises(ValueError, match="is not an address that traffic can be sent to"):
        parse_ip(text)


def test_a_scope_id_is_refused() -> None:
    """It names an interface of the machine that wrote it."""
    with pytest.raises(ValueError, match="scope id"):
        parse_ip("fe80::1%eth0")


@given(st.ip_addresses(), st.integers(1, 65535))
def test_formatting_and_parsing_are_inverse(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> None:
    """An address that is accepted keeps its canonical text through any number of rounds."""
    try:
        canonical = parse_ip(str(address))
    except ValueError:
        return
    assert parse_ip(canonical) == canonical
    assert parse_ip(address.exploded) == canonical
    assert parse_endpoint(format_endpoint(canonical, port)) == (canonical, port)


@given(st.text(max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing but a ValueError comes out of a bad text."""
    try:
        address, port = parse_endpoint(text)
    except ValueError:
        return
    assert parse_endpoint(format_endpoint(address, port)) == (address, port)


@pytest.mark.parametrize(
    ("url", "exposed"),
    [
        ("http://registry.internal:8080", True),
        ("http://10.0.0.5:8080/base", True),
        ("http://[2001:db8::5]:8080", True),
        ("http://127.0.0.1.example.org", True),
        ("https://registry.internal:8443", False),
        ("http://localhost:8080", False),
        ("http://LOCALHOST:8080", False),
        ("http://127.0.0.9:8080", False),
        ("http://[::1]:8080", False),
    ],
)
def test_plain_http_to_another_machine_is_exposed(url: str, exposed: bool) -> None:
    """Whatever the name looks like; only loopback is known to stay here."""
    assert is_exposed(url) is exposed
