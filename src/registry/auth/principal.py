"""Principals: the senders of requests, as the policy and the history know them.

Until tokens, AWS IAM and mTLS tell more of a principal, it is the address that a request came from and the name that it
gives itself.
"""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

NAMES_ACTOR = frozenset({b"x-actor"})
"""Headers by which a principal names itself; the application answers a request with one of them."""


class Principal(Struct, frozen=True):
    """The sender of a request, as far as it is known; ``name`` is written into the history."""

    name: str


NOBODY = Principal("")
"""The principal of a connection that is not made yet."""


def peer_of(client: Sequence[Any] | None) -> str:
    """Return the address that a request came from, of ASGI's pair of host and port."""
    return str(client[0]) if client else "local"


def principal(peer: str, actor: str | None = None) -> Principal:
    """Return the principal of an address, and of the name that it gives itself."""
    return Principal(f"{actor} from {peer}" if actor else peer)
