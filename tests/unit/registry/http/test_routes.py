"""What every route has in common."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from harness.routes import application_in

from registry import console, http
from registry.app import build_app
from registry.http.legacy.routes import PATHS
from registry.http.problems import is_below


def _calls(dependant: Dependant) -> Iterator[Any]:
    yield dependant.call
    for dependency in dependant.dependencies:
        yield from _calls(dependency)


def _routes(routes: list[Any]) -> Iterator[APIRoute]:
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        else:
            inner = getattr(route, "original_router", None)
            yield from _routes(inner.routes if inner else [])


def test_no_request_waits_for_a_thread() -> None:
    """Routes and their dependencies are coroutines: a plain function costs each request a thread of the pool."""
    routes = list(_routes(build_app().routes))
    assert len(routes) > 20
    plain = {
        call.__qualname__
        for route in routes
        for call in _calls(route.dependant)
        if not inspect.iscoroutinefunction(call)
    }
    assert plain == set()


def test_no_route_is_built_again_at_the_first_request() -> None:
    """Routes are those of the modules: FastAPI would build included ones once more, while nothing is answered."""
    app = build_app()
    assert [route for route in [*app.routes, *_pages(app)] if hasattr(route, "original_router")] == []
    assert len([route for route in app.routes if isinstance(route, APIRoute)]) > 80


def _modules(package: ModuleType) -> Iterator[ModuleType]:
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        yield importlib.import_module(module.name)


def _pages(app: FastAPI) -> list[Any]:
    (mounted,) = (route for route in app.routes if getattr(route, "name", "") == "console")
    return list(application_in(mounted.app).routes)  # type: ignore[attr-defined]  # a mount


@pytest.mark.parametrize("package", [http, console])
def test_every_router_is_part_of_the_application(package: ModuleType) -> None:
    """A module with routes has to be in the list of registry/app.py, a page in that of registry/console/console.py."""
    app = build_app()
    served = {route.endpoint for route in _routes([*app.routes, *_pages(app)])}
    missing = {
        f"{module.__name__}: {route.path}"
        for module in _modules(package)
        for router in vars(module).values()
        if isinstance(router, APIRouter)
        for route in router.routes
        if isinstance(route, APIRoute) and route.endpoint not in served
    }
    assert missing == set()


def test_unknown_paths_beside_our_own_routes_are_ours() -> None:
    """The prefixes follow from the routes; below them a 404 has a body, and no drop-in path is among them."""
    prefixes = build_app().state.native_prefixes
    assert {"/v1/services", "/v3", "/livez", "/docs", "/ui"} <= set(prefixes)
    own = [route.path for route in _routes(build_app().routes) if route.path not in PATHS]
    assert all(is_below(prefixes, path) for path in own)
    assert all(is_below(prefixes, path) for path in ("/v3/", "/v3/discovery", "/v1/services/shop/nothing", "/ui"))
    assert not any(is_below(prefixes, path) for path in PATHS)
