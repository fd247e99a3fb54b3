"""A mesh whose callers, gateway and edge use every policy, so that one look of an Envoy at it says enough."""

from meshconfig.definition.authentication import Authentication, ExternalAuthorization, Jwt
from meshconfig.definition.dependency import Dependency
from meshconfig.definition.edge import Certificate, Edge, Site, SiteRoute
from meshconfig.definition.fault_injection import Abort, Delay, FaultInjection, OnlyHeader
from meshconfig.definition.gateway import Gateway, Select
from meshconfig.definition.header_changes import HeaderChanges
from meshconfig.definition.health_check import HealthCheck
from meshconfig.definition.limit import Limit
from meshconfig.definition.listen import GatewayListen
from meshconfig.definition.mesh import Mesh
from meshconfig.definition.outlier_detection import OutlierDetection
from meshconfig.definition.policies import Defaults
from meshconfig.definition.rate_limit import RateLimit
from meshconfig.definition.retry import Retry
from meshconfig.definition.route import HeaderMatch, Rewrite, Route
from meshconfig.definition.shadow import Shadow
from meshconfig.definition.sticky import Sticky
from meshconfig.definition.tls import Tls
from meshconfig.effective import Caller, Configuration
from meshconfig.resource import Catalog

CATALOG = Catalog(
    metadata={"a": {"protocol": ("grpc",)}, "b": {"protocol": ("grpc", "http1")}, "c": {"protocol": ("http1",)}},
    grpc_services={"a": ("x.A", "grpc.health.v1.Health"), "b": ("x.A", "x.B")},
)
_JWT = Jwt(issuer="https://id.example", jwks_file="/etc/tls/jwks.json", claims={"sub": "x-user"}, audiences=("a",))
_EVERYTHING = Route(prefix="/")


def everything(mesh: Mesh) -> Configuration:
    """Return a configuration that uses every policy, with the settings of a mesh."""
    caller = Caller("web", (*_clusters(), *_protocols(), *_routed()), (_on("shadow"), _on("new")))
    targets = {
        "www": {
            "authg": _on("authg", protocol="grpc"),
            "api": _on("api", sticky=Sticky(by="cookie", strict=True), slow_start=30),
        }
    }
    return Configuration(
        mesh, {"web": caller}, gateways={"staging": _gateway()}, edges={"www": _edge()}, targets=targets
    )


def _on(name: str, *routes: Route, **policies: object) -> Dependency:
    values = {"name": name, "service": name, "routes": routes or (_EVERYTHING,), **policies}
    return Dependency(**values)  # type: ignore[arg-type]  # values of any field


def _clusters() -> tuple[Dependency, ...]:
    counts = Limit(connections_per_endpoint=None, connections=5, requests=9, retries=0)
    rules = OutlierDetection(consecutive_5xx=5, consecutive_gateway_failure=None)
    return (
        _on("plain"),
        _on("named", cluster="named_cluster", hosts=("named", "named.internal"), host_header="other"),
        _on("limits", limit=counts, outlier_detection=None, keep_alive=None),
        _on("ejection", outlier_detection=rules, panic_threshold=0.5, zones=True),
        _on("slow", slow_start=30),
        _on("by-cookie", sticky=Sticky(by="cookie", ttl=60)),
        _on("by-header", sticky=Sticky(by="header", name="x-user")),
        _on("by-address", sticky=Sticky(by="source_ip", strict=True)),
        _on("session", sticky=Sticky(by="cookie", name="s", strict=True)),
        _on("header-session", sticky=Sticky(by="header", name="s", strict=True)),
    )


def _protocols() -> tuple[Dependency, ...]:
    return (
        _on("http2", protocol="http2", health_check=HealthCheck(http="/healthz")),
        _on("grpc", protocol="grpc", health_check=HealthCheck(grpc="shop.v1.Shop")),
        _on("whole-server", protocol="grpc", health_check=HealthCheck(grpc="")),
        _on("tcp", health_check=HealthCheck(tcp=True, event_log="/var/log/envoy/health.log")),
        Dependency(name="dns", address="api.example:443", tls=Tls(), routes=(_EVERYTHING,)),
        Dependency(name="v4", address="127.0.0.1:8443", tls=Tls(verify=False), protocol="same", routes=(_EVERYTHING,)),
        Dependency(name="v6", address="[::1]:443", tls=Tls(server_name="x.example"), routes=(_EVERYTHING,)),
        Dependency(name="by-ip", address="127.0.0.1:443", tls=Tls(), routes=(_EVERYTHING,)),
    )


def _routed() -> tuple[Dependency, ...]:
    fault = FaultInjection(
        abort=Abort(status=503, percent=0.5),
        delay=Delay(time=2, percent=0.0001),
        only=OnlyHeader(header="x-user", value="jason"),
    )
    conditions = (
        HeaderMatch(name="a", exact="1"),
        HeaderMatch(name="b", regex="x.*", invert=True),
        HeaderMatch(name="c", range=(1, 9)),
        HeaderMatch(name="d", present=False),
        HeaderMatch(name="e", suffix="z"),
        HeaderMatch(name="f", contains="z"),
        HeaderMatch(name="g", prefix="z"),
    )
    matched = Route(path="/x", methods=("GET", "M-SEARCH"), headers=conditions, cookie={"a b": "1+1"}, query={"v": "2"})
    return (
        _on("matches", matched, Route(regex="/users/[0-9]+", rewrite=Rewrite(path=r"/\1")), Route(prefix="/a/")),
        _on("rewrites", Route(prefix="/api", rewrite=Rewrite(prefix="/")), Route(prefix="/", idle_timeout=9)),
        _on("versions", Route(prefix="/", version={"revision": "a", "canary": True}), _EVERYTHING),
        _on("other-versions", Route(prefix="/", version={"revision": "a"})),
        _on("split", Route(prefix="/", split={"split": 99.5, "new": 0.5}, timeout=0)),
        _on("copied", Route(prefix="/", shadow=Shadow(service="shadow", percent=1.25), timeout=400)),
        _on("faulty", Route(prefix="/", fault=fault)),
        _on("headers", headers=HeaderChanges(set={"x-a": "100%"}, add={"x-b": "1"}, remove=("x-c",))),
        _on("retries", Route(prefix="/", retry=Retry(idempotent=("POST",), hedge=True, when=("5xx", "unavailable")))),
        _on("once", Route(prefix="/", retry=None)),
        _on("live", Route(prefix="/live", upgrade=("websocket",), idle_timeout=0), _EVERYTHING),
    )


def _gateway() -> Gateway:
    return Gateway(
        gateway="staging",
        listen=GatewayListen(port=50051, protocol="http2"),
        select=Select(metadata={"protocol": "grpc"}, services=("extra",)),
        hosts="{service}.grpc.example",
        paths=True,
        defaults=Defaults(rate_limit=RateLimit(per_second=100, by="source_ip")),
    )


def _edge() -> Edge:
    asked = Authentication(external=ExternalAuthorization(service="authz", headers=("x-role",)))
    both = Authentication(jwt=_JWT, external=ExternalAuthorization(service="authg", fail_open=True))
    without_headers = Authentication(external=ExternalAuthorization(service="other-authz"))
    routes = (
        SiteRoute(prefix="/token", service="api", auth=Authentication(jwt=_JWT)),
        SiteRoute(prefix="/asked", service="api", auth=asked, rate_limit=RateLimit(per_second=0.5, burst=3)),
        SiteRoute(prefix="/both", service="api", auth=both),
        SiteRoute(prefix="/other", service="api", auth=without_headers),
        SiteRoute(prefix="/each", service="api", rate_limit=RateLimit(per_second=50, by="header", header="x-user")),
        SiteRoute(prefix="/version", service="api", version={"canary": True}),
        SiteRoute(prefix="/split", split={"api": 1, "web": 99}, timeout=0),
        SiteRoute(prefix="/live", service="web", upgrade=("websocket",), auth=Authentication(jwt=_JWT)),
        SiteRoute(prefix="/", service="web"),
    )
    certificate = Certificate(chain="/etc/tls/www.pem", key="/etc/tls/www.key")
    sites = (
        Site(hosts=("www.example", "example"), certificate=certificate, routes=routes),
        Site(hosts=("*.shop.example",), certificate=certificate, routes=(SiteRoute(path="/x", service="web"),)),
        Site(hosts=("plain.example",), routes=(SiteRoute(prefix="/", service="web"),)),
    )
    return Edge(edge="www", listen=GatewayListen(port=8443, redirect_from=8080), sites=sites)
