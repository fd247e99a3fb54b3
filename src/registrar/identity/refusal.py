"""Addresses that are not advertised, because they lead to another machine or to none."""

import ipaddress

from registrar.errors import AddressError
from registrar.identity.source import Location
from wire.address import parse_ip

# Docker's default bridge: the same addresses exist on every machine.
_DOCKER_BRIDGE = ipaddress.ip_network("172.17.0.0/16")


def accept(location: Location) -> Location:
    """Return ``location`` with its address in canonical text, if it may be advertised.

    Empty, unspecified and multicast addresses are always refused. Loopback, link-local and Docker's default bridge are
    refused unless the configuration names the address literally.

    Raises:
        AddressError: the address is refused.
    """
    try:
        address = parse_ip(location.address)
    except ValueError as error:
        raise AddressError(
            f"address refused: {error}", f"name one with REGISTRAR_ENDPOINT, like 10.0.0.5:{location.port}"
        ) from error
    reason = _local_only(address)
    if reason and not location.literal:
        raise AddressError(
            f"address refused: {address} is {reason}, which other machines cannot reach",
            "name an address with REGISTRAR_ENDPOINT, like 10.0.0.5:8080, iface:eth0:8080 or cidr:10.0.0.0/8:8080",
        )
    return Location(address, location.port, location.literal)


def advertisable(address: str) -> bool:
    """Return whether ``address`` may be advertised without being named literally."""
    try:
        accept(Location(address, 1))
    except AddressError:
        return False
    return True


def _local_only(text: str) -> str:
    address = ipaddress.ip_address(text)
    if address.is_loopback:
        return "loopback"
    if address.is_link_local:
        return "link-local"
    if address in _DOCKER_BRIDGE:
        return "on Docker's default bridge 172.17.0.0/16"
    return ""
