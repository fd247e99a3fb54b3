"""The parts that every page has: its template, its header, and its response."""

from asyncio import timeout
from collections.abc import Awaitable, Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Annotated, TypeVar, get_args

from fastapi import Depends, Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from msgspec import Struct
from starlette.status import HTTP_200_OK, HTTP_304_NOT_MODIFIED

from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.console import times
from registry.console.page_tag import page_tag
from registry.core.changeset import EventKind
from registry.core.endpoint import metadata_texts
from registry.core.silence import STATUSES_FOR_PEOPLE
from registry.errors import UnavailableError
from registry.http.dependencies import ProcessHealthPart, Reader, WhoamiPart, part_of
from registry.http.views import PauseView, pause_view
from registry.program import VERSION
from registry.settings import Settings
from registry.usecases.expiry import ExpiryControl
from registry.usecases.status import ProcessHealth
from registry.usecases.whoami import Whoami

Answer = TypeVar("Answer")

_TEMPLATES = Path(__file__).parent / "templates"
_DATABASE_TIMEOUT = 1.5
"""Seconds that a page waits for PostgreSQL; after that it is shown without the data that only PostgreSQL has."""

_THEME_COOKIE = "headcount_theme"
"""Written by the page's own script; no credential, and of no meaning to the registry."""
_THEMES = ("light", "dark")

_DONE = {
    "drained": "Drained. Envoys receive the change at once.",
    "undrained": "The operator's drain was removed.",
    "set": "The override was set.",
    "cleared": "The override was removed; the registrar's values apply again.",
    "expected": "The expected number was changed.",
    "acknowledged": "The loss was acknowledged.",
    "paused": "Expiry was paused.",
    "resumed": "Expiry was resumed.",
}
"""Messages after a form was sent, by the name in the query, so that a link of another site cannot choose the text."""


class Missing(Struct, frozen=True):
    """The placeholder for data that PostgreSQL did not return."""

    reason: str


class Notice(Struct, frozen=True):
    """The status of this process in the header; ``more`` is the tooltip."""

    ok: bool
    words: str
    more: str


class Frame:
    """Renders the page of one request from a template.

    Args:
        request: the request.
        health: the status of this process, for the header.
        whoami: tells what the person may do, so that a page offers nothing else.
        reader: the principal of the request.
    """

    def __init__(self, request: Request, health: ProcessHealth, whoami: Whoami, reader: Principal) -> None:
        self._request = request
        self._health = health
        self._whoami = whoami
        self._reader = reader
        self.now = health.database_time()

    def page(
        self, template: str, *, code: int = 200, headers: Mapping[str, str] | None = None, **values: object
    ) -> Response:
        """Return the page; its template shows ``values``, and everything in them is escaped.

        A page that updates itself gets the part that may have changed, or 304 when it has not.
        """
        asked = self._request.headers
        update = "hx-request" in asked
        text = _templates.get_template(template).render(
            now=self.now,
            path=self._request.url.path,
            update=update,
            theme=self._theme(),
            notice=None if self.refusal(Verb.OBSERVE) else notice(self._health),
            held=part_of(self._request, ExpiryControl).held(self._reader),
            done=_DONE.get(self._request.query_params.get("done", "")),
            subject=self._reader.subject,
            mode=self._whoami.mode,
            mode_flag=self._mode_flag(),
            refusal=self.refusal,
            **values,
        )
        # Both have one address. The time is the database's, by which the browser counts on.
        more = {"vary": "HX-Request", "headcount-time": f"{self.now:.3f}", **(headers or {})}
        if update and code == HTTP_200_OK:
            more["etag"] = page_tag(text)
            if asked.get("if-none-match") == more["etag"]:
                return Response(status_code=HTTP_304_NOT_MODIFIED, headers=more)
        return HTMLResponse(text, code, more)

    def _theme(self) -> str:
        """Return the theme that the browser remembers; in the page itself it is there before the first paint."""
        theme = self._request.cookies.get(_THEME_COOKIE, "")
        return theme if theme in _THEMES else ""

    def _mode_flag(self) -> str:
        """Return what a person has to know of the mode on every page; empty: nothing."""
        mode = self._whoami.mode
        if mode == "off":
            return "" if part_of(self._request, Settings).on_loopback else "access off"
        return "audit" if mode == "audit" else ""

    def refusal(self, verb: str, service: str = "") -> str:
        """Return why the person may not do something, for the title of its button; empty: nothing is against it."""
        return self._whoami.refusal(self._reader, Verb(verb), service)


async def ask(question: Awaitable[Answer]) -> Answer | Missing:
    """Return the answer of PostgreSQL, or ``Missing`` when there is none within ``_DATABASE_TIMEOUT``."""
    try:
        async with timeout(_DATABASE_TIMEOUT):
            return await question
    except UnavailableError as error:
        return Missing(str(error))
    except TimeoutError:
        return Missing(f"PostgreSQL did not answer within {_DATABASE_TIMEOUT:g} s")


async def ask_for_pauses(
    expiry: ExpiryControl, reader: Principal, service: str | None = None
) -> list[PauseView] | Missing:
    """Return the pauses in force, everywhere or for one service, or ``Missing`` when PostgreSQL does not answer."""
    pauses = await ask(expiry.pauses(reader, service))
    return pauses if isinstance(pauses, Missing) else [pause_view(pause) for pause in pauses]


def notice(health: ProcessHealth) -> Notice:
    """Return the status that a page shows of its process to those who may observe it, from memory."""
    failing = [part for part in health.summary() if not part.ok]
    trouble = _trouble(health, {part.name for part in failing})
    # What works is without numbers, which would differ each time and make every update of a page a new one.
    more = " ".join(f"{part.name.capitalize()}: {part.detail}." for part in failing)
    return Notice(ok=not trouble, words=trouble or "Up to date", more=more or "All parts of this process work.")


def _trouble(health: ProcessHealth, failing: AbstractSet[str]) -> str:
    """Return the gravest fault of the process in two or three words, or an empty text without any.

    Args:
        health: the status of this process.
        failing: names of the parts of ``/readyz?verbose`` that fail.
    """
    if "snapshot" in failing:
        return "No snapshot yet"
    if health.stale:
        return "Snapshot from disk"
    if "postgresql" in failing:
        return "PostgreSQL read-only" if health.refuses_writes else "Change feed lost"
    if "heartbeats" in failing:
        return "Heartbeats failing"
    if "sweeper" in failing:
        return "Sweeps overdue"
    return ""


async def _frame(request: Request, health: ProcessHealthPart, whoami: WhoamiPart, reader: Reader) -> Frame:
    return Frame(request, health, whoami, reader)


Framed = Annotated[Frame, Depends(_frame)]


def _is_missing(value: object) -> bool:
    return isinstance(value, Missing)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(span=times.span, utc=times.utc, iso=times.iso)
    environment.tests["missing"] = _is_missing
    environment.globals.update(
        ago=times.ago,
        metadata_texts=metadata_texts,
        statuses=STATUSES_FOR_PEOPLE,
        kinds=get_args(EventKind),
        version=VERSION,
    )
    return environment


_templates = _environment()
