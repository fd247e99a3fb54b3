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
    """The sender of a request, as far as it is known.

    Attributes:
        address: the address that the request came from.
        actor: the name that the sender of a write gives itself; not verified. Reads, polls and heartbeats have none.
    """

    address: str
    actor: str = ""

    @property
    def name(self) -> str:
        """The sender as the history shows it, for instance ``ann from 10.0.0.9``."""
        return f"{self.actor} from {self.address}" if self.actor else self.address


NOBODY = Principal("")
"""The principal of a connection that is not made yet."""


def peer_of(client: Sequence[Any] | None) -> str:
    """Return the address that a request came from, of ASGI's pair of host and port."""
    return str(client[0]) if client else "local"
