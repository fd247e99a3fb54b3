"""The console as an application of its own under /ui, with its pages, files, errors and headers; and /docs."""

from collections.abc import Mapping
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles

from registry.console import (
    audit,
    bulk,
    endpoint,
    errors,
    events,
    login,
    mesh,
    mesh_revision,
    mesh_service,
    overrides,
    overview,
    past,
    service,
    services,
    shift,
    state,
    strength,
    subscribers,
    traffic,
)
from registry.console.compression import Compression
from registry.console.docs import get_docs
from registry.console.security_headers import SecurityHeaders
from registry.console.service_contents import ServiceContents
from registry.console.service_rows import ServiceRows
from registry.usecases.catalog import Catalog

_STATIC = Path(__file__).parent / "static"


def install(app: FastAPI, parts: Mapping[type, object]) -> None:
    """Serve the console under /ui of ``app``; its pages call the use cases among ``parts``, by their class."""
    for path in ("/ui", "/ui/"):
        app.add_api_route(path, _first_page, operation_id="get_console", include_in_schema=False)
    app.add_api_route("/docs", get_docs, operation_id="get_docs", include_in_schema=False)
    app.mount("/ui", SecurityHeaders(Compression(_pages(parts))), name="console")


async def _first_page() -> RedirectResponse:
    return RedirectResponse("/ui/overview")


def _pages(parts: Mapping[type, object]) -> FastAPI:
    pages = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    catalog = parts.get(Catalog)
    kept = {ServiceRows: ServiceRows(catalog)} if isinstance(catalog, Catalog) else {}
    pages.state.parts = {**parts, **kept, ServiceContents: ServiceContents()}
    errors.install(pages)
    for part in (
        login,
        audit,
        overview,
        services,
        service,
        shift,
        strength,
        bulk,
        past,
        endpoint,
        overrides,
        traffic,
        subscribers,
        mesh,
        mesh_revision,
        mesh_service,
        events,
        state,
    ):
        # Not included, as in registry.app.
        pages.router.routes.extend(part.router.routes)
    pages.mount("/static", StaticFiles(directory=_STATIC), name="static")
    return pages
