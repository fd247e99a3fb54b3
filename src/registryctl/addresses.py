"""The processes behind a URL: a name may stand for several, and each is to be looked at by itself."""

import ipaddress
import socket
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from msgspec import Struct

Resolve = Callable[[str], Iterable[str]]


class Address(Struct, frozen=True):
    """Where to ask, and the name to ask for; no name: that of the URL."""

    url: str
    name: str = ""


def resolve(host: str) -> list[str]:
    """Return the addresses of a name; none when it cannot be resolved."""
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except OSError:
        return []


def addresses_of(url: str, resolved: Resolve = resolve) -> list[Address]:
    """Return every address behind a URL; the URL itself where there is but one, or none is known.

    A host with an IPv4 and an IPv6 address is one host, so one family is looked at, IPv4 where there is any.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if _is_literal(host):
        return [Address(url)]
    found = [ipaddress.ip_address(one.partition("%")[0]) for one in dict.fromkeys(resolved(host))]
    family = [one for one in found if one.version == 4] or found
    if len(family) < 2 or all(one.is_loopback for one in family):
        return [Address(url)]
    name = host if parts.port is None else f"{host}:{parts.port}"
    return [Address(url.replace(parts.netloc, _netloc(one, parts.port), 1), name) for one in family]


def _is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _netloc(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int | None) -> str:
    host = f"[{address}]" if address.version == 6 else str(address)
    return host if port is None else f"{host}:{port}"
