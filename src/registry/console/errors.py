"""Errors as pages, with the words and statuses of the API's problems and a link to go on."""

import math
from typing import Any, cast

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from registry.console.page import Frame
from registry.errors import RegistryError
from registry.http.dependencies import part_of
from registry.http.problems import problem_for
from registry.usecases.status import ProcessHealth
from wire.problem import Problem

log = structlog.get_logger()

_TITLE = {404: "Not found", 405: "Method not allowed"}


def install(pages: FastAPI) -> None:
    """Answer every error of the console with a page."""
    pages.add_exception_handler(RegistryError, _on_registry_error)
    pages.add_exception_handler(RequestValidationError, _on_invalid_request)
    pages.add_exception_handler(HTTPException, _on_http_error)
    pages.add_exception_handler(Exception, _on_defect)


async def _on_registry_error(request: Request, error: Exception) -> Response:
    return _page(request, problem_for(cast("RegistryError", error)))


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    first: dict[str, Any] = cast("RequestValidationError", error).errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])
    return _page(request, Problem("Invalid request", 422, f"{where}: {first['msg']}"))


async def _on_http_error(request: Request, error: Exception) -> Response:
    status = cast("HTTPException", error).status_code
    detail = f"The console has no page {request.url.path[:200]}."
    return _page(request, Problem(_TITLE.get(status, "Refused"), status, detail))


async def _on_defect(request: Request, error: Exception) -> Response:
    log.error("defect", method=request.method, path=request.url.path, exc_info=error)
    return _page(request, Problem("Defect", 500, "a defect of the registry; its log says more"))


def _page(request: Request, problem: Problem) -> Response:
    headers = {} if problem.retry_after is None else {"retry-after": str(math.ceil(problem.retry_after))}
    frame = Frame(request, part_of(request, ProcessHealth))
    return frame.page("error.html", code=problem.status, headers=headers, problem=problem)
