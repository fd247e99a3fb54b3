"""The route of the verdict: all findings about the registry in one document, as `registryctl check` prints them."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from registry.core.verdict.document import Verdict
from registry.http.dependencies import Reader, VerdictsPart
from registry.http.openapi import answers, problems
from registry.http.responses import json

router = APIRouter(tags=["operations"])

Suspects = Annotated[
    int,
    Query(ge=0, le=1_000_000, description="The number of silent endpoints that still get traffic and are no finding."),
]


@router.get(
    "/v1/verdict",
    operation_id="get_verdict",
    responses=answers(Verdict, "What is wrong with the registry, as far as the principal may read it.", None)
    | problems(422),
)
async def get_verdict(verdicts: VerdictsPart, reader: Reader, suspects: Suspects = 0) -> Response:
    """Return every finding about the registry, within two seconds. Answers 200 also when something fails."""
    return json(await verdicts.verdict(reader, suspects))
