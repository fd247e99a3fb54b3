"""Client certificates of TLS connections: read once for each connection, and never used longer than they are valid.

A client that keeps its connection would keep the certificate of its beginning, too. Envoy does not connect anew when
its certificate is rotated, so a connection with one ends after a while, with a response that says so.
"""

import asyncio
import random
import time

from registry.auth.certificate import ClientCertificate, read_certificate, scope_extensions
from registry.http.protocol_limits import BoundedProtocol

_AGE_SPREAD = 0.1
"""Share of the age by which connections differ, so that those of one moment do not end in one moment."""


class CertificateProtocol(BoundedProtocol):
    """One connection, with the certificate of its client."""

    certificate: ClientCertificate | None = None
    """The client's; None on plain connections and for clients without one. Written when the connection is made."""
    _aged = False
    """Whether the connection is to end with its next response. Written by _on_aged()."""
    _timers: tuple[asyncio.TimerHandle, ...] = ()
    """End the time in which the connection is used, and the validity of its certificate; empty where it has none."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Begin with a connection, and read the certificate of its client."""
        super().connection_made(transport)
        self.certificate = read_certificate(transport.get_extra_info("peercert"))
        if self.certificate is not None:
            age = self.config.app.connection_age  # type: ignore[union-attr]  # registry.server gives the middleware
            spread = random.uniform(1 - _AGE_SPREAD, 1 + _AGE_SPREAD)  # noqa: S311  # no secret
            left = max(0.0, self.certificate.not_after - time.time())
            self._timers = (
                self.loop.call_later(age * spread, self._on_aged),
                self.loop.call_later(left, self._on_expired),
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel the timers of the connection."""
        for timer in self._timers:
            timer.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin with a request, and give the certificate to the application."""
        super().on_message_begin()
        if self.certificate is not None:
            self.scope["extensions"] = scope_extensions(self.certificate)

    def on_headers_complete(self) -> None:
        """Begin to answer a request, and end the connection with it if it is to end."""
        super().on_headers_complete()
        if self.ends and self.cycle is not None:
            self.cycle.keep_alive = False

    @property
    def ends(self) -> bool:
        """Whether the connection ends with its next response: it is old, or its certificate has expired."""
        certificate = self.certificate
        return certificate is not None and (self._aged or certificate.has_expired(time.time()))

    def _on_aged(self) -> None:
        """End the connection with the response that is due, or else with the next one; a held poll stays held."""
        self._aged = True
        if self.cycle is not None:
            self.cycle.keep_alive = False

    def _on_expired(self) -> None:
        """End a stream of events, which has no next response; a poll that is held was allowed when it came."""
        cycle = self.cycle
        if getattr(cycle, "response_started", False) and not cycle.response_complete:
            self.transport.close()
