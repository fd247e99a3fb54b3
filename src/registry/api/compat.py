"""The drop-in contracts of cookpad/sds and lyft/discovery, on the paths that both used.

Which of the two a request follows is told by its body, or by the form of its address, never by Content-Type: curl
and Ruby's Net::HTTP send JSON under the form type. Bodies and status codes are theirs, to the letter.
"""

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Iterable
from typing import Annotated, Any
from urllib.parse import parse_qsl

import msgspec
from fastapi import APIRouter, Path, Request, Response
from msgspec import Meta, Struct, ValidationError

from registry.api.auth import Asking
from registry.api.documents import problems
from registry.api.parameters import ReadyReplica
from registry.endpoint import Endpoint, Key, Override
from registry.errors import InvalidError, NotFoundError
from registry.registrations import Tell
from registry.replica import Replica
from wire.address import parse_ip, parse_port
from wire.model import Label, Name, Registration, ServiceName

router = APIRouter(tags=["drop-in"])

_USAGE = """Headcount: service registry for Envoy.

GET    /v1/registration/{service}              the hosts of a service
POST   /v1/registration/{service}              register a host (JSON or form)
DELETE /v1/registration/{service}/{ip}:{port}  deregister a host
POST   /v2/discovery:endpoints                 Envoy's v2 EDS
POST   /v3/discovery:endpoints                 Envoy's v3 EDS
GET    /v1/services                            the native API; all of it is at /docs
"""

_JSON: dict[str, Any] = {"content": {"application/json": {"schema": {"type": "object"}}}}
_OWN_TAGS = ("az", "region", "instance_id", "canary", "load_balancing_weight")


def _answers(described: dict[int | str, Any]) -> dict[int | str, Any]:
    """Return the OpenAPI of a drop-in route: its own answers, and the problems that any route may have."""
    return {**problems(413, 422, 503), **described}


AnyService = Annotated[str, Path(max_length=1024)]


class _Tags(Struct, frozen=True):
    """The tags that both registries know; the rest is free-form."""

    az: Label
    region: Label
    instance_id: Name
    canary: bool = False
    load_balancing_weight: Annotated[int, Meta(ge=1, le=100)] | None = None


class _SdsHost(Struct, frozen=True):
    """The JSON body of cookpad/sds; unknown fields are ignored."""

    ip: str
    port: Annotated[int, Meta(ge=1, le=65535)]
    revision: Label
    tags: dict[str, Any]


_sds_host = msgspec.json.Decoder(_SdsHost)


@router.api_route(
    "/",
    methods=["GET", "POST", "DELETE"],
    operation_id="get_usage",
    include_in_schema=False,
)
async def get_usage() -> Response:
    """Say what there is."""
    return Response(_USAGE, media_type="text/plain")


@router.api_route("/hc", methods=["GET", "POST", "DELETE"], operation_id="check_sds", include_in_schema=False)
async def check_sds() -> Response:
    """Answer cookpad/sds's health check."""
    return Response("ok", media_type="text/plain")


@router.get("/healthcheck", operation_id="check_discovery", include_in_schema=False)
async def check_discovery() -> Response:
    """Answer lyft/discovery's health check."""
    return Response("OK", media_type="text/plain")


@router.get("/v1/registration/repo/{repository}/", include_in_schema=False)
@router.get(
    "/v1/registration/repo/{repository}",
    operation_id="list_repository_hosts",
    responses=_answers({200: {"description": "The hosts of all services of a source repository.", **_JSON}}),
    response_class=Response,
)
async def list_repository_hosts(repository: AnyService, replica: ReadyReplica) -> Response:
    """Return the hosts whose registration names a source repository (lyft/discovery)."""
    return Response(replica.hosts.of_repository(repository), media_type="application/json")


@router.get("/v1/registration/{service}/", include_in_schema=False)
@router.get(
    "/v1/registration/{service}",
    operation_id="list_hosts",
    responses=_answers(
        {200: {"description": "The hosts that may receive traffic; none for an unknown service.", **_JSON}}
    ),
    response_class=Response,
)
async def list_hosts(service: AnyService, replica: ReadyReplica) -> Response:
    """Return the hosts of a service: v1 SDS of Envoy, cookpad/sds and lyft/discovery."""
    return Response(replica.hosts.of_service(service), media_type="application/json")


@router.post("/v1/registration/{service}/", include_in_schema=False)
@router.post(
    "/v1/registration/{service}",
    operation_id="register_host",
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"type": "object"},
                    "example": {
                        "ip": "10.0.0.5",
                        "port": 8080,
                        "revision": "1.8.2",
                        "tags": {
                            "az": "ap-northeast-1a",
                            "region": "ap-northeast-1",
                            "instance_id": "i-0abc",
                            "canary": False,
                        },
                    },
                },
                "application/x-www-form-urlencoded": {"schema": {"type": "object"}},
            },
        }
    },
    responses=_answers(
        {
            200: {"description": "Registered from a form (lyft/discovery).", **_JSON},
            202: {"description": "Registered from JSON (cookpad/sds)."},
            400: {
                "description": "Nothing was registered.",
                "content": {"application/json": {}, "text/plain": {}},
            },
        }
    ),
    response_class=Response,
)
async def register_host(service: AnyService, request: Request, replica: ReadyReplica, asking: Asking) -> Response:
    """Register a host, or renew it. A JSON body overwrites what was known; a form merges its tags into it."""
    body = await request.body()
    if body.lstrip()[:1] == b"{":
        return await _register_json(replica, service, body, asking.name)
    return await _register_form(replica, service, request, body, asking.name)


@router.delete("/v1/registration/{service}/{host}/", include_in_schema=False)
@router.delete(
    "/v1/registration/{service}/{host}",
    operation_id="deregister_host",
    responses=_answers(
        {
            200: {"description": "All ports of the ip are deregistered (lyft/discovery).", **_JSON},
            202: {"description": "The ip:port is deregistered (cookpad/sds)."},
            400: {"description": "There is no such host.", "content": {"application/json": {}, "text/plain": {}}},
        }
    ),
    response_class=Response,
)
async def deregister_host(service: AnyService, host: AnyService, replica: ReadyReplica, asking: Asking) -> Response:
    """Deregister `ip:port`, or all ports of a bare `ip`."""
    # An IPv6 address with a port but without brackets reads as an address too: then what is registered decides.
    ip, colon, port = host.rpartition(":")
    place = _place(ip, port)
    registered = place is not None and replica.directory.find((service, *place)) is not None
    if colon and (registered or _ip(host) is None):
        return await _deregister_port(replica, service, ip, port, asking.name)
    return await _deregister_ip(replica, service, host, asking.name)


@router.post("/v1/loadbalancing/{service}/", include_in_schema=False)
@router.post(
    "/v1/loadbalancing/{service}",
    operation_id="set_service_weight",
    responses=_answers(
        {
            204: {"description": "Set; it survives registrations."},
            400: {"description": "No weight from 1 to 100.", **_JSON},
        }
    ),
    status_code=204,
    response_class=Response,
)
async def set_service_weight(service: AnyService, request: Request, replica: ReadyReplica, asking: Asking) -> Response:
    """Set the weight of every host of a service (lyft/discovery)."""
    return await _set_weight(replica, service, None, await request.body(), asking.name)


@router.post("/v1/loadbalancing/{service}/{ip}/", include_in_schema=False)
@router.post(
    "/v1/loadbalancing/{service}/{ip}",
    operation_id="set_host_weight",
    responses=_answers(
        {
            204: {"description": "Set; it survives registrations."},
            400: {"description": "No weight from 1 to 100.", **_JSON},
            404: {"description": "There is no such host.", **_JSON},
        }
    ),
    status_code=204,
    response_class=Response,
)
async def set_host_weight(
    service: AnyService, ip: AnyService, request: Request, replica: ReadyReplica, asking: Asking
) -> Response:
    """Set the weight of a host (lyft/discovery)."""
    return await _set_weight(replica, service, ip, await request.body(), asking.name)


async def _register_json(replica: Replica, service: str, body: bytes, actor: str) -> Response:
    try:
        # msgspec does not look into fields that it skips, and cookpad/sds refuses invalid UTF-8 anywhere.
        host = _sds_host.decode(body.decode())
        told = _registration(replica, host.tags, revision=host.revision, repository=None)
        key = (_checked_service(service), parse_ip(host.ip), host.port)
    except UnicodeDecodeError:
        return Response("Invalid UTF-8 string", 400, media_type="text/plain")
    except (ValueError, RecursionError) as error:
        return Response(f"Invalid JSON string: {error}", 400, media_type="text/plain")
    await replica.registrations.register(key, told, actor, fenced=False)
    return Response(status_code=202)


async def _register_form(replica: Replica, service: str, request: Request, body: bytes, actor: str) -> Response:
    try:
        form = _read_form(body)
        tags = _read_tags(form)
        if tags is None:
            return _object({"error": "Invalid json supplied in tags"}, 400)
        ip = form.get("ip") or (_client_ip(replica, request) if form.get("auto_ip") else "")
        key = (_checked_service(service), parse_ip(ip), parse_port(form["port"]))
        await replica.registrations.merge(key, _merger(replica, form, tags), actor, fenced=False)
    except (InvalidError, KeyError, ValueError, RecursionError):
        return _object({}, 400)
    return _object({})


def _merger(replica: Replica, form: dict[str, str], tags: dict[str, Any]) -> Tell:
    """Return what makes the registration of what is known at the moment in which it is stored."""

    def tell(known: Endpoint | None) -> Registration:
        try:
            return _merged(replica, known, form, tags)
        except (KeyError, ValueError, RecursionError) as error:
            raise InvalidError(f"no registration: {error}") from None

    return tell


def _read_form(body: bytes) -> dict[str, str]:
    fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=50, errors="strict")
    return dict(fields)


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


def _merged(replica: Replica, known: Endpoint | None, form: dict[str, str], tags: dict[str, Any]) -> Registration:
    for name in ("az", "region", "instance_id"):
        if name not in tags:
            raise ValueError(f"tags need {name}")
    if not form["revision"]:
        raise ValueError("a revision is needed")
    before = _tags_of(known) if known is not None and known.leaving_at is None else {}
    told = _registration(
        replica, before | tags, revision=form["revision"], repository=form.get("service_repo_name") or None
    )
    msgspec.convert({"revision": told.revision, "repository": told.repository}, dict[str, Label | None])
    return told


def _tags_of(endpoint: Endpoint) -> dict[str, Any]:
    told = endpoint.registration
    tags = {**told.metadata, "canary": told.canary}
    return tags if told.weight is None else tags | {"load_balancing_weight": min(told.weight, 100)}


def _registration(replica: Replica, tags: dict[str, Any], *, revision: str, repository: str | None) -> Registration:
    known = msgspec.convert(tags, _Tags)
    return Registration(
        instance_id=known.instance_id,
        # Their clients know no incarnations; 0 is older than any that a registrar can have.
        incarnation=0,
        revision=revision,
        region=known.region,
        zone=known.az,
        canary=known.canary,
        weight=known.load_balancing_weight,
        repository=repository,
        metadata={name: value for name, value in tags.items() if name not in _OWN_TAGS},
        ttl=replica.settings.compat_lease_ttl,
    )


def _client_ip(replica: Replica, request: Request) -> str:
    """Return the client's own address: the last hop that a trusted proxy saw, else the peer.

    Raises:
        ValueError: it is in none of the networks in which a client may register itself.
    """
    settings = replica.settings
    peer = ipaddress.ip_address(request.client.host if request.client else "")
    # A proxy may add a header of its own behind those that came from the client.
    forwarded = ",".join(request.headers.getlist("x-forwarded-for"))
    if forwarded and any(peer in network for network in settings.trusted_proxies):
        peer = ipaddress.ip_address(forwarded.rsplit(",", 1)[-1].strip())
    if not any(peer in network for network in settings.auto_ip_networks):
        raise ValueError(f"{peer} is in none of REGISTRY_AUTO_IP_NETWORKS")
    return str(peer)


def _checked_service(service: str) -> str:
    try:
        return str(msgspec.convert(service, ServiceName))
    except ValidationError:
        raise ValueError("the service's name has characters that are not allowed, or is too long") from None


async def _deregister_port(replica: Replica, service: str, ip: str, port: str, actor: str) -> Response:
    if not (port.isascii() and port.isdigit()):
        return Response(f"Given port is invalid as integer: {port}", 400, media_type="text/plain")
    try:
        key = (_checked_service(service), parse_ip(_unbracketed(ip)), parse_port(port))
        await replica.registrations.deregister(key, None, None, actor, lapsed_too=False)
    except (ValueError, NotFoundError):
        return _object({"id": "HostNotFound", "reason": "Not found the entry"}, 400)
    return Response(status_code=202)


async def _deregister_ip(replica: Replica, service: str, host: str, actor: str) -> Response:
    ip = _ip(host)
    keys = [] if ip is None else _keys(replica, service, ip)
    gone = await _each(replica.registrations.deregister(key, None, None, actor, lapsed_too=False) for key in keys)
    return _object({}, 200 if gone else 400)


async def _set_weight(replica: Replica, service: str, ip: str | None, body: bytes, actor: str) -> Response:
    try:
        weight = _read_form(body).get("load_balancing_weight")
    except ValueError:
        weight = None
    if not weight:
        return _object({"error": "Required parameter 'weight' is missing."}, 400)
    if not (weight.isascii() and weight.isdigit() and len(weight) <= 3 and 1 <= int(weight) <= 100):
        message = "Invalid load_balancing_weight. Supply an integer between 1 and 100."
        return _object({"error": message}, 400)
    keys = _keys(replica, service, None if ip is None else _ip(ip) or ip)
    judge = _weigher(int(weight), actor)
    found = await _each(replica.registrations.override(key, judge, actor) for key in keys)
    # Every host of a service without hosts has the weight: lyft/discovery calls that done.
    return Response(status_code=204) if found or ip is None else _object({"error": "Host not found"}, 404)


def _weigher(weight: int, actor: str) -> Callable[[Override | None, float], Override]:
    def judge(before: Override | None, now: float) -> Override:
        drain = before is not None and before.drain
        ends = before.expires_at if before is not None else None
        return Override(weight, drain, actor, "set by /v1/loadbalancing", now, ends)

    return judge


async def _each(writes: Iterable[Awaitable[object]]) -> int:
    """Do all these writes at once; return how many found their endpoint."""

    async def found(write: Awaitable[object]) -> bool:
        try:
            await write
        except NotFoundError:
            return False
        return True

    return sum(await asyncio.gather(*map(found, writes)))


def _keys(replica: Replica, service: str, ip: str | None) -> list[Key]:
    """Return the endpoints of a service that have not left: of one ip, or of all for None."""
    snapshot = replica.directory.get(service)
    return [
        endpoint.key
        for endpoint in snapshot.ordered()
        if endpoint.leaving_at is None and (ip is None or endpoint.address == ip)
    ]


def _ip(text: str) -> str | None:
    try:
        return parse_ip(_unbracketed(text))
    except ValueError:
        return None


def _unbracketed(text: str) -> str:
    return text.removeprefix("[").removesuffix("]")


def _place(ip: str, port: str) -> tuple[str, int] | None:
    address = _ip(ip)
    try:
        return None if address is None else (address, parse_port(port))
    except ValueError:
        return None


def _object(document: dict[str, str], status: int = 200) -> Response:
    return Response(msgspec.json.encode(document), status, media_type="application/json")
