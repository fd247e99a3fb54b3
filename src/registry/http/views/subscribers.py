"""The JSON documents of subscribers."""

from typing import Annotated

from msgspec import Meta, Struct

from registry.core.stream_subscriber import StreamReport
from registry.core.subscriber_status import SubscriberStatus
from registry.http.views.epoch import Epoch


class AnswerView(Struct, frozen=True):
    """The response to a subscriber's last poll."""

    status: int
    version: Annotated[int | None, Meta(description="Of a 200; null with a 304, and in v1.")]
    at: Epoch


class SubscriberView(Struct, frozen=True):
    """An Envoy or gRPC client that polls a service or has a stream for it, and how it keeps up."""

    node_id: Annotated[str, Meta(description="Empty in v1, and where the request names none.")]
    cluster: str
    zone: str
    address: Annotated[str, Meta(description="As Envoy tells it in X-Forwarded-For, else the peer's.")]
    envoy: Annotated[str, Meta(description="Its version; of a stream the user agent and its version.")]
    service: str
    api: Annotated[str, Meta(description="v1, v2 or v3 of a poll; grpc or grpc-delta of a stream.")]
    version: Annotated[
        int | None,
        Meta(
            description="The version that its last poll brought, or that it has acknowledged over its stream; null: "
            "none, or none of ours."
        ),
    ]
    version_info: str
    current_version: int
    state: Annotated[str, Meta(description="current, behind, stuck, rejected or silent.")]
    reason: str
    held: Annotated[bool, Meta(description="Its poll waits for a change right now, or its stream is open.")]
    last_seen: Epoch
    first_seen: Epoch
    last_answer: AnswerView | None
    process: Annotated[str, Meta(description="The registry process that saw it last.")]
    rejected_version: Annotated[
        int | None, Meta(description="The version that it has rejected over its stream (NACK); null: none.")
    ] = None
    rejected_at: Epoch | None = None
    error: Annotated[str, Meta(description="Its own words about that, at most 1,000 characters.")] = ""
    edge: Annotated[
        str, Meta(description="The registrar whose edge answers its polls; empty: it polls a registry itself.")
    ] = ""


class SubscriberList(Struct, frozen=True):
    """A page of subscribers; ``next`` is the cursor of the next page."""

    subscribers: list[SubscriberView]
    states: Annotated[dict[str, int], Meta(description="How many are in each state, on all pages, in any state.")]
    complete: Annotated[
        bool,
        Meta(
            description="A subscriber that is not listed does not poll. False: PostgreSQL is unavailable, and these "
            "are the subscribers of this process alone, or a process did not remember one (`refused_ago`)."
        ),
    ]
    refused_ago: Annotated[
        float | None,
        Meta(
            description="Seconds since a process did not remember a subscriber, because REGISTRY_MAX_SIGHTINGS were "
            "reached, one poll had more than 16 names or one of more than 255 characters, or PostgreSQL did not take "
            "its row; null: none did within 15 minutes."
        ),
    ]
    next: str | None


def subscriber_view(subscriber: SubscriberStatus) -> SubscriberView:
    """Return the document of a subscriber."""
    seen = subscriber.report
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
        current_version=subscriber.service_version.version,
        state=subscriber.evaluation.state,
        reason=subscriber.evaluation.reason,
        held=seen.held,
        last_seen=seen.seen_at,
        first_seen=seen.first_seen,
        last_answer=answer,
        process=seen.process,
        rejected_version=seen.rejected_version if isinstance(seen, StreamReport) else None,
        rejected_at=seen.rejected_at if isinstance(seen, StreamReport) else None,
        error=seen.error if isinstance(seen, StreamReport) else "",
        edge=seen.edge,
    )
