"""Who polls: each Envoy, what it holds, and whether it keeps up."""

from collections import Counter
from typing import Annotated

from fastapi import APIRouter, Query, Response

from registry.cooperative import cooperatively
from registry.core.subscriber import State, SubscriberFilter, SubscriberStatus
from registry.errors import InvalidError
from registry.http.parameters import Cursor, PageSize, ReadyReplica, printable_filter, read_cursor, write_cursor
from registry.http.views import AnswerView, SubscriberList, SubscriberView, answers, json, problems

router = APIRouter(tags=["subscribers"])

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
    process: ReadyReplica,
    service: Annotated[str | None, Query(max_length=255)] = None,
    node: Annotated[str | None, Query(max_length=255, description="`node.id` of an Envoy.")] = None,
    cluster: Annotated[str | None, Query(max_length=255, description="`node.cluster`: what the Envoy is.")] = None,
    zone: Annotated[str | None, Query(max_length=255, description="`node.locality.zone`.")] = None,
    state: Annotated[list[State] | None, Query(description="Repeat for several.")] = None,
    limit: PageSize = 100,
    cursor: Cursor = None,
) -> Response:
    """List who polls any process of this registry, with the version it holds against ours.

    `stuck` brings the version that it had although it was answered a newer one: over REST that is all that an Envoy
    shows of an answer that it rejects. `behind` has an older one for longer than its pace explains. `silent` has not
    polled for three times its usual pause, and is forgotten after 15 minutes. Who is not listed polls nowhere only if
    `complete` is true.
    """
    told = {"service": service, "node_id": node, "cluster": cluster, "zone": zone}
    roll = await process.subscriber_sync.list_subscribers(
        SubscriberFilter(**{name: printable_filter(name, text) for name, text in told.items()})
    )
    after = _after(cursor)
    states: Counter[str] = Counter()
    found = []
    async for one in cooperatively(roll.counted):
        states[one.verdict.state] += 1
        if (not state or one.verdict.state in state) and one.seen.identity > after:
            found.append(one)
    page = found[:limit]
    following = write_cursor(_BETWEEN.join(page[-1].seen.identity)) if len(found) > limit else None
    views = [subscriber_view(one) for one in page]
    return json(SubscriberList(views, dict(states), roll.complete, roll.refused_ago, following))


def _after(cursor: str | None) -> tuple[str, ...]:
    if cursor is None:
        return ()
    parts = tuple(read_cursor(cursor).split(_BETWEEN))
    if len(parts) != 4:
        raise InvalidError("cursor is not one that a page gave as `next`", "query:cursor")
    return parts


def subscriber_view(one: SubscriberStatus) -> SubscriberView:
    """Return what is told of a subscriber."""
    seen = one.seen
    answer = None
    if seen.status is not None and seen.answered_at is not None:
        answer = AnswerView(seen.status, seen.offered, seen.answered_at)
    return SubscriberView(
        node_id=seen.node_id,
        cluster=seen.cluster,
        zone=seen.zone,
        address=seen.address,
        envoy=seen.envoy,
        service=seen.service,
        api=seen.api,
        version=seen.version,
        version_info=seen.version_info,
        current_version=one.ours.version,
        state=one.verdict.state,
        reason=one.verdict.reason,
        held=seen.held,
        last_seen=seen.seen_at,
        first_seen=seen.first_seen,
        last_answer=answer,
        process=seen.process,
    )
