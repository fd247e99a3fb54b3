"""Rules on websockets: each is a connection and a request that last, which limits and listeners have to allow."""

from collections.abc import Collection, Iterator, Mapping, Sequence

from meshconfig.block import Block
from meshconfig.callers import Base, Use
from meshconfig.cluster import serves_websockets, speaks_http2
from meshconfig.definition.edge import SiteRoute
from meshconfig.definition.limit import Limit
from meshconfig.edge import service_of
from meshconfig.field_types import Protocol
from meshconfig.merging import Layer
from meshconfig.position import Fault
from meshconfig.quotation import clipped

_LIMIT = "limit.connections_per_endpoint"
_HOP_HEADERS = frozenset({"upgrade", "connection"})
"""Headers without which a handshake is a plain GET."""


def unlimited_websockets(own: Block, layers: Sequence[Layer]) -> Iterator[Fault]:
    """Yield websockets that a block allows, and that would share the built-in limit of connections.

    Args:
        own: the block of policies.
        layers: the blocks that it is merged from, with it.
    """
    if own.values.get("upgrade") and not any(layer.block.place(_LIMIT) for layer in layers):
        message = (
            "A websocket keeps a connection as long as it is open, and connections_per_endpoint is the built-in"
            f" {Limit().connections_per_endpoint}: one more is answered 503 or 504."
        )
        fix = "Write limit.connections_per_endpoint: the websockets that one endpoint can have from one Envoy, or null."
        yield Fault(own.position("upgrade"), message, fix)


def caller_websockets(
    uses: Sequence[Use], bases: Mapping[str, Base], mesh: Base, listener: Protocol
) -> Iterator[Fault]:
    """Yield the faults of websockets in what one caller calls.

    Args:
        uses: its dependencies.
        bases: what holds for uses of each service that a file describes.
        mesh: what holds for uses of the others.
        listener: the protocol that apps speak to their Envoys.
    """
    ready = {use.dependency.service for use in uses if serves_websockets(use.dependency)}
    for use in uses:
        blocks = use.block.blocks("routes")
        layers = [Layer("dependency", use.block), *use.base.layers]
        for own in (use.block, *blocks):
            yield from unlimited_websockets(own, layers)
            yield from _over_http2(own, listener, "egress.protocol")
        if use.dependency.service in ready:
            yield from _changed_handshakes(use.block)
        for route, block in zip(use.dependency.routes, blocks, strict=False):
            if route.upgrade:
                yield from _unready_shares(block, ready, bases, mesh)


def front_websockets(
    block: Block, base: Base, uses: Mapping[str, Base], routes: Sequence[tuple[SiteRoute, Sequence[Layer]]]
) -> Iterator[Fault]:
    """Yield the faults of websockets of a gateway or an edge.

    Args:
        block: what its file writes.
        base: what holds for its use of services that no file describes.
        uses: its use of each service that a file describes.
        routes: the routes of an edge, with the blocks that each comes from, its own first.
    """
    defaults, listen = block.values.get("defaults"), block.values.get("listen")
    listener: Protocol = "same" if listen is None else listen.values.get("protocol", "same")
    if defaults is not None:
        yield from unlimited_websockets(defaults, base.layers)
        yield from _over_http2(defaults, listener, "listen.protocol")
    ready = {service_of(route) for route, _ in routes if route.upgrade}
    for route, layers in routes:
        own = layers[0].block
        yield from unlimited_websockets(own, layers)
        yield from _over_http2(own, listener, "listen.protocol")
        if route.upgrade:
            yield from _unready_shares(own, ready, uses, base)


def _over_http2(own: Block, listener: Protocol, field: str) -> Iterator[Fault]:
    if own.values.get("upgrade") and speaks_http2(listener):
        message = f"A websocket begins in HTTP/1.1, which this listener does not take: {field} is {listener}."
        yield Fault(own.position("upgrade"), message, f"Write {field}: same, or remove upgrade.")


def _changed_handshakes(block: Block) -> Iterator[Fault]:
    """Yield changes of headers that would make a plain GET of each handshake, which Envoy takes silently."""
    headers = block.values.get("headers")
    if headers is None:
        return
    for field in ("set", "add", "remove"):
        for index, name in enumerate(headers.values.get(field) or ()):
            if name.lower() in _HOP_HEADERS:
                place = f"remove[{index}]" if field == "remove" else f"{field}[{name}]"
                message = f"A handshake of a websocket needs the header {clipped(name)} as its client sends it."
                yield Fault(headers.position(place), message, "Remove it here, or write upgrade: null.")


def _unready_shares(
    block: Block, ready: Collection[str | None], bases: Mapping[str, Base], mesh: Base
) -> Iterator[Fault]:
    """Yield services that a split leads websockets to, and that nothing says take any."""
    for service in block.values.get("split") or ():
        if service not in ready and not bases.get(service, mesh).dependency.upgrade:
            message = f"The split leads websockets to {clipped(service)}, whose limits are for requests that end."
            fix = f"Write upgrade and {_LIMIT} in provides.defaults of {clipped(service)}, or upgrade: null here."
            yield Fault(block.position(f"split[{service}]"), message, fix)
