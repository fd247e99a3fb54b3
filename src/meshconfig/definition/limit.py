"""Limits of what is under way to a callee."""

from typing import Annotated

from msgspec import Meta

from meshconfig.definition.strict_block import StrictBlock
from meshconfig.field_types import Count, Percent


class Limit(StrictBlock, frozen=True, kw_only=True):
    """Limits of what is under way to a callee.

    Attributes:
        connections_per_endpoint: connections to one endpoint, of HTTP/1.1. It has to be below the requests a second
            that one endpoint answers, times per_try_timeout.
        connections: connections to all endpoints together; Envoy's 1,024 unless written, and any number with upgrade.
        pending_requests: requests that wait for a connection.
        requests: requests under way to all endpoints together; Envoy's 1,024 unless written, and any number with
            upgrade.
        retry_budget: retries under way, in percent of the requests under way. As many as one endpoint may have
            connections are always allowed, since a killed one fails all at once (30 without a limit, at least 10).
        retries: retries under way, as a number; written in place of the budget.
    """

    connections_per_endpoint: Count | None = 30
    connections: Count | None = None
    pending_requests: Count | None = 100
    requests: Count | None = None
    retry_budget: Percent | None = 20.0
    retries: Annotated[int, Meta(ge=0)] | None = None
