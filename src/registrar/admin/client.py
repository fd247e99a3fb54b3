"""Asks the registrar that runs beside us: the other end of the admin API.

Blocking and from the standard library: a health check is a process of its own, several times a minute.
"""

import http.client
import socket

import msgspec

from registrar.config.listen import ListenAddress
from registrar.errors import AdminRefused, AdminUnavailable
from wire.problem import CONTENT_TYPE, Problem


class AdminClient:
    """The admin API of the registrar that listens at ``listen``.

    Args:
        listen: where.
        timeout: seconds for an answer, None for as long as it takes.
    """

    def __init__(self, listen: ListenAddress, timeout: float | None) -> None:
        self._listen = listen
        self._timeout = timeout

    def request(self, method: str, path: str) -> tuple[int, bytes]:
        """Return the status and the body of the answer.

        Raises:
            AdminRefused: it is a problem document.
            AdminUnavailable: there was none; says why, and what to do.
        """
        if self._listen.off:
            raise AdminUnavailable("the admin interface is off; set REGISTRAR_ADMIN_LISTEN for it and for this")
        connection = _Connection(self._listen, self._timeout)
        try:
            connection.request(method, path)
            answer = connection.getresponse()
            said = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise AdminUnavailable(
                f"no registrar answers at {self._listen} ({str(error) or type(error).__name__}); is it running, "
                "and with the same REGISTRAR_ADMIN_LISTEN?"
            ) from error
        finally:
            connection.close()
        if answer.getheader("content-type") == CONTENT_TYPE:
            raise AdminRefused(msgspec.json.decode(said, type=Problem).detail)
        return answer.status, said


class _Connection(http.client.HTTPConnection):
    """HTTP over whichever socket there is to be."""

    def __init__(self, listen: ListenAddress, timeout: float | None) -> None:
        super().__init__(listen.host or "localhost", listen.port or None, timeout=timeout)
        self._path = listen.path

    def connect(self) -> None:
        """Open the connection."""
        if self._path is None:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
