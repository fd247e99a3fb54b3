"""Responses of a registry, read: success, a refusal, or a request to come back later."""

import zlib

import msgspec

from registrar.errors import RegistryRefused, RegistryUnavailable
from registrar.registry_client.login_answer import registry_time
from wire.http1 import Response, TooLongError
from wire.problem import CONTENT_TYPE, Problem

_OVERLOADED = frozenset({408, 425, 429})
_GZIP = 16 + zlib.MAX_WBITS

_decode_problem = msgspec.json.Decoder(Problem).decode


def successful(response: Response) -> bool:
    """Return whether a registry did what it was asked, or has nothing newer."""
    return 200 <= response.status < 300 or response.status == 304


def overloaded(status: int) -> bool:
    """Return whether a status asks to repeat the request later, and not to change it."""
    return status in _OVERLOADED or status >= 500


def from_registry(response: Response) -> bool:
    """Return whether a refusal is a registry's own: a proxy between the two sends no problem document."""
    return response.headers.get("content-type", "").startswith(CONTENT_TYPE)


def problem_of(response: Response) -> Problem:
    """Return the problem document of a refusal; one made of its status if it has none."""
    try:
        return _decode_problem(response.body)
    except msgspec.DecodeError:
        return Problem(response.reason or "error", response.status, response.text[:200])


def error_of(response: Response) -> RegistryUnavailable | RegistryRefused:
    """Return the error that a response without success stands for."""
    problem = problem_of(response)
    if overloaded(response.status):
        return RegistryUnavailable(
            f"{problem.status} {problem.title}: {problem.detail}",
            retry_after=_retry_after(response, problem),
            limited=response.status == 429,
        )
    return RegistryRefused(problem, from_registry=from_registry(response), registry_time=registry_time(response))


def unpacked(response: Response, max_bytes: int) -> bytes:
    """Return the body of a response to a request that accepts gzip.

    Raises:
        TooLongError: it has that many bytes or more when it is unpacked.
        ValueError: it is packed in another way than asked for, or cut.
        zlib.error: it is not what its header says.
    """
    encoding = response.headers.get("content-encoding", "identity")
    if encoding == "identity":
        return response.body
    if encoding != "gzip":
        raise ValueError(f"content-encoding {encoding!r}, where gzip was asked for")
    unpacker = zlib.decompressobj(_GZIP)
    body = unpacker.decompress(response.body, max_bytes)
    if len(body) >= max_bytes:
        raise TooLongError(f"the answer is longer than {max_bytes} bytes")
    if not unpacker.eof:
        raise ValueError("the answer is cut")
    return body


def _retry_after(response: Response, problem: Problem) -> float | None:
    """Return the seconds that the registry asked to wait; a date in the header is ignored, because clocks differ."""
    header = response.headers.get("retry-after", "")
    if header.isascii() and header.isdigit():
        return float(header[:9])
    return problem.retry_after
