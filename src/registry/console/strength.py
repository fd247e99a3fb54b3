"""The forms about a service's strength: its expected number, and acknowledged losses."""

from typing import Annotated

from fastapi import APIRouter, Response
from msgspec import Meta, Struct

from registry.console.form import Filled
from registry.core.endpoint import endpoint_key
from registry.http.dependencies import READY, StrengthPart
from registry.http.parameters import EndpointName, ServiceName
from wire.model import MAX_EXPECTED, Text

router = APIRouter(dependencies=[READY])


class Sent(Struct, frozen=True):
    """The fields of the forms; an empty ``expected`` takes an operator's number back."""

    expected: Annotated[int, Meta(ge=0, le=MAX_EXPECTED)] | None = None
    reason: Text = ""


@router.post("/services/{service}/expected")
async def set_expected(service: ServiceName, strength: StrengthPart, form: Filled) -> Response:
    """Set how many endpoints the service should have, or take an operator's number back."""
    sent = form.read(Sent)
    await strength.expect(form.actor, service, sent.expected, sent.reason)
    return form.done("expected")


@router.post("/services/{service}/lost/acknowledge")
async def acknowledge_all_lost(service: ServiceName, strength: StrengthPart, form: Filled) -> Response:
    """Acknowledge the loss of all lost endpoints of the service."""
    await strength.acknowledge(form.actor, service, None, form.read(Sent).reason)
    return form.done("acknowledged")


@router.post("/services/{service}/lost/{endpoint}/acknowledge")
async def acknowledge_lost(
    service: ServiceName, endpoint: EndpointName, strength: StrengthPart, form: Filled
) -> Response:
    """Acknowledge the loss of one endpoint."""
    await strength.acknowledge(form.actor, service, endpoint_key(service, endpoint), form.read(Sent).reason)
    return form.done("acknowledged")
