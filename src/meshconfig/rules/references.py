"""Services that definitions name, and where."""

from collections.abc import Collection, Iterator

from msgspec import Struct

from meshconfig.block import Block
from meshconfig.definition.gateway import Select
from meshconfig.definition.service import Service
from meshconfig.position import Fault, Position, Severity
from meshconfig.quotation import clipped
from wire.spelling import spelling_hint


class Reference(Struct, frozen=True):
    """A service that a file names."""

    service: str
    position: Position


def references(block: Block) -> Iterator[Reference]:
    """Yield the services that a block and the blocks in it name; a service's own file does not name itself."""
    if block.kind is not Service and block.values.get("service"):
        yield Reference(block.values["service"], block.position("service"))
    for service in block.values.get("split") or ():
        yield Reference(service, block.position(f"split[{service}]"))
    if block.kind is Select:
        for index, service in enumerate(block.values.get("services") or ()):
            yield Reference(service, block.position(f"services[{index}]"))
    for value in block.values.values():
        for inner in (value,) if type(value) is Block else value if type(value) is tuple else ():
            if type(inner) is Block:
                yield from references(inner)


def unknown_services(
    named: Collection[Reference], defined: Collection[str], registered: Collection[str]
) -> Iterator[Fault]:
    """Yield services that neither the repository nor the catalog has."""
    for reference in named:
        service = reference.service
        if service in registered or service in defined:
            continue
        hint = spelling_hint(service, {*defined, *registered}, otherwise="register it first.")
        message = f"No service {clipped(service)} was ever registered, and no file defines it."
        yield Fault(reference.position, message, f"{hint[:1].upper()}{hint[1:]}", Severity.WARNING)
