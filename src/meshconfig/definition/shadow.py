"""Copies of requests for another service."""

from meshconfig.definition.strict_block import StrictBlock
from meshconfig.field_types import Percent, ServiceName


class Shadow(StrictBlock, frozen=True, kw_only=True):
    """A copy of a share of the requests goes to another service; its answers are dropped.

    Attributes:
        service: the service that gets the copies.
        percent: the share of the requests that are copied.
    """

    service: ServiceName
    percent: Percent = 100.0
