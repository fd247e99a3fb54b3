"""Sources in order, the first hit wins, and the log says which."""

import time
from collections.abc import Sequence

import structlog
from msgspec import Struct

from registrar.errors import AddressError
from registrar.identity.refusal import accept
from registrar.identity.source import Location, Source
from registrar.identity.spec import EndpointSpec
from wire.address import format_endpoint

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger()


class Identity(Struct, frozen=True):
    """Who owns this process's endpoints, and since when."""

    instance_id: str
    incarnation: int
    region: str = ""
    zone: str = ""


async def resolve_identity(sources: Sequence[Source]) -> Identity:
    """Return this start's identity, each fact from the first source that knows it."""
    found: dict[str, str] = {}
    origin: dict[str, str] = {}
    for source in sources:
        facts = await source.facts()
        for name in facts.__struct_fields__:
            value: str = getattr(facts, name)
            if value and name not in found:
                found[name], origin[f"{name}_from"] = value, source.name
    identity = Identity(incarnation=_first_guess(), **found)
    log.info("identified", incarnation=identity.incarnation, **found, **origin)
    return identity


async def resolve_location(spec: EndpointSpec, sources: Sequence[Source]) -> Location:
    """Return where the endpoint of ``spec`` is reached.

    Raises:
        AddressError: no source knows, or the one that does names an address that must not be advertised.
    """
    for source in sources:
        location = await source.locate(spec)
        if location is not None:
            log.info(
                "address_resolved",
                endpoint=format_endpoint(location.address, location.port),
                setting=str(spec),
                source=source.name,
            )
            return accept(location)
    asked = ", ".join(source.name for source in sources)
    raise AddressError(f"no address found for {spec} (asked: {asked}); name it, like 10.0.0.5:{spec.port}")


def _first_guess() -> int:
    """Return milliseconds since the epoch: larger at each start, as long as the clock is right.

    Where it is not, the registry's 409 names the incarnation to exceed; see ``lease``.
    """
    return max(1, time.time_ns() // 1_000_000)
