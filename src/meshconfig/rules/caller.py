"""Rules on all that one caller calls together."""

from collections.abc import Iterator, Mapping, Sequence

from meshconfig.block import Block
from meshconfig.callers import Base, Use
from meshconfig.position import Fault, Severity
from meshconfig.quotation import clipped
from meshconfig.rules.references import references
from wire.duration import format_duration


def caller_faults(uses: Sequence[Use], own: Base, bases: Mapping[str, Base], mesh: Base) -> Iterator[Fault]:
    """Yield the faults of what a caller calls.

    Args:
        uses: its dependencies, in the order of its file.
        own: what holds for uses of the caller itself.
        bases: what holds for uses of each service that a file describes.
        mesh: what holds for uses of the others.
    """
    yield from _collisions(uses)
    yield from _target_collisions(uses)
    for use in uses:
        yield from _slower_than_caller(own, use)
        yield from _other_protocol(use)
        yield from _unlimited_shadows(use, bases, mesh)


def _collisions(uses: Sequence[Use]) -> Iterator[Fault]:
    """Yield dependencies of one caller that share a name, a cluster or a host."""
    names: dict[str, Use] = {}
    clusters: dict[str, Use] = {}
    hosts: dict[str, Use] = {}
    for use in uses:
        name, cluster = use.dependency.name or "", use.dependency.cluster or ""
        other = names.setdefault(name, use)
        if other is not use:
            message = f"The dependency {clipped(name)} is there twice; {_place(other)} has it too."
            yield Fault(use.reference, message, "Remove one of them, or give it another name.")
            continue
        other = clusters.setdefault(cluster, use)
        if other is not use:
            message = f"The cluster {clipped(cluster)} is there twice; the dependency at {_place(other)} has it too."
            yield Fault(use.reference, message, "Write another name or cluster.")
        for index, host in enumerate(use.dependency.hosts):
            other = hosts.setdefault(host.lower(), use)
            if other is not use:
                message = (
                    f"The host {clipped(host)} leads to {name} and to {other.dependency.name}, letters' case aside."
                )
                fix = f"Remove it here, or at {_place(other)}."
                own = use.block.position() == use.reference
                yield Fault(use.block.position(f"hosts[{index}]") if own else use.reference, message, fix)


def _target_collisions(uses: Sequence[Use]) -> Iterator[Fault]:
    """Yield services that a split, a shadow or an authorization names, and whose cluster another dependency has."""
    called = {use.dependency.service for use in uses}
    clusters = {use.dependency.cluster: use for use in uses}
    for use in uses:
        if not any(route.split or route.shadow for route in use.dependency.routes):
            continue
        for reference in references(use.block):
            other = clusters.get(reference.service)
            if reference.service not in called and other is not None:
                message = f"The cluster of {clipped(reference.service)} would have the name that {_place(other)} has."
                yield Fault(reference.position, message, "Write another name or cluster there.")


def _slower_than_caller(own: Base, use: Use) -> Iterator[Fault]:
    """Yield timeouts that a caller's file writes, and that are above what its own callers wait."""
    promised = own.dependency.timeout
    of_group = use.block.position() != use.reference
    if of_group or not promised or not any(layer.block.values.get("timeout") is not None for layer in own.layers):
        return
    dependency, blocks = use.dependency, use.block.blocks("routes")
    written = [(use.block, dependency.timeout)]
    written += zip(blocks, (route.timeout for route in dependency.routes), strict=False)
    for block, timeout in written:
        if block.values.get("timeout") is not None and timeout > promised:
            longest = format_duration(promised)
            message = f"timeout is {format_duration(timeout)}, and this service's own callers wait {longest} at most."
            yield Fault(block.position("timeout"), message, "Write a shorter one.", Severity.WARNING)


def _other_protocol(use: Use) -> Iterator[Fault]:
    """Yield a protocol that a caller writes, and that the service does not speak."""
    written = use.block.values.get("protocol")
    provided = use.base.dependency.protocol
    stated = any(layer.name == "callee" and "protocol" in layer.block.values for layer in use.base.layers)
    if written is None or not stated or "same" in {provided, written}:
        return
    if (provided == "http1") != (written == "http1"):
        message = f"protocol is {written}, and {use.dependency.service} provides {provided}."
        yield Fault(use.block.position("protocol"), message, f"Remove it, or write {provided}.", Severity.WARNING)


def _unlimited_shadows(use: Use, bases: Mapping[str, Base], mesh: Base) -> Iterator[Fault]:
    """Yield shadows of which a slow service would collect requests without end."""
    for block in (use.block, *use.block.blocks("routes")):
        shadow = block.values.get("shadow")
        service = shadow.values.get("service") if type(shadow) is Block else None
        if service is None:
            continue
        limit = bases.get(service, mesh).dependency.limit
        if limit.connections_per_endpoint is None and limit.connections is None and limit.requests is None:
            message = f"Nothing limits the requests under way to {service}, where this sends copies."
            fix = "Write limit.connections_per_endpoint in its provides.defaults."
            yield Fault(block.position("shadow"), message, fix, Severity.WARNING)


def _place(use: Use) -> str:
    return str(use.block.position())
