"""The page of the registry's own state: this process, its peers, PostgreSQL, sweeps, pauses, settings."""

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Response
from msgspec import Struct
from pydantic import SecretStr

from registry.console.form import Filled
from registry.console.listing import SIZE
from registry.console.page import Framed, ask_for_pauses
from registry.core.status import ABILITY_WORDS
from registry.http.dependencies import CatalogPart, ExpiryPart, Reader, SettingsPart, StatusPart
from registry.http.views.expiry import PauseRequest, suspect_view
from registry.settings import Settings

router = APIRouter()

_MAX_SERVICES = 1000
"""Services whose names the form of a pause suggests."""


class Setting(Struct, frozen=True):
    """A variable and its value; secrets say only that they are set."""

    name: str
    value: str
    given: bool
    meaning: str


class Scope(Struct, frozen=True):
    """The service whose pause ends; empty: the pause of all services."""

    service: str = ""


@router.get("/registry")
async def show_state(
    status: StatusPart,
    expiry: ExpiryPart,
    catalog: CatalogPart,
    settings: SettingsPart,
    reader: Reader,
    frame: Framed,
) -> Response:
    """Show how the registry stands."""
    suspects = expiry.suspects(reader)
    return frame.page(
        "state.html",
        state=await status.state(reader),
        verbs=ABILITY_WORDS,
        pauses=await ask_for_pauses(expiry, reader),
        suspects=[suspect_view(suspect) for suspect in suspects[:SIZE]],
        suspected=len(suspects),
        services=catalog.names(reader)[:_MAX_SERVICES],
        settings=list(_settings(settings)),
    )


@router.post("/registry/pause")
async def pause_expiry(expiry: ExpiryPart, form: Filled) -> Response:
    """Let no lease lapse for a while."""
    wanted = form.read(PauseRequest)
    await expiry.pause(form.actor, wanted.service, reason=wanted.reason, seconds=wanted.expires_in)
    return form.done("paused")


@router.post("/registry/resume")
async def resume_expiry(expiry: ExpiryPart, form: Filled) -> Response:
    """Take a pause back."""
    await expiry.resume(form.actor, form.read(Scope).service or None)
    return form.done("resumed")


def _settings(settings: Settings) -> Iterator[Setting]:
    for name, field in Settings.model_fields.items():
        value = getattr(settings, name)
        yield Setting(
            f"REGISTRY_{name.upper()}", _shown(value), name in settings.model_fields_set, field.description or ""
        )


def _shown(value: Any) -> str:  # noqa: ANN401  # a setting of any type
    if value is None:
        return "not set"
    if isinstance(value, SecretStr):
        return "set, not shown"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return f"{value:g} s" if isinstance(value, float) else str(value)
