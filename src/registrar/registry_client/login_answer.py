"""The registry's response to a login: two tokens, with their ends by its own clock."""

import email.utils
from typing import Annotated

from msgspec import Meta, Struct

from wire.http1 import Response

# It becomes a header value, and the content of a file that Envoy reads.
Token = Annotated[str, Meta(min_length=1, max_length=1024, pattern=r"^[!-~]+$(?!\n)")]


class IssuedToken(Struct, frozen=True):
    """A token that a login issued.

    Attributes:
        token: never logged or shown.
        expires_at: seconds since the epoch, by the registry's clock.
    """

    token: Token
    expires_at: float

    def __repr__(self) -> str:
        return f"IssuedToken((hidden), {self.expires_at})"


class LoginAnswer(Struct, frozen=True):
    """The document of a login, and of a renewal.

    Attributes:
        registrar: the token of this process.
        principal: the registry's name for it.
        envoy: the token of the Envoy beside it, which may discover alone; None where there is none.
    """

    registrar: IssuedToken
    principal: str = ""
    envoy: IssuedToken | None = None


def registry_time(response: Response) -> float | None:
    """Return the registry's time as its response has it, in whole seconds; None without one."""
    try:
        return email.utils.parsedate_to_datetime(response.headers.get("date", "")).timestamp()
    except ValueError:
        return None
