"""The form that changes several endpoints of a service, and the page that says what became of each."""

from typing import Annotated

from fastapi import APIRouter, Response
from msgspec import Meta, Struct

from registry.console.form import Filled
from registry.console.page import Framed
from registry.core.override_change import ExpiresIn
from registry.errors import InvalidError
from registry.http.dependencies import READY, BulkPart
from registry.http.parameters import ServiceName
from registry.usecases.bulk import MAX_BULK, BulkAction, BulkChange
from wire.model import Text, Weight

router = APIRouter(dependencies=[READY])

_OUTCOMES = {
    "drain": "drained",
    "undrain": "undrained",
    "weight": "given another weight",
    "deregister": "deregistered",
}


class Sent(Struct, frozen=True):
    """The fields of the form; ``endpoints`` has their names with spaces between."""

    action: BulkAction
    endpoints: Annotated[str, Meta(max_length=64 * MAX_BULK)]
    reason: Text
    weight: Weight | None = None
    expires_in: ExpiresIn | None = None
    force: bool = False


@router.post("/services/{service}/bulk")
async def change_endpoints(service: ServiceName, bulk: BulkPart, form: Filled, frame: Framed) -> Response:
    """Change the selected endpoints, each for itself, and show which were changed and which were refused."""
    sent = form.read(Sent)
    endpoints = sent.endpoints.split()
    if not 1 <= len(endpoints) <= MAX_BULK:
        raise InvalidError(f"{len(endpoints)} endpoints are selected; from 1 to {MAX_BULK} are allowed", "form")
    change = BulkChange(sent.action, sent.reason, sent.weight, sent.expires_in, sent.force)
    results = await bulk.change(form.actor, service, endpoints, change)
    return frame.page(
        "bulk.html",
        service=service,
        outcome=_OUTCOMES[sent.action],
        reason=sent.reason,
        results=results,
        refused=[result for result in results if result.error is not None],
    )
