"""The page of subscribers: each Envoy, the services that it polls, and its version beside the current one."""

from collections import Counter
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from msgspec import Struct

from registry.auth.principal import Principal
from registry.console.listing import Page, matches, page_of
from registry.console.page import Framed
from registry.cooperative import cooperatively
from registry.core.subscriber_status import State, SubscriberFilter, SubscriberStatus
from registry.http.dependencies import READY, Reader, SubscribersPart
from registry.http.parameters import printable_filter
from registry.http.views.subscribers import SubscriberView, subscriber_view
from registry.usecases.subscribers import SubscriberListing

router = APIRouter(dependencies=[READY])

_WORST_FIRST: tuple[State, ...] = ("rejected", "stuck", "behind", "silent", "current")


class SubscriberPage(Struct, frozen=True):
    """A page of subscribers.

    Attributes:
        shown: the page.
        states: number of subscribers in each state, of those that match the other filters.
        complete: whether every subscriber is listed.
        refused: whether a process had no room to remember some.
    """

    shown: Page[SubscriberView]
    states: dict[str, int]
    complete: bool
    refused: bool


@router.get("/subscribers")
async def show_subscribers(
    subscribers: SubscribersPart,
    reader: Reader,
    frame: Framed,
    q: Annotated[str, Query(max_length=255)] = "",
    service: Annotated[str, Query(max_length=255)] = "",
    state: Literal["", State] = "",
    page: Annotated[int, Query(ge=1)] = 1,
) -> Response:
    """Show the Envoys that poll any process of this registry, those in trouble first."""
    wanted = SubscriberFilter(service=printable_filter("service", service) or None)
    listed = await page_of_subscribers(subscribers, reader, wanted, q, state, page)
    return frame.page("subscribers.html", subscribers=listed, q=q, service=service, state=state, states=_WORST_FIRST)


async def page_of_subscribers(
    subscribers: SubscriberListing,
    reader: Principal,
    wanted: SubscriberFilter,
    query: str = "",
    state: str = "",
    page: int = 1,
) -> SubscriberPage:
    """Return a page of subscribers, those in trouble first."""
    everyone = await subscribers.all(reader, wanted)
    matching = [subscriber async for subscriber in cooperatively(everyone.statuses) if _matches(subscriber, query)]
    states: Counter[str] = Counter(subscriber.evaluation.state for subscriber in matching)
    if not query:
        states["current"] += everyone.unlisted
    in_state = [subscriber for subscriber in matching if not state or subscriber.evaluation.state == state]
    # The sort is stable: subscribers in one state stay in their order.
    in_state.sort(key=lambda subscriber: _WORST_FIRST.index(subscriber.evaluation.state))
    shown = page_of(in_state, page)
    views = [subscriber_view(subscriber) for subscriber in shown.items]
    return SubscriberPage(
        Page(views, shown.total, shown.number, shown.last),
        dict(+states),
        everyone.complete,
        everyone.refused_ago is not None,
    )


def _matches(subscriber: SubscriberStatus, query: str) -> bool:
    seen = subscriber.report
    return matches(query, seen.node_id, seen.cluster, seen.zone, seen.address, seen.service)
