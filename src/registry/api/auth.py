"""The one seam for who may do what: a principal, and the verbs and services it may use.

Until tokens, AWS IAM and mTLS come behind it everything is allowed, which is why listeners default to loopback.
"""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from msgspec import Struct


class Principal(Struct, frozen=True):
    """Who asks, as far as it is known; ``name`` is written into the history."""

    name: str


def peer_of(client: Sequence[Any] | None) -> str:
    """Return the address that a request came from, of ASGI's pair of host and port."""
    return str(client[0]) if client else "local"


def _principal(
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
    peer = peer_of(request.client)
    return Principal(f"{x_actor} from {peer}" if x_actor else peer)


Asking = Annotated[Principal, Depends(_principal)]
