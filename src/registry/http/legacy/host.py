"""A host as both drop-in contracts describe it."""

from typing import Annotated, Any

import msgspec
from fastapi import Response
from msgspec import Meta, Struct, ValidationError

from wire.address import parse_ip, parse_port
from wire.model import Label, Name, Registration, ServiceName

_OWN_TAGS = ("az", "region", "instance_id", "canary", "load_balancing_weight")


class _Tags(Struct, frozen=True):
    """The tags that both registries know; the rest is free-form."""

    az: Label
    region: Label
    instance_id: Name
    canary: bool = False
    load_balancing_weight: Annotated[int, Meta(ge=1, le=100)] | None = None


def registration_of(tags: dict[str, Any], *, revision: str, repository: str | None, ttl: float) -> Registration:
    """Return the registration that a host's tags amount to.

    Args:
        tags: as the client sent them.
        revision: of the program that runs there.
        repository: of its source.
        ttl: seconds of its lease.

    Raises:
        ValueError: a tag is missing or of the wrong type.
    """
    checked = msgspec.convert(tags, _Tags)
    return Registration(
        instance_id=checked.instance_id,
        # Their clients know no incarnations; 0 is older than any that a registrar can have.
        incarnation=0,
        revision=revision,
        region=checked.region,
        zone=checked.az,
        canary=checked.canary,
        weight=checked.load_balancing_weight,
        repository=repository,
        metadata={name: value for name, value in tags.items() if name not in _OWN_TAGS},
        ttl=ttl,
    )


def checked_service(service: str) -> str:
    """Return the name, if a service may have it.

    Raises:
        ValueError: it may not.
    """
    try:
        return str(msgspec.convert(service, ServiceName))
    except ValidationError:
        raise ValueError("the service's name has characters that are not allowed, or is too long") from None


def ip_of(text: str) -> str | None:
    """Return the canonical address, or None for what is none."""
    try:
        return parse_ip(unbracketed(text))
    except ValueError:
        return None


def unbracketed(text: str) -> str:
    """Return an IPv6 address without its brackets."""
    return text.removeprefix("[").removesuffix("]")


def address_port_of(ip: str, port: str) -> tuple[str, int] | None:
    """Return address and port, or None for what is none."""
    address = ip_of(ip)
    try:
        return None if address is None else (address, parse_port(port))
    except ValueError:
        return None


def json_object(document: dict[str, str], status: int = 200) -> Response:
    """Return a JSON object as a response."""
    return Response(msgspec.json.encode(document), status, media_type="application/json")
