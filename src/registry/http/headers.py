"""Headers of requests as ASGI has them."""

from collections.abc import Iterable

Header = tuple[bytes, bytes]
Headers = Iterable[Header]

JSON = (b"content-type", b"application/json")
FORWARDED_FOR = b"x-forwarded-for"
PREFER = b"prefer"
EXPECTED_TIMEOUT = b"x-envoy-expected-rq-timeout-ms"


def header(headers: Headers, wanted: bytes) -> bytes | None:
    """Return the first header of a name in small letters."""
    for name, value in headers:
        if name == wanted:
            return value
    return None
