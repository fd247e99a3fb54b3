"""The JSON documents of shares of traffic within a service."""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct

from registry.core.shares import MAX_GROUPS, Share
from registry.core.snapshot import Snapshot
from registry.http.openapi import show_examples
from registry.http.views.epoch import Epoch
from wire.model import PRINTABLE_PATTERN, Text


class ShareRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The share of one group of endpoints."""

    selector: Annotated[
        str,
        Meta(
            max_length=1000,
            pattern=PRINTABLE_PATTERN,
            description="`key=value`: the endpoints whose revision, canary, zone, region, instance_id or metadata "
            "has this value. An endpoint is in the first group that fits it.",
        ),
    ]
    percent: Annotated[
        float,
        Meta(ge=0, le=100, description="Of the requests. With 0 its endpoints are published as DRAINING."),
    ]


class SharesRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """The shares of a service, in place of those that it has.

    The endpoints in no group get what is left.
    """

    shares: Annotated[list[ShareRequest], Meta(min_length=1, max_length=MAX_GROUPS)]
    reason: Text = ""

    @property
    def groups(self) -> tuple[Share, ...]:
        """The shares as the rules take them."""
        return tuple(Share(share.selector, share.percent) for share in self.shares)


class GroupView(Struct, frozen=True):
    """A group of endpoints, and the share that it was given and gets."""

    selector: Annotated[str, Meta(description="Empty for the rest: the endpoints that are in no other group.")]
    percent: float
    effective_percent: Annotated[
        float, Meta(description="What it gets: a group without routable endpoints leaves its share to the others.")
    ]
    endpoints: int
    routable: Annotated[int, Meta(description="Its endpoints that may receive traffic, apart from the share.")]


class SharesView(Struct, frozen=True):
    """The shares of a service; no groups: it has none, and each endpoint has its own weight."""

    service: str
    version: int
    groups: list[GroupView]
    actor: Annotated[str, Meta(description="The operator who set them.")] = ""
    reason: str = ""
    set_at: Epoch | None = None
    warnings: Annotated[
        list[str], Meta(description="Where the shares do not do what they say, and which groups they let back in.")
    ] = []


def shares_view(snapshot: Snapshot, warnings: Sequence[str]) -> SharesView:
    """Return the document of a service's shares."""
    shares = snapshot.shares
    if shares is None:
        return SharesView(snapshot.service, snapshot.version, [], warnings=list(warnings))
    groups = [
        GroupView(group.selector, group.percent, group.effective, group.endpoints, group.routable)
        for group in snapshot.groups
    ]
    return SharesView(
        snapshot.service, snapshot.version, groups, shares.actor, shares.reason, shares.set_at, list(warnings)
    )


_SHARES = SharesView(
    service="shop",
    version=8,
    groups=[GroupView("revision=1.9.0", 10.0, 10.0, 1, 1), GroupView("", 90.0, 90.0, 3, 3)],
    actor="anna",
    reason="try 1.9.0",
    set_at=1_763_600_000.0,
)
show_examples(_SHARES)
