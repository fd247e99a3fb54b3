"""A gateway and an edge on real Envoys, tried with clients that are not ours and by a gRPC client that is."""

import contextlib
import http.client
import json
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from harness.grpc_call import grpc_call
from harness.mesh_app import NAME_HEADER, MeshApp, grpc_app, mesh_app
from harness.mesh_envoy import envoy_of
from harness.mesh_server import Place, mesh_server
from harness.no_tls import NO_TLS
from harness.probing import Authority
from harness.process import eventually, free_port
from harness.websocket import RefusedHandshakeError, Websocket
from joserfc import jwt
from joserfc.jwk import ECKey

from meshconfig.definition.authentication import Authentication, ExternalAuthorization, Jwt
from meshconfig.definition.edge import Certificate, Edge, Site, SiteRoute
from meshconfig.definition.gateway import Gateway, Select
from meshconfig.definition.listen import GatewayListen
from meshconfig.definition.mesh import Mesh
from meshconfig.definition.rate_limit import RateLimit
from meshconfig.definition.registry_client import RegistryClient
from meshconfig.effective import Configuration
from meshconfig.resource import Catalog
from meshconfig.snapshot import compile_mesh

pytestmark = pytest.mark.envoy

ISSUER = "https://id.example"
CATALOG = Catalog(
    metadata={"user": {"protocol": ("grpc",)}, "shop": {"protocol": ("grpc",)}, "web": {"protocol": ("http1",)}},
    grpc_services={"user": ("user.v1.Users", "grpc.health.v1.Health"), "shop": ("shop.v1.Shop",)},
)


def edge(listen: GatewayListen, certificates: Mapping[str, Certificate], jwks: Path) -> Edge:
    """Return an edge with three sites, whose routes use every policy that only edges and gateways have."""
    token = Authentication(jwt=Jwt(issuer=ISSUER, jwks_file=str(jwks), claims={"sub": "x-user"}))
    asked = Authentication(external=ExternalAuthorization(service="authz", headers=("x-role",)))
    closed = Authentication(external=ExternalAuthorization(service="away"))
    opened = Authentication(external=ExternalAuthorization(service="lost", fail_open=True, headers=("x-role",)))
    everybody = RateLimit(per_second=20, burst=20)
    each = RateLimit(per_second=1, burst=5, by="header", header="x-key")
    routes = (
        SiteRoute(prefix="/token", service="web", auth=token),
        SiteRoute(prefix="/asked", service="web", auth=asked),
        SiteRoute(prefix="/live", service="web", auth=token, upgrade=("websocket",)),
        SiteRoute(prefix="/closed", service="web", auth=closed),
        SiteRoute(prefix="/opened", service="web", auth=opened),
        SiteRoute(prefix="/limited", service="web", rate_limit=everybody),
        SiteRoute(prefix="/each", service="web", rate_limit=each),
        SiteRoute(prefix="/api", service="api"),
        SiteRoute(prefix="/", service="web"),
    )
    sites = (
        Site(hosts=("www.example", "example"), certificate=certificates["www.example"], routes=routes),
        Site(
            hosts=("*.shop.example",),
            certificate=certificates["a.shop.example"],
            routes=(SiteRoute(prefix="/only", service="api"),),
        ),
        Site(hosts=("plain.example",), routes=(SiteRoute(prefix="/", service="api"),)),
    )
    return Edge(edge="www", listen=listen, sites=sites)


@dataclass
class Stage:
    """The Envoys of a gateway and an edge, and the apps behind them."""

    gateway: int
    edge: int
    redirect: int
    apps: dict[str, MeshApp]
    context: ssl.SSLContext
    key: ECKey

    @contextlib.contextmanager
    def connection(self, sni: str, host: str = "") -> Iterator[http.client.HTTPConnection]:
        """Connect to the edge over TLS for the length of the block."""
        raw = socket.create_connection(("127.0.0.1", self.edge), timeout=5)
        with self.context.wrap_socket(raw, server_hostname=sni) as encrypted:
            connection = http.client.HTTPConnection(host or sni)
            connection.sock = encrypted
            yield connection

    def get(
        self, path: str, *, sni: str = "www.example", host: str = "", **headers: str
    ) -> tuple[int, dict[str, str], str]:
        """Send a GET to the edge over TLS; return the status, the headers and the body."""
        with self.connection(sni, host) as connection:
            connection.request("GET", path, headers={key.replace("_", "-"): value for key, value in headers.items()})
            response = connection.getresponse()
            fields = {key.lower(): value for key, value in response.getheaders()}
            return response.status, fields, response.read().decode()

    def statuses(self, path: str, number: int, **headers: str) -> list[int]:
        """Send a number of GETs over one connection; return the status of each."""
        statuses = []
        with self.connection("www.example") as connection:
            for _ in range(number):
                connection.request("GET", path, headers=headers)
                response = connection.getresponse()
                response.read()
                statuses.append(response.status)
        return statuses

    def ready(self) -> bool:
        """Tell whether gateway and edge reach their apps."""
        with contextlib.suppress(ConnectionError):
            answer = grpc_call(self.gateway, "user.grpc.example", "/a/B")
            return (answer.status, self.get("/")[0]) == ("0", 200)
        return False


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Run apps, a management server, and the Envoys of a gateway and an edge by their generated bootstraps."""
    directory = tmp_path_factory.mktemp("fronts")
    authority, key = Authority(directory / "ca"), ECKey.generate_key("P-256", {"kid": "1"})
    jwks = directory / "jwks.json"
    jwks.write_text(json.dumps({"keys": [key.as_dict(private=False)]}))
    pairs = {
        name: str(authority.issue(*names, file=f"{name}.pem"))
        for name, names in {"www.example": ("www.example", "example"), "a.shop.example": ("*.shop.example",)}.items()
    }
    certificates = {name: Certificate(chain=pair, key=pair) for name, pair in pairs.items()}
    with contextlib.ExitStack() as stack:
        apps = {name: stack.enter_context(mesh_app(name)) for name in ("web", "api")}
        apps["authz"] = stack.enter_context(mesh_app("authz", x_role="admin", www_authenticate="Cookie"))
        apps |= {name: stack.enter_context(grpc_app(name)) for name in ("user", "shop")}
        ports: dict[str, list[Place]] = {name: [app.port] for name, app in apps.items()}
        ports |= {"away": [free_port()], "lost": [free_port()]}
        registry_port = free_port()
        listen = GatewayListen(address="127.0.0.1", port=free_port(), redirect_from=free_port())
        entrance = GatewayListen(address="127.0.0.1", port=free_port(), protocol="http2")
        gateway = Gateway(
            gateway="staging",
            listen=entrance,
            select=Select(metadata={"protocol": "grpc"}),
            hosts="{service}.grpc.example",
            paths=True,
        )
        configuration = Configuration(
            Mesh(registry=RegistryClient(addresses=(f"127.0.0.1:{registry_port}",))),
            gateways={"staging": gateway},
            edges={"www": edge(listen, certificates, jwks)},
        )
        stack.enter_context(mesh_server(compile_mesh(configuration, CATALOG), ports, registry_port))
        envoys = [
            stack.enter_context(envoy_of(directory, configuration, name, admin=free_port()))
            for name in ("staging", "www")
        ]
        context = ssl.create_default_context(cafile=str(authority.ca))
        redirect = listen.redirect_from or 0
        running = Stage(entrance.port, listen.port, redirect, apps, context, key)
        eventually(running.ready, said=lambda: envoys[1].log.read_text()[:2000])
        yield running
        for envoy in envoys:
            log = envoy.log.read_text()
            assert "deprecated" not in log
            assert "[error]" not in log


@pytest.mark.parametrize(
    ("host", "path", "app"),
    [
        ("user.grpc.example", "/any.Service/Call", "user"),
        ("shop.grpc.example:50051", "/any.Service/Call", "shop"),
        ("localhost", "/user.v1.Users/Get", "user"),
        ("localhost", "/shop.v1.Shop/Get", "shop"),
        # The host says more than the path.
        ("shop.grpc.example", "/user.v1.Users/Get", "shop"),
    ],
)
def test_a_gateway_finds_a_service_by_host_and_by_path(stage: Stage, host: str, path: str, app: str) -> None:
    """The call comes back with all messages of its stream."""
    answer = grpc_call(stage.gateway, host, path)
    assert (answer.status, answer.headers[NAME_HEADER], answer.messages) == ("0", app, 2)


@pytest.mark.parametrize("path", ["/other.v1.Other/Get", "/grpc.health.v1.Health/Check"])
def test_a_gateway_says_what_it_does_not_serve(stage: Stage, path: str) -> None:
    """As UNIMPLEMENTED with a sentence; health is everybody's, so that only a host says whose."""
    answer = grpc_call(stage.gateway, "localhost", path)
    assert answer.status == "12"
    assert "staging serves no service by this host or path" in answer.message


def test_a_call_through_a_gateway_has_its_clients_deadline(stage: Stage) -> None:
    """Envoy ends it with DEADLINE_EXCEEDED."""
    assert grpc_call(stage.gateway, "user.grpc.example", "/user.v1.Users/Hang", timeout="200m").status == "4"


def test_an_edge_serves_sites_by_the_name_that_a_client_asks_for(stage: Stage) -> None:
    """Each with a certificate of its own, which the client verifies."""
    headers = stage.get("/")[1]
    assert headers[NAME_HEADER] == "web"
    # Taps and access logs name a request by this id, and so can the person who sent it.
    assert headers["x-request-id"]
    assert stage.get("/", host="example")[1][NAME_HEADER] == "web"
    assert stage.get("/only", sni="a.shop.example")[1][NAME_HEADER] == "api"
    status, _, text = stage.get("/", sni="a.shop.example")
    assert (status, "no route for this path" in text) == (404, True)


def test_a_connection_for_one_site_serves_no_other(stage: Stage) -> None:
    """A host that differs from the name in TLS is misdirected, also when the edge has it."""
    for host in ("a.shop.example", "plain.example", "other.example"):
        assert stage.get("/", host=host)[0] == 421
    # No chain of filters takes the connection.
    with pytest.raises(ConnectionError):
        stage.get("/", sni="other.example")


def test_a_site_without_a_certificate_is_served_on_the_same_port(stage: Stage) -> None:
    """To connections without TLS, where the others are misdirected."""
    answers = {
        host: httpx.get(
            f"http://127.0.0.1:{stage.edge}/", headers={"host": host}, trust_env=False, verify=NO_TLS
        ).status_code
        for host in ("plain.example", "www.example")
    }
    assert answers == {"plain.example": 200, "www.example": 421}


def test_clients_without_tls_are_redirected(stage: Stage) -> None:
    """To the same path and query of the same host, on the port of the edge."""
    place = f"http://127.0.0.1:{stage.redirect}/a?b=1"
    answer = httpx.get(place, headers={"host": "www.example"}, trust_env=False, verify=NO_TLS)
    assert answer.status_code == 301
    assert answer.headers["location"] == f"https://www.example:{stage.edge}/a?b=1"
    assert httpx.get(place, headers={"host": "other.example"}, trust_env=False, verify=NO_TLS).status_code == 421


def test_prefixes_end_at_a_segment(stage: Stage) -> None:
    """/apix is not below /api."""
    assert stage.get("/api/x")[1][NAME_HEADER] == "api"
    assert stage.get("/api")[1][NAME_HEADER] == "api"
    assert stage.get("/apix")[1][NAME_HEADER] == "web"


def test_clients_cannot_play_a_proxy(stage: Stage) -> None:
    """Headers by which Envoys steer each other are dropped, ambiguous paths and names refused."""
    steering = {
        "x_envoy_upstream_rq_timeout_ms": "7",
        "x_envoy_expected_rq_timeout_ms": "9",
        "x_envoy_max_retries": "9",
    }
    status, _, _ = stage.get("/spoofed", **steering)
    headers = stage.apps["web"].headers("/spoofed")
    assert status == 200
    assert "x-envoy-internal" not in headers
    assert headers["x-envoy-expected-rq-timeout-ms"] == "1000"
    assert headers["x-forwarded-proto"] == "https"
    assert stage.get("/api%2f..%2fadmin")[0] == 400


def test_a_token_is_verified_and_its_subject_passed_on(stage: Stage) -> None:
    """A client's own header of this name never reaches the app, with a token or without."""
    claims = {"iss": ISSUER, "sub": "ada", "exp": int(time.time()) + 60}
    token = jwt.encode({"alg": "ES256", "kid": "1"}, claims, stage.key)
    forged = jwt.encode({"alg": "ES256", "kid": "1"}, claims, ECKey.generate_key("P-256"))
    assert stage.get("/token")[0] == 401
    assert stage.get("/token", authorization=f"Bearer {forged}")[0] == 401
    assert stage.get("/token/good", authorization=f"Bearer {token}", x_user="eve")[0] == 200
    assert stage.apps["web"].headers("/token/good")["x-user"] == "ada"
    assert stage.get("/free", x_user="eve")[0] == 200
    assert "x-user" not in stage.apps["web"].headers("/free")


def test_a_websocket_passes_an_edge_with_a_token(stage: Stage) -> None:
    """Its handshake meets what every request of the route has to; without a route that says so, none passes."""
    claims = {"iss": ISSUER, "sub": "ada", "exp": int(time.time()) + 60}
    token = jwt.encode({"alg": "ES256", "kid": "1"}, claims, stage.key)
    for path, status in (("/live", 401), ("/", 403)):
        with pytest.raises(RefusedHandshakeError) as refusal:
            Websocket(stage.edge, "www.example", path, tls=stage.context)
        assert refusal.value.status == status
    with contextlib.closing(
        Websocket(stage.edge, "www.example", "/live/ada", tls=stage.context, authorization=f"Bearer {token}")
    ) as websocket:
        assert websocket.ask("hello") == "web hello"
    assert stage.apps["web"].headers("/live/ada")["x-user"] == "ada"


def test_a_service_is_asked_about_requests(stage: Stage) -> None:
    """Its refusal goes to the client, and what it says about who asks goes to the app."""
    status, headers, _ = stage.get("/asked")
    assert (status, headers["www-authenticate"]) == (401, "Cookie")
    assert stage.get("/asked/good", cookie="session=1", x_role="root")[0] == 200
    assert stage.apps["web"].headers("/asked/good")["x-role"] == "admin"


def test_a_service_that_cannot_be_asked_closes_or_opens_as_written(stage: Stage) -> None:
    """503 rather than 403, since nobody was refused; where requests pass, forged identities do not."""
    assert stage.get("/closed")[0] == 503
    assert stage.get("/opened", x_role="root")[0] == 200
    assert "x-role" not in stage.apps["web"].headers("/opened")


def test_a_rate_is_limited(stage: Stage) -> None:
    """Twenty at once, and twenty a second after that."""
    begins = time.monotonic()
    statuses = stage.statuses("/limited", 60)
    most = 20 + (time.monotonic() - begins) * 20 + 1
    assert set(statuses) == {200, 429}
    assert 20 <= statuses.count(200) <= most


def test_each_client_has_a_rate_of_its_own(stage: Stage) -> None:
    """Who brings no key shares a bucket with all who bring none."""
    for headers in ({"x-key": "a"}, {"x-key": "b"}, {}):
        statuses = stage.statuses("/each", 8, **headers)
        assert statuses[:5] == [200] * 5
        assert 429 in statuses[5:]
