"""The ejection of failing endpoints."""

from typing import Annotated

from msgspec import Meta

from meshconfig.definition.strict_block import StrictBlock
from meshconfig.field_types import Count, PositiveDuration


class OutlierDetection(StrictBlock, frozen=True, kw_only=True):
    """The rules by which a failing endpoint is ejected. A counter that a file writes is enforced; None is not.

    Attributes:
        consecutive_gateway_failure: answers 502, 503, 504 and failed connections in a row; null for none.
        consecutive_5xx: answers 5xx in a row; null for none.
        interval: the time between two looks at the counters.
        base: the time of the first ejection; each further one is longer.
        max: the longest ejection.
        max_percent: the share of the endpoints that may be ejected at once; 34 lets one of three go, and 33 does not.
    """

    consecutive_gateway_failure: Count | None = 10
    consecutive_5xx: Count | None = None
    interval: PositiveDuration = 1.0
    base: PositiveDuration = 30.0
    max: PositiveDuration = 60.0
    max_percent: Annotated[int, Meta(ge=1, le=100)] = 34
