"""A decoder of HPACK (RFC 7541), for the header blocks of one response over HTTP/2."""

from collections import deque
from functools import cache

# Appendix A: the names, and the values of those that have one.
_APPENDIX = """
:authority :method=GET :method=POST :path=/ :path=/index.html :scheme=http :scheme=https :status=200
:status=204 :status=206 :status=304 :status=400 :status=404 :status=500 accept-charset
accept-encoding=gzip,deflate accept-language accept-ranges accept access-control-allow-origin age allow
authorization cache-control content-disposition content-encoding content-language content-length
content-location content-range content-type cookie date etag expect expires from host if-match
if-modified-since if-none-match if-range if-unmodified-since last-modified link location max-forwards
proxy-authenticate proxy-authorization range referer refresh retry-after server set-cookie
strict-transport-security transfer-encoding user-agent vary via www-authenticate
"""
_STATIC = tuple(
    (name, value.replace(",", ", ")) for name, _, value in (entry.partition("=") for entry in _APPENDIX.split())
)
# The Huffman code of appendix B is canonical: the lengths of its 257 codes determine it.
_CODE_LENGTHS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b080606060505"
    "050606060606060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e060f050605"
    "06050606060507070606060506070605050607070707070f0b0e0d1c14161414161616171617171717171817181816171817"
    "1717171516171617171816151416161717151716161815161717151516151716171714161616171616171a1a141316171619"
    "1a1a1a1b1b1a181913151a1b1b1a1b1815151a1a1c1b1b1b14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c"
    "1b1b1b1b1b1a1e"
)
_END_OF_STRING = 256
_MAX_CODE_BITS = 30
_MAX_TABLE_BYTES = 4096
_ENTRY_OVERHEAD = 32
_MAX_NUMBER = 1 << 20

Fields = list[tuple[str, str]]


class Hpack:
    """Decodes the header blocks of one connection, in their order."""

    def __init__(self) -> None:
        # The dynamic table, newest entry first; header blocks add to it.
        self._dynamic: deque[tuple[str, str]] = deque()
        # Its size in bytes, as the encoder set it last.
        self._limit = _MAX_TABLE_BYTES

    def decode(self, block: bytes) -> Fields:
        """Return the fields of one block.

        Raises:
            ValueError: the block is malformed.
        """
        rest, fields = _Bytes(block), Fields()
        while not rest.empty:
            first = rest.peek()
            if first & 0x80:
                fields.append(self._entry(rest.number(7)))
            elif first & 0xE0 == 0x20:
                self._resize(rest.number(5))
            else:
                # The bit 0x40 adds the field to the table; 0x10 only forbids proxies to add it.
                indexed = bool(first & 0x40)
                index = rest.number(6 if indexed else 4)
                name = self._entry(index)[0] if index else rest.text()
                fields.append((name, rest.text()))
                if indexed:
                    self._dynamic.appendleft(fields[-1])
                    self._evict()
        return fields

    def _entry(self, index: int) -> tuple[str, str]:
        if 1 <= index <= len(_STATIC):
            return _STATIC[index - 1]
        if len(_STATIC) < index <= len(_STATIC) + len(self._dynamic):
            return self._dynamic[index - len(_STATIC) - 1]
        raise ValueError(f"HPACK: no entry {index}")

    def _resize(self, limit: int) -> None:
        if limit > _MAX_TABLE_BYTES:
            raise ValueError(f"HPACK: a table of {limit} bytes")
        self._limit = limit
        self._evict()

    def _evict(self) -> None:
        while sum(len(name) + len(value) + _ENTRY_OVERHEAD for name, value in self._dynamic) > self._limit:
            self._dynamic.pop()


class _Bytes:
    """The rest of a header block."""

    def __init__(self, block: bytes) -> None:
        self._block = block
        self._at = 0

    @property
    def empty(self) -> bool:
        return self._at >= len(self._block)

    def peek(self) -> int:
        if self.empty:
            raise ValueError("HPACK: the block broke off")
        return self._block[self._at]

    def number(self, bits: int) -> int:
        """Read an integer whose first part is in the low ``bits`` of the next byte."""
        prefix = (1 << bits) - 1
        value, shift = self._next() & prefix, 0
        if value < prefix:
            return value
        while True:
            more = self._next()
            value += (more & 0x7F) << shift
            shift += 7
            if value > _MAX_NUMBER:
                raise ValueError("HPACK: a number too large")
            if not more & 0x80:
                return value

    def text(self) -> str:
        huffman = bool(self.peek() & 0x80)
        length = self.number(7)
        raw = self._block[self._at : self._at + length]
        if len(raw) < length:
            raise ValueError("HPACK: the block broke off")
        self._at += length
        return (_unpack(raw) if huffman else raw).decode("latin-1")

    def _next(self) -> int:
        value = self.peek()
        self._at += 1
        return value


@cache
def _codes() -> dict[tuple[int, int], int]:
    """Return each symbol by the length and the bits of its code."""
    codes: dict[tuple[int, int], int] = {}
    code, before = 0, 0
    for length, symbol in sorted((length, symbol) for symbol, length in enumerate(_CODE_LENGTHS)):
        code <<= length - before
        codes[length, code] = symbol
        code, before = code + 1, length
    return codes


def _unpack(raw: bytes) -> bytes:
    codes, text = _codes(), bytearray()
    code, length = 0, 0
    for byte in raw:
        for bit in range(7, -1, -1):
            code, length = code << 1 | byte >> bit & 1, length + 1
            symbol = codes.get((length, code))
            if symbol == _END_OF_STRING or length > _MAX_CODE_BITS:
                raise ValueError("HPACK: no Huffman code")
            if symbol is not None:
                text.append(symbol)
                code, length = 0, 0
    # The rest of the last byte is padded with the start of the code for the end of a string: only ones.
    if length > 7 or code != (1 << length) - 1:
        raise ValueError("HPACK: no Huffman code")
    return bytes(text)
