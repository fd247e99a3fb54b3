"""Where the local admin API listens: loopback, a unix socket, or nowhere."""

import ipaddress
from pathlib import Path
from typing import Self

from wire.address import format_endpoint, parse_endpoint

_FORMS = "127.0.0.1:9902, unix:/run/registrar/admin.sock or off"


class ListenAddress:
    """One place to listen.

    Attributes:
        host: a loopback address; empty for a unix socket or none.
        port: its port.
        path: the unix socket, or None.
    """

    __slots__ = ("host", "path", "port")

    def __init__(self, host: str = "", port: int = 0, path: Path | None = None) -> None:
        self.host = host
        self.port = port
        self.path = path

    @classmethod
    def parse(cls, value: object) -> Self:
        """Read ``127.0.0.1:9902``, ``unix:/path`` or ``off``.

        Raises:
            ValueError: none of these, or an address that others can reach: whoever reaches it may drain.
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
            raise ValueError(f"{host} is no loopback address, and the admin API asks nobody who they are")
        return cls(host, port)

    @property
    def off(self) -> bool:
        """Whether there is nothing to listen on."""
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
    # The verbs that ask the running registrar are called from any directory.
    if not path.is_absolute() or len(text.encode()) > 107:
        raise ValueError(f"{text!r} is no absolute path of at most 107 bytes; write it like {_FORMS}")
    return path
