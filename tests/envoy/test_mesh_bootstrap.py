"""The bootstrap of a service, on a real Envoy: what it asks the registry, how it fails over, and what it tells."""

import os
import socket
import subprocess
from pathlib import Path

import httpx
import pytest
from harness.app import app
from harness.envoy import TokenDirectory
from harness.mesh_envoy import envoy_of
from harness.mesh_server import mesh_server
from harness.no_tls import NO_TLS
from harness.process import eventually, free_port, script

from meshconfig.bootstrap import LOCAL_CLUSTER
from meshconfig.definition.admin import Admin
from meshconfig.definition.dependency import Dependency
from meshconfig.definition.listen import Listen
from meshconfig.definition.mesh import Mesh
from meshconfig.definition.registry_client import RegistryClient
from meshconfig.definition.route import Route
from meshconfig.definition.statistics import Statistics
from meshconfig.effective import Caller, Configuration
from meshconfig.resource import Catalog
from meshconfig.snapshot import compile_mesh

pytestmark = pytest.mark.envoy

HOSTILE = (
    "/quitquitquit",
    "/ready/../quitquitquit",
    "/ready/%2e%2e/quitquitquit",
    "/ready%2f..%2fquitquitquit",
    "/stats/prometheus/..;/quitquitquit",
    "//quitquitquit",
    "/stats",
    "/config_dump",
    "/ready/",
)
"""Paths that would lead from the metrics listener to more of the admin interface than it may."""


def _overlay(directory: Path) -> str:
    """Return what `registrar bootstrap` writes for a task."""
    environ = {
        "REGISTRAR_REGISTRY_URL": "http://127.0.0.1:1",
        "REGISTRAR_SERVICE": "web",
        "REGISTRAR_ENDPOINT": "10.0.0.5:80",
        "REGISTRAR_INSTANCE_ID": "task-1",
        "REGISTRAR_REGION": "r",
        "REGISTRAR_ZONE": "za",
    }
    path = directory / "overlay.json"
    subprocess.run([*script("registrar"), "bootstrap", "--out", str(path)], env=os.environ | environ, check=True)
    return path.read_text()


def mesh_of(directory: Path, registries: tuple[int, ...], statsd: int) -> Mesh:
    """Return the settings of a mesh whose registries listen on these ports."""
    token = TokenDirectory(directory / "token")
    token.write("hct_test")
    return Mesh(
        registry=RegistryClient(
            addresses=tuple(f"127.0.0.1:{port}" for port in registries), token_directory=str(token.path)
        ),
        egress=Listen(port=free_port()),
        admin=Admin(port=free_port()),
        statistics=Statistics(dog_statsd=f"127.0.0.1:{statsd}", prometheus=Listen(port=free_port())),
    )


def test_an_envoy_of_a_service(workplace: Path) -> None:
    """It polls the registry that answers, with its token; routes by Host; and tells statistics, but nothing else."""
    shop = Dependency(name="shop", service="shop", hosts=("shop",), routes=(Route(prefix="/"),), zones=True)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd, app(workplace) as served:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(5)
        mesh = mesh_of(workplace, (free_port(), free_port()), statsd.getsockname()[1])
        configuration = Configuration(mesh, {"web": Caller("web", (shop,))})
        port = int(served.endpoint.rpartition(":")[2])
        second = int(mesh.registry.addresses[1].rpartition(":")[2])
        with (
            # The first registry is away from the beginning.
            mesh_server(compile_mesh(configuration, Catalog()), {"shop": [port], "web": []}, second) as registry,
            envoy_of(workplace, configuration, "web", overlay_of_task=_overlay(workplace)) as envoy,
            httpx.Client(trust_env=False, verify=NO_TLS, timeout=5) as client,
        ):
            egress = f"http://127.0.0.1:{envoy.listener}/work"
            eventually(
                lambda: client.get(egress, headers={"host": "shop"}).status_code == 200, said=envoy.log.read_text
            )
            unknown = client.get(egress, headers={"host": "other"})
            assert (unknown.status_code, "web has no dependency" in unknown.text) == (404, True)
            assert registry.kinds() == {"clusters", "routes", "endpoints"}
            assert {authorization for _, _, authorization in registry.polls} == {"Bearer hct_test"}
            node = registry.polls[0][1]
            assert (node["id"], node["cluster"], node["locality"]["zone"]) == ("task-1", "web", "za")
            assert LOCAL_CLUSTER in envoy.config_dump()
            _assert_tags(statsd)
            assert mesh.statistics.prometheus is not None
            _assert_closed(f"http://127.0.0.1:{mesh.statistics.prometheus.port}", client)
            log = envoy.log.read_text()
        assert "deprecated" not in log
        assert "[error]" not in log


def _assert_tags(statsd: socket.socket) -> None:
    """Each datagram of DogStatsD has the service and the task."""
    metric = statsd.recv(65536).decode().splitlines()[0]
    tags = dict(tag.split(":", 1) for tag in metric.partition("|#")[2].split(","))
    assert (tags["service-cluster"], tags["service-node"]) == ("web", "task-1")


def _assert_closed(metrics: str, client: httpx.Client) -> None:
    """Two paths of the admin interface can be read there, and nothing else can be reached."""
    assert "envoy_server_live" in client.get(f"{metrics}/stats/prometheus?usedonly").text
    assert client.get(f"{metrics}/ready").text.strip() == "LIVE"
    for path in HOSTILE:
        url = httpx.URL(metrics).copy_with(raw_path=path.encode())
        assert client.get(url).status_code in {400, 404}, path
    assert client.post(f"{metrics}/ready").status_code == 404
