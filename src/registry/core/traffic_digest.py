"""The rules of a digest beyond the types of its fields; one that breaks any is refused whole."""

from collections.abc import Sequence

from registry.errors import InvalidError, TooLargeError
from wire.address import parse_endpoint
from wire.traffic_digest import LAST_BUCKET, MAX_DIGEST_BYTES, MAX_EDGES, MAX_ROUTES, Edge, TrafficDigest


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
        pointer = f"$.edges[{number}]"
        if edge.counts.healthy > edge.counts.total:
            raise InvalidError(
                f"{edge.counts.healthy} of {edge.counts.total} endpoints of {edge.callee} are healthy", pointer
            )
        _check_buckets(edge.buckets, pointer)
        _check_endpoints(edge, pointer)
    for number, route in enumerate(digest.routes):
        _check_buckets(route.buckets, f"$.routes[{number}]")


def _check_buckets(buckets: Sequence[int], pointer: str) -> None:
    if len(buckets) % 2:
        raise InvalidError(f"{len(buckets)} numbers are no pairs of a bucket and a count", pointer)
    indexes = buckets[::2]
    if indexes and max(indexes) > LAST_BUCKET:
        raise InvalidError(f"bucket {max(indexes)} is not from 0 to {LAST_BUCKET}", pointer)


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
