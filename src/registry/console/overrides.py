"""The page of overrides: everything that operators have overridden, the oldest without an end first."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from registry.console.listing import Page, matches, page_of
from registry.console.page import Framed
from registry.http.dependencies import READY, OverridesPart, Reader
from registry.http.parameters import printable_filter
from registry.http.views.overrides import ListedOverrideView, listed_override_view

router = APIRouter(dependencies=[READY])


@router.get("/overrides")
async def show_overrides(
    overrides: OverridesPart,
    reader: Reader,
    frame: Framed,
    q: Annotated[str, Query(max_length=255)] = "",
    service: Annotated[str, Query(max_length=255)] = "",
    page: Annotated[int, Query(ge=1)] = 1,
) -> Response:
    """Show the overrides in force, those first that may have been forgotten."""
    everything = overrides.all(reader, printable_filter("service", service) or None)
    views = [listed_override_view(item, frame.now) for item in everything]
    matching = [view for view in views if _matches(view, q)]
    matching.sort(key=lambda view: (not view.open_ended, view.set_at))
    shown: Page[ListedOverrideView] = page_of(matching, page)
    open_ended = sum(view.open_ended for view in views)
    return frame.page("overrides.html", rows=shown, total=len(views), open_ended=open_ended, q=q, service=service)


def _matches(view: ListedOverrideView, query: str) -> bool:
    return matches(query, view.service, view.endpoint, view.instance_id, view.actor, view.reason)
