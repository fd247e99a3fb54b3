"""Routes for operators of the registry: liveness, readiness, metrics and version."""

from collections.abc import AsyncIterator, Iterable
from typing import Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse

from registry.http.dependencies import ProcessHealthPart, Reader, StatusPart
from registry.http.openapi import PUBLIC, TEXT, answers, problems, reference
from registry.http.responses import json
from registry.http.views.process import Readiness, Version
from registry.metrics_exposition import CONTENT_TYPE

router = APIRouter(tags=["operations"])

_PARTS_AT_ONCE = 20
"""Parts of the metrics that are sent as one body; with more, polls are answered in between."""


@router.head("/livez", include_in_schema=False)  # as load balancers ask
@router.get(
    "/livez",
    operation_id="get_liveness",
    openapi_extra=PUBLIC,
    responses={
        200: {"description": "The process answers.", "content": {"text/plain": TEXT | {"example": "ok\n"}}},
        **problems(free=True),
    },
    response_class=Response,
)
async def get_liveness() -> Response:
    """Tell that the process answers. Asks nothing of PostgreSQL: restarting us would not mend that."""
    return Response("ok\n", media_type="text/plain")


@router.head("/readyz", include_in_schema=False)  # as load balancers ask
@router.get(
    "/readyz",
    operation_id="get_readiness",
    responses=answers(
        Readiness,
        "This process can answer discovery.",
        {"ready": True, "parts": [{"name": "snapshot", "ok": True, "detail": "read 0.4 s ago"}]},
    )
    | {503: {"description": "Not yet.", "content": {"application/json": {"schema": reference(Readiness)}}}}
    | problems(422),
)
async def get_readiness(
    health: ProcessHealthPart,
    reader: Reader,
    verbose: Annotated[str | None, Query(description="Any value, or none: tell of each part.")] = None,
) -> Response:
    """Tell whether discovery can be answered. Stays ready on a good snapshot while PostgreSQL is away."""
    parts = health.parts(reader) if verbose is not None else []
    ready = health.ready
    return json(Readiness(ready, parts), 200 if ready else 503, {} if ready else {"retry-after": "1"})


@router.get(
    "/metrics",
    operation_id="get_metrics",
    responses={200: {"description": "Prometheus' text format.", "content": {"text/plain": TEXT}}, **problems()},
    response_class=Response,
)
async def get_metrics(status: StatusPart, reader: Reader) -> Response:
    """Return the counters of all worker processes."""
    parts = await status.metrics(reader)
    if len(parts) <= _PARTS_AT_ONCE:
        return Response(b"".join(parts), media_type=CONTENT_TYPE)
    return StreamingResponse(_each(parts), media_type=CONTENT_TYPE)


@router.get(
    "/version",
    operation_id="get_version",
    responses=answers(
        Version,
        "The versions of this process.",
        {"name": "headcount", "version": "0.1.0", "python": "3.13.1", "schema": "0001"},
    )
    | problems(),
)
async def get_version(status: StatusPart, reader: Reader) -> Response:
    """Return the versions of program, Python and schema."""
    versions = status.versions(reader)
    return json(Version("headcount", versions.program, versions.python, versions.schema))


async def _each(parts: Iterable[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
