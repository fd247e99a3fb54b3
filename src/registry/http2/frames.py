"""Frames of HTTP/2 as bytes (RFC 9113, 4 and 6), as far as they pass beside h2."""

from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""The bytes with which a client begins a connection (RFC 9113, 3.4)."""
HEADER_LENGTH: Final = 9
"""Bytes of a frame's header."""
MAX_FRAME_LENGTH: Final = 16_384
"""Bytes of payload that a frame may have which is received: SETTINGS_MAX_FRAME_SIZE is left at its default."""
LAST_STREAM: Final = 2**31 - 1
"""The largest id of a stream. A GOAWAY with it says that a connection will end, and refuses no stream yet (6.8)."""

# Types of frames (6).
DATA: Final = 0x0
HEADERS: Final = 0x1
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

MAX_WINDOW: Final = 2**31 - 1
"""Bytes that a window may have (6.9.1)."""

# Flags (6.1, 6.2).
END_HEADERS: Final = 0x4

# Error codes (7).
NO_ERROR: Final = 0x0
INTERNAL_ERROR: Final = 0x2
FRAME_SIZE_ERROR: Final = 0x6
ENHANCE_YOUR_CALM: Final = 0xB

MESSAGE_HEAD: Final = Struct(">HBBBLBL")
"""A frame's header and the prefix of gRPC behind it: the length in two parts, type, flags, stream; flag and length."""

_HEADER: Final = Struct(">HBBBL")
_GOAWAY: Final = Struct(">HBBBLLL")
_WINDOW_UPDATE: Final = Struct(">HBBBLL")


def data_header(length: int, stream_id: int) -> bytes:
    """Return the header of a DATA frame without flags."""
    return _HEADER.pack(length >> 8, length & 0xFF, DATA, 0, stream_id)


def message_frames(message: bytes, stream_id: int, max_frame_length: int) -> bytes:
    """Return a whole message of gRPC, uncompressed, in DATA frames."""
    length = len(message)
    data = b"\x00" + length.to_bytes(4, "big") + message
    if len(data) <= max_frame_length:
        return data_header(len(data), stream_id) + data
    view = memoryview(data)
    pieces = [view[at : at + max_frame_length] for at in range(0, len(data), max_frame_length)]
    return b"".join(part for piece in pieces for part in (data_header(len(piece), stream_id), piece))


def goaway(last_stream_id: int, code: int, reason: bytes = b"") -> bytes:
    """Return a GOAWAY frame, with a reason for the client's operator."""
    length = 8 + len(reason)
    return _GOAWAY.pack(length >> 8, length & 0xFF, 0x7, 0, 0, last_stream_id, code) + reason


def window_update(stream_id: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame; stream 0 is the connection."""
    return _WINDOW_UPDATE.pack(0, 4, WINDOW_UPDATE, 0, stream_id, increment)
