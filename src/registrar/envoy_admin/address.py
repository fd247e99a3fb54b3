"""The address of Envoy's admin interface: loopback or a unix socket."""

import ipaddress
from pathlib import Path
from typing import Self

from wire.address import format_endpoint, parse_endpoint

_FORMS = "http://127.0.0.1:9901 or unix:/run/envoy/admin.sock"
_MAX_PATH = 107
"""Bytes of the path of a unix socket, by unix(7)."""


class EnvoyAdminAddress:
    """An address of an admin interface.

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
    def parse(cls, value: object) -> Self:
        """Parse ``http://127.0.0.1:9901``, the same without its scheme, or ``unix:/path``.

        Raises:
            ValueError: the text has none of these forms, or the address is not this machine's own.
        """
        text = str(value).strip()
        if text.startswith("unix:"):
            return cls(path=_absolute(text.removeprefix("unix:").removeprefix("//")))
        try:
            host, port = parse_endpoint(text.removeprefix("http://").rstrip("/"))
        except ValueError as error:
            raise ValueError(f"{error}; write it like {_FORMS}") from error
        if not ipaddress.ip_address(host).is_loopback:
            raise ValueError(
                f"{host} is not a loopback address, and whoever reaches Envoy's admin interface can stop it; "
                f"write it like {_FORMS}"
            )
        return cls(host, port)

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        return format_endpoint(self.host, self.port) if self.path is None else "localhost"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EnvoyAdminAddress) and str(other) == str(self)

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        return f"http://{self.authority}" if self.path is None else f"unix:{self.path}"


def _absolute(text: str) -> Path:
    path = Path(text)
    if not path.is_absolute() or len(text.encode()) > _MAX_PATH:
        raise ValueError(f"{text!r} is not an absolute path of at most {_MAX_PATH} bytes; write it like {_FORMS}")
    return path
