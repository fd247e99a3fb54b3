"""The rules of a digest beyond the types of its fields; one that breaks any is refused whole."""

import re
from collections.abc import Sequence
from functools import lru_cache

from registry.errors import InvalidError, TooLargeError
from wire.address import parse_endpoint
from wire.model import SERVICE_PATTERN
from wire.traffic_digest import LAST_BUCKET, MAX_DIGEST_BYTES, MAX_EDGES, MAX_ROUTES, Edge, TrafficDigest

_SERVICE = re.compile(SERVICE_PATTERN)
_MAX_REMEMBERED = 10_000
"""Names that were found to be ones of services, or not, and are not looked at again."""


def check_size(body: bytes) -> None:
    """Refuse a digest that is too long, before it is read.

    Raises:
        TooLargeError: it is.
    """
    if len(body) > MAX_DIGEST_BYTES:
        raise TooLargeError(
            f"the digest has {len(body)} bytes; at most {MAX_DIGEST_BYTES} are allowed: send the busiest callees"
        )


def check_digest(digest: TrafficDigest) -> None:
    """Refuse a digest whose parts do not fit together.

    Raises:
        TooLargeError: it has too many edges or routes.
        InvalidError: names the place and says what is allowed.
    """
    if len(digest.edges) > MAX_EDGES or len(digest.routes) > MAX_ROUTES:
        raise TooLargeError(
            f"the digest has {len(digest.edges)} edges and {len(digest.routes)} routes; at most {MAX_EDGES} and "
            f"{MAX_ROUTES} are allowed: send the busiest"
        )
    for number, edge in enumerate(digest.edges):
        counts, buckets = edge.counts, edge.buckets
        if counts.healthy > counts.total:
            raise InvalidError(
                f"{counts.healthy} of {counts.total} endpoints of {edge.callee} are healthy", f"$.edges[{number}]"
            )
        if buckets and (len(buckets) % 2 or max(buckets[::2]) > LAST_BUCKET):
            _refuse_buckets(buckets, f"$.edges[{number}]")
        if edge.endpoints:
            _check_endpoints(edge, f"$.edges[{number}]")
    for number, route in enumerate(digest.routes):
        if route.buckets and (len(route.buckets) % 2 or max(route.buckets[::2]) > LAST_BUCKET):
            _refuse_buckets(route.buckets, f"$.routes[{number}]")
    callees = [edge.callee for edge in digest.edges]
    _check_names("edges", callees)
    _check_names("routes", [route.callee for route in digest.routes])
    _check_callees(callees)


@lru_cache(maxsize=_MAX_REMEMBERED)
def _is_service(name: str) -> bool:
    """Return whether a service may have this name; registrars send the same ones again and again."""
    return _SERVICE.search(name) is not None


def _check_names(place: str, callees: Sequence[str]) -> None:
    if not all(map(_is_service, callees)):
        number = next(number for number, callee in enumerate(callees) if not _is_service(callee))
        raise InvalidError(
            f"{callees[number]!r} is no name of a service: a letter or a digit, then up to 254 letters, digits and "
            "characters of ._:@~-",
            f"$.{place}[{number}][0]",
        )


def _refuse_buckets(buckets: Sequence[int], pointer: str) -> None:
    if len(buckets) % 2:
        raise InvalidError(f"{len(buckets)} numbers are no pairs of a bucket and a count", pointer)
    raise InvalidError(f"bucket {max(buckets[::2])} is not from 0 to {LAST_BUCKET}", pointer)


def _check_callees(callees: Sequence[str]) -> None:
    """Refuse a callee that occurs twice: its states are those of one moment, and cannot be added up. Routes can."""
    if len(set(callees)) == len(callees):
        return
    number = next(number for number, callee in enumerate(callees) if callee in callees[:number])
    raise InvalidError(f"{callees[number]} occurs twice; add it up and send it once", f"$.edges[{number}]")


def _check_endpoints(edge: Edge, pointer: str) -> None:
    for each in edge.endpoints:
        if each.counts.errors > each.counts.attempts:
            raise InvalidError(
                f"{each.counts.errors} of {each.counts.attempts} attempts at {each.endpoint} have failed", pointer
            )
        try:
            parse_endpoint(each.endpoint)
        except ValueError as error:
            raise InvalidError(str(error), pointer) from error
    if len({each.endpoint for each in edge.endpoints}) < len(edge.endpoints):
        raise InvalidError(f"an endpoint of {edge.callee} occurs twice; add it up and send it once", pointer)
