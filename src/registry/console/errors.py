"""Errors as pages, with the words and statuses of the API's problems and a link to go on."""

import math
from typing import Any, cast
from urllib.parse import urlencode

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException

from registry.console.page import Frame, judgement_of
from registry.errors import RegistryError, UnauthenticatedError
from registry.http.dependencies import part_of, principal_of
from registry.http.problems import problem_for
from registry.usecases.process_health import ProcessHealth
from registry.usecases.verdict import Verdicts
from registry.usecases.whoami import Whoami
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
    if isinstance(error, UnauthenticatedError) and request.method == "GET" and "hx-request" not in request.headers:
        return RedirectResponse(f"/ui/login?{urlencode({'next': _asked_for(request)})}", 303)
    return await _page(request, problem_for(cast("RegistryError", error)))


def _asked_for(request: Request) -> str:
    """Return the page that was asked for, or the one that a form was on."""
    path = request.url.path
    if request.method != "GET":
        return path.rpartition("/")[0]
    return f"{path}?{request.url.query}" if request.url.query else path


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    first: dict[str, Any] = cast("RequestValidationError", error).errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])
    return await _page(request, Problem("Invalid request", 422, f"{where}: {first['msg']}"))


async def _on_http_error(request: Request, error: Exception) -> Response:
    status = cast("HTTPException", error).status_code
    detail = f"The console has no page {request.url.path[:200]}."
    return await _page(request, Problem(_TITLE.get(status, "Refused"), status, detail))


async def _on_defect(request: Request, error: Exception) -> Response:
    log.error("defect", method=request.method, path=request.url.path, exc_info=error)
    return await _page(request, Problem("Defect", 500, "a defect of the registry; its log says more"))


async def _page(request: Request, problem: Problem) -> Response:
    headers = {} if problem.retry_after is None else {"retry-after": str(math.ceil(problem.retry_after))}
    reader = await principal_of(request)
    judgement = await judgement_of(part_of(request, Verdicts), reader)
    frame = Frame(request, part_of(request, ProcessHealth), part_of(request, Whoami), reader, judgement)
    return frame.page(
        "error.html", code=problem.status, headers=headers, problem=problem, asked_for=_asked_for(request)
    )
