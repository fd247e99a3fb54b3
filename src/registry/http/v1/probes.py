"""The route by which registrars report the results of their probes."""

import msgspec
from fastapi import APIRouter, Request, Response

from registry.http.dependencies import READY, Actor, ProbeReportsPart
from registry.http.openapi import answers, body, problems
from registry.http.parameters import decode
from registry.http.responses import json
from registry.http.views.probes import ProbesCounted
from wire.probe_report import ProbeReport

router = APIRouter(tags=["registration"], dependencies=[READY])

_report = msgspec.json.Decoder(ProbeReport)

_EXAMPLE = {
    "service": "shop",
    "endpoint": "10.0.0.5:8080",
    "instance_id": "i-0abc",
    "results": [
        {
            "endpoint": "10.0.0.6:8080",
            "incarnation": 1_763_600_000_000,
            "outcome": "refused",
            "attempts": 3,
            "ago": 0.2,
            "reached_ago": 141.0,
        }
    ],
}


@router.post(
    "/v1/probes",
    operation_id="report_probes",
    openapi_extra=body(ProbeReport, _EXAMPLE),
    responses=answers(ProbesCounted, "Taken; `counted` of the results say something.", {"counted": 1})
    | problems(400, 404, 409, 413, 422, 429, 503),
)
async def report_probes(request: Request, reports: ProbeReportsPart, actor: Actor) -> Response:
    """Report the results of probes that a grant asked for, of suspects of the registrar's own service."""
    report = decode(_report, await request.body())
    return json(ProbesCounted(await reports.take(actor, report)))
