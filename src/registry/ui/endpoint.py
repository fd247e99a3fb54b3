"""The page of one endpoint: why it is, or is not, served, what happened to it, and what an operator can do."""

from typing import Annotated, Literal

from fastapi import APIRouter, Response
from msgspec import Meta, Struct
from msgspec.structs import replace

from registry.api.explanation import explained, explained_from_memory
from registry.api.parameters import EndpointName, ReadyReplica, ServiceName, endpoint_key
from registry.endpoint import Override
from registry.errors import InvalidError
from registry.registrations import Judge
from registry.ui.form import Filled
from registry.ui.frame import Framed, Missing, ask
from wire.model import Text, Weight

router = APIRouter()

_PATH = "/services/{service}/endpoints/{endpoint}"


class Wish(Struct, frozen=True):
    """What an operator wants of an endpoint; ``canary`` empty leaves the registration's word."""

    weight: Weight | None = None
    canary: Literal["yes", "no"] | None = None
    drain: bool = False
    reason: Text = ""
    expires_in: Annotated[float, Meta(gt=0, le=31_536_000)] | None = None


@router.get(_PATH)
async def show_endpoint(service: ServiceName, endpoint: EndpointName, replica: ReadyReplica, frame: Framed) -> Response:
    """Show one endpoint; without PostgreSQL by what is in memory, which has no history."""
    key = endpoint_key(service, endpoint)
    told = await ask(explained(replica, key))
    away = told if isinstance(told, Missing) else None
    if isinstance(told, Missing):
        told = explained_from_memory(replica, key, frame.now)
    return frame.page("endpoint.html", told=told, away=away)


@router.post(_PATH + "/override")
async def override_endpoint(
    service: ServiceName, endpoint: EndpointName, replica: ReadyReplica, form: Filled
) -> Response:
    """Set weight, canary and drain, all of them anew."""
    wish = form.read(Wish)
    canary = None if wish.canary is None else wish.canary == "yes"
    if wish.weight is None and canary is None and not wish.drain:
        raise InvalidError("An override sets a weight, canary or a drain. To end one, take it back.", "form")

    def judge(_before: Override | None, now: float) -> Override:
        return Override(wish.weight, wish.drain, form.actor, wish.reason, now, _end(wish, now), canary=canary)

    await replica.registrations.override(endpoint_key(service, endpoint), judge, form.actor)
    return form.done("set")


@router.post(_PATH + "/drain")
async def drain_endpoint(service: ServiceName, endpoint: EndpointName, replica: ReadyReplica, form: Filled) -> Response:
    """Drain, beside whatever else is overridden; unlike a registrar's drain it can be taken back."""
    wish = form.read(Wish)
    await replica.registrations.override(endpoint_key(service, endpoint), _draining(wish, form.actor), form.actor)
    return form.done("drained")


@router.post(_PATH + "/undrain")
async def undrain_endpoint(
    service: ServiceName, endpoint: EndpointName, replica: ReadyReplica, form: Filled
) -> Response:
    """Take an operator's drain back, and nothing else that is overridden."""
    key = endpoint_key(service, endpoint)
    known = replica.directory.find(key)
    override = known.override if known is not None else None
    if override is not None and (override.weight is not None or override.canary is not None):
        await replica.registrations.override(key, _undrained(form.actor), form.actor)
    else:
        await replica.registrations.clear_override(key, form.actor)
    return form.done("undrained")


@router.post(_PATH + "/clear")
async def clear_endpoint(service: ServiceName, endpoint: EndpointName, replica: ReadyReplica, form: Filled) -> Response:
    """Take the whole override back."""
    await replica.registrations.clear_override(endpoint_key(service, endpoint), form.actor)
    return form.done("cleared")


def _end(wish: Wish, now: float) -> float | None:
    return None if wish.expires_in is None else now + wish.expires_in


def _draining(wish: Wish, actor: str) -> Judge:
    def judge(before: Override | None, now: float) -> Override:
        before = before or Override(None, False, actor, "", now, None)
        return replace(before, drain=True, actor=actor, reason=wish.reason, set_at=now, expires_at=_end(wish, now))

    return judge


def _undrained(actor: str) -> Judge:
    def judge(before: Override | None, now: float) -> Override:
        before = before or Override(None, False, actor, "", now, None)
        return replace(before, drain=False, actor=actor, set_at=now)

    return judge
