"""The endpoints of one service by address and port, in little memory."""

from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView

from registry.core.endpoint import Endpoint

AddressPort = tuple[str, int]
"""Address and port: an endpoint's key within its service."""


class EndpointTable(Mapping[AddressPort, Endpoint]):
    """A mapping from address and port to the endpoint there, kept by addresses alone.

    Most addresses have one endpoint of a service, so that no pair of address and port has to be kept: it takes 80
    bytes, a tenth of what an endpoint takes.

    Args:
        endpoints: the endpoints; of two at one address and port the last one stays.
    """

    __slots__ = ("_by_address", "_count", "_own")

    def __init__(self, endpoints: Iterable[Endpoint] = ()) -> None:
        self._by_address: dict[str, Endpoint | dict[int, Endpoint]] = {}
        """The endpoint at each address, or those at its ports if they are several. Copies share such a dict, so that it
        is replaced, and never changed, unless the address is in `_own`."""
        self._own: set[str] | None = None
        """The addresses whose dict no copy shares; None: there is none. Written by put() and remove(), cleared by
        copy(). Thousands of ports of one address would take thousands of dicts of thousands."""
        self._count = 0
        for endpoint in endpoints:
            self.put(endpoint)

    def copy(self) -> "EndpointTable":
        """Return a table of the same endpoints that can be changed apart from this one."""
        copied = EndpointTable()
        copied._by_address = self._by_address.copy()
        copied._count = self._count
        self._own = None
        return copied

    def put(self, endpoint: Endpoint) -> None:
        """List an endpoint at its address and port, in place of the one that is there."""
        held = self._by_address.get(endpoint.address)
        if isinstance(held, dict):
            self._count += endpoint.port not in held
            self._own_ports(endpoint.address, held)[endpoint.port] = endpoint
        elif held is None or held.port == endpoint.port:
            self._count += held is None
            self._by_address[endpoint.address] = endpoint
        else:
            self._count += 1
            self._own_ports(endpoint.address, {held.port: held})[endpoint.port] = endpoint

    def remove(self, address_port: AddressPort) -> Endpoint | None:
        """Remove the endpoint at an address and port, and return it; None if there is none."""
        endpoint = self.get(address_port)
        if endpoint is not None:
            address, port = address_port
            held = self._by_address[address]
            if isinstance(held, dict) and len(held) > 1:
                del self._own_ports(address, held)[port]
            else:
                del self._by_address[address]
                if self._own is not None:
                    self._own.discard(address)
            self._count -= 1
        return endpoint

    def _own_ports(self, address: str, held: dict[int, Endpoint]) -> dict[int, Endpoint]:
        """Return the dict of an address that this table may change."""
        if self._own is None:
            self._own = set()
        if address not in self._own:
            self._own.add(address)
            held = self._by_address[address] = held.copy()
        return held

    def get(self, address_port: AddressPort, default: None = None) -> Endpoint | None:  # type: ignore[override]  # None alone
        """Return the endpoint at an address and port; None if there is none."""
        address, port = address_port
        held = self._by_address.get(address)
        if isinstance(held, dict):
            return held.get(port)
        return held if held is not None and held.port == port else default

    def __getitem__(self, address_port: AddressPort) -> Endpoint:
        endpoint = self.get(address_port)
        if endpoint is None:
            raise KeyError(address_port)
        return endpoint

    def __contains__(self, address_port: object) -> bool:
        return isinstance(address_port, tuple) and self.get(address_port) is not None

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[AddressPort]:
        return ((endpoint.address, endpoint.port) for endpoint in self.values())

    def values(self) -> ValuesView[Endpoint]:
        """Return the endpoints, in the order in which their addresses came."""
        return _Endpoints(self)

    def items(self) -> ItemsView[AddressPort, Endpoint]:
        """Return the endpoints with their addresses and ports."""
        return _Items(self)

    def each(self) -> Iterator[Endpoint]:
        """Yield the endpoints, as ``values`` has them."""
        for held in self._by_address.values():
            if isinstance(held, dict):
                yield from held.values()
            else:
                yield held


class _Endpoints(ValuesView[Endpoint]):
    """The endpoints of a table; the view that every mapping has looks each of them up."""

    _mapping: EndpointTable

    def __iter__(self) -> Iterator[Endpoint]:
        return self._mapping.each()


class _Items(ItemsView[AddressPort, Endpoint]):
    """The endpoints of a table with their keys."""

    _mapping: EndpointTable

    def __iter__(self) -> Iterator[tuple[AddressPort, Endpoint]]:
        return (((endpoint.address, endpoint.port), endpoint) for endpoint in self._mapping.each())
