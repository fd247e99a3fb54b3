"""The configuration as a source: a literal address, an interface or a network."""

import ipaddress

from registrar.errors import AddressError
from registrar.identity.interfaces import interface_addresses
from registrar.identity.refusal import advertisable
from registrar.identity.source import Answer, Facts, Location
from registrar.identity.spec import EndpointSpec


class Configured:
    """Source of the addresses that settings name; ``:8080`` names none and is left to the other sources."""

    name = "configuration"
    costly = False

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    async def locate(self, spec: EndpointSpec, container: str) -> Answer:  # noqa: ARG002 - settings know no containers
        """Return the address that the setting names, directly or by an interface or a network."""
        match spec.rule:
            case "any":
                return Answer("", f"the setting {spec} leaves the address to the next sources")
            case "literal":
                return Answer(str(spec), "the setting names the address", Location(spec.text, spec.port, literal=True))
            case "iface":
                location = Location(_on_interface(spec.text), spec.port)
                return Answer(str(spec), f"an address of the interface {spec.text}", location)
            case "cidr":
                location = Location(_within(spec.text), spec.port)
                return Answer(str(spec), f"an address of this machine within {spec.text}", location)

    async def facts(self) -> Facts:
        """Return the facts that were configured."""
        return self._facts


def _on_interface(name: str) -> str:
    pairs = interface_addresses()
    addresses = [address for interface, address in pairs if interface == name]
    if not addresses:
        names = ", ".join(sorted({interface for interface, _ in pairs})) or "none"
        raise AddressError(f"interface {name!r} has no address", f"name one that has: {names}")
    return _best(addresses)


def _within(network: str) -> str:
    all_addresses = [address for _, address in interface_addresses()]
    ip_network = ipaddress.ip_network(network)
    addresses = [address for address in all_addresses if ipaddress.ip_address(address) in ip_network]
    if not addresses:
        raise AddressError(
            f"no address of this machine is within {network}",
            f"it has {', '.join(all_addresses)}: name one, or its network",
        )
    return _best(addresses)


def _best(addresses: list[str]) -> str:
    """Return the first address that other machines can reach, or else the first, which is refused with its reason."""
    return next((address for address in addresses if advertisable(address)), addresses[0])
