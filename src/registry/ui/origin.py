"""What protects pages: writes come from pages of this origin only, and pages run nothing but our own files."""

from urllib.parse import urlsplit

from fastapi import HTTPException, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SAFE = ("GET", "HEAD", "OPTIONS")
_ELSEWHERE = (
    "This form was sent from a page of another site, or your browser did not say from where. Open the console and "
    "send the form from there; scripts use the API, or registryctl."
)
_HEADERS = {
    # Nothing inline, nothing of another origin, and nobody may frame a page and have its buttons pressed.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    # Asked for again each time: a page is of its moment, and after an upgrade files have to fit their pages.
    "cache-control": "no-cache",
}


async def check_origin(request: Request) -> None:
    """Refuse a write that another site may have made a browser send.

    Raises:
        HTTPException: 403; browsers say on each write where it comes from, and this one said otherwise, or nothing.
    """
    if request.method not in _SAFE and not _is_ours(request.headers):
        raise HTTPException(403, _ELSEWHERE)


def _is_ours(headers: Headers) -> bool:
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    # Over plain HTTP, but to this very machine, browsers send no Sec-Fetch-Site.
    origin = headers.get("origin", "")
    return bool(origin) and urlsplit(origin).netloc == headers.get("host")


class Sealed:
    """An ASGI application around another one, whose answers all carry the headers that browsers obey."""

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._inner(scope, receive, sealed)
