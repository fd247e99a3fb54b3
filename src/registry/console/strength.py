"""The forms about a service as a whole: its expected number, acknowledged losses, and shares of traffic."""

from typing import Annotated

from fastapi import APIRouter, Response
from msgspec import Meta, Struct

from registry.console.form import Filled
from registry.core.endpoint import endpoint_key
from registry.core.shares import Share
from registry.errors import InvalidError
from registry.http.dependencies import READY, SharesPart, StrengthPart
from registry.http.parameters import EndpointName, ServiceName
from wire.model import MAX_EXPECTED, Text
from wire.share import split_share

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


class SentShares(Struct, frozen=True):
    """The fields of the form of shares; empty ``shares`` take them back."""

    shares: Annotated[str, Meta(max_length=20_000)] = ""
    reason: Text = ""


@router.post("/services/{service}/shares")
async def set_shares(service: ServiceName, shares: SharesPart, form: Filled) -> Response:
    """Set the shares of traffic of the service's groups, one a line, or take them back."""
    sent = form.read(SentShares)
    groups = [_share(line.strip()) for line in sent.shares.splitlines() if line.strip()]
    if not groups:
        await shares.clear(form.actor, service, sent.reason)
        return form.done("unshared")
    await shares.set(form.actor, service, groups, sent.reason)
    return form.done("shared")


def _share(line: str) -> Share:
    try:
        return Share(*split_share(line))
    except ValueError as error:
        raise InvalidError(str(error), "form:shares") from None


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
