"""The page of the audit: who did what, and who was refused."""

from typing import Annotated, Literal, get_args

from fastapi import APIRouter, Query, Response

from registry.auth.verbs import Verb
from registry.console.page import Framed, Missing, ask
from registry.core.audit import AuditFilter, Decision
from registry.http.dependencies import AuditPart, Reader
from registry.http.parameters import printable_filter
from registry.http.v1.audit import audit_entry_view

router = APIRouter()

_MAX_ENTRIES = 100
"""Entries that the page shows."""


@router.get("/audit")
async def show_audit(  # the parts of the page, and one argument a filter
    audit: AuditPart,
    reader: Reader,
    frame: Framed,
    principal: Annotated[str, Query(max_length=255)] = "",
    service: Annotated[str, Query(max_length=255)] = "",
    verb: Verb | Literal[""] = "",
    decision: Literal["", Decision] = "",
) -> Response:
    """Show the newest entries that the filters let through."""
    wanted = AuditFilter(
        printable_filter("principal", principal) or None,
        verb or None,
        printable_filter("service", service) or None,
        decision or None,
        limit=_MAX_ENTRIES,
    )
    entries = await ask(audit.entries(reader, wanted))
    return frame.page(
        "audit.html",
        entries=entries if isinstance(entries, Missing) else [audit_entry_view(entry) for entry in entries],
        principal=principal,
        service=service,
        verb=verb,
        decision=decision,
        verbs=[verb.value for verb in Verb],
        decisions=get_args(Decision),
        most=_MAX_ENTRIES,
    )
