"""RFC 9457 problem documents: what was wrong, where, and how to mend it."""

from typing import Annotated

from msgspec import Meta, Struct

CONTENT_TYPE = "application/problem+json"


class Problem(Struct, frozen=True, omit_defaults=True):
    """One refused request, or one refused item of a batch."""

    title: str
    status: int
    detail: str
    type: str = "about:blank"
    pointer: Annotated[str | None, Meta(description="Where in the request, as a path like $.weight.")] = None
    retry_after: Annotated[float | None, Meta(description="Seconds after which to try again.")] = None
    owner: Annotated[str | None, Meta(description="409: the instance that owns the endpoint now.")] = None
    incarnation: Annotated[int | None, Meta(description="409: the newest incarnation that is known.")] = None
    request_id: Annotated[str | None, Meta(description="Of the answer's X-Request-Id; our log has it too.")] = None
