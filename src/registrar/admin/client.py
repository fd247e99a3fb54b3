"""The client of the local admin API, for the verbs that ask a running registrar.

It blocks and uses the standard library alone: each health check is a process of its own, several times a minute.
"""

import http.client
import socket

import msgspec

from registrar.config.listen import ListenAddress
from registrar.errors import AdminRefused, AdminUnavailable
from wire.problem import CONTENT_TYPE, Problem


class AdminClient:
    """Sends requests to the admin API of the registrar that listens at ``listen``.

    Args:
        listen: the address of the admin API.
        timeout: seconds to wait for the response, or None for no limit.
    """

    def __init__(self, listen: ListenAddress, timeout: float | None) -> None:
        self._listen = listen
        self._timeout = timeout

    def request(self, method: str, path: str) -> tuple[int, bytes]:
        """Send a request and return the status and the body of the response.

        Raises:
            AdminRefused: the response is a problem document.
            AdminUnavailable: there was no response; the message says why, and what to do.
        """
        if self._listen.off:
            raise AdminUnavailable(
                "the admin interface is off; set REGISTRAR_ADMIN_LISTEN to an address, here and for the registrar"
            )
        connection = _Connection(self._listen, self._timeout)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise AdminUnavailable(
                f"no registrar answers at {self._listen} ({str(error) or type(error).__name__}); check that it runs "
                "with the same REGISTRAR_ADMIN_LISTEN"
            ) from error
        finally:
            connection.close()
        if response.getheader("content-type") == CONTENT_TYPE:
            raise AdminRefused(msgspec.json.decode(body, type=Problem).detail)
        return response.status, body


class _Connection(http.client.HTTPConnection):
    """An HTTP connection over TCP or over a unix socket."""

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
