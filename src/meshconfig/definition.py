"""The documents of a mesh repository, and the effective values that the compiler reads, as the same types.

A block's defaults are the built-in ones, so that an empty file is a complete definition. What files write is merged as
nodes before it is converted (`meshconfig.effective`): route over dependency over the callee's defaults over the mesh's
defaults over these. So a value of these types is always complete, and there are no half-filled ones.

Durations are seconds; in files they are texts such as ``250ms``. Percentages are numbers from 0 to 100.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from meshconfig.field_types import (
    Condition,
    CookieName,
    Count,
    DependencyName,
    Duration,
    EdgeAddress,
    File,
    HeaderName,
    HeaderValue,
    Host,
    HostHeader,
    HostPort,
    Method,
    Path,
    Percent,
    Port,
    PositiveDuration,
    Protocol,
    RefreshDelay,
    ServiceName,
    Text,
)


class _Block(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A block of a file; what it does not name is an error."""


# Policies of a route: a route may write them, and inherits what it does not write.


class Retry(_Block, frozen=True, kw_only=True):
    """The tries of a request. ``attempts`` counts all tries, the first included.

    GET, HEAD, OPTIONS and the methods of ``idempotent`` are retried for every reason of ``when``; the others only for
    reasons that show that no app can have begun them.

    Attributes:
        attempts: all tries of a request, the first included.
        per_try_timeout: the time for one try; null for none. Left out where it was inherited and the timeout of all
            tries is not longer.
        when: the reasons to try again, as Envoy calls them.
        statuses: the statuses that retriable-status-codes means.
        idempotent: methods that may be repeated for every reason, beside GET, HEAD and OPTIONS.
        hedge: whether the next try begins while the one before is still waited for, when per_try_timeout is over.
    """

    attempts: Annotated[int, Meta(ge=1, le=11)] = 3
    per_try_timeout: PositiveDuration | None = 1.0
    when: tuple[Condition, ...] = ("connect-failure", "refused-stream", "reset", "retriable-status-codes")
    statuses: tuple[Annotated[int, Meta(ge=400, le=599)], ...] = (502, 503, 504)
    idempotent: tuple[Method, ...] = ()
    hedge: bool = False


class HeaderChanges(_Block, frozen=True, kw_only=True):
    """Request headers to set (replace), to add (append) and to remove.

    Attributes:
        set: headers that get this value, whatever the request has.
        add: headers that get this value beside those that the request has.
        remove: headers that the callee does not get.
    """

    set: Mapping[HeaderName, HeaderValue] = {}
    add: Mapping[HeaderName, HeaderValue] = {}
    remove: tuple[HeaderName, ...] = ()


class Shadow(_Block, frozen=True, kw_only=True):
    """A copy of a share of the requests goes to another service; its answers are dropped.

    Attributes:
        service: the service that gets the copies.
        percent: the share of the requests that are copied.
    """

    service: ServiceName
    percent: Percent = 100.0


class Abort(_Block, frozen=True, kw_only=True):
    """Answer a share of the requests with a status, without asking the callee.

    Attributes:
        status: the HTTP status of the answers.
        percent: the share of the requests that are answered so.
    """

    status: Annotated[int, Meta(ge=200, le=599)]
    percent: Percent = 100.0


class Delay(_Block, frozen=True, kw_only=True):
    """Hold a share of the requests for a time before they go on.

    Attributes:
        time: the time for which a request is held.
        percent: the share of the requests that are held.
    """

    time: PositiveDuration
    percent: Percent = 100.0


class OnlyHeader(_Block, frozen=True, kw_only=True):
    """Limit a fault to requests with this value of a header.

    Attributes:
        header: the name of the header.
        value: the value that it has to have.
    """

    header: HeaderName
    value: HeaderValue


class FaultInjection(_Block, frozen=True, kw_only=True):
    """Faults for tests of callers. Delay and abort are drawn independently.

    Attributes:
        abort: answers without asking the callee.
        delay: requests that are held.
        only: the requests that it is limited to; all without it.
    """

    abort: Abort | None = None
    delay: Delay | None = None
    only: OnlyHeader | None = None


class RateLimit(_Block, frozen=True, kw_only=True):
    """Requests a second that pass, each client (``by``) on its own or all together (``none``).

    Attributes:
        per_second: requests a second.
        burst: requests that may come at once; as many as in a second unless written.
        by: whose requests are counted together: everybody's, those with one value of a header, or those of one address.
        header: the header, for by: header.
    """

    per_second: Annotated[float, Meta(gt=0)]
    burst: Count | None = None
    by: Literal["none", "header", "source_ip"] = "none"
    header: HeaderName | None = None


class Jwt(_Block, frozen=True, kw_only=True):
    """Requests need a token of this issuer; ``claims`` go to the app in headers of these names.

    Attributes:
        issuer: the issuer that tokens have to name.
        jwks_file: the file with the issuer's keys, on the machine of the Envoy.
        audiences: the audiences of which tokens have to name one; any without them.
        claims: claims that go to the app, each in the header of this name; a client's own header is removed.
    """

    issuer: Text
    jwks_file: File
    audiences: tuple[Text, ...] = ()
    claims: Mapping[Text, HeaderName] = {}


class ExternalAuthorization(_Block, frozen=True, kw_only=True):
    """Ask a service about each request before it goes on.

    ``headers`` are those that the service sets for the app; a client's own are removed before it is asked.

    Attributes:
        service: the service that is asked.
        timeout: the time that it has to answer.
        fail_open: whether requests pass while it does not answer.
        headers: headers that it sets for the app; a client's own are removed before it is asked.
    """

    service: ServiceName
    timeout: PositiveDuration = 0.5
    fail_open: bool = False
    headers: tuple[HeaderName, ...] = ()


class Authentication(_Block, frozen=True, kw_only=True):
    """A token or the consent of a service, which each request at a gateway or an edge needs.

    Attributes:
        jwt: tokens that requests need.
        external: a service that consents to each request.
    """

    jwt: Jwt | None = None
    external: ExternalAuthorization | None = None


class RoutePolicies(_Block, frozen=True, kw_only=True):
    """The policies that a route may narrow.

    Attributes:
        timeout: the time for all tries together; 0s for no limit. With protocol grpc, the caller's own grpc-timeout
            rules below it.
        idle_timeout: the time for which nothing may come on a stream.
        retry: tries after the first; null for none.
        shadow: copies of requests for another service.
        fault: faults for tests of callers.
        rate_limit: requests a second; of gateways and edges alone.
        auth: tokens and consent that requests need; of gateways and edges alone.
    """

    timeout: Duration = 5.0
    idle_timeout: Duration | None = None
    retry: Retry | None = Retry()
    shadow: Shadow | None = None
    fault: FaultInjection | None = None
    rate_limit: RateLimit | None = None
    auth: Authentication | None = None


# Policies of a cluster: they hold for every route of a dependency.


class Limit(_Block, frozen=True, kw_only=True):
    """Limits of what is under way to a callee.

    Attributes:
        connections_per_endpoint: connections to one endpoint, of HTTP/1.1. It has to be below the requests a second
            that one endpoint answers, times per_try_timeout.
        connections: connections to all endpoints together.
        pending_requests: requests that wait for a connection.
        requests: requests under way to all endpoints together, of HTTP/2.
        retry_budget: retries under way, in percent of the requests under way.
        retries: retries under way, as a number; written in place of the budget.
    """

    connections_per_endpoint: Count | None = 30
    connections: Count | None = None
    pending_requests: Count | None = 100
    requests: Count | None = None
    retry_budget: Percent | None = 20.0
    retries: Annotated[int, Meta(ge=0)] | None = None


class OutlierDetection(_Block, frozen=True, kw_only=True):
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


class HealthCheck(_Block, frozen=True, kw_only=True):
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


class Sticky(_Block, frozen=True, kw_only=True):
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


class Tls(_Block, frozen=True, kw_only=True):
    """TLS to an address or to the endpoints of a service; verified unless somebody writes otherwise.

    Attributes:
        server_name: the name that is sent as SNI and that certificates have to have; the host of the address unless
            written.
        ca_file: the file with the authorities that are trusted, on the machine of the Envoy; the system's unless
            written.
        verify: whether certificates are verified.
    """

    server_name: Host | None = None
    ca_file: File | None = None
    verify: bool = True


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


# Routes, dependencies, services.


class Rewrite(_Block, frozen=True, kw_only=True):
    """Changes of what the callee gets: another path, another beginning of the path in place of the matched prefix.

    Attributes:
        path: the whole path.
        prefix: the beginning, in place of the route's prefix.
    """

    path: Path | None = None
    prefix: Path | None = None


class HeaderMatch(_Block, frozen=True, kw_only=True):
    """One condition on a header; exactly one of the conditions is written, and ``invert`` turns it round.

    ``range`` has the first number that matches and the first one behind it that does not.

    Attributes:
        name: the name of the header.
        exact: the whole value.
        prefix: the beginning of the value.
        suffix: the end of the value.
        contains: a part of the value.
        regex: an RE2 expression that the whole value matches.
        range: the first number that matches, and the first one behind it that does not.
        present: whether the header is there.
        invert: whether requests match that do not meet the condition.
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
        path: the exact path; of path, prefix and regex one is written.
        prefix: the beginning of the path.
        regex: an RE2 expression that the whole path matches.
        query: query parameters with these values.
        rewrite: changes of the path that the callee gets.
        methods: the methods; all unless written.
        headers: conditions on headers, all of which have to be met.
        cookie: cookies with these values.
        version: metadata of the endpoints that serve it; the whole service where there are none.
        split: shares of whole services, in percent; 100 together.
        stat_prefix: the name of the route in statistics; made of its match unless written.
    """

    path: Path | None = None
    prefix: Path | None = None
    regex: str | None = None
    query: Mapping[Text, str] = {}
    rewrite: Rewrite | None = None
    methods: tuple[Method, ...] = ()
    headers: tuple[HeaderMatch, ...] = ()
    cookie: Mapping[CookieName, Text] = {}
    version: Mapping[Text, str | bool] | None = None
    split: Mapping[ServiceName, Percent] | None = None
    stat_prefix: str = ""


class Dependency(Policies, frozen=True, kw_only=True):
    """One caller's use of one service or address.

    Attributes:
        name: its name, which is Envoy's cluster name and the host that the app calls; the service's unless written.
        service: the registered service.
        address: host:port of what is not registered, which DNS resolves.
        group: in place of all else, the group whose dependencies the file has.
        cluster: Envoy's name of the cluster, where a migration has to keep one.
        hosts: the hosts that the app may call it by; its name unless written.
        host_header: the Host that the callee gets; the app's unless written.
        headers: changes of request headers.
        protocol: the protocol that the callee speaks; what it provides unless written.
        routes: its routes, of which the first that matches counts; one that takes all unless written.
    """

    name: DependencyName | None = None
    service: ServiceName | None = None
    address: HostPort | None = None
    group: str | None = None
    cluster: DependencyName | None = None
    hosts: tuple[Host, ...] = ()
    host_header: HostHeader | None = None
    headers: HeaderChanges = HeaderChanges()
    protocol: Protocol = "http1"
    routes: tuple[Route, ...] = ()


class Objectives(_Block, frozen=True, kw_only=True):
    """The objectives that a service promises its callers, for alerts and console.

    Attributes:
        p99: the time within which 99 of 100 requests are answered.
        success: the percentage of requests that succeed.
    """

    p99: Duration | None = None
    success: Percent | None = None


class Defaults(Policies, frozen=True, kw_only=True):
    """Policies for all dependencies of a mesh, or for all callers of a service.

    Attributes:
        protocol: the protocol of services that do not say theirs.
    """

    protocol: Protocol = "http1"


class Provides(_Block, frozen=True, kw_only=True):
    """Facts about a service and defaults for its callers.

    Attributes:
        protocol: the protocol that the service speaks.
        defaults: policies of its callers that do not write others.
        slo: the objectives that callers may expect.
    """

    protocol: Protocol = "http1"
    defaults: Defaults = Defaults()
    slo: Objectives = Objectives()


class Service(_Block, frozen=True, kw_only=True):
    """services/NAME.yaml: one service, which is Envoy's node.cluster.

    Attributes:
        service: its name, which is the file's.
        provides: facts about it, and defaults for its callers.
        dependencies: what its app calls.
    """

    service: ServiceName
    provides: Provides = Provides()
    dependencies: tuple[Dependency, ...] = ()


class Group(_Block, frozen=True, kw_only=True):
    """groups/NAME.yaml: dependencies that many services share.

    Attributes:
        group: its name, which is the file's.
        dependencies: what the apps of its services call; other groups too.
    """

    group: str
    dependencies: tuple[Dependency, ...] = ()


# The mesh as a whole.


class Listen(_Block, frozen=True, kw_only=True):
    """The address of a listener.

    Attributes:
        address: the IP address.
        port: the port.
        protocol: the protocol of clients; what they speak unless written.
    """

    address: str = "127.0.0.1"
    port: Port
    protocol: Protocol = "same"


class Admin(_Block, frozen=True, kw_only=True):
    """Envoy's admin interface.

    Attributes:
        address: the IP address. The interface has no access control.
        port: the port.
    """

    address: str = "127.0.0.1"
    port: Port = 9901


class RegistryClient(_Block, frozen=True, kw_only=True):
    """The way of Envoys to the registries.

    Attributes:
        addresses: host:port of the registries; the first is used, the others when it does not answer.
        edge: the edge of the registrar beside an Envoy, which answers its polls; while it does not live, and with
            `null`, the registries answer them.
        tls: TLS to the registries; plain HTTP without it.
        certificate_sds: with TLS, the SDS document of Envoy's own certificate, called ``registry-certificate``.
        token_directory: the directory of Envoy's token and the SDS document that leads to it; it needs Envoy 1.37.
        max_connection_duration: the time after which a connection is replaced between two polls; a rotated client
            certificate comes into use by a new connection only.
        request_timeout: the longest that the registries may hold a poll.
        refresh_delay: the pause between two polls.
    """

    addresses: tuple[HostPort, ...] = ("127.0.0.1:8080",)
    edge: EdgeAddress | None = "127.0.0.1:9903"
    tls: Tls | None = None
    certificate_sds: File | None = None
    token_directory: File | None = None
    max_connection_duration: PositiveDuration | None = None
    request_timeout: PositiveDuration = 30.0
    refresh_delay: RefreshDelay = 0.2


class Statistics(_Block, frozen=True, kw_only=True):
    """The receivers of Envoys' statistics. A statsd address is an IP literal: Envoy refuses host names.

    Attributes:
        dog_statsd: address and port of a DogStatsD agent, as ip:port.
        prometheus: the listener that serves Prometheus; it leads to nothing else of the admin interface.
    """

    dog_statsd: str | None = None
    prometheus: Listen | None = None


class Tracing(_Block, frozen=True, kw_only=True):
    """The receiver of spans, and the share of requests that get one.

    Attributes:
        provider: the kind of the receiver.
        address: host:port of the receiver.
        sample: the share of requests that get a trace.
    """

    provider: Literal["zipkin", "xray", "datadog", "opentelemetry", "skywalking"]
    address: HostPort
    sample: Percent = 100.0


class Mesh(_Block, frozen=True, kw_only=True):
    """mesh.yaml: what all services of an environment share.

    Attributes:
        environment: the environment that its services run in.
        registry: the way to the registries.
        egress: the listener that apps call their dependencies by, on the machine of the app.
        admin: Envoy's admin interface.
        statistics: the receivers of statistics.
        tracing: the receiver of traces.
        dns_family: the IP versions that names of addresses are resolved to.
        internal_ranges: networks whose requests may bring x-envoy headers, such as the rest of a deadline.
        drain_time: the time that connections have when a listener changes; it has to be longer than the longest
            request.
        defaults: policies of all dependencies that nobody else writes.
    """

    environment: Text = "production"
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
    """The services of the catalog that a gateway serves, by the metadata of their endpoints or by name.

    Attributes:
        metadata: metadata that at least one endpoint of a service has.
        services: names of services.
    """

    metadata: Mapping[Text, str] = {}
    services: tuple[ServiceName, ...] = ()


class GatewayListen(_Block, frozen=True, kw_only=True):
    """The address of a gateway or an edge, and the port whose requests are redirected to it.

    Attributes:
        address: the IP address.
        port: the port.
        protocol: the protocol of clients; what they speak unless written.
        redirect_from: the port of plain HTTP whose requests are redirected to https.
    """

    address: str = "0.0.0.0"  # noqa: S104  # a gateway is there for others
    port: Port
    protocol: Protocol = "same"
    redirect_from: Port | None = None


class Gateway(_Block, frozen=True, kw_only=True):
    """gateways/NAME.yaml: services of the catalog through one Envoy, by host and by gRPC path.

    Attributes:
        gateway: its name, which is the file's and Envoy's node.cluster.
        listen: its listener.
        select: the services that it serves.
        hosts: the host of each service; {service} is its name.
        paths: whether gRPC services are also found by path, on every host.
        defaults: policies of what it calls.
    """

    gateway: str
    listen: GatewayListen
    select: Select
    hosts: str = "{service}"
    paths: bool = False
    defaults: Defaults = Defaults()


class Certificate(_Block, frozen=True, kw_only=True):
    """Files of a certificate chain and its private key, on the machine of the Envoy.

    Attributes:
        chain: the file with the certificate and those of its authorities.
        key: the file with the private key.
    """

    chain: File
    key: File


class SiteRoute(Route, frozen=True, kw_only=True):
    """One route of a site: a route with the service that it leads to.

    Attributes:
        service: the service that it leads to; a split in place of it leads to several.
    """

    service: ServiceName | None = None


class Site(_Block, frozen=True, kw_only=True):
    """The hosts of an edge that share a certificate and routes.

    Attributes:
        hosts: the hosts.
        certificate: the certificate; an edge with several sites has one for each.
        routes: its routes, of which the first that matches counts. A prefix ends at a segment: /api takes /api/x, not
            /apix.
    """

    hosts: tuple[Host, ...]
    certificate: Certificate | None = None
    routes: tuple[SiteRoute, ...]


class Edge(_Block, frozen=True, kw_only=True):
    """edges/NAME.yaml: TLS and hosts in front of services.

    Attributes:
        edge: its name, which is the file's and Envoy's node.cluster.
        listen: its listener.
        sites: its sites.
        defaults: policies of what it calls.
    """

    edge: str
    listen: GatewayListen
    sites: tuple[Site, ...]
    defaults: Defaults = Defaults()
