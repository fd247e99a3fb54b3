"""The responses of lyft/discovery to its clients."""

import ipaddress
from typing import Any

import msgspec
from fastapi import Request, Response

from registry.auth.principal import Principal, peer_of
from registry.core.endpoint import Endpoint
from registry.errors import InadmissibleError, InvalidError
from registry.http.legacy.host import checked_service, ip_of, json_object, registration_of
from registry.http.parameters import read_form
from registry.settings import Settings
from registry.usecases.drop_in import DropInHosts
from registry.usecases.registration import Derive
from wire.address import parse_ip, parse_port
from wire.model import Label, Registration


async def register_form(
    hosts: DropInHosts, settings: Settings, service: str, request: Request, body: bytes, actor: Principal
) -> Response:
    """Register a host from a form; its tags are merged into those that are known."""
    try:
        form = _read_form(body)
        tags = _read_tags(form)
        if tags is None:
            return json_object({"error": "Invalid json supplied in tags"}, 400)
        ip = form.get("ip") or (_client_ip(settings, request) if form.get("auto_ip") else "")
        key = (checked_service(service), parse_ip(ip), parse_port(form["port"]))
        await hosts.merge(actor, key, _merger(form, tags, settings.compat_lease_ttl))
    except InadmissibleError:
        # lyft/discovery has no words for what this registry's limits do not allow, and its clients need some.
        raise
    except (InvalidError, KeyError, ValueError, RecursionError):
        return json_object({}, 400)
    return json_object({})


def _merger(form: dict[str, str], tags: dict[str, Any], ttl: float) -> Derive:
    """Return the function that derives the registration from the host as it is when the registration is stored."""

    def derive(listed: Endpoint | None) -> Registration:
        try:
            return _merged(listed, form, tags, ttl)
        except (KeyError, ValueError, RecursionError) as error:
            raise InvalidError(f"no registration: {error}") from None

    return derive


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


def _merged(listed: Endpoint | None, form: dict[str, str], tags: dict[str, Any], ttl: float) -> Registration:
    for name in ("az", "region", "instance_id"):
        if name not in tags:
            raise ValueError(f"tags need {name}")
    if not form["revision"]:
        raise ValueError("a revision is needed")
    before = _tags_of(listed) if listed is not None and listed.leaving_at is None else {}
    repository = form.get("service_repo_name") or None
    registration = registration_of(before | tags, revision=form["revision"], repository=repository, ttl=ttl)
    msgspec.convert({"revision": form["revision"], "repository": repository}, dict[str, Label | None])
    return registration


def _tags_of(endpoint: Endpoint) -> dict[str, Any]:
    registration = endpoint.registration
    tags = {**registration.metadata, "canary": registration.canary}
    weight = registration.weight
    return tags if weight is None else tags | {"load_balancing_weight": min(weight, 100)}


def _client_ip(settings: Settings, request: Request) -> str:
    """Return the client's own address: the last hop that a trusted proxy saw, else the peer.

    Raises:
        ValueError: it is in none of the networks in which a client may register itself.
    """
    peer = ipaddress.ip_address(peer_of(request.client))
    # A proxy may add a header of its own behind those that came from the client.
    forwarded = ",".join(request.headers.getlist("x-forwarded-for"))
    if forwarded and any(peer in network for network in settings.trusted_proxies):
        peer = ipaddress.ip_address(forwarded.rsplit(",", 1)[-1].strip())
    if not any(peer in network for network in settings.auto_ip_networks):
        raise ValueError(f"{peer} is in none of REGISTRY_AUTO_IP_NETWORKS")
    return str(peer)


async def deregister_ip(hosts: DropInHosts, service: str, host: str, actor: Principal) -> Response:
    """Deregister all ports of an address."""
    deregistered = await hosts.deregister_address(actor, service, ip_of(host))
    return json_object({}, 200 if deregistered else 400)


async def set_weight(hosts: DropInHosts, service: str, ip: str | None, body: bytes, actor: Principal) -> Response:
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
    address = None if ip is None else ip_of(ip) or ip
    changed = await hosts.set_weight(actor, service, address, int(weight))
    # Every host of a service without hosts has the weight: lyft/discovery calls that done.
    return Response(status_code=204) if changed or ip is None else json_object({"error": "Host not found"}, 404)
