"""The one seam for who may do what: a principal, and the verbs and services it may use.

Until tokens, AWS IAM and mTLS come behind it everything is allowed, which is why listeners default to loopback.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from msgspec import Struct

NAMES_ACTOR = frozenset({b"x-actor"})
"""Headers that tell who asks besides the address: a request with one of them is judged by the application."""


class Principal(Struct, frozen=True):
    """Who asks, as far as it is known; ``name`` is written into the history."""

    name: str


def peer_of(client: Sequence[Any] | None) -> str:
    """Return the address that a request came from, of ASGI's pair of host and port."""
    return str(client[0]) if client else "local"


def principal(peer: str, actor: str | None = None) -> Principal:
    """Return who asks: an address, and the name that it gives itself."""
    return Principal(f"{actor} from {peer}" if actor else peer)


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
