"""The credentials that a browser sends by itself: its session, and the statement of a load balancer.

Over TLS the name of the cookie begins with ``__Host-``: browsers then take it from this very host alone, and only over
TLS, so that no other host of the domain and nobody between can plant one. Browsers refuse such a name over plain HTTP,
even on loopback, so there it is a plain one.
"""

from collections.abc import Iterator, MutableMapping, Sequence
from typing import Any

from starlette.responses import Response

from registry.auth.load_balancer import HEADER as STATEMENT
from registry.auth.origin import carries_cookie
from registry.http.headers import Headers

Scope = MutableMapping[str, Any]

PLAIN_NAME = "headcount_session"
"""The name of the cookie over plain HTTP."""
SECURE_NAME = f"__Host-{PLAIN_NAME}"
"""The name of the cookie over TLS."""

PLAIN_ATTEMPT = "headcount_oidc"
"""The name of the cookie that has a sign-in at a provider, over plain HTTP."""
SECURE_ATTEMPT = f"__Host-{PLAIN_ATTEMPT}"
"""Its name over TLS."""


def session_of(scope: Scope) -> bytes | None:
    """Return the session that the browser of a request has; None without one, or where it does not count."""
    headers: Headers = scope["headers"]
    secure = [value for name, value in _cookies(headers) if name == SECURE_NAME.encode()]
    plain = [value for name, value in _cookies(headers) if name == PLAIN_NAME.encode()]
    sessions = secure or ([] if scope.get("scheme") == "https" else plain)
    # Two of a name: one of them was planted, and nobody knows which.
    if len(sessions) != 1 or not carries_cookie(scope["method"], dict(headers)):
        return None
    return sessions[0]


def statements_of(scope: Scope) -> Sequence[bytes]:
    """Return what a load balancer says of the person of a request; empty where that does not count.

    A browser makes the load balancer send it along with whatever a page elsewhere asks for, as with the cookie.
    """
    headers: Headers = scope["headers"]
    statements = [value for name, value in headers if name == STATEMENT]
    return statements if statements and carries_cookie(scope["method"], dict(headers)) else ()


def is_over_tls(scope: Scope) -> bool:
    """Tell whether a browser sends a form over TLS, which a proxy in front may end."""
    origin = dict(scope["headers"]).get(b"origin", b"")
    return scope.get("scheme") == "https" or origin.startswith(b"https://")


def set_session(response: Response, text: str, ttl: float, *, secure: bool) -> None:
    """Give a browser its session."""
    name = SECURE_NAME if secure else PLAIN_NAME
    response.set_cookie(name, text, max_age=int(ttl), path="/", secure=secure, httponly=True, samesite="lax")


def attempt_of(scope: Scope, *, secure: bool) -> str:
    """Return the sign-in that a browser has begun; empty without one."""
    name = SECURE_ATTEMPT if secure else PLAIN_ATTEMPT
    attempts = [value for cookie, value in _cookies(scope["headers"]) if cookie == name.encode()]
    return attempts[0].decode("latin-1") if len(attempts) == 1 else ""


def set_attempt(response: Response, text: str, ttl: float, *, secure: bool) -> None:
    """Let a browser keep the sign-in that it begins; the answer of the provider comes as a link from elsewhere."""
    name = SECURE_ATTEMPT if secure else PLAIN_ATTEMPT
    response.set_cookie(name, text, max_age=int(ttl), path="/", secure=secure, httponly=True, samesite="lax")


def clear_attempt(response: Response, *, secure: bool) -> None:
    """Take the sign-in from a browser, which has ended."""
    name = SECURE_ATTEMPT if secure else PLAIN_ATTEMPT
    response.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="lax")


def clear_session(response: Response) -> None:
    """Take its session from a browser, under both names."""
    response.delete_cookie(PLAIN_NAME, path="/", httponly=True, samesite="lax")
    response.delete_cookie(SECURE_NAME, path="/", secure=True, httponly=True, samesite="lax")


def _cookies(headers: Headers) -> Iterator[tuple[bytes, bytes]]:
    for name, value in headers:
        if name == b"cookie":
            for pair in value.split(b";"):
                cookie, _, text = pair.strip().partition(b"=")
                yield cookie, text.strip(b'"')
