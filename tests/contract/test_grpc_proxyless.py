"""Proxyless gRPC: clients of ``xds:///service`` find a service's endpoints by themselves, without an Envoy.

The same tests run with grpcio's client and, by `make proxyless`, with grpc-go's.
"""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.postgres import Postgres
from harness.process import end, eventually, free_port
from harness.proxyless import GRPCIO, ProxylessClient, proxyless_client
from harness.registry import Registry, registry

GO = Path(__file__).parents[1] / "proxyless"
LEASE = 600
"""Seconds of a lease that outlives the test."""


@pytest.fixture(scope="module")
def listen() -> int:
    """The port of the gRPC listener."""
    return free_port()


@pytest.fixture(scope="module")
def streaming(server: Postgres, workplace: Path, listen: int) -> Iterator[Registry]:
    """A registry that serves streams."""
    settings = {"removal_delay": "100ms", "sweep_interval": "100ms", "xds_listen": f"127.0.0.1:{listen}"}
    with registry(server.migrated_database(), workplace, **settings) as process:
        yield process


def _go_client(directory: Path) -> tuple[str, ...]:
    if shutil.which("go") is None:
        pytest.skip("Go is not installed; `make proxyless` wants it, and a way to the Go proxy")
    program = directory / "proxyless-go"
    subprocess.run(["go", "build", "-o", str(program), "."], cwd=GO, check=True)
    return (str(program),)


@pytest.fixture(scope="module", params=["grpcio", pytest.param("grpc-go", marks=pytest.mark.proxyless)])
def client(request: pytest.FixtureRequest, workplace: Path, listen: int) -> Iterator[ProxylessClient]:
    """A client of each implementation."""
    log = workplace / f"{request.param}.log"
    program = _go_client(workplace) if request.param == "grpc-go" else GRPCIO
    with proxyless_client([listen], log, program) as started:
        yield started


def register(found: Registry, service: str, endpoint: str, **fields: object) -> None:
    """Register an endpoint for the length of the test."""
    found.register(service, endpoint, ttl=LEASE, **fields).raise_for_status()


def test_endpoints_come_and_go(streaming: Registry, client: ProxylessClient, service: str) -> None:
    """RPCs go to all endpoints, to one that is added, and to none that has left."""
    first, second = client.serve(), client.serve()
    register(streaming, service, first)
    assert client.call(service, wait=True).said == first
    register(streaming, service, second)
    eventually(lambda: client.endpoints(service) == {first, second})
    streaming.client.delete(f"/v1/services/{service}/endpoints/{first}").raise_for_status()
    eventually(lambda: client.endpoints(service) == {second})


def test_endpoints_that_take_no_traffic_get_none(streaming: Registry, client: ProxylessClient, service: str) -> None:
    """An unhealthy endpoint and a degraded one get no RPC, until they are healthy."""
    healthy, other = client.serve(), client.serve()
    register(streaming, service, healthy)
    register(streaming, service, other, health="UNHEALTHY", detail="GET /healthz: 500")
    assert client.call(service, wait=True).status == "OK"
    assert client.endpoints(service) == {healthy}
    register(streaming, service, other)
    eventually(lambda: client.endpoints(service) == {healthy, other})
    register(streaming, service, other, health="DEGRADED")
    eventually(lambda: client.endpoints(service) == {healthy})


def test_a_drain_loses_no_rpc(streaming: Registry, client: ProxylessClient, service: str) -> None:
    """While RPCs go on, an endpoint drains, leaves and stops; none fails."""
    leaving, staying = client.serve(), client.serve()
    register(streaming, service, leaving)
    register(streaming, service, staying)
    assert client.call(service, wait=True).status == "OK"
    eventually(lambda: client.endpoints(service) == {leaving, staying})
    streaming.client.post(f"/v1/services/{service}/endpoints/{leaving}/drain").raise_for_status()
    counts = client.flood(service, seconds=0.5)
    eventually(lambda: client.endpoints(service) == {staying})
    client.stop(leaving)
    streaming.client.delete(f"/v1/services/{service}/endpoints/{leaving}").raise_for_status()
    after = client.flood(service, seconds=0.3)
    assert set(counts) == set(after) == {"OK"}


def test_an_unknown_service_is_used_as_soon_as_it_is_registered(
    streaming: Registry, client: ProxylessClient, service: str
) -> None:
    """RPCs that do not wait fail, and one that waits is answered when the first endpoint comes."""
    failed = client.call(service, timeout=0.5)
    assert failed.status in {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
    endpoint = client.serve()
    register(streaming, service, endpoint)
    assert client.call(service, timeout=20, wait=True).said == endpoint


def test_rpcs_go_on_while_the_registry_restarts(server: Postgres, workplace: Path, service: str) -> None:
    """Without a registry clients keep what they have; the one that starts again tells them what changed."""
    port, database = free_port(), server.migrated_database()
    settings = {"xds_listen": f"127.0.0.1:{port}", "removal_delay": "100ms"}
    with proxyless_client([port], workplace / "restarts.log") as client:
        first, second = client.serve(), client.serve()
        with registry(database, workplace, **settings) as process:
            register(process, service, first)
            assert client.call(service, timeout=20, wait=True).said == first
            end(process.process)
        assert client.endpoints(service) == {first}
        with registry(database, workplace, **settings) as process:
            register(process, service, second)
            eventually(lambda: client.endpoints(service) == {first, second}, within=20)
