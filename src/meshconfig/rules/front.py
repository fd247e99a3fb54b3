"""Rules on gateways and edges that need the mesh's file."""

from collections.abc import Iterator

from meshconfig.block import Block
from meshconfig.definition.mesh import Mesh
from meshconfig.position import Fault, Severity
from wire.duration import format_duration


def front_faults(block: Block, mesh: Mesh) -> Iterator[Fault]:
    """Yield the faults of a gateway's or an edge's block that the mesh's settings make."""
    listen = block.values.get("listen")
    if listen is None:
        return
    taken = {mesh.admin.port: "Envoy's admin interface"}
    if mesh.statistics.prometheus is not None:
        taken[mesh.statistics.prometheus.port] = "statistics.prometheus"
    for field in ("port", "redirect_from"):
        port = listen.values.get(field)
        if port in taken:
            message = f"{field} is {port}, where {taken[port]} listens on the same Envoy."
            yield Fault(listen.position(field), message, "Write another port here or in mesh.yaml.")
    yield from _cut_requests(block, mesh)


def _cut_requests(block: Block, mesh: Mesh) -> Iterator[Fault]:
    """Yield timeouts that are longer than a listener drains when it changes."""
    routes = [route for site in block.blocks("sites") for route in site.blocks("routes")]
    defaults = block.values.get("defaults")
    for each in routes if defaults is None else (defaults, *routes):
        timeout = each.values.get("timeout")
        if timeout is not None and timeout > mesh.drain_time:
            longest = format_duration(mesh.drain_time)
            message = f"timeout is {format_duration(timeout)}: a change of the listener cuts requests after {longest}."
            yield Fault(each.position("timeout"), message, "Write a longer drain_time in mesh.yaml.", Severity.WARNING)
