"""A static server that names hosts while no registry answers, for tasks that start with an empty disk."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from registrar.config.fallback_url import FallbackUrl
from registrar.edge.askers import Askers
from registrar.edge.entry import Entry, Key, Source
from registrar.edge.polled_types import ENDPOINTS
from registrar.edge.token import fallback_token
from registrar.event_log import EventLogger
from registrar.registry_client.dns import resolve
from registrar.registry_client.http_client import HttpClient, Origin, describe
from registrar.registry_client.tls import RegistryTls
from wire.http1 import Request, Response

_CONNECT_TIMEOUT = 1.0
_OK, _NOT_MODIFIED = 200, 304
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TIMEOUT = 3.0
"""Seconds for one request."""
_MAX_BODY_BYTES = 8 * 1024 * 1024
"""Bytes of an object; one of 10,000 endpoints has two million."""
_AT_ONCE = 8
"""Requests at a time, whose objects are in memory together."""
_LOOK_INTERVAL = 0.25
"""Seconds between two looks for names to ask for."""
_AFTER = 3.0
"""Seconds of silence of the registries after which it is asked."""
_INTERVAL = 10.0
"""Seconds between two requests for one name."""

log = EventLogger(__name__)


class _DiscoveryResponse(Struct, frozen=True):
    resources: list[msgspec.Raw]


class _Locality(Struct, frozen=True):
    lb_endpoints: list[msgspec.Raw] = []


class _Assignment(Struct, frozen=True):
    type_url: str = msgspec.field(default="", name="@type")
    cluster_name: str = ""
    endpoints: list[_Locality] = []


class _UnusableError(ValueError):
    """A response has no assignment of the service with endpoints."""


_decode = msgspec.json.Decoder(_DiscoveryResponse).decode
_decode_assignment = msgspec.json.Decoder(_Assignment).decode


class Fallback:
    """Asks a static server for the assignments of services.

    Args:
        url: where the objects are.
        tls: verifies the server; the registrar's own certificate is not shown to it.
    """

    def __init__(self, url: FallbackUrl, tls: RegistryTls | None = None) -> None:
        self._url = url
        self._http = HttpClient(tls or RegistryTls(), _CONNECT_TIMEOUT, _MAX_BODY_BYTES)
        self._slots = asyncio.Semaphore(_AT_ONCE)
        # The ETag of each service's object, with which it is asked for again.
        self._etags: dict[str, str] = {}
        # Why the newest request for each service failed, of those whose newest one did.
        self._failing: dict[str, str] = {}

    @property
    def problem(self) -> str | None:
        """Why a service's object is not used, of the one that has failed for longest; None where all are."""
        return next(iter(self._failing.values()), None)

    async def close(self) -> None:
        """Close the connections that are kept."""
        await self._http.close()

    async def get(self, service: str) -> bytes | None:
        """Return the service's assignment.

        Returns:
            None if the server has none with endpoints, does not answer, or has the same as before.
        """
        async with self._slots:
            try:
                async with asyncio.timeout(_TIMEOUT):
                    response = await self._request(self._url.of(service), self._etags.get(service, ""))
                content = _content(response, service)
            except (OSError, ValueError, msgspec.DecodeError) as error:
                self._note(service, str(error) if isinstance(error, _UnusableError) else describe(error))
                return None
        if content is not None:
            self._etags[service] = response.headers.get("etag", "")
        self._note(service, None)
        return content

    def forget(self, service: str) -> None:
        """Ask for a service's object as a whole the next time."""
        self._etags.pop(service, None)
        self._failing.pop(service, None)

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
        if problem is None:
            self._failing.pop(service, None)
            return
        if not self._failing:
            log.warning("edge_fallback_failed", url=self._url.of(service), reason=problem)
        self._failing[service] = problem


class FallbackSync:
    """Asks a fallback for names without content, while no registry answers.

    Args:
        fallback: the server.
        entries: the names that are held. Written by the edge.
        askers: ask registries for them.
        settle: called with each entry that has new content.
    """

    def __init__(
        self, fallback: Fallback, entries: Mapping[Key, Entry], askers: Askers, settle: Callable[[Entry], None]
    ) -> None:
        self._fallback = fallback
        self._entries = entries
        self._askers = askers
        self._settle = settle

    async def run(self) -> None:
        """Ask again and again."""
        asked_at: dict[Key, float] = {}
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_INTERVAL)
            now = loop.time()
            asked_at = {key: moment for key, moment in asked_at.items() if now - moment < _INTERVAL}
            due = [entry for entry in self._entries.values() if entry.key not in asked_at and self._needs(entry, now)]
            asked_at |= {entry.key: now for entry in due}
            await asyncio.gather(*(self._ask(entry) for entry in due))

    async def _ask(self, entry: Entry) -> None:
        content = await self._fallback.get(entry.name)
        # A registry, or the disk, may have been faster.
        if content is not None and entry.source in (Source.NOWHERE, Source.FALLBACK):
            entry.take(fallback_token(content), content, Source.FALLBACK)
            self._settle(entry)

    def _needs(self, entry: Entry, now: float) -> bool:
        if entry.polled is not ENDPOINTS or not entry.loaded or entry.source not in (Source.NOWHERE, Source.FALLBACK):
            return False
        silent = now - max(entry.learnt_at, self._askers.progress.answered_at or 0.0)
        return silent >= _AFTER and not self._askers.refused and not self._askers.is_refused(entry)


def _content(response: Response, service: str) -> bytes | None:
    """Return the assignment in a response; None where it is the one of before.

    Raises:
        _UnusableError: there is none of this service with endpoints.
        msgspec.DecodeError: it is no DiscoveryResponse.
    """
    if response.status == _NOT_MODIFIED:
        return None
    if response.status != _OK:
        hint = "; redirects are not followed, name the object's own URL" if response.status in _REDIRECTS else ""
        raise _UnusableError(f"{response.status} {response.reason}{hint}")
    resources = _decode(response.body).resources
    if len(resources) != 1:
        raise _UnusableError(f"the object has {len(resources)} resources in place of one assignment")
    assignment = _decode_assignment(resources[0])
    if assignment.type_url != ENDPOINTS.type_url:
        raise _UnusableError(f"the object has {assignment.type_url[:100]!r} in place of {ENDPOINTS.type_url}")
    if assignment.cluster_name != service:
        # Envoy would reject it, and a server that has one object for every path knows no hosts of this service.
        raise _UnusableError(f"the object is the assignment of {assignment.cluster_name[:100]!r}")
    if not any(locality.lb_endpoints for locality in assignment.endpoints):
        raise _UnusableError("the assignment has no endpoints")
    return bytes(resources[0])
