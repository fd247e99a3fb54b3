"""The tries of a request."""

from typing import Annotated

from msgspec import Meta

from meshconfig.definition.strict_block import StrictBlock
from meshconfig.field_types import Condition, Method, PositiveDuration


class Retry(StrictBlock, frozen=True, kw_only=True):
    """The tries of a request. ``attempts`` counts all tries, the first included.

    GET, HEAD, OPTIONS and the methods of ``idempotent`` are retried for every reason of ``when``; the others only for
    reasons that show that no app can have begun them.

    Attributes:
        attempts: all tries of a request, the first included.
        per_try_timeout: the time for one try; null for none. Left out where it was inherited and the timeout of all
            tries is not longer.
        when: the reasons to try again, as Envoy calls them.
        statuses: the statuses that retriable-status-codes means.
        idempotent: methods that may be repeated for every reason, beside GET, HEAD and OPTIONS.
        hedge: whether the next try begins while the one before is still waited for, when per_try_timeout is over.
    """

    attempts: Annotated[int, Meta(ge=1, le=11)] = 3
    per_try_timeout: PositiveDuration | None = 1.0
    when: tuple[Condition, ...] = ("connect-failure", "refused-stream", "reset", "retriable-status-codes")
    statuses: tuple[Annotated[int, Meta(ge=400, le=599)], ...] = (502, 503, 504)
    idempotent: tuple[Method, ...] = ()
    hedge: bool = False
