"""The parts of discovery responses that stand around resources."""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from registry.http2.sender import MAX_FRAMED
from registry.xds.grpc.source import EncodedResource
from registry.xds.grpc.wire_format import field, number, text

Parts = Sequence[bytes]
"""A message as the parts to send one after the other."""

_TYPE_URL, _NONCE = 4, 5
"""Fields of both responses."""
_ACCEPTED_NONCE = {False: 5, True: 6}
"""The field of both requests with the nonce of the response that they accept, by whether they are deltas."""
_CONTROL_PLANE = {False: 6, True: 7}
"""The field with the control plane, by whether the response is a delta."""
_ERRORS = {False: 7, True: 9}
"""The field with the errors of resources, by whether the response is a delta."""
_REMOVED_RESOURCES = 6
"""The field of `DeltaDiscoveryResponse` with the names of removed resources."""
_IDENTIFIER = 1
"""The field of `ControlPlane`."""
_RESOURCE_NAME, _ERROR_DETAIL, _NAME = 1, 2, 1
"""Fields of `ResourceError` and of `ResourceName`."""
_CODE, _MESSAGE = 1, 2
"""Fields of `google.rpc.Status`."""
_MAX_KEPT = 1024
"""Nonces of a type whose encodings are kept. A stream that gets further makes its own."""
_MAX_WHOLE = 16
"""Whole responses that are kept: as many as are pushed to many streams in one moment."""


class WholeResponse(Struct, frozen=True, gc=False):
    """A response with one resource, which many streams send as it is.

    Attributes:
        resource: the resource.
        number: counts the whole responses of this process, so that a stream knows whether it has sent a later one.
        nonce: its nonce, which no other response has.
        parts: the message, in one part.
        accepted_version: the version that an ACK of it begins with.
        accepted_nonce: the nonce that an ACK of it ends with.
    """

    resource: EncodedResource
    number: int
    nonce: str
    parts: tuple[bytes]
    accepted_version: bytes
    accepted_nonce: bytes


class ResponseTails:
    """The ends of responses: their type, their nonce and the control plane.

    Nonces count the answers of one type on one stream, so streams share them. The nonces of whole responses are counted
    by the process, and begin with a letter: so the two are never equal.

    Args:
        identifier: names this process, and Envoys show it.
    """

    def __init__(self, identifier: str) -> None:
        self._whole: dict[tuple[int, bool], tuple[EncodedResource, WholeResponse | None]] = {}
        """The last resources that were sent alone, by their id and by whether the response is a delta, and the response
        with each from the second time on. An id is that of a kept object."""
        self._whole_count = 0
        self._control_plane = text(_IDENTIFIER, identifier)
        self._kept: dict[tuple[str, bool], list[bytes]] = {}
        """The tails of the nonces from 1 on, by type URL and by whether the response is a delta."""

    def tail(self, type_url: str, nonce: int, *, delta: bool) -> bytes:
        """Return the end of a response."""
        kept = self._kept.setdefault((type_url, delta), [])
        while len(kept) < min(nonce, _MAX_KEPT):
            kept.append(self._make(type_url, str(len(kept) + 1), delta=delta))
        return kept[nonce - 1] if nonce <= _MAX_KEPT else self._make(type_url, str(nonce), delta=delta)

    def whole(self, type_url: str, resource: EncodedResource, *, delta: bool) -> WholeResponse | None:
        """Return the whole response with a resource; None: it is sent for the first time, or too large."""
        key = (id(resource), delta)
        kept = self._whole.get(key)
        if kept is not None and kept[1] is not None:
            return kept[1]
        if resource.size > MAX_FRAMED:
            return None
        if len(self._whole) >= _MAX_WHOLE:
            self._whole.clear()
        response = None if kept is None else self._make_whole(type_url, resource, delta=delta)
        self._whole[key] = resource, response
        return response

    def _make_whole(self, type_url: str, resource: EncodedResource, *, delta: bool) -> WholeResponse:
        self._whole_count += 1
        nonce = f"r{self._whole_count}"
        head = resource.delta_head if delta else resource.sotw_head
        message = b"".join((head, resource.entry, self._make(type_url, nonce, delta=delta)))
        return WholeResponse(
            resource,
            self._whole_count,
            nonce,
            (message,),
            b"" if delta else resource.sotw_head,
            encode_nonce(nonce, delta=delta),
        )

    def _make(self, type_url: str, nonce: str, *, delta: bool) -> bytes:
        return text(_TYPE_URL, type_url) + text(_NONCE, nonce) + field(_CONTROL_PLANE[delta], self._control_plane)


def encode_nonce(nonce: str, *, delta: bool) -> bytes:
    """Return the nonce of a request, which accepts or rejects a response."""
    return text(_ACCEPTED_NONCE[delta], nonce)


def encode_errors(errors: Mapping[str, tuple[int, str]], *, delta: bool = False) -> bytes:
    """Return the errors of resources, given by name as a status code and its words."""
    return b"".join(
        field(
            _ERRORS[delta],
            field(_RESOURCE_NAME, text(_NAME, name))
            + field(_ERROR_DETAIL, number(_CODE, code) + text(_MESSAGE, words)),
        )
        for name, (code, words) in errors.items()
    )


def encode_removed(names: Iterable[str]) -> bytes:
    """Return the names of removed resources of a `DeltaDiscoveryResponse`."""
    return b"".join(field(_REMOVED_RESOURCES, name.encode()) for name in names)
