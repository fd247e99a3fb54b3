"""The application: every route behind the door, and the start and stop of its replica."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from registry.api import (
    catalog,
    compat,
    discovery,
    events,
    expiry,
    explanation,
    ops,
    problems,
    registration,
    state,
    subscribers,
    targets,
)
from registry.api.documents import components
from registry.door import Door
from registry.replica import Replica

STATIC = Path(__file__).parent / "ui" / "static"

_DESCRIPTION = """Service registry for Envoy on ECS and VMs.

Envoy polls `/v3/discovery:endpoints`; registrars send `/v1/heartbeats`; people use the rest. Errors are
RFC 9457 problem documents, except under the drop-in paths, which answer as cookpad/sds and lyft/discovery did.
"""


def build_app(replica: Replica | None = None) -> FastAPI:
    """Return the FastAPI application; without a replica it can only describe itself."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if replica is not None:
            await replica.start()
        yield
        if replica is not None:
            await replica.stop()

    app = FastAPI(
        title="Headcount",
        version=version("headcount"),
        description=_DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.state.replica = replica
    problems.install(app)
    for part in (
        discovery,
        registration,
        catalog,
        events,
        expiry,
        explanation,
        subscribers,
        targets,
        state,
        ops,
        compat,
    ):
        app.include_router(part.router)
    app.mount("/ui/static", StaticFiles(directory=STATIC), name="static")
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]  # FastAPI's own way to extend it
    return app


def describe(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, with the schemas of the documents that FastAPI does not parse itself."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        document.setdefault("components", {}).setdefault("schemas", {}).update(components())
    return app.openapi_schema or {}


def build_door(replica: Replica) -> Door:
    """Return what a server is to run."""
    return Door(build_app(replica), replica)
