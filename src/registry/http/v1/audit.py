"""The route of the audit: who did what, and who was refused."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from msgspec import Meta, Struct

from registry.auth.verbs import Verb
from registry.core.audit import AuditFilter, AuditPosition, Decision, StoredEntry
from registry.errors import InvalidError
from registry.http.dependencies import AuditPart, Reader
from registry.http.openapi import answers, problems
from registry.http.parameters import PageSize, printable_filter
from registry.http.responses import json

router = APIRouter(tags=["access"])

_MAX_MICROSECONDS = int(datetime.max.replace(tzinfo=UTC).timestamp()) * 1_000_000
_MAX_ROW = 2**63 - 1


class AuditEntryView(Struct, frozen=True):
    """Something that a principal did, or was not allowed to do."""

    id: Annotated[str, Meta(description="Its place in the audit; pages go on from it.")]
    at: Annotated[float, Meta(description="When, or when first within its minute; seconds since 1970.")]
    principal: Annotated[str, Meta(description="Who; what is behind `as` names itself, and is not verified.")]
    credential: Annotated[str | None, Meta(description="The id of its token or session.")]
    peer: Annotated[str, Meta(description="The address that the request came from.")]
    verb: Annotated[str | None, Meta(description="What was asked for; null of a login.")]
    service: str | None
    endpoint: str | None
    action: Annotated[str | None, Meta(description="What was done or tried; null of a refusal, which has its verb.")]
    decision: Annotated[
        Decision,
        Meta(
            description="`refused`; `would_refuse`: done, and refused where REGISTRY_AUTH is `on`; `failed`: allowed, "
            "and not done for another reason."
        ),
    ]
    reason: str
    request_id: Annotated[str | None, Meta(description="The id that the log has.")]
    count: Annotated[int, Meta(description="How often within a minute: the same refusal is one entry.")]


class AuditPage(Struct, frozen=True):
    """A page of the audit; ``next`` is `after` of the next page."""

    entries: list[AuditEntryView]
    next: str | None


_EXAMPLE = {
    "entries": [
        {
            "id": "1763600000000000-17",
            "at": 1_763_600_000.0,
            "principal": "token:ci-deploy as ann",
            "credential": "k3v7q2m5x4aa",
            "peer": "10.0.0.9",
            "verb": "operate",
            "service": "shop",
            "endpoint": "10.0.0.5:8080",
            "action": "overridden",
            "decision": "allowed",
            "reason": "drain",
            "request_id": "5f0c1a9e3b-42",
            "count": 1,
        }
    ],
    "next": "1763600000000000-17",
}
_Seconds = Annotated[float | None, Query(ge=0, le=1e11, description="Seconds since 1970.")]


@router.get(
    "/v1/audit",
    operation_id="list_audit",
    responses=answers(AuditPage, "A page, the newest first.", _EXAMPLE) | problems(413, 422, 503),
)
async def list_audit(  # noqa: PLR0913  # one argument a filter, as OpenAPI shows them
    audit: AuditPart,
    reader: Reader,
    principal: Annotated[str | None, Query(max_length=255, description="The principal, or a part of its name.")] = None,
    verb: Verb | None = None,
    service: Annotated[str | None, Query(max_length=255)] = None,
    decision: Decision | None = None,
    since: _Seconds = None,
    until: _Seconds = None,
    limit: PageSize = 100,
    after: Annotated[str | None, Query(max_length=64, description="`next` of the page before.")] = None,
) -> Response:
    """Return who did what, and who was refused or would be if access were on.

    An entry is listed after about a second.
    """
    wanted = AuditFilter(
        printable_filter("principal", principal),
        None if verb is None else verb.value,
        printable_filter("service", service),
        decision,
        since,
        until,
        None if after is None else _position(after),
        limit,
    )
    page = [audit_entry_view(stored) for stored in await audit.entries(reader, wanted)]
    return json(AuditPage(page, page[-1].id if len(page) == limit else None))


def audit_entry_view(stored: StoredEntry) -> AuditEntryView:
    """Return the document of an entry."""
    entry = stored.entry
    return AuditEntryView(
        id=f"{stored.position[0]}-{stored.position[1]}",
        at=entry.at,
        principal=entry.principal,
        credential=entry.credential or None,
        peer=entry.peer,
        verb=entry.verb or None,
        service=entry.service or None,
        endpoint=entry.endpoint or None,
        action=entry.action or None,
        decision=entry.decision,
        reason=entry.reason,
        request_id=entry.request_id or None,
        count=entry.count,
    )


def _position(text: str) -> AuditPosition:
    at, dash, row = text.partition("-")
    if dash and all(part.isascii() and part.isdigit() and len(part) <= 19 for part in (at, row)):
        position = (int(at), int(row))
        if position[0] < _MAX_MICROSECONDS and position[1] <= _MAX_ROW:
            return position
    raise InvalidError("no place in the audit; use `next` of a page", "query:after")
