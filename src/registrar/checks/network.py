"""What the checks that open connections have in common: where to connect."""

import asyncio
import ssl
from typing import Annotated

from msgspec import Meta

from registrar.checks.check import CheckTarget, Options
from wire.address import parse_ip

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class NetworkOptions(Options, frozen=True, kw_only=True):
    """Where to connect, if not to what is advertised."""

    address: Annotated[
        str,
        Meta(
            description="IP address to connect to. Unset: the advertised one, so that an app that listens on "
            "loopback only is never published. Set it where the app's check listens elsewhere."
        ),
    ] = ""
    port: Annotated[
        Annotated[int, Meta(ge=1, le=65535)] | None,
        Meta(description="Port to connect to, like that of an admin listener. Unset: the advertised."),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.address:
            parse_ip(self.address)

    def place(self, target: CheckTarget) -> tuple[str, int]:
        """Return the address and port to connect to."""
        return self.address or target.address, self.port or target.port


async def connect(
    place: tuple[str, int], limit: int, context: ssl.SSLContext | None = None, server_name: str = ""
) -> Streams:
    """Open a connection; ``limit`` bounds what is read ahead of the reader."""
    # Only a connection with TLS may name the server, and only an empty name turns the address into one.
    name = (server_name or place[0]) if context else None
    return await asyncio.open_connection(*place, limit=limit, ssl=context, server_hostname=name)


async def connect_unix(path: str, limit: int, context: ssl.SSLContext | None = None, server_name: str = "") -> Streams:
    """Open a connection to a unix socket."""
    name = (server_name or "localhost") if context else None
    return await asyncio.open_unix_connection(path, limit=limit, ssl=context, server_hostname=name)
