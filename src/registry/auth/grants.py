"""Grants: the verbs, services, addresses and instances that a credential or an identity allows.

A name of services is exact, or a prefix with ``*`` at its end. Regular expressions are not taken: nobody sees at a
glance what they allow, and some take seconds to match.
"""

import ipaddress
import socket
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from msgspec import Struct

from registry.auth.verbs import Verb
from registry.errors import InvalidError
from wire.address import parse_ip
from wire.spelling import spelling_hint

PEER = "peer"
"""The address of a grant that stands for the address that the request comes from."""
MAX_GRANTS = 50
"""Grants of one credential or identity."""
MAX_NAMES = 200
"""Services, or addresses, of one grant."""
_MAX_CACHED = 4_096
"""Sets of names, and of networks, that are kept as they were read; each grant has one of both."""
_MAX_NAME = 256
"""Characters of the name of a service in a grant."""


class Grant(Struct, frozen=True, forbid_unknown_fields=True):
    """Something that a principal may do.

    Attributes:
        verbs: what it may do.
        services: the services that it may do this with: names, or prefixes with ``*`` at the end.
        addresses: where it may register endpoints: ``peer`` for the address that the request comes from, an address, or
            a network. Empty: everywhere that REGISTRY_ENDPOINT_NETWORKS allows.
        instance: which instances it may register: ``any``, or ``session`` for those whose id has the name of its
            session as a whole component.
    """

    verbs: tuple[Verb, ...]
    services: tuple[str, ...] = ("*",)
    addresses: tuple[str, ...] = ()
    instance: Literal["any", "session"] = "any"

    @property
    def bound(self) -> bool:
        """Whether it says where, or which instances, it allows to register."""
        return bool(self.addresses) or self.instance != "any"

    def allows_address(self, address: str, peer: str) -> bool:
        """Return whether an endpoint may be registered at an address, by a request that comes from ``peer``."""
        if not self.addresses:
            return True
        if address == peer and PEER in self.addresses:
            return True
        if address in self.addresses and address != PEER:
            return True
        # The address is read once, and networks are kept as they were read: to read either takes longer than the rest
        # of a heartbeat, and a fleet has more addresses than a cache should.
        packed = _packed(address)
        return packed is not None and any(
            first <= packed <= last for first, last in _ranges(self.addresses, len(packed))
        )

    def allows_instance(self, instance_id: str | None, session_name: str) -> bool:
        """Return whether an instance may be registered; None: the request does not concern one.

        A session without a name, as that of a token, is bound to no instance and so allows none.
        """
        if instance_id is None or self.instance == "any":
            return True
        return bool(session_name) and session_name in components(instance_id)


class Reach(Struct, frozen=True):
    """The services that the grants of one verb reach together.

    Attributes:
        everything: whether they reach every service.
        names: the services that they name.
        prefixes: the beginnings of names that they reach.
    """

    everything: bool
    names: frozenset[str]
    prefixes: tuple[str, ...]

    def covers(self, service: str) -> bool:
        """Return whether a service is reached."""
        return self.everything or service in self.names or service.startswith(self.prefixes)


@lru_cache(maxsize=_MAX_CACHED)
def reach_of(names: frozenset[str]) -> Reach:
    """Return what names and prefixes of services reach."""
    prefixes = tuple(sorted(name[:-1] for name in names if name.endswith("*")))
    exact = frozenset(name for name in names if not name.endswith("*"))
    return Reach("" in prefixes, exact, prefixes)


EVERYTHING = reach_of(("*",))
"""The reach of a grant for all services."""


def check_grants(grants: Sequence[Grant], pointer: str = "$.grants") -> None:
    """Refuse grants that allow nothing, or that nobody could have meant.

    Raises:
        InvalidError: names the value, what is allowed, and its place.
    """
    if len(grants) > MAX_GRANTS:
        raise InvalidError(f"there are {len(grants)} grants, and at most {MAX_GRANTS} are allowed", pointer)
    for number, grant in enumerate(grants):
        _check_grant(grant, f"{pointer}[{number}]")


def check_networks(networks: Sequence[str], pointer: str = "$.networks") -> None:
    """Refuse what is no network.

    Raises:
        InvalidError: names the value, and its place.
    """
    if len(networks) > MAX_NAMES:
        raise InvalidError(f"there are {len(networks)} networks; {MAX_NAMES} are allowed", pointer)
    for number, network in enumerate(networks):
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            message = f"{network[:60]!r} is no network: {error}; write it like 10.1.0.0/16"
            raise InvalidError(message, f"{pointer}[{number}]") from None


def _check_grant(grant: Grant, pointer: str) -> None:
    if not grant.verbs:
        raise InvalidError(f"a grant names at least one verb: {', '.join(Verb)}", f"{pointer}.verbs")
    for field, names in (("services", grant.services), ("addresses", grant.addresses)):
        if len(names) > MAX_NAMES:
            raise InvalidError(f"a grant names {len(names)} {field}; {MAX_NAMES} are allowed", f"{pointer}.{field}")
    if not grant.services:
        raise InvalidError("a grant names at least one service; * stands for all", f"{pointer}.services")
    if Verb.ADMIN in grant.verbs and "*" not in grant.services:
        raise InvalidError(
            "the verb admin is for all services, since it makes tokens for each; give it in a grant of its own, "
            'with the services ["*"]',
            f"{pointer}.services",
        )
    for number, name in enumerate(grant.services):
        _check_name(name, f"{pointer}.services[{number}]")
    for number, address in enumerate(grant.addresses):
        _check_address(address, f"{pointer}.addresses[{number}]")


def _check_name(name: str, pointer: str) -> None:
    if not 1 <= len(name) <= _MAX_NAME or not name.isprintable() or " " in name:
        raise InvalidError(f"{name[:60]!r} is no name of a service", pointer)
    if "*" in name[:-1]:
        raise InvalidError(
            f"{name!r} has a * that is not at its end; only a prefix can be granted, like shop-*", pointer
        )


def _check_address(address: str, pointer: str) -> None:
    if address == PEER:
        return
    try:
        ipaddress.ip_network(address)
    except ValueError as error:
        hint = spelling_hint(address, [PEER], otherwise="write 10.1.0.0/16, 10.1.2.3 or peer")
        raise InvalidError(f"{address[:60]!r} is no network: {error}; {hint}", pointer) from None


@lru_cache(maxsize=_MAX_CACHED)
def _ranges(networks: tuple[str, ...], size: int) -> tuple[tuple[bytes, bytes], ...]:
    """Return the first and the last address of each network whose addresses have so many bytes."""
    read = (ipaddress.ip_network(network) for network in networks if network != PEER)
    pairs = ((network.network_address.packed, network.broadcast_address.packed) for network in read)
    return tuple((first, last) for first, last in pairs if len(first) == size)


def _packed(address: str) -> bytes | None:
    """Return an address as its bytes, whose order is that of addresses; None for a text that is none."""
    try:
        canonical = parse_ip(address)
    except ValueError:
        return None
    return socket.inet_pton(socket.AF_INET6 if ":" in canonical else socket.AF_INET, canonical)


def components(instance_id: str) -> list[str]:
    """Return the parts of an instance id, as registrars and people join them."""
    for separator in "/:,":
        instance_id = instance_id.replace(separator, " ")
    return instance_id.split()
