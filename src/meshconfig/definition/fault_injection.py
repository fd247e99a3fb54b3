"""Faults for tests of callers: delays, and answers without the callee."""

from typing import Annotated

from msgspec import Meta

from meshconfig.definition.strict_block import StrictBlock
from meshconfig.field_types import HeaderName, HeaderValue, Percent, PositiveDuration


class Abort(StrictBlock, frozen=True, kw_only=True):
    """Answer a share of the requests with a status, without asking the callee.

    Attributes:
        status: the HTTP status of the answers.
        percent: the share of the requests that are answered so.
    """

    status: Annotated[int, Meta(ge=200, le=599)]
    percent: Percent = 100.0


class Delay(StrictBlock, frozen=True, kw_only=True):
    """Hold a share of the requests for a time before they go on.

    Attributes:
        time: the time for which a request is held.
        percent: the share of the requests that are held.
    """

    time: PositiveDuration
    percent: Percent = 100.0


class OnlyHeader(StrictBlock, frozen=True, kw_only=True):
    """Limit a fault to requests with this value of a header.

    Attributes:
        header: the name of the header.
        value: the value that it has to have.
    """

    header: HeaderName
    value: HeaderValue


class FaultInjection(StrictBlock, frozen=True, kw_only=True):
    """Faults for tests of callers. Delay and abort are drawn independently.

    Attributes:
        abort: answers without asking the callee.
        delay: requests that are held.
        only: the requests that it is limited to; all without it.
    """

    abort: Abort | None = None
    delay: Delay | None = None
    only: OnlyHeader | None = None
