"""The text form of an endpoint: ``10.0.0.5:8080`` or ``[2001:db8::5]:8080``."""

import ipaddress
import re

# As nearly all are: an IPv4 unicast address in its canonical text, which says so in a tenth of the time.
_PLAIN = re.compile(r"(?:[1-9]\d?|1\d\d|2[01]\d|22[0-3])(?:\.(?:\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-5])){3}", re.ASCII)
# ``::10.0.0.5`` and the like, which nothing routes and PostgreSQL writes in another way than Python.
_IPV4_COMPATIBLE = ipaddress.IPv6Network("::/96")


def parse_ip(text: str) -> str:
    """Return the canonical text of an IP literal that traffic can be sent to.

    Envoy rejects a whole answer for one host name in it, so nothing but literals may pass; a scope id
    (``fe80::1%eth0``) means nothing on another machine.

    Raises:
        ValueError: no IP literal, or an unspecified, multicast or scoped one.
    """
    if _PLAIN.fullmatch(text):
        return text
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            raise ValueError(f"{text!r} has a scope id, which means nothing on another machine")
        address = address.ipv4_mapped or address
    if address.is_unspecified or address.is_multicast or _is_ipv4_compatible(address):
        raise ValueError(f"{text!r} is not an address that traffic can be sent to")
    return str(address)


def _is_ipv4_compatible(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address in _IPV4_COMPATIBLE and not address.is_loopback


def parse_port(text: str) -> int:
    """Return a port from 1 to 65535.

    Raises:
        ValueError: anything else; Envoy rejects port 0 and ports above 65535.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise ValueError(f"{text!r} is no port from 1 to 65535")
    return int(text)


def parse_endpoint(text: str) -> tuple[str, int]:
    """Read ``ip:port`` as its canonical address and its port; IPv6 is written in brackets.

    Raises:
        ValueError: not of that form, or one half is invalid.
    """
    host, port = split_endpoint(text)
    return parse_ip(host), parse_port(port)


def split_endpoint(text: str) -> tuple[str, str]:
    """Split ``ip:port`` without judging the two halves; brackets of IPv6 are taken off.

    Raises:
        ValueError: not of that form.
    """
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(f"{text!r} has no port; write ip:port, like 10.0.0.5:8080 or [2001:db8::5]:8080")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"{text!r} is ambiguous; write IPv6 in brackets, like [2001:db8::5]:8080")
    return host, port


def format_endpoint(address: str, port: int) -> str:
    """Return what ``parse_endpoint`` reads back."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
