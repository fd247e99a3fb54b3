"""The documents of a mesh repository, and the effective values that the compiler reads, as the same types.

A block's defaults are the built-in ones, so that an empty file is a complete definition. What files write is merged as
nodes before it is converted (`meshconfig.effective`): route over dependency over the callee's defaults over the mesh's
defaults over these. So a value of these types is always complete, and there are no half-filled ones.

Durations are seconds; in files they are texts such as ``250ms``. Percentages are numbers from 0 to 100.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from wire.model import SERVICE_PATTERN

Protocol = Literal["http1", "http2", "grpc", "same"]
"""The protocol of a cluster: ``grpc`` is HTTP/2 with gRPC's rules; ``same`` is what the listener's client speaks."""

DURATION = "duration"
"""Mark (in a type's ``Meta.extra``, as ``form``) of numbers that files write as texts such as ``250ms``."""
PERCENT = "percent"
"""Mark of numbers that have at most four decimals."""

_HEADER_LETTER = r"[!#$%&'*+.^_`|~0-9A-Za-z-]"  # of RFC 9110, 5.6.2

Duration = Annotated[float, Meta(ge=0, extra={"form": DURATION})]
PositiveDuration = Annotated[float, Meta(gt=0, extra={"form": DURATION})]
Percent = Annotated[float, Meta(ge=0, le=100, extra={"form": PERCENT})]
Port = Annotated[int, Meta(ge=1, le=65535)]
Count = Annotated[int, Meta(ge=1, le=2**31 - 1)]
ServiceName = Annotated[
    str,
    Meta(
        pattern=SERVICE_PATTERN.removesuffix(r"(?!\n)"),
        title="letters, digits and . _ : @ ~ -, with a letter or digit at its beginning, 255 at most",
        examples=["shop"],
    ),
]
DependencyName = Annotated[
    str,
    Meta(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._|:@~-]{0,254}$",
        title="letters, digits and . _ | : @ ~ -, with a letter or digit at its beginning, 255 at most",
        examples=["payments"],
    ),
]
"""A name in Envoy: of a cluster, and so of its statistics."""
Host = Annotated[
    str,
    Meta(
        pattern=r"^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]{0,252})$",
        title="a host without scheme, port and path",
        examples=["shop", "*.shop.example"],
    ),
]
HostPort = Annotated[
    str,
    Meta(
        pattern=r"^([A-Za-z0-9_][A-Za-z0-9_.-]{0,252}|\[[0-9A-Fa-f:.]+\]):0*([1-9][0-9]{0,4})$",
        title="host:port without a scheme, with a port from 1 to 65535",
        examples=["api.payments.example:443"],
    ),
]
HeaderName = Annotated[
    str,
    Meta(
        pattern=rf"^{_HEADER_LETTER}+$",
        title="the name of a header: no spaces, no colon",
        examples=["x-user"],
    ),
]
HeaderValue = Annotated[
    str, Meta(pattern=r"^[^\x00-\x1f\x7f]*$", title="a text without control characters", examples=["web"])
]
Path = Annotated[
    str,
    Meta(
        pattern=r"^/[^?#\s\x00-\x1f\x7f]*$",
        title="a path that begins with / and has no query",
        examples=["/api"],
    ),
]
Method = Annotated[str, Meta(pattern=r"^[A-Z][A-Z_-]*$", title="an HTTP method in capitals", examples=["GET"])]
RETRY_CONDITIONS = (
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "refused-stream",
    "retriable-4xx",
    "retriable-status-codes",
    "envoy-ratelimited",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
)
"""Envoy's retry conditions, but for ``retriable-headers``, which needs headers that no definition names."""
GRPC_CONDITIONS = frozenset({"cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"})
"""Conditions that only an answer with a grpc-status meets."""
SAFE_CONDITIONS = frozenset({"connect-failure", "refused-stream", "reset-before-request"})
"""Conditions that show that no app can have begun the request; they hold for every method."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that may be repeated for every condition."""
Condition = Annotated[str, Meta(extra_json_schema={"enum": list(RETRY_CONDITIONS)})]

RESERVED_CLUSTERS = frozenset({"registry", "tracing", "envoy-admin", "local-service"})
"""Names of clusters in the bootstrap: Envoy acknowledges a cluster of CDS with such a name, and ignores it."""


class _Block(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A block of a file; what it does not name is an error."""


# Policies of a route: a route may write them, and inherits what it does not write.


class Retry(_Block, frozen=True, kw_only=True):
    """The tries of a request. ``attempts`` counts all tries, the first included.

    GET, HEAD, OPTIONS and the methods of ``idempotent`` are retried for every reason of ``when``; the others only for
    reasons that show that no app can have begun them.
    """

    attempts: Annotated[int, Meta(ge=1, le=11)] = 3
    per_try_timeout: PositiveDuration | None = 1.0
    when: tuple[Condition, ...] = ("connect-failure", "refused-stream", "reset", "retriable-status-codes")
    statuses: tuple[Annotated[int, Meta(ge=400, le=599)], ...] = (502, 503, 504)
    idempotent: tuple[Method, ...] = ()
    hedge: bool = False


class HeaderChanges(_Block, frozen=True, kw_only=True):
    """Request headers to set (replace), to add (append) and to remove."""

    set: Mapping[HeaderName, HeaderValue] = {}
    add: Mapping[HeaderName, HeaderValue] = {}
    remove: tuple[HeaderName, ...] = ()


class Shadow(_Block, frozen=True, kw_only=True):
    """A copy of a share of the requests goes to another service; its answers are dropped."""

    service: ServiceName
    percent: Percent = 100.0


class Abort(_Block, frozen=True, kw_only=True):
    """Answer a share of the requests with a status, without asking the callee."""

    status: Annotated[int, Meta(ge=200, le=599)]
    percent: Percent = 100.0


class Delay(_Block, frozen=True, kw_only=True):
    """Hold a share of the requests for a time before they go on."""

    time: PositiveDuration
    percent: Percent = 100.0


class OnlyHeader(_Block, frozen=True, kw_only=True):
    """Limit a fault to requests with this value of a header."""

    header: HeaderName
    value: HeaderValue


class FaultInjection(_Block, frozen=True, kw_only=True):
    """Faults for tests of callers. Delay and abort are drawn independently."""

    abort: Abort | None = None
    delay: Delay | None = None
    only: OnlyHeader | None = None


class RateLimit(_Block, frozen=True, kw_only=True):
    """Requests a second that pass, each client (``by``) on its own or all together (``none``)."""

    per_second: Annotated[float, Meta(gt=0)]
    burst: Count | None = None
    by: Literal["none", "header", "source_ip"] = "none"
    header: HeaderName | None = None


class Jwt(_Block, frozen=True, kw_only=True):
    """Requests need a token of this issuer; ``claims`` go to the app in headers of these names."""

    issuer: str
    jwks_file: str
    audiences: tuple[str, ...] = ()
    claims: Mapping[str, HeaderName] = {}


class ExternalAuthorization(_Block, frozen=True, kw_only=True):
    """Ask a service about each request before it goes on.

    ``headers`` are those that the service sets for the app; a client's own are removed before it is asked.
    """

    service: ServiceName
    timeout: PositiveDuration = 0.5
    fail_open: bool = False
    headers: tuple[HeaderName, ...] = ()


class Authentication(_Block, frozen=True, kw_only=True):
    """A token or the consent of a service, which each request at a gateway or an edge needs."""

    jwt: Jwt | None = None
    external: ExternalAuthorization | None = None


class RoutePolicies(_Block, frozen=True, kw_only=True):
    """The policies that a route may narrow."""

    timeout: Duration = 5.0
    idle_timeout: Duration | None = None
    retry: Retry | None = Retry()
    shadow: Shadow | None = None
    fault: FaultInjection | None = None
    rate_limit: RateLimit | None = None
    auth: Authentication | None = None


# Policies of a cluster: they hold for every route of a dependency.


class Limit(_Block, frozen=True, kw_only=True):
    """Limits of what is under way. ``retries`` replaces the budget, which is a percentage of the active requests."""

    connections_per_endpoint: Count | None = 30
    connections: Count | None = None
    pending_requests: Count | None = 100
    requests: Count | None = None
    retry_budget: Percent | None = 20.0
    retries: Annotated[int, Meta(ge=0)] | None = None


class OutlierDetection(_Block, frozen=True, kw_only=True):
    """The rules by which a failing endpoint is ejected. A counter that a file writes is enforced; None is not."""

    consecutive_gateway_failure: Count | None = 10
    consecutive_5xx: Count | None = None
    interval: PositiveDuration = 1.0
    base: PositiveDuration = 30.0
    max: PositiveDuration = 60.0
    max_percent: Annotated[int, Meta(ge=1, le=100)] = 34


class HealthCheck(_Block, frozen=True, kw_only=True):
    """Envoy's own active check, by HTTP path, by gRPC service name ("" for the whole server) or by a connection."""

    http: Path | None = None
    grpc: str | None = None
    tcp: bool = False
    interval: PositiveDuration = 10.0
    timeout: PositiveDuration = 3.0
    unhealthy: Count = 3
    healthy: Count = 1


class Sticky(_Block, frozen=True, kw_only=True):
    """Requests with the same cookie, header or source address go to the same endpoint."""

    by: Literal["cookie", "header", "source_ip"]
    name: str | None = None
    ttl: Duration | None = None
    strict: bool = False


class Tls(_Block, frozen=True, kw_only=True):
    """TLS to an address or to the endpoints of a service; verified unless somebody writes otherwise."""

    server_name: Host | None = None
    ca_file: str | None = None
    verify: bool = True


class Policies(RoutePolicies, frozen=True, kw_only=True):
    """All policies of a dependency; a route cannot narrow those that are added here."""

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


# Routes, dependencies, services.


class Rewrite(_Block, frozen=True, kw_only=True):
    """Changes of what the callee gets: another path, another beginning of the path in place of the matched prefix."""

    path: Path | None = None
    prefix: Path | None = None


class HeaderMatch(_Block, frozen=True, kw_only=True):
    """One condition on a header; exactly one of the conditions is written, and ``invert`` turns it round.

    ``range`` has the first number that matches and the first one behind it that does not.
    """

    name: HeaderName
    exact: str | None = None
    prefix: str | None = None
    suffix: str | None = None
    contains: str | None = None
    regex: str | None = None
    range: tuple[int, int] | None = None
    present: bool | None = None
    invert: bool = False


class Route(RoutePolicies, frozen=True, kw_only=True):
    """One route of a dependency: what it matches, and the policies of its requests.

    Attributes:
        path: the exact path; of ``path``, ``prefix`` and ``regex`` one is written.
        prefix: the beginning of the path.
        regex: an RE2 expression that the whole path matches.
        query: query parameters with these values.
        rewrite: changes of the path that the callee gets.
        methods: the methods; empty for all.
        headers_match: conditions on headers (``headers`` written as a list in a file's route).
        cookie: cookies with these values.
        version: serve it from endpoints with this metadata; falls back to the whole service.
        split: shares of whole services, in percent.
        stat_prefix: the name of the route in statistics; the compiler makes one where it is empty.
    """

    path: Path | None = None
    prefix: Path | None = None
    regex: str | None = None
    query: Mapping[str, str] = {}
    rewrite: Rewrite | None = None
    methods: tuple[Method, ...] = ()
    headers: tuple[HeaderMatch, ...] = ()
    cookie: Mapping[str, str] = {}
    version: Mapping[str, str | bool] | None = None
    split: Mapping[ServiceName, Percent] | None = None
    stat_prefix: str = ""


class Dependency(Policies, frozen=True, kw_only=True):
    """One caller's use of one service or address.

    Attributes:
        name: its name, which is Envoy's cluster name and the host that the app calls; the service's unless written.
        service: the registered service (EDS).
        address: host:port of what is not registered (DNS).
        group: instead of all else: the dependencies of this group.
        cluster: Envoy's cluster name, where a migration has to keep one.
        hosts: the hosts that the app may call it by; its name unless written.
        host_header: the Host that the callee gets.
        headers: changes of the request headers.
        routes: its routes in order; without any, one that takes all.
    """

    name: DependencyName | None = None
    service: ServiceName | None = None
    address: HostPort | None = None
    group: str | None = None
    cluster: DependencyName | None = None
    hosts: tuple[Host, ...] = ()
    host_header: HeaderValue | None = None
    headers: HeaderChanges = HeaderChanges()
    protocol: Protocol = "http1"
    routes: tuple[Route, ...] = ()


class Objectives(_Block, frozen=True, kw_only=True):
    """The objectives that a service promises its callers, for alerts and console."""

    p99: Duration | None = None
    success: Percent | None = None


class Defaults(Policies, frozen=True, kw_only=True):
    """Policies for all dependencies of a mesh, or for all callers of a service."""

    protocol: Protocol = "http1"


class Provides(_Block, frozen=True, kw_only=True):
    """Facts about a service and defaults for its callers."""

    protocol: Protocol = "http1"
    defaults: Defaults = Defaults()
    slo: Objectives = Objectives()


class Service(_Block, frozen=True, kw_only=True):
    """services/NAME.yaml: one service, which is Envoy's node.cluster."""

    service: ServiceName
    provides: Provides = Provides()
    dependencies: tuple[Dependency, ...] = ()


class Group(_Block, frozen=True, kw_only=True):
    """groups/NAME.yaml: dependencies that many services share."""

    group: str
    dependencies: tuple[Dependency, ...] = ()


# The mesh as a whole.


class Listen(_Block, frozen=True, kw_only=True):
    """The address of a listener."""

    address: str = "127.0.0.1"
    port: Port
    protocol: Protocol = "same"


class Admin(_Block, frozen=True, kw_only=True):
    """Envoy's admin interface."""

    address: str = "127.0.0.1"
    port: Port = 9901


class RegistryClient(_Block, frozen=True, kw_only=True):
    """The way of Envoys to the registries.

    Attributes:
        addresses: where they listen; the first is used, the others when it does not answer.
        tls: how to connect by TLS; None for plain HTTP.
        certificate_sds: with TLS, the SDS document of Envoy's own certificate, called ``registry-certificate``.
        token_directory: the directory of Envoy's token and the SDS document that leads to it.
        max_connection_duration: after this time a connection is replaced between two polls; a rotated client
            certificate comes into use by a new connection only.
        request_timeout: for which the registries may hold a poll.
        refresh_delay: between two polls.
    """

    addresses: tuple[HostPort, ...] = ("127.0.0.1:8080",)
    tls: Tls | None = None
    certificate_sds: str | None = None
    token_directory: str | None = None
    max_connection_duration: PositiveDuration | None = None
    request_timeout: PositiveDuration = 30.0
    refresh_delay: Annotated[float, Meta(ge=0.01, extra={"form": DURATION})] = 0.2


class Statistics(_Block, frozen=True, kw_only=True):
    """The receivers of Envoys' statistics. A statsd address is an IP literal: Envoy refuses host names."""

    dog_statsd: str | None = None
    prometheus: Listen | None = None


class Tracing(_Block, frozen=True, kw_only=True):
    """The receiver of spans, and the share of requests that get one."""

    provider: Literal["zipkin", "xray", "datadog", "opentelemetry", "skywalking"]
    address: HostPort
    sample: Percent = 100.0


class Mesh(_Block, frozen=True, kw_only=True):
    """mesh.yaml: what all services of an environment share."""

    environment: str = "production"
    registry: RegistryClient = RegistryClient()
    egress: Listen = field(default_factory=lambda: Listen(port=9900))
    admin: Admin = Admin()
    statistics: Statistics = Statistics()
    tracing: Tracing | None = None
    dns_family: Literal["v4_only", "v4_preferred", "v6_only", "auto", "all"] = "v4_only"
    internal_ranges: tuple[str, ...] = ()
    drain_time: Duration = 600.0
    defaults: Defaults = Defaults()


# Gateways and edges.


class Select(_Block, frozen=True, kw_only=True):
    """The services of the catalog that a gateway serves, by the metadata of their endpoints or by name."""

    metadata: Mapping[str, str] = {}
    services: tuple[ServiceName, ...] = ()


class GatewayListen(_Block, frozen=True, kw_only=True):
    """The address of a gateway or an edge, and the port whose requests are redirected to it."""

    address: str = "0.0.0.0"  # noqa: S104  # a gateway is there for others
    port: Port
    protocol: Protocol = "same"
    redirect_from: Port | None = None


class Gateway(_Block, frozen=True, kw_only=True):
    """gateways/NAME.yaml: services of the catalog through one Envoy, by host and by gRPC path."""

    gateway: str
    listen: GatewayListen
    select: Select
    hosts: str = "{service}"
    paths: bool = False
    defaults: Defaults = Defaults()


class Certificate(_Block, frozen=True, kw_only=True):
    """Files of a certificate chain and its private key, on the machine of the Envoy."""

    chain: str
    key: str


class SiteRoute(Route, frozen=True, kw_only=True):
    """One route of a site: a route with the service that it leads to."""

    service: ServiceName | None = None


class Site(_Block, frozen=True, kw_only=True):
    """The hosts of an edge that share a certificate and routes."""

    hosts: tuple[Host, ...]
    certificate: Certificate | None = None
    routes: tuple[SiteRoute, ...]


class Edge(_Block, frozen=True, kw_only=True):
    """edges/NAME.yaml: TLS and hosts in front of services."""

    edge: str
    listen: GatewayListen
    sites: tuple[Site, ...]
    defaults: Defaults = Defaults()
