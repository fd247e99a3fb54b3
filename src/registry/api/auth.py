"""The one seam for who may do what: a principal, and the verbs and services it may use.

Until tokens, AWS IAM and mTLS come behind it everything is allowed, which is why listeners default to loopback.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from msgspec import Struct

from registry.errors import ForeignError

FROM_PAGE = frozenset({b"sec-fetch-site", b"origin"})
"""Headers by which a browser says where a request comes from: nothing but a browser sends them, and no page can forge
them. A write with one of them is judged by what stands below."""
NAMES_ACTOR = frozenset({b"x-actor"})
"""Headers that tell who asks besides the address: a request with one of them is judged by what stands below."""


_SAFE = ("GET", "HEAD", "OPTIONS")
_OURS = (b"same-origin", b"none")
_ELSEWHERE = (
    "a page of another site made your browser send this, so nothing was done; send it from the registry's own pages, "
    "by registryctl or by curl. A proxy in front has to leave the Host header as it was"
)


class Principal(Struct, frozen=True):
    """Who asks, as far as it is known; ``name`` is written into the history."""

    name: str


def peer_of(client: Sequence[Any] | None) -> str:
    """Return the address that a request came from, of ASGI's pair of host and port."""
    return str(client[0]) if client else "local"


def principal(peer: str, actor: str | None = None) -> Principal:
    """Return who asks: an address, and the name that it gives itself."""
    return Principal(f"{actor} from {peer}" if actor else peer)


def check_origin(method: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse a write that a page of another site may have made a browser send.

    Args:
        method: in capitals.
        headers: with their names in small letters.

    Raises:
        ForeignError: the browser says so. What says nothing of the kind comes from no page.
    """
    told = dict(headers)
    if method in _SAFE or FROM_PAGE.isdisjoint(told):
        return
    site = told.get(b"sec-fetch-site")
    # Over plain HTTP, but to the very machine, browsers send Origin alone.
    if not (_is_host(told[b"origin"], told.get(b"host")) if site is None else site in _OURS):
        raise ForeignError(_ELSEWHERE)


def _is_host(origin: bytes, host: bytes | None) -> bool:
    named = origin.partition(b"://")[2]
    return bool(named) and host is not None and named.lower() == host.lower()


async def _principal(
    request: Request,
    x_actor: Annotated[
        str | None,
        Header(
            max_length=128,
            pattern=r"^[A-Za-z0-9 ._@:+/-]*$",
            description="Who asks, for the history. Not verified.",
        ),
    ] = None,
) -> Principal:
    return principal(peer_of(request.client), x_actor)


Asking = Annotated[Principal, Depends(_principal)]
