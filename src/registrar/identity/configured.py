"""The configuration as a source: a literal address, an interface or a network."""

import ipaddress

from registrar.errors import AddressError
from registrar.identity.interfaces import interface_addresses
from registrar.identity.refusal import advertisable
from registrar.identity.source import Answer, Facts, Location
from registrar.identity.spec import EndpointSpec


class Configured:
    """Answers for every rule that names something; ``:8080`` is for the other sources."""

    name = "configuration"
    costly = False

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    async def locate(self, spec: EndpointSpec, container: str) -> Answer:  # noqa: ARG002 - settings know no containers
        """Return the address that the setting names."""
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
        """Return what was configured."""
        return self._facts


def _on_interface(name: str) -> str:
    found = interface_addresses()
    mine = [address for interface, address in found if interface == name]
    if not mine:
        names = ", ".join(sorted({interface for interface, _ in found})) or "none"
        raise AddressError(f"interface {name!r} has no address", f"name one that has: {names}")
    return _best(mine)


def _within(network: str) -> str:
    found = [address for _, address in interface_addresses()]
    span = ipaddress.ip_network(network)
    mine = [address for address in found if ipaddress.ip_address(address) in span]
    if not mine:
        raise AddressError(
            f"no address of this machine is within {network}", f"it has {', '.join(found)}: name one, or its network"
        )
    return _best(mine)


def _best(addresses: list[str]) -> str:
    """Prefer what others can reach; if there is none, the refusal explains itself with the first."""
    return next((address for address in addresses if advertisable(address)), addresses[0])
