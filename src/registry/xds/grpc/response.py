"""The parts of discovery responses that stand around resources."""

from collections.abc import Iterable, Mapping, Sequence

from registry.xds.grpc.wire_format import field, number, text

Parts = Sequence[bytes]
"""A message as the parts to send one after the other."""

_TYPE_URL, _NONCE = 4, 5
"""Fields of both responses."""
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


class ResponseTails:
    """The ends of responses: their type, their nonce and the control plane.

    Nonces count the answers of one type on one stream, so streams share them.

    Args:
        identifier: names this process, and Envoys show it.
    """

    def __init__(self, identifier: str) -> None:
        self._control_plane = text(_IDENTIFIER, identifier)
        self._kept: dict[tuple[str, bool], list[bytes]] = {}
        """The tails of the nonces from 1 on, by type URL and by whether the response is a delta."""

    def tail(self, type_url: str, nonce: int, *, delta: bool) -> bytes:
        """Return the end of a response."""
        kept = self._kept.setdefault((type_url, delta), [])
        while len(kept) < min(nonce, _MAX_KEPT):
            kept.append(self._make(type_url, len(kept) + 1, delta=delta))
        return kept[nonce - 1] if nonce <= _MAX_KEPT else self._make(type_url, nonce, delta=delta)

    def _make(self, type_url: str, nonce: int, *, delta: bool) -> bytes:
        return text(_TYPE_URL, type_url) + text(_NONCE, str(nonce)) + field(_CONTROL_PLANE[delta], self._control_plane)


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
