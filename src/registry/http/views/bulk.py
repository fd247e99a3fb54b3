"""The JSON documents of changes of several endpoints."""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from registry.core.override_change import ExpiresIn
from registry.usecases.bulk import MAX_BULK, BulkAction
from wire.model import Name, Weight
from wire.problem import Problem


class BulkRequest(Struct, forbid_unknown_fields=True, frozen=True):
    """A change of several endpoints of a service."""

    action: BulkAction
    endpoints: Annotated[
        list[Annotated[str, Meta(max_length=64)]],
        Meta(min_length=1, max_length=MAX_BULK, description="Each as ip:port; IPv6 in brackets."),
    ]
    reason: Annotated[Name, Meta(description="Why, for the history of each.")]
    weight: Annotated[Weight | None, Meta(description="With `weight`; null takes the operators' weights back.")] = None
    expires_in: Annotated[
        ExpiresIn | UnsetType | None,
        Meta(description="Seconds until the overrides end; null: never. Left out: an end that is set stays."),
    ] = UNSET
    force: Annotated[
        bool, Meta(description="Deregister even if the guard's limit is exceeded (otherwise refused).")
    ] = False


class BulkResultView(Struct, frozen=True):
    """The result of one endpoint of a change of several."""

    endpoint: str
    done: bool
    status: Annotated[str, Meta(description="What Envoys are told then; empty where it was deregistered or refused.")]
    problem: Annotated[Problem | None, Meta(description="Why it was refused.")]


class BulkView(Struct, frozen=True):
    """The results of a change of several endpoints, in their order."""

    service: str
    results: list[BulkResultView]
