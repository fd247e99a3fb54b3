"""The page of the registry's own state: this process, its peers, PostgreSQL, sweeps, pauses, settings."""

from collections.abc import Iterator
from typing import Any

from fastapi import APIRouter, Response
from msgspec import Struct
from pydantic import SecretStr

from registry.console.form import Filled
from registry.console.listing import SIZE
from registry.console.page import Framed, ask
from registry.core.expiry_guard import EVERYWHERE
from registry.http.parameters import AnyReplica
from registry.http.v1.expiry import pauses_of, suspects_of
from registry.http.v1.ops import VERBS
from registry.http.v1.state import state_of
from registry.http.views import PauseRequest
from registry.settings import Settings
from registry.store import pauses

router = APIRouter()


class Setting(Struct, frozen=True):
    """A variable and its value; secrets say only that they are set."""

    name: str
    value: str
    given: bool
    meaning: str


class Scope(Struct, frozen=True):
    """Whose pause ends; empty: that of all services."""

    service: str = ""


@router.get("/registry")
async def show_state(process: AnyReplica, frame: Framed) -> Response:
    """Show how the registry stands."""
    suspects = suspects_of(process)
    return frame.page(
        "state.html",
        state=await state_of(process),
        verbs=VERBS,
        pauses=await ask(pauses_of(process)),
        suspects=suspects[:SIZE],
        suspected=len(suspects),
        services=sorted(process.cache.services())[:1000],
        settings=list(_settings(process.settings)),
    )


@router.post("/registry/pause")
async def pause_expiry(process: AnyReplica, form: Filled) -> Response:
    """Let no lease lapse for a while."""
    wanted = form.read(PauseRequest)
    scope = wanted.service or EVERYWHERE
    await pauses.pause(process.database, scope, actor=form.actor, reason=wanted.reason, seconds=wanted.expires_in)
    return form.done("paused")


@router.post("/registry/resume")
async def resume_expiry(process: AnyReplica, form: Filled) -> Response:
    """Take a pause back."""
    await pauses.resume(process.database, form.read(Scope).service or EVERYWHERE, actor=form.actor)
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
