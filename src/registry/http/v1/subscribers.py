"""The route of subscribers: each Envoy, what it holds, and whether it keeps up."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from registry.core.subscriber_status import State, SubscriberFilter
from registry.errors import InvalidError
from registry.http.dependencies import READY, Reader, SubscribersPart
from registry.http.openapi import answers, problems
from registry.http.parameters import Cursor, PageSize, printable_filter, read_cursor, write_cursor
from registry.http.responses import json
from registry.http.views.subscribers import SubscriberList, subscriber_view

router = APIRouter(tags=["subscribers"], dependencies=[READY])

_BETWEEN = "\n"

_EXAMPLE = {
    "subscribers": [
        {
            "node_id": "i-0abc",
            "cluster": "web",
            "zone": "ap-northeast-1a",
            "address": "10.0.0.9",
            "envoy": "1.40.0",
            "service": "shop",
            "api": "v3",
            "version": 6,
            "version_info": "5f0c1a9e:6",
            "current_version": 7,
            "state": "stuck",
            "reason": "was answered version 7 and brings version 6 all the same, 40 times in a row",
            "held": False,
            "last_seen": 1_763_600_000.0,
            "first_seen": 1_763_500_000.0,
            "last_answer": {"status": 200, "version": 7, "at": 1_763_600_000.0},
            "process": "registry-1:42",
            "rejected_version": None,
            "rejected_at": None,
            "error": "",
            "edge": "",
        }
    ],
    "states": {"current": 11, "stuck": 1},
    "complete": False,
    "refused_ago": 63.0,
    "next": "c2hvcA==",
}


@router.get(
    "/v1/subscribers",
    operation_id="list_subscribers",
    responses=answers(SubscriberList, "A page by service, node id, address and API.", _EXAMPLE)
    | problems(413, 422, 503),
)
async def list_subscribers(  # noqa: PLR0913  # one argument a filter, as OpenAPI shows them
    subscribers: SubscribersPart,
    reader: Reader,
    service: Annotated[str | None, Query(max_length=255)] = None,
    node: Annotated[str | None, Query(max_length=255, description="`node.id` of an Envoy.")] = None,
    cluster: Annotated[str | None, Query(max_length=255, description="`node.cluster`: what the Envoy is.")] = None,
    zone: Annotated[str | None, Query(max_length=255, description="`node.locality.zone`.")] = None,
    state: Annotated[list[State] | None, Query(description="Repeat for several.")] = None,
    limit: PageSize = 100,
    cursor: Cursor = None,
) -> Response:
    """List the subscribers of all processes of this registry, with the version that each holds and the current one.

    `rejected`: it has rejected a version over its gRPC stream, and says why (`error`). `stuck`: it sends the version
    that it had although the response had a newer one; over REST, an Envoy shows in no other way that it rejects a
    response. Or access control refuses it (401, 403). `behind`: it has had an older version for longer than its pace
    explains, or has not acknowledged a newer one over its stream for 10 seconds. `silent`: it has not polled for three
    times its usual pause, or the process that held its stream is gone; it is dropped after 15 minutes. A subscriber
    that is not listed polls nowhere only if `complete` is true. More than 100,000 services of streams are counted in
    `states`, and those that are current are listed by `service` alone.
    """
    texts = {"service": service, "node_id": node, "cluster": cluster, "zone": zone}
    wanted = SubscriberFilter(**{name: printable_filter(name, text) for name, text in texts.items()})
    page = await subscribers.page(reader, wanted, state or (), after=_after(cursor), limit=limit)
    following = write_cursor(_BETWEEN.join(page.subscribers[-1].report.identity)) if page.more else None
    views = [subscriber_view(subscriber) for subscriber in page.subscribers]
    return json(SubscriberList(views, dict(page.states), page.complete, page.refused_ago, following))


def _after(cursor: str | None) -> tuple[str, ...]:
    if cursor is None:
        return ()
    parts = tuple(read_cursor(cursor).split(_BETWEEN))
    if len(parts) != 4:
        raise InvalidError("cursor is not one that a page gave as `next`", "query:cursor")
    return parts
