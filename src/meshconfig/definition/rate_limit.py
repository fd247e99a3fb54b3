"""Requests a second that pass."""

from typing import Annotated, Literal

from msgspec import Meta

from meshconfig.definition.strict_block import StrictBlock
from meshconfig.field_types import Count, HeaderName


class RateLimit(StrictBlock, frozen=True, kw_only=True):
    """Requests a second that pass, each client (``by``) on its own or all together (``none``).

    Attributes:
        per_second: requests a second.
        burst: requests that may come at once; as many as in a second unless written.
        by: whose requests are counted together: everybody's, those with one value of a header, or those of one address.
        header: the header, for by: header.
    """

    per_second: Annotated[float, Meta(ge=0.00001, le=1_000_000_000)]
    burst: Count | None = None
    by: Literal["none", "header", "source_ip"] = "none"
    header: HeaderName | None = None
