"""A reader of one enum field of a protobuf message, with the rules of the protobuf libraries.

See protobuf.dev/programming-guides/encoding: unknown fields are skipped, the last value of a field counts, and a
number may be written with more bytes than it needs.
"""

_VARINT, _FIXED64, _LENGTH, _GROUP, _GROUP_END, _FIXED32 = range(6)
_MAX_VARINT_BYTES = 10
_MAX_DEPTH = 100
_MALFORMED = "the response is not a protobuf message"


def last_number(message: bytes, field: int) -> int:
    """Return the last value of an enum field; 0 if the message does not have the field.

    Raises:
        ValueError: the message is truncated or malformed.
    """
    last = at = 0
    groups: list[int] = []
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            if number == field and not groups:
                last = _int32(value)
        elif kind == _GROUP and len(groups) < _MAX_DEPTH:
            groups.append(number)
        elif kind != _GROUP_END or not groups or groups.pop() != number:
            at = _skip(message, at, kind)
        if not 0 < number < 1 << 29 or at > len(message):
            raise ValueError(_MALFORMED)
    if groups:
        raise ValueError(_MALFORMED)
    return last


def _skip(message: bytes, at: int, kind: int) -> int:
    """Return the end of a value that is neither a varint nor a group."""
    if kind == _FIXED64:
        return at + 8
    if kind == _FIXED32:
        return at + 4
    if kind == _LENGTH:
        length, at = _varint(message, at)
        return at + length
    raise ValueError(_MALFORMED)


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(message[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, at + index + 1
    raise ValueError(_MALFORMED)


def _int32(value: int) -> int:
    """Return the lower 32 bits as a signed number, as enums are decoded."""
    value &= 0xFFFF_FFFF
    return value - (1 << 32) if value >= 1 << 31 else value
