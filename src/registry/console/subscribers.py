"""The page of subscribers: each Envoy, what it polls, what it holds against ours, and whether it keeps up."""

from collections import Counter
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from msgspec import Struct

from registry.console.listing import Page, matches, page_of
from registry.console.page import Framed
from registry.cooperative import cooperatively
from registry.core.subscriber import State, SubscriberFilter, SubscriberStatus
from registry.http.parameters import ReadyReplica, printable_filter
from registry.http.v1.subscribers import subscriber_view
from registry.http.views import SubscriberView
from registry.process import RegistryProcess

router = APIRouter()

_WORST_FIRST: tuple[State, ...] = ("stuck", "behind", "silent", "current")


class Shown(Struct, frozen=True):
    """A page of subscribers.

    Attributes:
        shown: the page.
        states: how many are in each state, of all that the other filters let through.
        complete: whether who is not shown does not poll.
        refused: whether a process did not remember some, for want of room.
    """

    shown: Page[SubscriberView]
    states: dict[str, int]
    complete: bool
    refused: bool


@router.get("/subscribers")
async def show_subscribers(
    process: ReadyReplica,
    frame: Framed,
    q: Annotated[str, Query(max_length=255)] = "",
    service: Annotated[str, Query(max_length=255)] = "",
    state: Literal["", State] = "",
    page: Annotated[int, Query(ge=1)] = 1,
) -> Response:
    """Show the Envoys that poll any process of this registry, those in trouble first."""
    sought = SubscriberFilter(service=printable_filter("service", service) or None)
    roll = await roll_of(process, sought, q, state, page)
    return frame.page("subscribers.html", roll=roll, q=q, service=service, state=state, states=_WORST_FIRST)


async def roll_of(
    process: RegistryProcess, sought: SubscriberFilter, query: str = "", state: str = "", page: int = 1
) -> Shown:
    """Return a page of those who poll, the ones in trouble first."""
    roll = await process.subscriber_sync.list_subscribers(sought)
    found = [one async for one in cooperatively(roll.counted) if _matches(one, query)]
    states: Counter[str] = Counter(one.verdict.state for one in found)
    wanted = [one for one in found if not state or one.verdict.state == state]
    # Among their like they stay in the order of the roll.
    wanted.sort(key=lambda one: _WORST_FIRST.index(one.verdict.state))
    shown = page_of(wanted, page)
    views = [subscriber_view(one) for one in shown.items]
    return Shown(
        Page(views, shown.total, shown.number, shown.last), dict(states), roll.complete, roll.refused_ago is not None
    )


def _matches(one: SubscriberStatus, query: str) -> bool:
    seen = one.seen
    return matches(query, seen.node_id, seen.cluster, seen.zone, seen.address, seen.service)
