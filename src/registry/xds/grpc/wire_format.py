"""The wire format of protobuf, as far as encoded messages are joined (protobuf.dev/programming-guides/encoding).

An answer has thousands of endpoints that were encoded before. The message around them is made here, so that their
bytes are joined and not parsed.
"""

_LENGTH_DELIMITED = 2
_CONTINUES = 0x80
_ONE_BYTE = tuple(bytes((number,)) for number in range(_CONTINUES))


def varint(number: int) -> bytes:
    """Return a number as a varint."""
    if number < _CONTINUES:
        return _ONE_BYTE[number]
    encoded = bytearray()
    while number >= _CONTINUES:
        encoded.append(number & (_CONTINUES - 1) | _CONTINUES)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def key(number: int, length: int) -> bytes:
    """Return the beginning of a field with this number whose value has so many bytes: a message or a text."""
    return varint(number << 3 | _LENGTH_DELIMITED) + varint(length)


def field(number: int, value: bytes) -> bytes:
    """Return a field with a message or bytes in it."""
    return key(number, len(value)) + value


def text(number: int, value: str) -> bytes:
    """Return a field with a text; nothing for an empty one, which is the default."""
    return field(number, value.encode()) if value else b""


def number(field_number: int, value: int) -> bytes:
    """Return a field with a number; nothing for 0, which is the default."""
    return varint(field_number << 3) + varint(value) if value else b""
