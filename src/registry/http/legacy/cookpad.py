"""The responses of cookpad/sds to its clients."""

from typing import Annotated, Any

import msgspec
from fastapi import Response
from msgspec import Meta, Struct

from registry.auth.principal import Principal
from registry.errors import NotFoundError
from registry.http.legacy.host import checked_service, json_object, registration_of, unbracketed
from registry.usecases.drop_in import DropInHosts
from wire.address import parse_ip, parse_port
from wire.model import Label


class _SdsHost(Struct, frozen=True):
    """The JSON body of cookpad/sds; unknown fields are ignored."""

    ip: str
    port: Annotated[int, Meta(ge=1, le=65535)]
    revision: Label
    tags: dict[str, Any]


_sds_host = msgspec.json.Decoder(_SdsHost)


async def register_json(hosts: DropInHosts, ttl: float, service: str, body: bytes, actor: Principal) -> Response:
    """Register a host from JSON; the item is overwritten whole."""
    try:
        # msgspec does not look into fields that it skips, and cookpad/sds refuses invalid UTF-8 anywhere.
        host = _sds_host.decode(body.decode())
        registration = registration_of(host.tags, revision=host.revision, repository=None, ttl=ttl)
        key = (checked_service(service), parse_ip(host.ip), host.port)
    except UnicodeDecodeError:
        return Response("Invalid UTF-8 string", 400, media_type="text/plain")
    except (ValueError, RecursionError) as error:
        return Response(f"Invalid JSON string: {error}", 400, media_type="text/plain")
    await hosts.register(actor, key, registration)
    return Response(status_code=202)


async def deregister_port(hosts: DropInHosts, service: str, ip: str, port: str, actor: Principal) -> Response:
    """Deregister one ip:port."""
    if not (port.isascii() and port.isdigit()):
        return Response(f"Given port is invalid as integer: {port}", 400, media_type="text/plain")
    try:
        key = (checked_service(service), parse_ip(unbracketed(ip)), parse_port(port))
        await hosts.deregister(actor, key)
    except (ValueError, NotFoundError):
        return json_object({"id": "HostNotFound", "reason": "Not found the entry"}, 400)
    return Response(status_code=202)
