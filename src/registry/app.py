"""The application: every route, and the start and stop of the process whose use cases they call."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.routing import Route

from registry.console import console
from registry.http import openapi, problems
from registry.http.asgi import DiscoveryMiddleware
from registry.http.legacy import routes as drop_in
from registry.http.lists.lists import Lists
from registry.http.requests import Requests
from registry.http.v1 import (
    access,
    audit,
    bulk,
    catalog,
    discovery,
    edge,
    errands,
    events,
    expiry,
    explain,
    login,
    mesh,
    mesh_rollout,
    mesh_services,
    ops,
    overrides,
    presence,
    probes,
    registration,
    shares,
    shifts,
    state,
    subscribers,
    targets,
    traffic,
    verdict,
)
from registry.http.v1.edge import EdgeQuestions
from registry.process import RegistryProcess
from registry.program import VERSION
from registry.usecases.traffic import Traffic

_NATIVE = tuple(
    routes.router
    for routes in (
        edge,
        registration,
        bulk,
        probes,
        catalog,
        presence,
        shares,
        shifts,
        overrides,
        events,
        expiry,
        errands,
        explain,
        mesh_rollout,
        mesh_services,
        subscribers,
        traffic,
        targets,
        mesh,
        state,
        verdict,
        access,
        login,
        audit,
        ops,
    )
)
"""Routes of the project's own, behind those of discovery, in the order of the OpenAPI document."""


def build_app(process: RegistryProcess | None = None) -> FastAPI:
    """Return the FastAPI application; without a process it can only describe itself."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if process is not None:
            await process.start()
        yield
        if process is not None:
            await process.stop()

    app = FastAPI(
        title="Headcount",
        version=VERSION,
        description=openapi.DESCRIPTION,
        contact=openapi.CONTACT,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        servers=openapi.SERVERS,
        openapi_tags=openapi.TAGS,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.parts = {} if process is None else process.parts | {Lists: Lists(process.catalog)}
    problems.install(app)
    native = (discovery.build_router(process.discovery.paths.values() if process else ()), *_NATIVE)
    for router in (*native, drop_in.router, drop_in.public_router):
        # As they are: include_router() would build each once more at the first request, which takes 0.1 s of all polls.
        app.router.routes.extend(router.routes)
    console.install(app, app.state.parts)
    routes = [route for route in app.router.routes if isinstance(route, Route) and route.path not in drop_in.PATHS]
    app.state.native_routes = routes
    app.state.native_prefixes = problems.native_prefixes((route.path for route in routes), drop_in.PATHS)
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]  # FastAPI's own way to extend it
    return app


def describe(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, with credentials, and the schemas of documents that FastAPI does not parse."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        document.setdefault("components", {}).setdefault("schemas", {}).update(openapi.components())
        document["components"]["securitySchemes"] = openapi.SECURITY_SCHEMES
        document["security"] = openapi.SECURITY
    return app.openapi_schema or {}


def build_asgi_app(process: RegistryProcess) -> DiscoveryMiddleware:
    """Return the application that a server runs: the front that answers polls, around the rest."""
    app = build_app(process)
    return DiscoveryMiddleware(
        Requests(app),
        process.discovery,
        process.heartbeats,
        process.hosts,
        app.state.parts[Lists],
        process.authentication,
        process.settings,
        app.state.parts[Traffic],
        EdgeQuestions(process.edge_discovery, process.health),
    )
