"""The same endpoint for all requests of one client."""

from typing import Literal

from meshconfig.definition.strict_block import StrictBlock
from meshconfig.field_types import Duration, HeaderName


class Sticky(StrictBlock, frozen=True, kw_only=True):
    """Requests with the same cookie, header or source address go to the same endpoint.

    Attributes:
        by: what requests of one client have in common.
        name: the name of the cookie or of the header.
        ttl: the lifetime of the cookie; without it, as long as the browser runs.
        strict: whether a client keeps its endpoint also when others come or go.
    """

    by: Literal["cookie", "header", "source_ip"]
    name: HeaderName | None = None
    ttl: Duration | None = None
    strict: bool = False
