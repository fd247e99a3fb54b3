"""The pages on which a person signs in and out, and sees who they are here."""

import math
import re
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from msgspec import Meta, Struct

from registry.auth.oidc import ATTEMPT_TTL
from registry.auth.principal import Principal, peer_of
from registry.console.form import Fields, fields_of
from registry.console.page import Frame, Framed
from registry.errors import LimitError, NotAllowedError, RegistryError, UnauthenticatedError, UnavailableError
from registry.http.browser_session import (
    attempt_of,
    clear_attempt,
    clear_session,
    is_over_tls,
    set_attempt,
    set_session,
)
from registry.http.dependencies import OidcSignInsPart, Reader, SettingsPart, SignInsPart
from registry.http.problems import problem_for
from registry.settings import Settings
from registry.usecases.oidc_sign_in import Answer
from registry.usecases.sign_in import SESSION_TTL, BrowserSession, SignIns

router = APIRouter()

FIRST_PAGE = "/ui/overview"
"""The page that follows a sign-in which nothing else was asked for before."""

# A path of ours alone: a second slash, a backslash or a scheme would lead a browser to another host.
_OWN_PAGE = re.compile(r"/(ui|docs)(/[A-Za-z0-9._~:@!$&'()*+,;=%\[\]-]+)*/?(\?[A-Za-z0-9._~:@!$&'()*+,;=%/?\[\]-]*)?")
_MAX_PATH = 2048
"""Characters of a page to go on to."""
_Parameter = Annotated[str, Query(max_length=4096)]
_NOT_AFTER = ("/ui/login", "/ui/logout")


class Sent(Struct, frozen=True):
    """The fields of the form: a token or a code, and the page to go on to."""

    token: Annotated[str, Meta(max_length=256)] = ""
    code: Annotated[str, Meta(max_length=256)] = ""
    next: Annotated[str, Meta(max_length=_MAX_PATH)] = FIRST_PAGE


def own_page(path: str) -> str:
    """Return a page of this registry to go on to, which is the first one where another host is meant."""
    if len(path) > _MAX_PATH or not _OWN_PAGE.fullmatch(path) or path.startswith(_NOT_AFTER):
        return FIRST_PAGE
    return path


@router.get("/login")
async def show_login(
    request: Request,
    settings: SettingsPart,
    oidc: OidcSignInsPart,
    frame: Framed,
    following: Annotated[str, Query(alias="next", max_length=_MAX_PATH)] = "",
    code: Annotated[str, Query(max_length=256)] = "",
) -> Response:
    """Show who the person is here, and the form to sign in.

    A code in the address is sent by the page, by POST. A GET uses none up: what fetches links in advance, as chats and
    browsers do, would leave none for the person.
    """
    return _page(frame, request, settings, oidc.issuer, following=following, code=code)


@router.post("/login")
async def sign_in(
    request: Request,
    sign_ins: SignInsPart,
    oidc: OidcSignInsPart,
    settings: SettingsPart,
    reader: Reader,
    frame: Framed,
) -> Response:
    """Begin the session of a browser, and go on to the page that was asked for."""
    sent = Fields(await fields_of(request)).read(Sent)
    address = peer_of(request.client)
    try:
        session = await (sign_ins.by_code(address, sent.code) if sent.code else sign_ins.by_token(address, sent.token))
    except (UnauthenticatedError, LimitError, UnavailableError) as error:
        return _page(frame, request, settings, oidc.issuer, following=sent.next, error=error)
    await _end(sign_ins, reader)
    return begun(session, own_page(sent.next), secure=is_over_tls(request.scope))


@router.get("/login/oidc")
async def begin_oidc(
    request: Request,
    oidc: OidcSignInsPart,
    following: Annotated[str, Query(alias="next", max_length=_MAX_PATH)] = "",
) -> Response:
    """Send a person to the sign-in provider."""
    begun_at_provider = await oidc.begin(peer_of(request.client), own_page(following))
    response = RedirectResponse(begun_at_provider.url, 303)
    set_attempt(response, begun_at_provider.cookie, ATTEMPT_TTL, secure=oidc.secure)
    return response


@router.get("/login/oidc/callback")
async def finish_oidc(  # noqa: PLR0913  # the parts of the page, and one argument a parameter of the answer
    request: Request,
    oidc: OidcSignInsPart,
    sign_ins: SignInsPart,
    settings: SettingsPart,
    reader: Reader,
    frame: Framed,
    state: _Parameter = "",
    code: _Parameter = "",
    error: _Parameter = "",
    iss: _Parameter = "",
) -> Response:
    """Begin the session of a person who comes back from the sign-in provider."""
    answer = Answer(state, code, error, iss)
    cookie = attempt_of(request.scope, secure=oidc.secure)
    response: Response
    try:
        session, following = await oidc.finish(peer_of(request.client), cookie, answer)
    except (UnauthenticatedError, NotAllowedError, LimitError, UnavailableError) as problem:
        response = _page(frame, request, settings, oidc.issuer, following="", error=problem)
    else:
        await _end(sign_ins, reader)
        response = begun(session, own_page(following), secure=oidc.secure)
    clear_attempt(response, secure=oidc.secure)
    return response


@router.post("/logout")
async def sign_out(sign_ins: SignInsPart, reader: Reader) -> Response:
    """Revoke the session, everywhere within seconds, and take it from the browser."""
    await sign_ins.sign_out(reader)
    response = RedirectResponse("/ui/login", 303)
    clear_session(response)
    return response


def begun(session: BrowserSession, page: str, *, secure: bool) -> Response:
    """Return the answer that gives a browser its session, and leads on to a page."""
    response = RedirectResponse(page, 303)
    set_session(response, session.text, SESSION_TTL, secure=secure)
    return response


async def _end(sign_ins: SignIns, reader: Principal) -> None:
    """End the session that the browser had before; if that fails, it ends by itself."""
    with suppress(RegistryError):
        await sign_ins.sign_out(reader)


def _page(  # the parts of the page
    frame: Frame,
    request: Request,
    settings: Settings,
    issuer: str,
    *,
    following: str,
    code: str = "",
    error: RegistryError | None = None,
) -> Response:
    problem = None if error is None else problem_for(error)
    # A proxy in front may end TLS. The header is good for no more than to leave a warning out.
    forwarded = request.headers.get("x-forwarded-proto") == "https"
    plain = not (forwarded or is_over_tls(request.scope) or settings.on_loopback)
    headers = {}
    if problem is not None and problem.retry_after is not None:
        headers["retry-after"] = str(math.ceil(problem.retry_after))
    return frame.page(
        "login.html",
        code=200 if problem is None else problem.status,
        headers=headers,
        problem=problem,
        following=own_page(following),
        sign_in_code=code,
        plain=plain,
        issuer=issuer,
    )
