"""The page of a shift: how far it is, the curve of both groups, and the orders to it."""

from typing import Annotated

from fastapi import APIRouter, Response
from msgspec import Meta, Struct

from registry.console.form import Filled
from registry.console.page import Framed, Missing, ask
from registry.console.shift_curve import HEIGHT, WIDTH, ShiftCurve, shift_curve
from registry.core.shift import Shift
from registry.core.shift_plan import MAX_MIN_REQUESTS, ShiftPlan
from registry.errors import InvalidError
from registry.http.dependencies import READY, CatalogPart, Reader, ShiftsPart
from registry.http.parameters import ServiceName
from registry.http.views.shifts import shift_view
from registry.usecases.shifts import Order
from wire.duration import parse_duration
from wire.model import Text

router = APIRouter(dependencies=[READY])


class SentShift(Struct, frozen=True):
    """The fields of the form that begins a shift."""

    to: Annotated[str, Meta(max_length=1000)] = ""
    steps: Annotated[str, Meta(max_length=200)] = "5, 25, 50, 100"
    every: Annotated[str, Meta(max_length=20)] = "5m"
    abort_above: Annotated[float, Meta(ge=0, le=100)] = 1.0
    min_requests: Annotated[int, Meta(ge=0, le=MAX_MIN_REQUESTS)] = 200
    reason: Text = ""


class SentOrder(Struct, frozen=True):
    """The fields of the forms with orders to a shift."""

    reason: Text = ""


@router.get("/services/{service}/shift")
async def show_shift(
    service: ServiceName, catalog: CatalogPart, shifts: ShiftsPart, reader: Reader, frame: Framed
) -> Response:
    """Show the shift of a service, under way or the last one."""
    snapshot = catalog.service(reader, service)
    stored = await ask(shifts.find(reader, service))
    missing = stored if isinstance(stored, Missing) else None
    shift = None if isinstance(stored, Missing) else stored
    return frame.page(
        "shift.html",
        service=snapshot.service,
        missing=missing,
        shift=None if shift is None else shift_view(shift, snapshot.shares),
        curve=None if shift is None else _curve(shift),
        width=WIDTH,
        height=HEIGHT,
    )


def _curve(shift: Shift) -> ShiftCurve:
    return shift_curve(shift.curve, shift.age, shift.plan.abort_above, shift.compared.ratio)


@router.post("/services/{service}/shift/start")
async def start(service: ServiceName, shifts: ShiftsPart, form: Filled) -> Response:
    """Begin a shift."""
    sent = form.read(SentShift)
    plan = ShiftPlan(
        sent.to,
        tuple(_percent(step) for step in sent.steps.split(",")),
        _seconds(sent.every),
        sent.abort_above,
        sent.min_requests,
        form.actor.name,
        sent.reason,
    )
    await shifts.start(form.actor, service, plan)
    return form.done("shift_started")


def _add_order(order: Order, done: str) -> None:
    """Add the route of the form of an order."""

    async def give(service: ServiceName, shifts: ShiftsPart, form: Filled) -> Response:
        await shifts.order(form.actor, service, order, form.read(SentOrder).reason)
        return form.done(done)

    router.add_api_route(f"/services/{{service}}/shift/{order}", give, methods=["POST"], name=f"{order}_shift")


_add_order("pause", "shift_paused")
_add_order("resume", "shift_resumed")
_add_order("abort", "shift_aborted")
_add_order("promote", "shift_promoted")


def _percent(text: str) -> float:
    try:
        return float(text.strip().removesuffix("%"))
    except ValueError:
        raise InvalidError(f"{text.strip()!r} is no percentage; write steps like 5, 25, 100", "form:steps") from None


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise InvalidError(str(error), "form:every") from None
