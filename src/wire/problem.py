"""Problem documents of RFC 9457: what was wrong with a request, where, and how to fix it."""

from typing import Annotated

from msgspec import Meta, Struct

CONTENT_TYPE = "application/problem+json"


class ProblemFault(Struct, frozen=True):
    """One fault of the definitions of a mesh, and its place.

    Lines and columns count from 1; 0 is the whole file.
    """

    file: str
    line: int
    column: int
    message: str
    fix: str
    severity: str


class Problem(Struct, frozen=True, omit_defaults=True):
    """The reason why a request, or one heartbeat of a batch, was refused."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"
    pointer: Annotated[str | None, Meta(description="Where in the request, as a path like $.weight.")] = None
    retry_after: Annotated[float | None, Meta(description="Seconds after which to retry.")] = None
    owner: Annotated[str | None, Meta(description="409: the instance that owns the endpoint.")] = None
    incarnation: Annotated[int | None, Meta(description="409: the newest incarnation that the registry knows.")] = None
    request_id: Annotated[str | None, Meta(description="X-Request-Id of the response, for the registry's log.")] = None
    faults: Annotated[
        list[ProblemFault] | None, Meta(description="422: everything that is wrong with the definitions of a mesh.")
    ] = None
