"""A static server that names hosts while no registry answers, for tasks that start with an empty disk."""

import asyncio
import ssl
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from registrar.config.fallback_url import FallbackUrl
from registrar.event_log import EventLogger
from registrar.registry_client.dns import resolve
from registrar.registry_client.http_client import HttpClient, Origin, describe
from registrar.registry_client.tls import RegistryTls
from wire.http1 import Request, Response

_CONNECT_TIMEOUT = 1.0
_OK, _NOT_MODIFIED = 200, 304
_TIMEOUT = 3.0
"""Seconds for one request."""

log = EventLogger(__name__)


class _DiscoveryResponse(Struct, frozen=True):
    resources: list[msgspec.Raw]


_decode = msgspec.json.Decoder(_DiscoveryResponse).decode


class Fallback:
    """Asks a static server for the assignments of services.

    Args:
        url: where the objects are.
        tls: verifies the server; the registrar's own certificate is not shown to it.
    """

    def __init__(self, url: FallbackUrl, tls: RegistryTls | None = None) -> None:
        self._url = url
        self._http = HttpClient(tls or RegistryTls(), _CONNECT_TIMEOUT)
        # The ETag of each service's object, with which it is asked for again.
        self._etags: dict[str, str] = {}
        self.problem: str | None = None
        """Why the newest request failed; None after one that did not."""

    async def close(self) -> None:
        """Close the connections that are kept."""
        await self._http.close()

    async def get(self, service: str) -> bytes | None:
        """Return the service's resources, one behind the other.

        Returns:
            None if the server has none, does not answer, or has the same as before.
        """
        try:
            async with asyncio.timeout(_TIMEOUT):
                response = await self._request(self._url.of(service), self._etags.get(service, ""))
            if response.status == _NOT_MODIFIED:
                self._note(service, None)
                return None
            if response.status == _OK:
                content = b",".join(map(bytes, _decode(response.body).resources))
                self._etags[service] = response.headers.get("etag", "")
                self._note(service, None)
                return content or None
            reason = f"{response.status} {response.reason}"
        except (OSError, ValueError, msgspec.DecodeError) as error:
            reason = describe(error)
        self._note(service, reason)
        return None

    def forget(self, service: str) -> None:
        """Ask for a service's object as a whole the next time."""
        self._etags.pop(service, None)

    async def _request(self, url: str, etag: str) -> Response:
        parts = urlsplit(url)
        host = parts.hostname or ""
        encrypted = parts.scheme == "https"
        port = parts.port or (443 if encrypted else 80)
        error: OSError = OSError(f"{host} has no address")
        for address in await resolve(host):
            origin = Origin(address, port, host if encrypted else "")
            headers = {"host": parts.netloc, "user-agent": "headcount-registrar", "accept-encoding": "identity"}
            if etag:
                headers["if-none-match"] = etag
            target = f"{parts.path}?{parts.query}" if parts.query else parts.path
            try:
                return await self._http.request(origin, Request("GET", target, headers))
            except (OSError, ssl.SSLError) as failure:
                error = failure
        raise error

    def _note(self, service: str, problem: str | None) -> None:
        if problem is not None and self.problem is None:
            log.warning("edge_fallback_failed", url=self._url.of(service), reason=problem)
        self.problem = problem
