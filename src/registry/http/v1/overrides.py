"""The route of overrides: everything that operators have overridden, and since when."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from registry.errors import InvalidError
from registry.http.dependencies import READY, ClockPart, OverridesPart, Reader
from registry.http.openapi import answers, problems, show_examples
from registry.http.parameters import Cursor, PageSize, printable_filter, read_cursor, write_cursor
from registry.http.responses import json
from registry.http.views.overrides import ListedOverrideView, OverrideList, listed_override_view

router = APIRouter(tags=["catalog"], dependencies=[READY])

_BETWEEN = "\n"
_EXAMPLE = OverrideList(
    [
        ListedOverrideView(
            service="shop",
            endpoint="10.0.0.5:8080",
            instance_id="i-0abc",
            status="DRAINING",
            weight=None,
            canary=None,
            drain=True,
            reason="slow disk",
            actor="ann from 10.0.0.9",
            set_at=1_763_500_000.0,
            expires_at=None,
            open_ended=True,
        )
    ],
    "c2hvcAoxMC4wLjAuNTo4MDgw",
)
show_examples(_EXAMPLE)


@router.get(
    "/v1/overrides",
    operation_id="list_overrides",
    responses=answers(OverrideList, "A page by service and endpoint.", None) | problems(413, 422, 503),
)
async def list_overrides(
    overrides: OverridesPart,
    clock: ClockPart,
    reader: Reader,
    service: Annotated[str | None, Query(max_length=255)] = None,
    limit: PageSize = 100,
    cursor: Cursor = None,
) -> Response:
    """List the overrides in force: who set which, when, why and until when.

    An override whose endpoint is not listed waits for the same instance to register there again; its `status` is null.
    These are as old as the last reading, a few seconds.
    """
    page = overrides.page(reader, printable_filter("service", service), after=_after(cursor), limit=limit)
    now = clock.now()
    following = write_cursor(_BETWEEN.join(page.overrides[-1].place)) if page.more else None
    return json(OverrideList([listed_override_view(item, now) for item in page.overrides], following))


def _after(cursor: str | None) -> tuple[str, str] | None:
    if cursor is None:
        return None
    service, between, endpoint = read_cursor(cursor).partition(_BETWEEN)
    if not between:
        raise InvalidError("cursor is not one that a page gave as `next`", "query:cursor")
    return (service, endpoint)
