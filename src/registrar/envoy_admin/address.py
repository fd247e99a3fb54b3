"""The address of Envoy's admin interface: loopback or a unix socket."""

from typing import Self

from registrar.local_address import LocalAddress
from wire.address import format_endpoint

_FORMS = "http://127.0.0.1:9901 or unix:/run/envoy/admin.sock"


class EnvoyAdminAddress(LocalAddress):
    """An address of an admin interface."""

    __slots__ = ()

    @classmethod
    def parse(cls, value: object) -> Self:
        """Parse ``http://127.0.0.1:9901``, the same without its scheme, or ``unix:/path``.

        Raises:
            ValueError: the text has none of these forms, or the address is not this machine's own.
        """
        text = str(value).strip()
        if text.startswith("unix:"):
            return cls.at_path(text.removeprefix("unix:").removeprefix("//"), _FORMS)
        danger = "whoever reaches Envoy's admin interface can stop it"
        return cls.on_loopback(text.removeprefix("http://").rstrip("/"), danger, _FORMS)

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        return format_endpoint(self.host, self.port) if self.path is None else "localhost"

    def __str__(self) -> str:
        return f"http://{self.authority}" if self.path is None else f"unix:{self.path}"
