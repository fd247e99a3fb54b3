"""The addresses that the registrar listens on: loopback, a unix socket, or off."""

from typing import Self

from registrar.local_address import LocalAddress
from wire.address import format_endpoint

_FORMS = "127.0.0.1:9902, unix:/run/registrar/admin.sock or off"


class ListenAddress(LocalAddress):
    """An address to listen on; one that is off has neither a host nor a path."""

    __slots__ = ()

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
            return cls.at_path(text.removeprefix("unix:"), _FORMS)
        return cls.on_loopback(text, "its clients are not authenticated", _FORMS)

    @property
    def off(self) -> bool:
        """Whether nothing listens."""
        return not self.host and self.path is None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return format_endpoint(self.host, self.port) if self.host else "off"
