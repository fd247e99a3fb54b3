"""The route of the registry's own state in one document, for the console and for `registryctl check`."""

from fastapi import APIRouter, Response

from registry.core.status import StateView
from registry.http.dependencies import Reader, StatusPart
from registry.http.openapi import answers, problems
from registry.http.responses import json

router = APIRouter(tags=["operations"])


@router.get(
    "/v1/state",
    operation_id="get_state",
    responses=answers(StateView, "How this process stands, and what PostgreSQL tells of the whole.", None) | problems(),
)
async def get_state(status: StatusPart, reader: Reader) -> Response:
    """Return the registry's own state. Answers 200 also when it is not ready, or PostgreSQL away: that is the state."""
    return json(await status.state(reader))
