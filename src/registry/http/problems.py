"""The one place that maps errors to HTTP: problem documents, and what the drop-in contracts fix instead."""

import math
from collections.abc import Collection, Iterable
from typing import Any

import msgspec
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from msgspec.structs import replace
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route

from meshconfig.position import Fault
from registry.errors import (
    FaultsError,
    FencedError,
    ForeignError,
    GuardedError,
    InvalidError,
    LimitError,
    MisdirectedError,
    NotAllowedError,
    NotFoundError,
    NotOwnerError,
    NotRememberedError,
    RegistryError,
    RevisionConflictError,
    ShiftConflictError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
    UnreadableError,
)
from registry.event_log import REQUEST_ID
from registry.http.requests import HEADER, new_request_id
from registry.metrics import REFUSED
from wire.problem import CONTENT_TYPE, Problem, ProblemFault

log = structlog.get_logger()

# Titles are our own: those of http.HTTPStatus differ between Python versions.
_TITLE = {
    400: "Unreadable request",
    401: "Unauthenticated",
    403: "Sent from elsewhere",
    404: "Not found",
    405: "Method not allowed",
    409: "Owned by another",
    412: "Not remembered",
    413: "Body too large",
    421: "Not a name of this registry",
    422: "Invalid request",
    429: "Limit reached",
    500: "Defect",
    503: "Unavailable",
}
_TITLE_OF: dict[type[RegistryError], str] = {
    FaultsError: "Faults in the definitions",
    GuardedError: "Too many at once",
    NotAllowedError: "Not allowed",
    NotOwnerError: "Not yours",
    RevisionConflictError: "Another revision came between",
    ShiftConflictError: "The shift does not allow it",
}
"""Titles of errors that share a status with another one."""
_STATUS: dict[type[RegistryError], int] = {
    UnreadableError: 400,
    UnauthenticatedError: 401,
    ForeignError: 403,
    NotAllowedError: 403,
    NotFoundError: 404,
    FencedError: 409,
    GuardedError: 409,
    NotOwnerError: 409,
    RevisionConflictError: 409,
    ShiftConflictError: 409,
    NotRememberedError: 412,
    TooLargeError: 413,
    MisdirectedError: 421,
    InvalidError: 422,
    LimitError: 429,
    UnavailableError: 503,
}


_ACCESS_ERRORS = (UnauthenticatedError, NotAllowedError, NotOwnerError)

_CHALLENGE = {"www-authenticate": 'Bearer realm="headcount"'}
"""The header of every 401, which RFC 9110 (11.6.1) requires."""

DROP_IN = "drop-in"
"""The tag of the routes whose contracts are those of cookpad/sds and lyft/discovery."""


def problem_for(error: RegistryError) -> Problem:
    """Return the document that says what was wrong."""
    status = next((code for kind, code in _STATUS.items() if isinstance(error, kind)), 400)
    return Problem(
        title=_TITLE_OF.get(type(error), _TITLE[status]),
        status=status,
        detail=str(error),
        pointer=getattr(error, "pointer", None),
        retry_after=getattr(error, "retry_after", None),
        owner=getattr(error, "owner", None),
        incarnation=getattr(error, "incarnation", None),
        faults=[fault_view(fault) for fault in error.faults] if isinstance(error, FaultsError) else None,
    )


def fault_view(fault: Fault) -> ProblemFault:
    """Return a fault of definitions as documents have it."""
    position = fault.position
    return ProblemFault(position.file, position.line, position.column, fault.message, fault.fix, fault.severity.value)


def problem_response(problem: Problem) -> Response:
    """Return the HTTP form of a problem."""
    # A request that a front refuses before the application has no id yet.
    request_id = REQUEST_ID.get() or new_request_id()
    headers = {} if problem.retry_after is None else {"retry-after": str(math.ceil(problem.retry_after))}
    if problem.status == 401:
        headers |= _CHALLENGE
    if problem.status < 500:
        REFUSED.labels(str(problem.status)).inc()
    problem = replace(problem, request_id=request_id)
    response = Response(msgspec.json.encode(problem), problem.status, headers, CONTENT_TYPE)
    # Last, where every answer has it.
    response.headers[HEADER] = request_id
    return response


def defect_response() -> Response:
    """Return the answer to a request that met a defect of ours, which is in the log."""
    return problem_response(Problem(_TITLE[500], 500, "a defect of the registry; its log says more"))


def install(app: FastAPI) -> None:
    """Answer every error of ``app`` with a problem document, or as a drop-in contract does.

    ``app.state.native_routes`` and ``app.state.native_prefixes`` have to be set before the first request.
    """
    app.add_exception_handler(RegistryError, _on_registry_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)
    app.add_exception_handler(Exception, _on_defect)


def native_prefixes(own: Iterable[str], drop_in: Collection[str]) -> tuple[str, ...]:
    """Return the beginnings of paths under which the project answers errors in its own way.

    Args:
        own: the paths of the project's own routes.
        drop_in: the paths whose contract is another project's; no prefix has one of them under it.
    """
    return tuple(sorted({_prefix(path, drop_in) for path in own if path not in drop_in}))


def is_below(prefixes: Iterable[str], path: str) -> bool:
    """Tell whether a path is one of these or below one of them, segment by segment."""
    return f"{path}/".startswith(tuple(f"{prefix}/" for prefix in prefixes))


def _prefix(path: str, drop_in: Collection[str]) -> str:
    # As short as may be, so that a misspelt path beside a route of ours gets an answer that helps.
    segments = path.split("/")
    for length in range(2, len(segments)):
        prefix = "/".join(segments[:length])
        if not any(f"{other}/".startswith(f"{prefix}/") for other in drop_in):
            return prefix
    return path


async def _on_registry_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, RegistryError):
        raise error
    problem = problem_for(error)
    if isinstance(error, _ACCESS_ERRORS) and DROP_IN in getattr(request.scope.get("route"), "tags", ()):
        # The clients of the drop-in contracts read no problem documents.
        REFUSED.labels(str(problem.status)).inc()
        return Response(status_code=problem.status, headers=_CHALLENGE if problem.status == 401 else None)
    return problem_response(problem)


async def _on_invalid_request(_request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    where, name = str(first["loc"][0]), ".".join(str(part) for part in first["loc"][1:])
    detail = "; ".join(_describe(item) for item in error.errors())
    return problem_response(Problem(_TITLE[422], 422, detail, pointer=f"{where}:{name}"))


def _describe(item: dict[str, Any]) -> str:
    where, *path = (str(part) for part in item["loc"])
    return f"{where} parameter {'.'.join(path)}: {item['msg']}"


async def _on_http_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    status = error.status_code
    if status in (404, 405) and not is_below(request.app.state.native_prefixes, request.url.path):
        # cookpad/sds answers an unknown path or method so.
        return Response(status_code=404)
    detail = f"{request.method} {request.url.path[:200]}: {error.detail}; /docs lists what there is"
    response = problem_response(Problem(_TITLE.get(status, "Refused"), status, detail))
    response.headers.update(error.headers or {})
    if status == 405:
        # The framework names the methods of the first route of this path alone.
        response.headers["allow"] = ", ".join(sorted(_methods_at(request.app.state.native_routes, request.url.path)))
    return response


def _methods_at(routes: Iterable[Route], path: str) -> set[str]:
    """Return the methods that a path takes."""
    return {method for route in routes if route.path_regex.match(path) for method in route.methods or ()}


async def _on_disconnect(_request: Request, _error: Exception) -> Response:
    """Answer a client that disconnected before its request was whole; it does not read this, and it is no defect."""
    return problem_response(Problem(_TITLE[400], 400, "the request ended before its body did"))


async def _on_defect(request: Request, error: Exception) -> Response:
    log.error("defect", method=request.method, path=request.url.path, exc_info=error)
    return defect_response()
