"""Options and connections that the checks over a network share."""

import asyncio
import ssl
from typing import Annotated

from msgspec import Meta

from registrar.checks.check import CheckTarget, Options
from wire.address import parse_ip

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class NetworkOptions(Options, frozen=True, kw_only=True):
    """Options that replace the advertised address and port as the check's destination."""

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

    def address_port(self, target: CheckTarget) -> tuple[str, int]:
        """Return the address and the port to connect to."""
        return self.address or target.address, self.port or target.port


async def connect(address: str, port: int, context: ssl.SSLContext | None = None, server_name: str = "") -> Streams:
    """Open a connection, with TLS where there is a context; an empty name verifies the address."""
    # asyncio takes a name only together with TLS.
    name = (server_name or address) if context else None
    return await asyncio.open_connection(address, port, ssl=context, server_hostname=name)


async def connect_unix(path: str, context: ssl.SSLContext | None = None, server_name: str = "") -> Streams:
    """Open a connection to a unix socket."""
    name = (server_name or "localhost") if context else None
    return await asyncio.open_unix_connection(path, ssl=context, server_hostname=name)
