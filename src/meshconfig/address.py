"""Addresses in definitions, such as ``registry.internal:8080`` and ``[2001:db8::5]:8080``, as Envoy has them."""

import ipaddress

from meshconfig.proto_json import Document, socket_address
from wire.address import parse_port, split_endpoint


def parse(text: str) -> tuple[str, int]:
    """Return the host and the port of ``host:port``; the host may be a name.

    Raises:
        ValueError: there is no port, or the port is invalid.
    """
    host, port = split_endpoint(text)
    return host, parse_port(port)


def address_of(text: str) -> Document:
    """Return Envoy's address for ``host:port``.

    Raises:
        ValueError: there is no port, or the port is invalid.
    """
    return socket_address(*parse(text))


def local_address_of(text: str) -> Document:
    """Return Envoy's address for ``host:port``, or for ``unix:`` and the path of a socket.

    Raises:
        ValueError: it is none of the two.
    """
    return {"pipe": {"path": text.removeprefix("unix:")}} if text.startswith("unix:") else address_of(text)


def datagram_address_of(text: str) -> Document:
    """Return Envoy's address for ``host:port`` of what receives datagrams.

    Raises:
        ValueError: there is no port, or the port is invalid.
    """
    return {"socket_address": {"protocol": "UDP", **address_of(text)["socket_address"]}}


def is_ip(host: str) -> bool:
    """Tell whether a host is an IP address, which needs no resolver."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def discovery_of(texts: tuple[str, ...], dns_family: str) -> Document:
    """Return the type of a cluster with these addresses: names are resolved, IP addresses need it not."""
    if all(is_ip(parse(text)[0]) for text in texts):
        return {"type": "STATIC"}
    return {"type": "STRICT_DNS", "dns_lookup_family": dns_family.upper()}
