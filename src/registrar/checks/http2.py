"""One unary call over HTTP/2 with prior knowledge: the part of RFC 9113 that a health check needs.

The frames of the request are fixed, and the response is a header block, a few bytes and a trailer, so that flow
control, priorities and several streams are never needed. docs/dependencies.md says why no library does it.
"""

import asyncio
import struct
from collections.abc import Sequence

from msgspec import Struct

from registrar.checks.hpack import Hpack

_MAX_FRAME_BYTES = 16_384
"""The initial value of SETTINGS_MAX_FRAME_SIZE (RFC 9113, 6.5.2), which this client never raises."""
_MAX_RESPONSE_BYTES = 64 * 1024
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_STREAM = 1

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _CONTINUATION = 0, 1, 3, 4, 6, 7, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
_NO_PUSH = struct.pack(">HI", 0x2, 0)
_WORDS = (
    "NO_ERROR PROTOCOL_ERROR INTERNAL_ERROR FLOW_CONTROL_ERROR SETTINGS_TIMEOUT STREAM_CLOSED FRAME_SIZE_ERROR "
    "REFUSED_STREAM CANCEL COMPRESSION_ERROR CONNECT_ERROR ENHANCE_YOUR_CALM INADEQUATE_SECURITY HTTP_1_1_REQUIRED"
)
_ERRORS = _WORDS.split()


class Frame(Struct, frozen=True):
    """One frame; ``payload`` is without padding and priority."""

    kind: int
    flags: int
    stream: int
    payload: bytes


class Answer(Struct, frozen=True):
    """Fields of the header and the trailer in one, and the body."""

    fields: dict[str, str]
    body: bytes


async def unary(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fields: Sequence[tuple[str, str]], body: bytes
) -> Answer:
    """Send a request as the first one of its connection and return the whole response.

    Raises:
        ValueError: the server speaks no HTTP/2, or reset the stream.
        EOFError: it closed the connection before the end of the response.
    """
    # 0: a literal field without indexing (RFC 7541, 6.2.2).
    head = b"".join(b"\0" + _literal(name) + _literal(value) for name, value in fields)
    writer.write(_PREFACE + _frame(_SETTINGS, 0, 0, _NO_PUSH))
    writer.write(_frame(_HEADERS, _END_HEADERS, _STREAM, head) + _frame(_DATA, _END_STREAM, _STREAM, body))
    await writer.drain()
    first = await _read(reader)
    if first.kind != _SETTINGS:
        raise ValueError("not HTTP/2: the first frame is no SETTINGS")
    writer.write(_frame(_SETTINGS, _ACK, 0))
    return await _answer(reader, writer)


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Answer:
    hpack, answer = Hpack(), Answer({}, b"")
    while True:
        frame = await _read(reader)
        if frame.stream not in (0, _STREAM):
            continue
        if frame.kind in (_SETTINGS, _PING) and not frame.flags & _ACK:
            writer.write(_frame(frame.kind, _ACK, 0, frame.payload if frame.kind == _PING else b""))
        elif frame.kind == _HEADERS:
            block = await _whole_block(reader, frame)
            answer = Answer(answer.fields | dict(hpack.decode(block)), answer.body)
        elif frame.kind == _DATA:
            answer = Answer(answer.fields, answer.body + frame.payload)
        else:
            _check_going_on(frame)
        if len(answer.body) > _MAX_RESPONSE_BYTES:
            raise ValueError("the answer is larger than any health check's")
        if frame.kind in (_HEADERS, _DATA) and frame.flags & _END_STREAM:
            return answer


def _check_going_on(frame: Frame) -> None:
    if frame.kind == _RST_STREAM and len(frame.payload) >= 4:
        raise ValueError(f"the server gave up the call: {_error(frame.payload[:4])}")
    if frame.kind == _GOAWAY and len(frame.payload) >= 8:
        last = int.from_bytes(frame.payload[:4], "big")
        # A last stream of ours, or a later one, still gets its response (RFC 9113, 6.8).
        if last < _STREAM:
            words = frame.payload[8:100].decode(errors="replace")
            raise ValueError(f"the server takes no call: {_error(frame.payload[4:8])} {words}")


async def _whole_block(reader: asyncio.StreamReader, frame: Frame) -> bytes:
    block = frame.payload
    while not frame.flags & _END_HEADERS:
        frame = await _read(reader)
        block += frame.payload
        if frame.kind != _CONTINUATION or len(block) > _MAX_RESPONSE_BYTES:
            raise ValueError("not HTTP/2: a header block without its end")
    return block


async def _read(reader: asyncio.StreamReader) -> Frame:
    head = await reader.readexactly(9)
    length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
    if length > _MAX_FRAME_BYTES:
        raise ValueError(f"not HTTP/2: {head!r}")
    payload = await reader.readexactly(length)
    stream = int.from_bytes(head[5:], "big") & 0x7FFF_FFFF
    if kind in (_DATA, _HEADERS):
        payload = _bare(payload, flags, kind)
    return Frame(kind, flags, stream, payload)


def _bare(payload: bytes, flags: int, kind: int) -> bytes:
    start = end = 0
    if flags & _PADDED and payload:
        start, end = 1, payload[0]
    if kind == _HEADERS and flags & _PRIORITY:
        start += 5
    return payload[start : len(payload) - end]


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _literal(text: str) -> bytes:
    raw = text.encode("ascii")
    return _number(len(raw), 7) + raw


def _number(value: int, bits: int) -> bytes:
    prefix = (1 << bits) - 1
    if value < prefix:
        return bytes([value])
    value -= prefix
    parts = bytearray([prefix])
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _error(code: bytes) -> str:
    number = int.from_bytes(code, "big")
    return _ERRORS[number] if number < len(_ERRORS) else f"error {number}"
