"""The validity of certificates in PEM, which Python's ssl module tells of a peer's certificate only."""

import base64
import binascii
import re
from datetime import UTC, datetime

from msgspec import Struct

_BLOCK = re.compile(r"-----BEGIN CERTIFICATE-----\s(.*?)-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE = 0x30
_EXPLICIT_VERSION = 0xA0
_TIME_FORMATS = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}
"""Tags of UTCTime and GeneralizedTime, as certificates have them (RFC 5280, 4.1.2.5)."""
_FIRST_TWO_DIGIT_YEAR = 1950
"""UTCTime has years from this one on (RFC 5280, 4.1.2.5.1); Python would begin at 1969."""


class Validity(Struct, frozen=True):
    """The time in which a certificate is valid, in seconds since the epoch, both ends included.

    Attributes:
        not_before: the first second.
        not_after: the last second.
    """

    not_before: float
    not_after: float

    def contains(self, now: float) -> bool:
        """Return whether the certificate is valid at a time."""
        return self.not_before <= now <= self.not_after

    def complaint(self, now: float) -> str | None:
        """Return why the certificate is not valid at a time; None if it is."""
        if now < self.not_before:
            return f"is not valid before {show_time(self.not_before)}"
        return f"has expired at {show_time(self.not_after)}" if now > self.not_after else None


def validities(pem: str) -> list[Validity]:
    """Return the validity of each certificate of a file in PEM, in the order of the file.

    Raises:
        ValueError: the file has no certificate, or one that cannot be read.
    """
    blocks = _BLOCK.findall(pem)
    if not blocks:
        raise ValueError("holds no certificate in PEM (BEGIN CERTIFICATE)")
    return [_validity(number, block) for number, block in enumerate(blocks, start=1)]


def common_validity(pem: str) -> Validity:
    """Return the time in which all certificates of a chain are valid; raises as ``validities`` does."""
    chain = validities(pem)
    return Validity(max(each.not_before for each in chain), min(each.not_after for each in chain))


def show_time(seconds: float) -> str:
    """Return a time of a certificate as people read it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _validity(number: int, block: str) -> Validity:
    try:
        der = base64.b64decode("".join(block.split()), validate=True)
        return _read_validity(memoryview(der))
    except (binascii.Error, IndexError, ValueError):
        raise ValueError(f"certificate {number} of it cannot be read") from None


def _read_validity(der: memoryview) -> Validity:
    """Read ``Certificate.tbsCertificate.validity`` (RFC 5280, 4.1)."""
    certificate, _ = _element(der, _SEQUENCE)
    fields, _ = _element(certificate, _SEQUENCE)
    if fields[0] == _EXPLICIT_VERSION:
        fields = _after(fields)
    # The serial number, the algorithm of the signature, and the issuer.
    for _ in range(3):
        fields = _after(fields)
    validity, _ = _element(fields, _SEQUENCE)
    return Validity(_time(validity), _time(_after(validity)))


def _time(der: memoryview) -> float:
    content, _ = _element(der, der[0])
    text = bytes(content).decode("ascii")
    parsed = datetime.strptime(text, _TIME_FORMATS.get(der[0], "")).replace(tzinfo=UTC)
    if len(text) == len("yymmddhhmmssZ") and parsed.year >= _FIRST_TWO_DIGIT_YEAR + 100:
        parsed = parsed.replace(year=parsed.year - 100)
    return parsed.timestamp()


def _after(der: memoryview) -> memoryview:
    """Return what follows the first element."""
    _, rest = _element(der, der[0])
    return rest


def _element(der: memoryview, tag: int) -> tuple[memoryview, memoryview]:
    """Return the contents of the first element, and what follows it (X.690, 8.1)."""
    if der[0] != tag:
        raise ValueError(f"tag {der[0]:#x} in place of {tag:#x}")
    length, begin = der[1], 2
    if length >= 0x80:
        begin += length - 0x80
        length = int.from_bytes(der[2:begin], "big")
    end = begin + length
    if end > len(der):
        raise ValueError("cut short")
    return der[begin:end], der[end:]
