"""The drop-in contracts of cookpad/sds and lyft/discovery, on the paths that both used.

A request's body, or the form of its address, tells which of the two contracts it follows. Its Content-Type does not:
curl and Ruby's Net::HTTP send JSON under the form type. Bodies and status codes are theirs, to the letter.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute

from registry.http.dependencies import READY, Actor, DropInPart, Reader, SettingsPart
from registry.http.legacy.cookpad import deregister_port, register_json
from registry.http.legacy.host import address_port_of, ip_of
from registry.http.legacy.lyft import deregister_ip, register_form, set_weight
from registry.http.openapi import TEXT, problems
from registry.http.parameters import subscriber_address
from registry.http.problems import DROP_IN

router = APIRouter(tags=[DROP_IN], dependencies=[READY])
public_router = APIRouter(tags=[DROP_IN])
"""The routes that anybody may ask, also before this process is ready."""

_USAGE = """Headcount: service registry for Envoy.

GET    /v1/registration/{service}              the hosts of a service
POST   /v1/registration/{service}              register a host (JSON or form)
DELETE /v1/registration/{service}/{ip}:{port}  deregister a host
POST   /v2/discovery:endpoints                 Envoy's v2 EDS
POST   /v3/discovery:endpoints                 Envoy's v3 EDS
GET    /v1/services                            the native API; all of it is at /docs
"""

_JSON: dict[str, Any] = {"content": {"application/json": {"schema": {"type": "object"}}}}
_REFUSAL: dict[str, Any] = {"content": {**_JSON["content"], "text/plain": TEXT}}


def _answers(described: dict[int | str, Any], *statuses: int) -> dict[int | str, Any]:
    """Return the OpenAPI of a drop-in route: its own answers, and the problems that any route may have, and more."""
    documented = problems(413, 422, 503, *statuses)
    documented[403] |= {"description": f"{documented[403]['description']} The former has no body."}
    return documented | described


AnyService = Annotated[str, Path(max_length=1024)]


@public_router.api_route(
    "/",
    methods=["GET", "POST", "DELETE"],
    operation_id="get_usage",
    include_in_schema=False,
)
async def get_usage(request: Request) -> Response:
    """List the paths; redirect a browser, which asks for HTML, to the console."""
    if request.method == "GET" and "text/html" in request.headers.get("accept", "").lower():
        return RedirectResponse("/ui", 303, {"vary": "accept"})
    return Response(_USAGE, media_type="text/plain")


@public_router.api_route("/hc", methods=["GET", "POST", "DELETE"], operation_id="check_sds", include_in_schema=False)
async def check_sds() -> Response:
    """Answer cookpad/sds's health check."""
    return Response("ok", media_type="text/plain")


@public_router.get("/healthcheck", operation_id="check_discovery", include_in_schema=False)
async def check_discovery() -> Response:
    """Answer lyft/discovery's health check."""
    return Response("OK", media_type="text/plain")


@router.head("/v1/registration/repo/{repository}/", include_in_schema=False)
@router.head("/v1/registration/repo/{repository}", include_in_schema=False)
@router.get("/v1/registration/repo/{repository}/", include_in_schema=False)
@router.get(
    "/v1/registration/repo/{repository}",
    operation_id="list_repository_hosts",
    responses=_answers({200: {"description": "The hosts of all services of a source repository.", **_JSON}}),
    response_class=Response,
)
async def list_repository_hosts(repository: AnyService, hosts: DropInPart, reader: Reader) -> Response:
    """Return the hosts whose registration names a source repository (lyft/discovery)."""
    return Response(hosts.of_repository(reader, repository), media_type="application/json")


@router.head("/v1/registration/{service}/", include_in_schema=False)
@router.head("/v1/registration/{service}", include_in_schema=False)
@router.get("/v1/registration/{service}/", include_in_schema=False)
@router.get(
    "/v1/registration/{service}",
    operation_id="list_hosts",
    responses=_answers(
        {200: {"description": "The hosts that may receive traffic; none for an unknown service.", **_JSON}}
    ),
    response_class=Response,
)
async def list_hosts(service: AnyService, request: Request, hosts: DropInPart, reader: Reader) -> Response:
    """Return the hosts of a service: v1 SDS of Envoy, cookpad/sds and lyft/discovery."""
    subscriber = subscriber_address(request.headers.get("x-forwarded-for"), request.client)
    return Response(hosts.of_service(reader, service, subscriber), media_type="application/json")


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
            400: {"description": "Nothing was registered.", **_REFUSAL},
        },
        429,
    ),
    response_class=Response,
)
async def register_host(
    service: AnyService, request: Request, hosts: DropInPart, settings: SettingsPart, actor: Actor
) -> Response:
    """Register a host, or renew it. A JSON body overwrites what was known; a form merges its tags into it."""
    body = await request.body()
    if body.lstrip()[:1] == b"{":
        return await register_json(hosts, settings.compat_lease_ttl, service, body, actor)
    return await register_form(hosts, settings, service, request, body, actor)


@router.delete("/v1/registration/{service}/{host}/", include_in_schema=False)
@router.delete(
    "/v1/registration/{service}/{host}",
    operation_id="deregister_host",
    responses=_answers(
        {
            200: {"description": "All ports of the ip are deregistered (lyft/discovery).", **_JSON},
            202: {"description": "The ip:port is deregistered (cookpad/sds)."},
            400: {"description": "There is no such host.", **_REFUSAL},
        }
    ),
    response_class=Response,
)
async def deregister_host(service: AnyService, host: AnyService, hosts: DropInPart, actor: Actor) -> Response:
    """Deregister `ip:port`, or all ports of a bare `ip`."""
    # An IPv6 address with a port but without brackets reads as an address too: then what is registered decides.
    ip, colon, port = host.rpartition(":")
    address_port = address_port_of(ip, port)
    registered = address_port is not None and hosts.is_registered((service, *address_port))
    if colon and (registered or ip_of(host) is None):
        return await deregister_port(hosts, service, ip, port, actor)
    return await deregister_ip(hosts, service, host, actor)


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
async def set_service_weight(service: AnyService, request: Request, hosts: DropInPart, actor: Actor) -> Response:
    """Set the weight of every host of a service (lyft/discovery)."""
    return await set_weight(hosts, service, None, await request.body(), actor)


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
    service: AnyService, ip: AnyService, request: Request, hosts: DropInPart, actor: Actor
) -> Response:
    """Set the weight of a host (lyft/discovery)."""
    return await set_weight(hosts, service, ip, await request.body(), actor)


PATHS = {
    *(route.path for route in (*router.routes, *public_router.routes) if isinstance(route, APIRoute)),
    "/v2/discovery:endpoints",
}
"""Every path of a drop-in contract. cookpad/sds served v2 EDS too; its route is beside that of v3."""
