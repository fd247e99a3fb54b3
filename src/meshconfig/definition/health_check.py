"""Envoy's own checks of endpoints."""

from typing import Annotated

from msgspec import Meta

from meshconfig.definition.strict_block import StrictBlock
from meshconfig.field_types import Count, Path, PositiveDuration


class HealthCheck(StrictBlock, frozen=True, kw_only=True):
    """Envoy's own active check, by HTTP path, by gRPC service name ("" for the whole server) or by a connection.

    Attributes:
        http: the path that is asked for.
        grpc: the name of the gRPC service that is asked for; "" for the whole server.
        tcp: whether a connection is enough.
        interval: the time between two checks.
        timeout: the time that an endpoint has to answer.
        unhealthy: failures in a row until an endpoint is unhealthy.
        healthy: successes in a row until it is healthy again.
        event_log: a file on Envoy's machine for changes of health. Envoy opens it by its path and refuses the cluster
            if it cannot, which is so for /dev/stdout where another user made the pipe.
    """

    http: Path | None = None
    grpc: str | None = None
    tcp: bool = False
    interval: PositiveDuration = 10.0
    timeout: PositiveDuration = 3.0
    unhealthy: Count = 3
    healthy: Count = 1
    event_log: Annotated[str, Meta(pattern="^/", title="an absolute path")] | None = None
