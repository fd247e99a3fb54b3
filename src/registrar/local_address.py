"""Addresses that nobody outside of this machine reaches: a loopback address with a port, or a unix socket."""

import ipaddress
from pathlib import Path
from typing import Self

from wire.address import parse_endpoint

_MAX_PATH = 107
"""Bytes of the path of a unix socket, by unix(7)."""


class LocalAddress:
    """A loopback address or a unix socket. A subclass says how it is written, and what else is allowed.

    Attributes:
        host: a loopback address; empty for a unix socket.
        port: the port of that address.
        path: the path of the unix socket, or None.
    """

    __slots__ = ("host", "path", "port")

    def __init__(self, host: str = "", port: int = 0, path: Path | None = None) -> None:
        self.host = host
        self.port = port
        self.path = path

    @classmethod
    def on_loopback(cls, text: str, danger: str, forms: str) -> Self:
        """Parse ``127.0.0.1:9902``.

        Args:
            text: the address and the port.
            danger: what an address that others reach would mean, for the error.
            forms: how an address may be written, for the error.

        Raises:
            ValueError: it is no address with a port, or one that other machines reach.
        """
        try:
            host, port = parse_endpoint(text)
        except ValueError as error:
            raise ValueError(f"{error}; write it like {forms}") from error
        if not ipaddress.ip_address(host).is_loopback:
            raise ValueError(f"{host} is not a loopback address, and {danger}; write it like {forms}")
        return cls(host, port)

    @classmethod
    def at_path(cls, text: str, forms: str) -> Self:
        """Parse the path of a unix socket; it is absolute, because the verbs that use it run in any directory.

        Raises:
            ValueError: it is relative or too long.
        """
        path = Path(text)
        if not path.is_absolute() or len(text.encode()) > _MAX_PATH:
            raise ValueError(f"{text!r} is not an absolute path of at most {_MAX_PATH} bytes; write it like {forms}")
        return cls(path=path)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and str(other) == str(self)

    def __hash__(self) -> int:
        return hash(str(self))
