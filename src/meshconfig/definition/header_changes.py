"""Changes of request headers."""

from collections.abc import Mapping

from meshconfig.definition.strict_block import StrictBlock
from meshconfig.field_types import HeaderName, HeaderValue


class HeaderChanges(StrictBlock, frozen=True, kw_only=True):
    """Request headers to set (replace), to add (append) and to remove.

    Attributes:
        set: headers that get this value, whatever the request has.
        add: headers that get this value beside those that the request has.
        remove: headers that the callee does not get.
    """

    set: Mapping[HeaderName, HeaderValue] = {}
    add: Mapping[HeaderName, HeaderValue] = {}
    remove: tuple[HeaderName, ...] = ()
