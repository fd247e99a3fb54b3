"""Addresses of the processes behind a URL: a name may stand for several, and each is examined by itself."""

import ipaddress
import socket
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from msgspec import Struct

Resolve = Callable[[str], Iterable[str]]
"""Returns the addresses of a name."""


class ProcessAddress(Struct, frozen=True):
    """URL of one process, and the host name to ask it for; empty: that of the URL."""

    url: str
    name: str = ""


def resolve(host: str) -> list[str]:
    """Return the addresses of a name; none when it cannot be resolved."""
    try:
        return [str(info[4][0]) for info in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except OSError:
        return []


def addresses_of(url: str, resolver: Resolve = resolve) -> list[ProcessAddress]:
    """Return every address behind a URL; the URL itself where there is but one, or none is known.

    A host with an IPv4 and an IPv6 address is one host, so one family is examined, IPv4 where there is any.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_literal(host):
        return [ProcessAddress(url)]
    addresses = [ipaddress.ip_address(text.partition("%")[0]) for text in dict.fromkeys(resolver(host))]
    family = [address for address in addresses if address.version == 4] or addresses
    if len(family) < 2 or all(address.is_loopback for address in family):
        return [ProcessAddress(url)]
    name = host if parts.port is None else f"{host}:{parts.port}"
    return [ProcessAddress(url.replace(parts.netloc, _netloc(address, parts.port), 1), name) for address in family]


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _netloc(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int | None) -> str:
    host = f"[{address}]" if address.version == 6 else str(address)
    return host if port is None else f"{host}:{port}"
