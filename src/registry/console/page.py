"""The parts that every page has: its template, its header, and its response."""

from asyncio import timeout
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args

import structlog
from fastapi import Depends, Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from msgspec import Struct
from starlette.status import HTTP_200_OK, HTTP_304_NOT_MODIFIED

from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.console import times
from registry.console.page_tag import page_tag
from registry.core.endpoint import metadata_texts
from registry.core.event import EventKind
from registry.core.mesh import MeshEventKind, show_version
from registry.core.silence import STATUSES_FOR_PEOPLE
from registry.core.verdict.document import Verdict
from registry.errors import LimitError, UnavailableError
from registry.http.dependencies import Reader, part_of
from registry.http.views.expiry import PauseView, pause_view
from registry.http.views.history import EventView
from registry.program import VERSION
from registry.settings import Settings
from registry.usecases.expiry import ExpiryControl
from registry.usecases.process_health import ProcessHealth
from registry.usecases.verdict import Verdicts
from registry.usecases.whoami import Whoami
from wire.address import parse_ip

Answer = TypeVar("Answer")

log = structlog.get_logger()

_TEMPLATES = Path(__file__).parent / "templates"
_DATABASE_TIMEOUT = 1.5
"""Seconds that a page waits for PostgreSQL; after that it is shown without the data that only PostgreSQL has."""

_COMPILER_TIMEOUT = 30.0
"""Seconds that a page waits for the compiler of the mesh configuration, which takes one job after the other."""

_MAX_HEADLINES = 3
"""Headlines in the tooltip of the badge."""

_THEME_COOKIE = "headcount_theme"
"""Written by the page's own script; no credential, and of no meaning to the registry."""
_THEMES = ("light", "dark")

_OF_REGISTRARS = ("registered", "health", "changed", "drained", "returned", "deregistered")
"""Kinds of events whose actor is a registrar; without credentials that is its address alone."""

_DONE = {
    "drained": "Drained. Envoys receive the change at once.",
    "undrained": "The operator's drain was removed.",
    "set": "The override was set.",
    "cleared": "The override was removed; the registrar's values apply again.",
    "expected": "The expected number was changed.",
    "shared": "The shares were set. Envoys receive all weights with one version.",
    "unshared": "The shares were taken back; each endpoint has its own weight again.",
    "shift_started": "The shift has begun. Envoys receive the first share with one version.",
    "shift_paused": "The shift was paused; the share stays.",
    "shift_resumed": "The shift was resumed; its step begins anew.",
    "shift_aborted": "The shift was aborted. Envoys send the group nothing from the next answer on.",
    "shift_promoted": "The shift is done. Envoys send the group all requests from the next answer on.",
    "acknowledged": "The loss was acknowledged.",
    "paused": "Expiry was paused.",
    "resumed": "Expiry was resumed.",
    "mesh_rolled_back": "Rolled back, as a new revision. Envoys get it step by step.",
    "mesh_kept": "Rolled back, as a new revision. Definitions that it lacks were kept: Envoys poll for them, or may.",
    "mesh_promoted": "The revision was promoted. All Envoys get it step by step.",
    "mesh_paused": "The roll-out was paused.",
    "mesh_resumed": "The roll-out was resumed.",
}
"""Messages after a form was sent, by the name in the query, so that a link of another site cannot choose the text."""


class Missing(Struct, frozen=True):
    """The placeholder for data that PostgreSQL did not return."""

    reason: str


class Badge(Struct, frozen=True):
    """The verdict on the registry in the header of every page; ``more`` is the tooltip."""

    level: Literal["ok", "warning", "failure"]
    words: str
    more: str


class Judgement(Struct, frozen=True):
    """The verdict that a page shows.

    Attributes:
        verdict: None: the person may not observe, or it could not be made.
        unknown: it could not be made.
    """

    verdict: Verdict | None
    unknown: bool = False

    @property
    def failing_pairs(self) -> int:
        """The number of pairs of caller and callee whose requests fail, as far as the person may observe."""
        return 0 if self.verdict is None else self.verdict.failing_pairs

    def badge(self) -> Badge | None:
        """Return the badge; None: the person may not observe."""
        if self.unknown:
            return Badge("failure", "No verdict", "The registry's log has the reason, at verdict_failed.")
        if self.verdict is None:
            return None
        # Without lines: they have times, which would differ each time and make every update of a page a new one.
        headlines = [finding.headline for finding in self.verdict.troubles()[:_MAX_HEADLINES]]
        level: Literal["ok", "warning", "failure"] = "warning" if headlines else "ok"
        return Badge(
            level if self.verdict.ok else "failure",
            self.verdict.words,
            "; ".join(headlines) or "No check of the registry complains.",
        )


class Frame:
    """Renders the page of one request from a template.

    Args:
        request: the request.
        health: knows PostgreSQL's time, and whether it takes writes.
        whoami: tells what the person may do, so that a page offers nothing else.
        reader: the principal of the request.
        judgement: the verdict on the registry.
    """

    def __init__(
        self, request: Request, health: ProcessHealth, whoami: Whoami, reader: Principal, judgement: Judgement
    ) -> None:
        self._request = request
        self._health = health
        self._judgement = judgement
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
            unwritable=self._unwritable(),
            held=part_of(self._request, ExpiryControl).held(self._reader),
            badge=self._judgement.badge(),
            failing_pairs=self._judgement.failing_pairs,
            done=_DONE.get(self._request.query_params.get("done", "")),
            subject=self._reader.subject,
            mode=self._whoami.mode,
            mode_flag=self._mode_flag(),
            refusal=self.refusal,
            refusal_to_configure=self.refusal_to_configure,
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

    @property
    def verdict(self) -> Verdict | None:
        """The verdict on the registry; None: the person may not observe, or it could not be made."""
        return self._judgement.verdict

    @property
    def verdict_unknown(self) -> bool:
        """Whether the verdict could not be made."""
        return self._judgement.unknown

    def refusal(self, verb: str, service: str = "") -> str:
        """Return why the person may not do something, for the title of its button; empty: nothing is against it.

        While PostgreSQL takes no writes, that is why nobody may operate anything.
        """
        refusal = self._whoami.refusal(self._reader, Verb(verb), service)
        return refusal or (self._health.write_refusal() if verb == Verb.OPERATE else "")

    def refusal_to_configure(self) -> str:
        """Return why the person may configure no service, for the titles of buttons; empty: one at least.

        A revision touches many services, so that only its roll-back or its promotion itself shows what is refused.
        """
        return self._whoami.refusal_everywhere(self._reader, Verb.CONFIGURE) or self._health.write_refusal()

    def _unwritable(self) -> str:
        """Return why nothing can be changed now, for those who may change something; empty: everything can."""
        refused = self._whoami.refusal(self._reader, Verb.OPERATE)
        if refused and self._whoami.refusal_everywhere(self._reader, Verb.CONFIGURE):
            return ""
        return self._health.write_refusal()


def render(template: str, **values: object) -> Markup:
    """Return a part of a page, which depends on nothing but its values; everything in them is escaped."""
    return Markup(_templates.get_template(template).render(values))  # noqa: S704  # escaped by the template


async def ask(question: Awaitable[Answer]) -> Answer | Missing:
    """Return the answer of PostgreSQL, or ``Missing`` when there is none within ``_DATABASE_TIMEOUT``."""
    try:
        async with timeout(_DATABASE_TIMEOUT):
            return await question
    except UnavailableError as error:
        return Missing(str(error))
    except TimeoutError:
        return Missing(f"PostgreSQL did not answer within {_DATABASE_TIMEOUT:g} s")


async def ask_compiler(question: Awaitable[Answer]) -> Answer | Missing:
    """Return what the compiler of the mesh configuration answers, or ``Missing`` when it does not in time."""
    try:
        async with timeout(_COMPILER_TIMEOUT):
            return await question
    except (LimitError, UnavailableError) as error:
        return Missing(str(error))
    except TimeoutError:
        return Missing(f"the compiler took longer than {_COMPILER_TIMEOUT:g} s")


async def ask_for_pauses(
    expiry: ExpiryControl, reader: Principal, service: str | None = None
) -> list[PauseView] | Missing:
    """Return the pauses in force, everywhere or for one service, or ``Missing`` when PostgreSQL does not answer."""
    pauses = await ask(expiry.pauses(reader, service))
    return pauses if isinstance(pauses, Missing) else [pause_view(pause) for pause in pauses]


async def judgement_of(verdicts: Verdicts, reader: Principal) -> Judgement:
    """Return the verdict that a page shows; a page is shown also when a verdict cannot be made."""
    try:
        return Judgement(await verdicts.badge(reader))
    except Exception:
        log.exception("verdict_failed")
        return Judgement(None, unknown=True)


async def _frame(request: Request, reader: Reader) -> Frame:
    health, whoami = part_of(request, ProcessHealth), part_of(request, Whoami)
    return Frame(request, health, whoami, reader, await judgement_of(part_of(request, Verdicts), reader))


Framed = Annotated[Frame, Depends(_frame)]


def _registrar_of(event: EventView) -> str:
    """Return the instance whose registrar is an event's actor, where the actor is a bare address; else nothing."""
    if event.kind not in _OF_REGISTRARS:
        return ""
    try:
        parse_ip(event.actor)
    except ValueError:
        return ""
    return event.instance_id


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
    environment.filters.update(span=times.span, utc=times.utc, iso=times.iso, version=show_version)
    environment.tests["missing"] = _is_missing
    environment.globals.update(
        ago=times.ago,
        metadata_texts=metadata_texts,
        registrar_of=_registrar_of,
        statuses=STATUSES_FOR_PEOPLE,
        kinds=(*get_args(EventKind), *get_args(MeshEventKind)),
        mesh_kinds=get_args(MeshEventKind),
        version=VERSION,
    )
    return environment


_templates = _environment()
