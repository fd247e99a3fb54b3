"""The networks in which endpoints may be, since Envoy sends traffic there and Prometheus scrapes there."""

import ipaddress
import socket
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LOOPBACK = ("127.0.0.0/8", "::1/128")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def _networks(*texts: str) -> tuple[Network, ...]:
    return tuple(map(ipaddress.ip_network, texts))


# Of IPv6: global unicast, unique local addresses, and IPv4 behind a translator (RFC 6052).
_UNICAST = _networks("0.0.0.0/0", "2000::/3", "fc00::/7", str(_NAT64))
# Addresses on Envoy's own machine or link (where clouds have their metadata services), or of no machine; by IANA's
# registries of special-purpose addresses and the documentation of EC2 and ECS.
_SPECIAL = _networks(
    "0.0.0.0/8",  # this host on this network (RFC 1122)
    "169.254.0.0/16",  # link-local: 169.254.169.254 and 169.254.170.2 of EC2 and ECS
    "224.0.0.0/4",  # multicast
    "240.0.0.0/4",  # reserved, and broadcast
    "fe80::/10",  # link-local
    "fec0::/10",  # site-local, deprecated (RFC 3879)
    "fd00:ec2::/32",  # the metadata services of EC2
    *_LOOPBACK,
)


class EndpointNetworks:
    """The networks in which endpoints may be.

    Special networks, such as loopback, have to be named themselves: 0.0.0.0/0 does not allow 127.0.0.0/8.

    Args:
        named: the networks that an operator allows; empty: every unicast address that is not special.
        loopback: whether loopback is allowed too when no network is named, because the registry listens on loopback
            alone, so that all its clients are on this machine.
    """

    def __init__(self, named: Sequence[Network], *, loopback: bool) -> None:
        self._named = named
        self._loopback = loopback
        allowed = [*named] or [*_UNICAST, *(_networks(*_LOOPBACK) if loopback else ())]
        # The allowed addresses by IP version; never changed.
        self._ranges = {version: _Ranges(_of(version, allowed)) for version in (4, 6)}

    def __str__(self) -> str:
        """Return the allowed networks, in words."""
        if self._named:
            return ", ".join(map(str, self._named))
        loopback = "" if self._loopback else "loopback, "
        return f"every unicast address that is not {loopback}link-local or reserved"

    def allows(self, address: str) -> bool:
        """Return whether an endpoint may have an address, which is in its canonical form.

        Packets to an IPv6 address that carries an IPv4 address (6to4, Teredo, NAT64) are delivered there, so both
        addresses have to be allowed.
        """
        if ":" not in address:
            return self._ranges[4].contain(int.from_bytes(socket.inet_pton(socket.AF_INET, address)))
        if not self._ranges[6].contain(int.from_bytes(socket.inet_pton(socket.AF_INET6, address))):
            return False
        return all(self._ranges[4].contain(int(carried)) for carried in _carried(ipaddress.IPv6Address(address)))


class _Ranges:
    """Networks as ranges of integers, which are searched in a microsecond instead of fifty."""

    def __init__(self, networks: Iterable[Network]) -> None:
        ordered = sorted((int(network.network_address), int(network.broadcast_address)) for network in networks)
        # Sorted by their begins, a network that ends before the one before it lies within that one.
        ranges: list[tuple[int, int]] = []
        for first, last in ordered:
            if not ranges or last > ranges[-1][1]:
                ranges.append((first, last))
        # The first and the last address of each range, in increasing order.
        self._firsts = [first for first, _ in ranges]
        self._lasts = [last for _, last in ranges]

    def contain(self, number: int) -> bool:
        index = bisect_right(self._firsts, number) - 1
        return index >= 0 and number <= self._lasts[index]


def _of(version: int, allowed: Iterable[Network]) -> Iterator[Network]:
    for network in allowed:
        if network.version == version:
            yield from _parts(network)


def _parts(named: Network) -> list[Network]:
    """Return the networks that a named one allows: itself if special, else its parts that are not special."""
    if any(_within(named, special) for special in _SPECIAL):
        return [named]
    parts = [named if _within(named, unicast) else unicast for unicast in _UNICAST if _overlap(named, unicast)]
    for special in _SPECIAL:
        parts = [piece for part in parts for piece in _without(part, special)]
    return parts


def _without(part: Network, special: Network) -> Iterable[Network]:
    if not _overlap(part, special):
        return [part]
    return part.address_exclude(special)  # type: ignore[arg-type]  # they overlap, so they are of one version


def _within(inner: Network, outer: Network) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]  # of one version


def _overlap(network: Network, other: Network) -> bool:
    return network.version == other.version and network.overlaps(other)


def _carried(address: ipaddress.IPv6Address) -> Iterator[ipaddress.IPv4Address]:
    """Yield the IPv4 addresses to which packets to an IPv6 address are delivered."""
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if address in _NAT64:
        yield ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
