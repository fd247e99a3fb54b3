"""Principals: the senders of requests, as the policy and the history know them."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from registry.auth.subject import ANONYMOUS, Subject

AUTHORIZATION = b"authorization"
"""The header that has the credential of a request."""

NAMES_ACTOR = frozenset({b"x-actor"})
"""Headers by which a principal names itself; the application answers a request with one of them."""

_IPV4_MAPPED = "::ffff:"
"""The beginning of an IPv4 address that an IPv6 socket gives (RFC 4291, 2.5.5.2)."""


class Principal(Struct, frozen=True):
    """The sender of a request, as far as it is known.

    Attributes:
        address: the address that the request came from.
        actor: the name that the sender of a write gives itself; not verified. Reads, polls and heartbeats have none.
        subject: what is proven of the sender.
    """

    address: str
    actor: str = ""
    subject: Subject = ANONYMOUS

    @property
    def fingerprint(self) -> bytes:
        """Everything that a decision depends on but the request: principals with the same one may do the same."""
        return self.subject.fingerprint + self.address.encode()

    @property
    def limited_as(self) -> str:
        """The name by which limits tell senders apart: what is proven of it, or else its address."""
        return self.subject.name or self.address

    @property
    def name(self) -> str:
        """The sender as the history shows it, for instance ``token:ci-deploy as ann from 10.0.0.9``."""
        subject = self.subject.name
        if not subject and ":" in self.actor:
            # It looks like what is proven of others, for instance token:ci-deploy.
            subject = self.subject.kind
        if subject and self.actor:
            return f"{subject} as {self.actor} from {self.address}"
        name = subject or self.actor
        return f"{name} from {self.address}" if name else self.address


def peer_of(client: Sequence[Any] | None) -> str:
    """Return the address that a request came from, of ASGI's pair of host and port.

    A listener on ``[::]`` takes IPv4 too, and the kernel then writes 10.0.0.9 as ``::ffff:10.0.0.9``. Grants, networks
    and endpoints have the IPv4 address.
    """
    if not client:
        return "local"
    address = str(client[0])
    return address.removeprefix(_IPV4_MAPPED) if "." in address else address
