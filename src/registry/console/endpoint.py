"""The page of one endpoint: why it gets traffic or not, its history, and the operator's forms."""

from typing import Literal

from fastapi import APIRouter, Response
from msgspec import UNSET, Struct

from registry.auth.principal import Principal
from registry.console.form import Filled
from registry.console.links import endpoint_values, links_out
from registry.console.page import Framed
from registry.core.endpoint import Key, Override, endpoint_key, metadata_texts
from registry.core.override_change import ExpiresIn, OverrideChange
from registry.errors import InvalidError
from registry.http.dependencies import READY, ExplanationsPart, Reader, RegistrationsPart, SettingsPart
from registry.http.parameters import EndpointName, ServiceName
from registry.http.views.history import explanation_view
from registry.usecases.registration import Registrations
from wire.model import Text, Weight

router = APIRouter(dependencies=[READY])

_CANARY = {None: None, "yes": True, "no": False}
_PATH = "/services/{service}/endpoints/{endpoint}"


class Sent(Struct, frozen=True):
    """The fields of the form of an override; an empty ``canary`` leaves the registration's value.

    The fields that begin with ``shown`` hold the values that the page showed. A field that was not changed in the form
    is not sent on, so that it does not undo a change that another person made meanwhile.
    """

    weight: Weight | None = None
    canary: Literal["yes", "no"] | None = None
    drain: bool = False
    reason: Text = ""
    expires_in: ExpiresIn | None = None
    shown_weight: Weight | None = None
    shown_canary: Literal["yes", "no"] | None = None
    shown_drain: bool = False


@router.get(_PATH)
async def show_endpoint(
    service: ServiceName,
    endpoint: EndpointName,
    explanations: ExplanationsPart,
    settings: SettingsPart,
    reader: Reader,
    frame: Framed,
) -> Response:
    """Show one endpoint; without PostgreSQL by what is in memory, which has no history."""
    explained = await explanations.explain(reader, endpoint_key(service, endpoint))
    explanation = explanation_view(explained)
    listed = explanation.now
    return frame.page(
        "endpoint.html",
        explanation=explanation,
        metadata=metadata_texts(listed.metadata) if listed else {},
        links=links_out(settings.link_endpoint, endpoint_values(listed)) if listed else [],
    )


@router.post(_PATH + "/override")
async def override_endpoint(
    service: ServiceName, endpoint: EndpointName, registrations: RegistrationsPart, form: Filled
) -> Response:
    """Set what was changed in the form of weight, canary and drain, with its reason and its end."""
    sent = form.read(Sent)
    if not (sent.weight or sent.canary or sent.drain or sent.shown_weight or sent.shown_canary or sent.shown_drain):
        raise InvalidError("The form sets no weight, canary or drain. To end an override, remove it.", "form")
    change = OverrideChange(
        weight=UNSET if sent.weight == sent.shown_weight else sent.weight,
        canary=UNSET if sent.canary == sent.shown_canary else _CANARY[sent.canary],
        drain=UNSET if sent.drain == sent.shown_drain else sent.drain,
        reason=sent.reason,
        expires_in=sent.expires_in,
    )
    override = await _change(registrations, endpoint_key(service, endpoint), change, form.actor)
    return form.done("cleared" if override is None else "set")


@router.post(_PATH + "/drain")
async def drain_endpoint(
    service: ServiceName, endpoint: EndpointName, registrations: RegistrationsPart, form: Filled
) -> Response:
    """Drain, beside whatever else is overridden; unlike a registrar's drain it can be taken back."""
    sent = form.read(Sent)
    change = OverrideChange(drain=True, reason=sent.reason, expires_in=sent.expires_in)
    await _change(registrations, endpoint_key(service, endpoint), change, form.actor)
    return form.done("drained")


@router.post(_PATH + "/undrain")
async def undrain_endpoint(
    service: ServiceName, endpoint: EndpointName, registrations: RegistrationsPart, form: Filled
) -> Response:
    """Take an operator's drain back, and nothing else that is overridden."""
    sent = form.read(Sent)
    # Without a reason, what stays overridden keeps its own.
    change = OverrideChange(drain=False, reason=sent.reason or UNSET)
    await _change(registrations, endpoint_key(service, endpoint), change, form.actor)
    return form.done("undrained")


@router.post(_PATH + "/clear")
async def clear_endpoint(
    service: ServiceName, endpoint: EndpointName, registrations: RegistrationsPart, form: Filled
) -> Response:
    """Take the whole override back."""
    await registrations.clear_override(form.actor, endpoint_key(service, endpoint), form.read(Sent).reason)
    return form.done("cleared")


async def _change(registrations: Registrations, key: Key, change: OverrideChange, actor: Principal) -> Override | None:
    stored = await registrations.override(actor, key, change.by(actor.name), change.given_reason)
    return stored.endpoint.override
