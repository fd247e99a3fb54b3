"""The heads of requests that the fast protocol answers: polls, heartbeats, questions of edges, hosts and lists.

An Envoy sends the same head with nearly each poll. It is kept as it was received, so that the next request which begins
with these bytes needs no parser.
"""

from collections.abc import Callable, Container, Mapping, MutableMapping, Sequence
from typing import NamedTuple
from weakref import WeakValueDictionary

from msgspec import Struct

from registry.auth.load_balancer import HEADER as STATEMENT
from registry.auth.origin import BROWSER_AGENT, BROWSER_HEADERS
from registry.auth.principal import AUTHORIZATION, NAMES_ACTOR
from registry.http.headers import EXPECTED_TIMEOUT, FORWARDED_FOR
from registry.http.legacy.hosts import METHODS, HostsRequest, read_hosts_request
from registry.http.lists.document import ACCEPT_ENCODING, IF_NONE_MATCH, Conditions, accepts_gzip
from registry.http.lists.requests import ListRequest, read_list_request
from registry.http.requests import HEADER
from registry.http.v1 import traffic
from registry.http.v1.heartbeats import BATCH
from registry.xds.discovery import ServedPath
from wire.edge_assignments import EDGE_PATH

Headers = Sequence[tuple[bytes, bytes]]

HEARTBEATS = BATCH.encode()
"""The path of a batch of heartbeats."""
TRAFFIC = traffic.PATH.encode()
"""The path of digests of traffic."""
EDGE = EDGE_PATH.encode()
"""The path of the questions of edges."""
REQUEST_ID = HEADER.encode()
_SERVICES = b"/v1/services/"
_CONNECTION = b"connection"
_EXPECT = b"expect"
_LENGTH = b"content-length"
_CODING = b"transfer-encoding"
_FOR_ASGI = BROWSER_HEADERS | NAMES_ACTOR | {STATEMENT, _EXPECT}
"""Headers that say more of a request than this protocol looks at: whether a browser sent it, its actor, its person,
and that it waits for 100 Continue."""
_ONCE = (_CONNECTION, _CODING, REQUEST_ID)
"""Headers of a head that is not kept: the connection may end, the body has no length, or the next head differs."""
_END = b"\r\n\r\n"
MAX_KEPT_HEAD = 8192
"""Bytes of a head that is kept for the next request of its connection; Envoy's have some 700."""
_PUT = b"PUT "
_HEARTBEAT = _PUT + _SERVICES
_VERSION = b" HTTP/1.1\r\n"
_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/._-:[]"
"""The characters of an address that needs no decoding and that no parser refuses."""
_MAX_LINE = 1024
"""Bytes in which the request line of a heartbeat has to end to be recognized."""


class RequestHead(Struct, frozen=True, eq=False, gc=False):
    """The head of a request that is answered here, and what follows from nothing else than its bytes.

    Attributes:
        method: as it stands in the request line.
        path: that of a poll; None for everything else.
        hosts: what is asked for by v1 SDS; None for everything else.
        listing: the list that is asked for; None for everything else.
        conditions: the representation of a list, or of the answer to an edge, that the client takes.
        authorization: the header that has the credential.
        forwarded_for: a header of polls and of requests for hosts.
        timeout: a header of polls.
        request_id: a header of requests for hosts and lists, and of edges.
        keep_alive: whether the connection goes on after the response, as far as the client says.
        length: bytes of the body, for a head that may be kept; None for every other one.
    """

    method: bytes
    path: ServedPath | None
    hosts: HostsRequest | None
    listing: ListRequest | None
    conditions: Conditions
    authorization: bytes | None
    forwarded_for: bytes | None
    timeout: bytes | None
    request_id: bytes
    keep_alive: bool
    length: int | None


class Place(NamedTuple):
    """Where a request stands in a piece of data that it begins.

    Attributes:
        url: as it stands in the request line.
        size: bytes of the head.
        total: the same with the body.
    """

    url: bytes
    size: int
    total: int


class KeptHead(Struct, frozen=True, eq=False, weakref=True):
    """The head of a request that was received, by which the next one is recognized.

    Attributes:
        raw: all its bytes, up to the empty line; of a heartbeat only those behind its address.
        place: that of the same request; None for a heartbeat, whose address may be another one.
        length: bytes of the body.
        head: what it means. It has nothing that the credentials, the clock or the connection change.
    """

    raw: bytes
    place: Place | None
    length: int
    head: RequestHead

    def find(self, data: bytes | memoryview) -> Place | None:
        """Return the place of a request that begins a piece of data, and that nothing follows; None for another one."""
        place = self.place
        if place is None:
            return self._find_heartbeat(data)
        _, size, total = place
        return place if size <= len(data) <= total and bytes(data[:size]) == self.raw else None

    def _find_heartbeat(self, data: bytes | memoryview) -> Place | None:
        """Return the place of a heartbeat whose head differs by its address alone, and that has a plain one."""
        line = bytes(data[:_MAX_LINE])
        end = line.find(_VERSION)
        if end < 0 or not line.startswith(_HEARTBEAT) or line[len(_HEARTBEAT) : end].translate(None, _PLAIN):
            return None
        size = end + len(self.raw)
        total = size + self.length
        if not size <= len(data) <= total or bytes(data[end:size]) != self.raw:
            return None
        return Place(line[len(_PUT) : end], size, total)

    def bytes_of(self, url: bytes) -> bytes:
        """Return all bytes of the head of a request that was found, by its address."""
        return self.raw if self.place is not None else _PUT + url + self.raw


class HeadReader:
    """Reads heads, and keeps those that connections repeat; those of many Envoys are the same.

    Args:
        polls: the paths of polls, by their URL as it stands in a request.
        is_too_long: returns whether a Content-Length announces a longer body than there may be.
    """

    def __init__(self, polls: Mapping[bytes, ServedPath], is_too_long: Callable[[bytes | None], bool]) -> None:
        self._polls = polls
        self._is_too_long = is_too_long
        self._kept: MutableMapping[bytes, KeptHead] = WeakValueDictionary()
        """The heads that connections keep, by their bytes. Written by keep()."""

    def read(self, method: bytes, url: bytes, headers: Headers, *, keep_alive: bool) -> RequestHead | None:
        """Return the head of a request of the kinds that are answered here; None for all others.

        Args:
            method: as it stands in the request line.
            url: likewise.
            headers: with their names in small letters.
            keep_alive: whether the connection goes on, by the version of HTTP and the headers.
        """
        fields = dict(headers)
        if len(fields) != len(headers) or _is_for_asgi(fields) or self._is_too_long(fields.get(_LENGTH)):
            return None
        hosts = read_hosts_request(url) if method in METHODS else None
        listing = read_list_request(url) if method in METHODS and hosts is None else None
        if hosts is None and listing is None and not self._is_post_or_heartbeat(method, url, fields):
            return None
        return RequestHead(
            method,
            self._polls.get(url),
            hosts,
            listing,
            Conditions(fields.get(IF_NONE_MATCH), accepts_gzip(fields.get(ACCEPT_ENCODING))),
            fields.get(AUTHORIZATION),
            fields.get(FORWARDED_FOR),
            fields.get(EXPECTED_TIMEOUT),
            fields.get(REQUEST_ID, b""),
            keep_alive,
            _length(fields) if keep_alive and _may_be_repeated(url, fields) else None,
        )

    def keep(self, head: RequestHead, url: bytes, data: bytes | memoryview, body: int) -> KeptHead | None:
        """Keep a head as it was received, and return it; None where the data does not show its end.

        Args:
            head: of the only request that begins in the data.
            url: as it stands in its request line.
            data: a piece that was received, with the first byte of the request.
            body: bytes of the request's body in it.
        """
        size = len(data) - body
        raw = bytes(data[:size])
        if head.length is None or size > MAX_KEPT_HEAD or raw.find(_END) != size - len(_END):
            return None
        place: Place | None = Place(url, size, size + head.length)
        line = _PUT + url
        if raw.startswith(line + _VERSION):
            raw, place = raw[len(line) :], None
        kept = self._kept.get(raw)
        if kept is None:
            kept = self._kept[raw] = KeptHead(raw, place, head.length, head)
        return kept

    def _is_post_or_heartbeat(self, method: bytes, url: bytes, fields: Container[bytes]) -> bool:
        if method == b"PUT":
            return url.startswith(_SERVICES) and REQUEST_ID not in fields
        if method == b"POST":
            if url in self._polls or url == EDGE:
                return True
            return url in (HEARTBEATS, TRAFFIC) and REQUEST_ID not in fields
        return False


def _is_for_asgi(fields: Mapping[bytes, bytes]) -> bool:
    """Return whether a request names its actor, may be a browser's, waits for 100 Continue, or has no Host."""
    if b"host" not in fields or not _FOR_ASGI.isdisjoint(fields):
        return True
    agent = fields.get(b"user-agent")
    return agent is not None and agent.startswith(BROWSER_AGENT)


def _may_be_repeated(url: bytes, fields: Container[bytes]) -> bool:
    """Return whether a head may be kept. That of a digest would displace the one of the same client's heartbeats."""
    return url != TRAFFIC and not any(name in fields for name in _ONCE)


def _length(fields: Mapping[bytes, bytes]) -> int | None:
    """Return the Content-Length, which is not too long; None where it is not written in digits alone."""
    announced = fields.get(_LENGTH, b"0")
    return int(announced.lstrip(b"0") or b"0") if announced.isdigit() else None
