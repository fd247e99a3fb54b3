"""Compression of the console's pages with gzip, except where their length could tell something to another site."""

from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from registry.http.compression import may_compress

_LEVEL = 4
"""Level of zlib: a page of 140 kB becomes 8.3 kB in 2 ms. Level 9 saves another 5 % for a third more time."""
_MIN_SIZE = 1_400
"""Bytes below which a response is one packet anyway."""
_PLAIN = ("/ui/static/", "/ui/login")
"""Paths that are never compressed. Files are asked for once and then answered 304, and the largest would hold up polls
for 50 ms. The page of the sign-in contains the code of a link."""


class Compression:
    """An ASGI application around another one, which compresses the responses that no other site has asked for.

    A page repeats words of its address, such as a search, and so could tell other words by its length.
    """

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner
        self._compressing = GZipMiddleware(inner, minimum_size=_MIN_SIZE, compresslevel=_LEVEL)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await (self._compressing if _may_compress(scope) else self._inner)(scope, receive, send)


def _may_compress(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["path"].startswith(_PLAIN):
        return False
    return may_compress(scope["headers"])
