"""The credential that a request carries, as the client sees it."""

from typing import Protocol


class Credential(Protocol):
    """A source of bearer tokens that hears what the registry thinks of them."""

    @property
    def bearer(self) -> str:
        """The token for the next request; empty for none."""

    def accepted(self, bearer: str) -> None:
        """Record that a registry accepted a token."""

    def refused(self, bearer: str) -> bool:
        """Record that a registry refused a token with 401, and return whether to repeat the request soon.

        True means that another token is there already, or is expected.
        """


class NoCredential:
    """The credential of a client that sends none."""

    bearer = ""

    def accepted(self, bearer: str) -> None:
        """Ignore it."""

    def refused(self, bearer: str) -> bool:
        """Return False for its own, since no token will come."""
        return bearer != self.bearer
