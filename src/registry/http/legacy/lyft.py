"""What lyft/discovery answered to its clients."""

import asyncio
import ipaddress
from collections.abc import Awaitable, Iterable
from typing import Any

import msgspec
from fastapi import Request, Response

from registry.core.endpoint import Endpoint, Key
from registry.core.override_change import OverrideChange
from registry.errors import InadmissibleError, InvalidError, NotFoundError
from registry.http.legacy.host import checked_service, ip_of, json_object, registration_of
from registry.http.parameters import read_form
from registry.process import RegistryProcess
from registry.usecases.registration import Tell
from wire.address import parse_ip, parse_port
from wire.model import Label, Registration


async def register_form(process: RegistryProcess, service: str, request: Request, body: bytes, actor: str) -> Response:
    """Register a host from a form; its tags are merged into those that are known."""
    try:
        form = _read_form(body)
        tags = _read_tags(form)
        if tags is None:
            return json_object({"error": "Invalid json supplied in tags"}, 400)
        ip = form.get("ip") or (_client_ip(process, request) if form.get("auto_ip") else "")
        key = (checked_service(service), parse_ip(ip), parse_port(form["port"]))
        await process.registrations.merge(key, _merger(process, form, tags), actor, fenced=False)
    except InadmissibleError:
        # lyft/discovery has no words for what this registry's limits do not allow, and whoever meets them needs some.
        raise
    except (InvalidError, KeyError, ValueError, RecursionError):
        return json_object({}, 400)
    return json_object({})


def _merger(process: RegistryProcess, form: dict[str, str], tags: dict[str, Any]) -> Tell:
    """Return what makes the registration of what is known at the moment in which it is stored."""

    def tell(known: Endpoint | None) -> Registration:
        try:
            return _merged(process, known, form, tags)
        except (KeyError, ValueError, RecursionError) as error:
            raise InvalidError(f"no registration: {error}") from None

    return tell


def _read_form(body: bytes) -> dict[str, str]:
    return read_form(body, max_fields=50)


def _read_tags(form: dict[str, str]) -> dict[str, Any] | None:
    """Return the tags, or None when they are no JSON.

    Raises:
        ValueError: they are JSON, but no object.
    """
    try:
        # Not Python's own reader: it lets half a surrogate pair through, which nothing can encode again.
        tags = msgspec.json.decode(form["tags"])
    except msgspec.DecodeError:
        return None
    return msgspec.convert(tags, dict[str, Any])


def _merged(
    process: RegistryProcess, known: Endpoint | None, form: dict[str, str], tags: dict[str, Any]
) -> Registration:
    for name in ("az", "region", "instance_id"):
        if name not in tags:
            raise ValueError(f"tags need {name}")
    if not form["revision"]:
        raise ValueError("a revision is needed")
    before = _tags_of(known) if known is not None and known.leaving_at is None else {}
    told = registration_of(
        process, before | tags, revision=form["revision"], repository=form.get("service_repo_name") or None
    )
    msgspec.convert({"revision": told.revision, "repository": told.repository}, dict[str, Label | None])
    return told


def _tags_of(endpoint: Endpoint) -> dict[str, Any]:
    told = endpoint.registration
    tags = {**told.metadata, "canary": told.canary}
    return tags if told.weight is None else tags | {"load_balancing_weight": min(told.weight, 100)}


def _client_ip(process: RegistryProcess, request: Request) -> str:
    """Return the client's own address: the last hop that a trusted proxy saw, else the peer.

    Raises:
        ValueError: it is in none of the networks in which a client may register itself.
    """
    settings = process.settings
    peer = ipaddress.ip_address(request.client.host if request.client else "")
    # A proxy may add a header of its own behind those that came from the client.
    forwarded = ",".join(request.headers.getlist("x-forwarded-for"))
    if forwarded and any(peer in network for network in settings.trusted_proxies):
        peer = ipaddress.ip_address(forwarded.rsplit(",", 1)[-1].strip())
    if not any(peer in network for network in settings.auto_ip_networks):
        raise ValueError(f"{peer} is in none of REGISTRY_AUTO_IP_NETWORKS")
    return str(peer)


async def deregister_ip(process: RegistryProcess, service: str, host: str, actor: str) -> Response:
    """Deregister all ports of an address."""
    ip = ip_of(host)
    keys = [] if ip is None else _keys(process, service, ip)
    gone = await _each(process.registrations.deregister(key, None, None, actor, lapsed_too=False) for key in keys)
    return json_object({}, 200 if gone else 400)


async def set_weight(process: RegistryProcess, service: str, ip: str | None, body: bytes, actor: str) -> Response:
    """Set the weight of the hosts of an address, or of all for None."""
    try:
        weight = _read_form(body).get("load_balancing_weight")
    except ValueError:
        weight = None
    if not weight:
        return json_object({"error": "Required parameter 'weight' is missing."}, 400)
    if not (weight.isascii() and weight.isdigit() and len(weight) <= 3 and 1 <= int(weight) <= 100):
        message = "Invalid load_balancing_weight. Supply an integer between 1 and 100."
        return json_object({"error": message}, 400)
    keys = _keys(process, service, None if ip is None else ip_of(ip) or ip)
    change = OverrideChange(weight=int(weight), reason="set by /v1/loadbalancing")
    found = await _each(process.registrations.override(key, change.by(actor), actor) for key in keys)
    # Every host of a service without hosts has the weight: lyft/discovery calls that done.
    return Response(status_code=204) if found or ip is None else json_object({"error": "Host not found"}, 404)


async def _each(writes: Iterable[Awaitable[object]]) -> int:
    """Do all these writes at once; return how many found their endpoint."""

    async def found(write: Awaitable[object]) -> bool:
        try:
            await write
        except NotFoundError:
            return False
        return True

    return sum(await asyncio.gather(*map(found, writes)))


def _keys(process: RegistryProcess, service: str, ip: str | None) -> list[Key]:
    """Return the endpoints of a service that have not left: of one ip, or of all for None."""
    snapshot = process.cache.get(service)
    return [
        endpoint.key
        for endpoint in snapshot.ordered()
        if endpoint.leaving_at is None and (ip is None or endpoint.address == ip)
    ]
