"""The policies of a dependency: those that a route may narrow, all of them, and their defaults."""

from meshconfig.definition.authentication import Authentication
from meshconfig.definition.fault_injection import FaultInjection
from meshconfig.definition.health_check import HealthCheck
from meshconfig.definition.limit import Limit
from meshconfig.definition.outlier_detection import OutlierDetection
from meshconfig.definition.rate_limit import RateLimit
from meshconfig.definition.retry import Retry
from meshconfig.definition.shadow import Shadow
from meshconfig.definition.sticky import Sticky
from meshconfig.definition.strict_block import StrictBlock
from meshconfig.definition.tls import Tls
from meshconfig.field_types import Duration, Percent, PositiveDuration, Protocol, Upgrade


class RoutePolicies(StrictBlock, frozen=True, kw_only=True):
    """The policies that a route may narrow.

    Attributes:
        timeout: the time for all tries together; 0s for no limit. With protocol grpc, the caller's own grpc-timeout
            rules below it.
        idle_timeout: the time for which nothing may come on a stream; 1h for a websocket unless written.
        retry: tries after the first; null for none.
        shadow: copies of requests for another service.
        fault: faults for tests of callers.
        rate_limit: requests a second; of gateways and edges alone.
        auth: tokens and consent that requests need; of gateways and edges alone.
        upgrade: websocket, where the app takes connections that become websockets; null for none. The timeout holds for
            their handshakes alone, and limit.connections_per_endpoint has to be written.
    """

    timeout: Duration = 5.0
    idle_timeout: Duration | None = None
    retry: Retry | None = Retry()
    shadow: Shadow | None = None
    fault: FaultInjection | None = None
    rate_limit: RateLimit | None = None
    auth: Authentication | None = None
    upgrade: tuple[Upgrade, ...] | None = None


class Policies(RoutePolicies, frozen=True, kw_only=True):
    """All policies of a dependency; a route cannot narrow those that are added here.

    Attributes:
        connect_timeout: the time for a connection.
        limit: limits of what is under way.
        outlier_detection: the ejection of failing endpoints; null for none.
        panic_threshold: the percentage of healthy endpoints below which all of them get requests.
        keep_alive: the time for which an unused connection is kept; it has to be shorter than the app's.
        health_check: Envoy's own checks, beside those of the registry.
        sticky: the same endpoint for requests of one client.
        zones: whether endpoints of the caller's own zone are preferred; the caller has to be registered itself.
        slow_start: the time in which the share of a new endpoint grows.
        tls: TLS to the callee; true, or a block.
    """

    connect_timeout: PositiveDuration = 1.0
    limit: Limit = Limit()
    outlier_detection: OutlierDetection | None = OutlierDetection()
    panic_threshold: Percent = 30.0
    keep_alive: PositiveDuration | None = 4.0
    health_check: HealthCheck | None = None
    sticky: Sticky | None = None
    zones: bool = False
    slow_start: PositiveDuration | None = None
    tls: Tls | None = None


class Defaults(Policies, frozen=True, kw_only=True):
    """Policies for all dependencies of a mesh, or for all callers of a service.

    Attributes:
        protocol: the protocol of services that do not say theirs.
    """

    protocol: Protocol = "http1"
