"""What every route has in common."""

import inspect
from collections.abc import Iterator
from typing import Any

from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from registry.app import build_app


def _calls(dependant: Dependant) -> Iterator[Any]:
    yield dependant.call
    for one in dependant.dependencies:
        yield from _calls(one)


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
