"""The last poll of a connection, by which the next one is read if it says the same.

An Envoy that polls without a hold, or in vain, sends the same 77 kB again. They are read by their beginning, up to the
extensions, and by their end, from the names on; so polls that begin and end alike are the same request.
"""

from collections.abc import Sequence
from typing import cast

from msgspec import Struct

from registry.auth.principal import Principal
from registry.xds.discovery_request import DiscoveryRequest
from registry.xds.resources import RestPath
from wire.discovery_poll import names_place, read_ends
from wire.node import Node, head_end

FIRST_PART = 6_144
"""Bytes of a long body that are cut out together: its version and its node begin in the first 5,120."""
LAST_PART = 1_024
"""Bytes at the end of a long body that are cut out together: the names are looked for there."""
_MAX_KEPT = 1_024
"""Bytes that are kept of a poll; an Envoy's has 600 unless its node has much metadata."""

Piece = bytes | memoryview


class RepeatedPoll(Struct, frozen=True, eq=False):
    """A poll that was read.

    Attributes:
        path: the path that it was posted to.
        begin: its body up to the extensions.
        end: its body from the names on.
        begin_size: number of bytes of the beginning.
        end_size: number of bytes of the end, negative.
        names: as in a ``DiscoveryRequest``.
        version_info: likewise.
        node: likewise.
    """

    path: RestPath
    begin: bytes
    end: bytes
    begin_size: int
    end_size: int
    names: tuple[str, ...]
    version_info: str
    node: Node

    def is_same(self, path: RestPath, parts: Sequence[Piece]) -> bool:
        """Return whether another poll, in pieces of the sizes above or as a whole, says the same."""
        return (
            path is self.path
            and bytes(parts[-1][self.end_size :]) == self.end
            and bytes(parts[0][: self.begin_size]) == self.begin
            and (len(parts) > 1 or len(parts[0]) >= self.begin_size - self.end_size)
        )

    def request(self, principal: Principal) -> DiscoveryRequest:
        """Return the request that another poll makes which says the same."""
        return DiscoveryRequest(self.names, self.version_info, self.node, None, principal)


def pieces(parts: Sequence[Piece]) -> Sequence[bytes]:
    """Return a body in pieces, of which mostly the first and the last are looked at.

    Args:
        parts: the body; one piece of any size, or several of which the first and the last have the sizes above.
    """
    body = parts[0]
    if len(parts) > 1:
        return cast("Sequence[bytes]", parts)
    if len(body) <= FIRST_PART + LAST_PART:
        return [bytes(body)]
    # A view, because nothing but a parser of the whole looks at it, and that joins all pieces.
    between = cast("bytes", memoryview(body)[FIRST_PART:-LAST_PART])
    return [bytes(body[:FIRST_PART]), between, bytes(body[-LAST_PART:])]


def remember(path: RestPath, request: DiscoveryRequest, parts: Sequence[bytes]) -> RepeatedPoll | None:
    """Return what is kept of a poll; None where its beginning and its end do not tell all.

    Args:
        path: the path that it was posted to.
        request: what was read.
        parts: its body, as ``pieces`` returned it.
    """
    first, last = parts[0], parts[-1]
    begin_size = head_end(first)
    place = names_place(path, last)
    if begin_size is None or place < 0 or read_ends(path, *parts) is None:
        return None
    end_size = place - len(last)
    if begin_size - end_size > _MAX_KEPT or (len(parts) == 1 and begin_size - end_size > len(first)):
        return None
    return RepeatedPoll(
        path,
        first[:begin_size],
        last[place:],
        begin_size,
        end_size,
        request.names,
        request.version_info,
        request.node,
    )
