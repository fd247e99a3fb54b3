"""Every route of the application, and a request for each that its parameters allow."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from msgspec import Struct
from starlette.routing import Mount

from registry.app import build_app, describe

SERVICE, ENDPOINT, PORT = "policy-shop", "10.0.0.1:80", 80
_SAMPLES = {
    "service": SERVICE,
    "endpoint": ENDPOINT,
    "host": ENDPOINT,
    "ip": ENDPOINT.partition(":")[0],
    "repository": "some-repository",
    "token_id": "abcdefghijklmnop",
    "name": "some-identity",
    "number": "1",
    "kind": "clusters",
    "errand": "5b1d0f6a9c3e7a42",
}
"""A value for each parameter of a path."""
_REQUIRED = {
    "callee": SERVICE,
    "reason": "a test",
    "at": "1",
    "instance": "i-1",
    "endpoint": f"{SERVICE}/{ENDPOINT}",
}
"""A value for each query parameter that a route requires."""
_FORM = {
    "weight": "5",
    "reason": "a test",
    "expires_in": "60",
    "service": SERVICE,
    "action": "drain",
    "endpoints": ENDPOINT,
}
"""A form of the console with every field that one of its pages requires."""
_BODIES: Mapping[tuple[str, str], Mapping[str, Any]] = {
    # With a version: a first poll that is refused is answered without resources.
    ("POST", "/v2/discovery:endpoints"): {"json": {"version_info": "5f0c1a9e:7", "resource_names": ["shop"]}},
    ("POST", "/v3/discovery:endpoints"): {"json": {"version_info": "5f0c1a9e:7", "resource_names": ["shop"]}},
    **{
        ("POST", f"/v3/discovery:{kind}"): {"json": {"version_info": "5f0c1a9e:7.1", "resource_names": ["default"]}}
        for kind in ("clusters", "listeners", "routes")
    },
    ("POST", "/v1/edge/assignments"): {"json": {"node": "i-1", "held": {"shop": "5f0c1a9e:7"}}},
    ("POST", "/v1/loadbalancing/{service}"): {"data": {"load_balancing_weight": "5"}},
    ("POST", "/v1/loadbalancing/{service}/{ip}"): {"data": {"load_balancing_weight": "5"}},
}
"""Bodies of routes whose example in OpenAPI is missing, or does not do."""


class Route(Struct, frozen=True):
    """A route, and what a request for it is sent with.

    Attributes:
        method: in capitals.
        path: with its parameters by name.
        tags: as OpenAPI groups it; ``console`` for a page.
        url: with a value for each parameter.
        content: keyword arguments for httpx.
    """

    method: str
    path: str
    tags: Sequence[str]
    url: str
    content: Mapping[str, Any]


def every_route() -> list[Route]:
    """Return every route of the application, console included, with a request for each."""
    app = build_app()
    documented = describe(app)["paths"]
    return [_route(path, method, route, documented) for path, method, route in _walk(app.routes)]


def application_in(app: Any) -> Any:
    """Return the application that others are around."""
    while hasattr(app, "_inner"):
        app = app._inner
    return app


def _walk(routes: Sequence[Any], prefix: str = "") -> Iterator[tuple[str, str, APIRoute]]:
    for route in routes:
        if isinstance(route, APIRoute):
            yield from ((prefix + route.path, method, route) for method in sorted(route.methods or ()))
        elif isinstance(route, Mount):
            inner = application_in(route.app)
            yield from _walk(inner.routes if isinstance(inner, FastAPI) else [], prefix + route.path)
        elif hasattr(route, "original_router"):
            yield from _walk(route.original_router.routes, prefix)


def _route(path: str, method: str, route: APIRoute, documented: Mapping[str, Any]) -> Route:
    # A path with a slash at its end is the same route as the one without.
    operation = documented.get(path.removesuffix("/"), {}).get(method.lower(), {})
    console = path.startswith("/ui")
    content = {"data": _FORM} if console and method == "POST" else _content(operation)
    query = "&".join(
        f"{parameter['name']}={_REQUIRED[parameter['name']]}"
        for parameter in operation.get("parameters", ())
        if parameter["in"] == "query" and parameter["required"]
    )
    url = path.format_map(_SAMPLES) + (f"?{query}" if query else "")
    given = _BODIES.get((method, path.removesuffix("/")), content)
    return Route(method, path, ["console"] if console else [str(tag) for tag in route.tags], url, given)


def _content(operation: Mapping[str, Any]) -> Mapping[str, Any]:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    return {"json": body["example"]} if "example" in body else {}
