"""The address of the local admin API: loopback, a unix socket, or off."""

import ipaddress
from pathlib import Path
from typing import Self

from wire.address import format_endpoint, parse_endpoint

_FORMS = "127.0.0.1:9902, unix:/run/registrar/admin.sock or off"


class ListenAddress:
    """An address to listen on.

    Attributes:
        host: a loopback address; empty for a unix socket and for off.
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
        """Parse ``127.0.0.1:9902``, ``unix:/path`` or ``off``.

        Raises:
            ValueError: the text has none of these forms, or the address is reachable from other machines.
        """
        text = str(value).strip()
        if text.lower() in ("off", "false"):
            return cls()
        if text.startswith("unix:"):
            return cls(path=_absolute(text.removeprefix("unix:")))
        try:
            host, port = parse_endpoint(text)
        except ValueError as error:
            raise ValueError(f"{error}; write it like {_FORMS}") from error
        if not ipaddress.ip_address(host).is_loopback:
            raise ValueError(
                f"{host} is not a loopback address, and its clients are not authenticated; write it like {_FORMS}"
            )
        return cls(host, port)

    @property
    def off(self) -> bool:
        """Whether the admin API is off."""
        return not self.host and self.path is None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ListenAddress) and str(other) == str(self)

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return format_endpoint(self.host, self.port) if self.host else "off"


def _absolute(text: str) -> Path:
    path = Path(text)
    # An absolute path, because the verbs that use it run in any directory; 107 bytes is the limit of unix(7).
    if not path.is_absolute() or len(text.encode()) > 107:
        raise ValueError(f"{text!r} is not an absolute path of at most 107 bytes; write it like {_FORMS}")
    return path
