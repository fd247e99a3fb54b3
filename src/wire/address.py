"""The text form of an endpoint, ``10.0.0.5:8080`` or ``[2001:db8::5]:8080``, and whether a URL is safe for secrets."""

import ipaddress
import re
from urllib.parse import urlsplit

# An IPv4 unicast address in its canonical text, as nearly all are; the match takes a tenth of the time of ipaddress.
_COMMON_IPV4 = re.compile(r"(?:[1-9]\d?|1\d\d|2[01]\d|22[0-3])(?:\.(?:\d|[1-9]\d|1\d\d|2[0-4]\d|25[0-5])){3}", re.ASCII)
# Addresses like ::10.0.0.5, which nothing routes, and whose canonical text in PostgreSQL is not that of Python.
_IPV4_COMPATIBLE = ipaddress.IPv6Network("::/96")


def parse_ip(text: str) -> str:
    """Return the canonical text of an IP literal that traffic can be sent to.

    Envoy rejects a whole discovery response for one host name in it, so that only literals are accepted; a scope id
    (``fe80::1%eth0``) means nothing on another machine.

    Raises:
        ValueError: it is not an IP literal, or an unspecified, multicast or scoped address.
    """
    if _COMMON_IPV4.fullmatch(text):
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


def is_exposed(url: str) -> bool:
    """Return whether what is sent to a URL can be read on the way: plain HTTP that leaves this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "http" or host == "localhost" or host.endswith(".localhost"):
        return False
    try:
        return not ipaddress.ip_address(host).is_loopback
    except ValueError:
        return True


def parse_port(text: str) -> int:
    """Return a port from 1 to 65535.

    Raises:
        ValueError: it is anything else; Envoy rejects port 0 and ports above 65535.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise ValueError(f"{text!r} is not a port from 1 to 65535")
    return int(text)


def parse_endpoint(text: str) -> tuple[str, int]:
    """Return the canonical address and the port of ``ip:port``; IPv6 is written in brackets.

    Raises:
        ValueError: it has another form, or the address or the port is invalid.
    """
    host, port = split_endpoint(text)
    return parse_ip(host), parse_port(port)


def split_endpoint(text: str) -> tuple[str, str]:
    """Return the two parts of ``ip:port`` unchecked, an IPv6 address without its brackets.

    Raises:
        ValueError: it has another form.
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
    """Return ``ip:port``, which ``parse_endpoint`` reads back."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
