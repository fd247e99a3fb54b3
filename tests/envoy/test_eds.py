"""The contract of EDS, asserted on a real Envoy's own admin statistics."""

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from harness.envoy import Envoy, envoy
from harness.process import end, eventually
from harness.registry import Registry, registry

from registry.xds.resources import ENDPOINTS, RestPath
from wire import discovery_poll as poll

pytestmark = pytest.mark.envoy


@contextlib.contextmanager
def _accepted(found: Envoy, service: str) -> Iterator[None]:
    """Assert that Envoy took everything that it was sent during the block."""
    yield
    assert found.counter(service, "update_rejected") == 0
    assert found.counter(service, "update_attempt") > 0


def _holds(found: Envoy, service: str, hosts: dict[str, str]) -> bool:
    return found.hosts(service) == hosts


@pytest.mark.parametrize("request_timeout", ["0.9s", "10s"], ids=["short polls", "long polls"])
def test_membership_follows_registrations(
    shared_registry: Registry, workplace: Path, service: str, request_timeout: str
) -> None:
    """An endpoint that registers, drains and leaves does so in Envoy within 2N + 1 s of each."""
    port = shared_registry.port
    with (
        envoy(workplace, [port], [service], refresh_delay="0.5s", request_timeout=request_timeout) as found,
        _accepted(found, service),
    ):
        assert found.hosts(service) == {}
        shared_registry.register(service, "10.0.0.1:80")
        shared_registry.register(service, "10.0.0.2:80")
        eventually(partial(_holds, found, service, {"10.0.0.1:80": "HEALTHY", "10.0.0.2:80": "HEALTHY"}), within=2)
        shared_registry.client.post(f"/v1/services/{service}/endpoints/10.0.0.1:80/drain")
        eventually(partial(_holds, found, service, {"10.0.0.1:80": "DRAINING", "10.0.0.2:80": "HEALTHY"}), within=2)
        shared_registry.client.delete(f"/v1/services/{service}/endpoints/10.0.0.1:80")
        # The shared registry removes a second after the endpoint was out of rotation, and sweeps each second.
        eventually(partial(_holds, found, service, {"10.0.0.2:80": "HEALTHY"}), within=5)
        assert found.counter(service, "update_success") >= 2


def test_a_held_poll_carries_a_change_at_once(shared_registry: Registry, workplace: Path, service: str) -> None:
    """With long polls a change is in Envoy long before a refresh delay of 5 s would be over."""
    shared_registry.register(service, "10.0.0.1:80")
    with (
        envoy(workplace, [shared_registry.port], [service], refresh_delay="0.02s", request_timeout="30s") as found,
        _accepted(found, service),
    ):
        lags = []
        for number in range(2, 12):
            time.sleep(0.1)
            shared_registry.register(service, f"10.0.0.{number}:80")
            lags.append(eventually(partial(_counts, found, service, number), within=2, every=0.002))
        assert sorted(lags)[len(lags) // 2] < 0.1


def _counts(found: Envoy, service: str, endpoints: int) -> bool:
    return len(found.hosts(service)) == endpoints


def test_an_unchanged_service_costs_envoy_nothing(shared_registry: Registry, workplace: Path, service: str) -> None:
    """Short polls of an unchanged service are answered 304: Envoy counts attempts and no updates."""
    shared_registry.register(service, "10.0.0.1:80")
    port = shared_registry.port
    with envoy(workplace, [port], [service], refresh_delay="0.05s", request_timeout="0.3s") as found:
        updates = found.counter(service, "update_success")
        attempts = found.counter(service, "update_attempt")
        eventually(lambda: found.counter(service, "update_attempt") >= attempts + 10, within=10)
        assert found.counter(service, "update_success") == updates
        # On a machine that is busy a poll may time out, and is a failure then; an answer 304 is none.
        assert found.counter(service, "update_failure") < 5
        assert found.counter(service, "update_rejected") == 0


def test_each_status_arrives_by_its_name(database: str, workplace: Path, service: str) -> None:
    """Envoy takes every status; TIMEOUT it shows, and treats, as UNHEALTHY."""
    with registry(database, workplace, sweep_interval="100ms", removal_delay="60s") as running_registry:
        running_registry.register(service, "10.0.0.1:80")
        running_registry.register(service, "10.0.0.2:80", health="DEGRADED")
        running_registry.register(service, "10.0.0.3:80", health="UNHEALTHY", detail="GET /healthz: 500")
        running_registry.register(service, "10.0.0.4:80", draining=True)
        running_registry.register(service, "10.0.0.5:80", ttl=1)
        expected = {
            "10.0.0.1:80": "HEALTHY",
            "10.0.0.2:80": "DEGRADED",
            "10.0.0.3:80": "UNHEALTHY",
            "10.0.0.4:80": "DRAINING",
            "10.0.0.5:80": "UNHEALTHY",
        }
        eventually(lambda: running_registry.statuses(service)["10.0.0.5:80"] == "TIMEOUT", within=6)
        with envoy(workplace, [running_registry.port], [service]) as found, _accepted(found, service):
            eventually(partial(_holds, found, service, expected), within=6, said=lambda: str(found.hosts(service)))


def test_weights_localities_and_metadata_arrive(shared_registry: Registry, workplace: Path, service: str) -> None:
    """Envoy balances by the weights and localities, and can match the metadata of subsets."""
    shared_registry.register(service, "10.0.0.1:80", region="r", zone="za", weight=3, canary=True, revision="v2")
    shared_registry.register(
        service, "10.0.0.2:80", region="r", zone="zb", weight=10_000, metadata={"stage": "blue", "shard": 7}
    )
    shared_registry.register(service, "[2001:db8::5]:8080", region="r", zone="zb")
    with envoy(workplace, [shared_registry.port], [service]) as found, _accepted(found, service):
        assert found.weights(service) == {"10.0.0.1:80": 3, "10.0.0.2:80": 10_000, "2001:db8::5:8080": 1}
        assert found.zones(service) == {"10.0.0.1:80": "za", "10.0.0.2:80": "zb", "2001:db8::5:8080": "zb"}
        first, second = found.assignment(service)["endpoints"]
        assert (first["load_balancing_weight"], second["load_balancing_weight"]) == (3, 10_001)
        metadata = [
            member["metadata"]["filter_metadata"]["envoy.lb"]
            for locality in (first, second)
            for member in locality["lb_endpoints"]
        ]
        assert metadata[0] == {"canary": True, "revision": "v2", "instance_id": "i-10.0.0.1:80"}
        assert metadata[1] == {
            "canary": False,
            "revision": "",
            "instance_id": "i-10.0.0.2:80",
            "stage": "blue",
            "shard": 7,
        }


def test_odd_registrations_do_not_spoil_an_answer(shared_registry: Registry, workplace: Path, service: str) -> None:
    """Whatever the registry accepts, Envoy accepts: long, foreign and nested text, numbers at their limits."""
    odd: list[dict[str, Any]] = [
        {"metadata": {"键": '\u2028 \\ " </script> 😀', "": "empty key"}},
        {"metadata": {"deep": {"list": [1, [2.5, None], {"x": True}]}, "big": 2**53, "small": -1e15}},
        {"revision": "r" * 255, "region": "日本", "zone": "\\\"'", "detail": "d" * 1024},
        {"instance_id": "i" * 255, "weight": 1, "repository": "a/b"},
    ]
    with envoy(workplace, [shared_registry.port], [service]) as found, _accepted(found, service):
        for number, fields in enumerate(odd, start=1):
            assert shared_registry.register(service, f"10.0.0.{number}:80", **fields).status_code == 200
        eventually(partial(_counts, found, service, len(odd)), within=5)


def test_an_emptied_service_is_emptied_in_envoy(shared_registry: Registry, workplace: Path, service: str) -> None:
    """When every endpoint has left on purpose Envoy ends with none."""
    shared_registry.register(service, "10.0.0.1:80")
    with envoy(workplace, [shared_registry.port], [service]) as found, _accepted(found, service):
        eventually(partial(_holds, found, service, {"10.0.0.1:80": "HEALTHY"}), within=3)
        shared_registry.client.delete(f"/v1/services/{service}/endpoints/10.0.0.1:80")
        eventually(partial(_holds, found, service, {}), within=6)


def test_envoy_keeps_its_endpoints_while_the_registry_is_away(database: str, workplace: Path, service: str) -> None:
    """Killed and started again, the registry causes no membership change at all."""
    with registry(database, workplace) as before:
        before.register(service, "10.0.0.1:80", ttl=600)
        with envoy(workplace, [before.port], [service], request_timeout="1s") as found, _accepted(found, service):
            eventually(partial(_holds, found, service, {"10.0.0.1:80": "HEALTHY"}), within=3)
            changes = found.counter(service, "membership_change")
            before.process.send_signal(signal.SIGKILL)
            before.process.wait(5)
            eventually(lambda: found.counter(service, "update_failure") >= 2, within=10)
            assert found.hosts(service) == {"10.0.0.1:80": "HEALTHY"}
            with registry(database, workplace, listen=f"127.0.0.1:{before.port}"):
                attempts = found.counter(service, "update_attempt")
                eventually(lambda: found.counter(service, "update_attempt") >= attempts + 3, within=10)
                assert found.hosts(service) == {"10.0.0.1:80": "HEALTHY"}
                assert found.counter(service, "membership_change") == changes


def test_two_replicas_never_contradict_each_other(database: str, workplace: Path, service: str) -> None:
    """An Envoy that asks two processes in turn sees each change once and never an older state."""
    with registry(database, workplace) as first, registry(database, workplace) as second:
        first.register(service, "10.0.0.1:80")
        eventually(lambda: bool(second.statuses(service)), within=2)
        ports = [first.port, second.port]
        with (
            envoy(workplace, ports, [service], refresh_delay="0.02s", request_timeout="0.4s") as found,
            _accepted(found, service),
        ):
            eventually(partial(_counts, found, service, 1), within=3)
            changes = found.counter(service, "membership_change")
            for number in range(2, 22):
                (first, second)[number % 2].register(service, f"10.0.0.{number}:80")
                eventually(partial(_counts, found, service, number), within=3, every=0.005)
            assert found.counter(service, "membership_change") == changes + 20
            end(second.process)
            first.register(service, "10.0.0.99:80")
            eventually(partial(_counts, found, service, 22), within=5)


def test_what_envoy_sends_is_cut_and_not_parsed(workplace: Path, service: str) -> None:
    """The reader's short way fits what a real Envoy writes, first poll and later ones."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        bodies: list[bytes] = []
        answering = threading.Thread(target=_answer_twice, args=(listener, service, bodies))
        answering.start()
        with envoy(workplace, [listener.getsockname()[1]], [service], wait=False):
            answering.join(15)
    first, second = bodies
    assert len(first) > 50_000
    assert (
        poll.read_ends(RestPath(ENDPOINTS, "v3"), first)
        == poll.parse(RestPath(ENDPOINTS, "v3"), first)
        == ((service,), "")
    )
    assert (
        poll.read_ends(RestPath(ENDPOINTS, "v3"), second)
        == poll.parse(RestPath(ENDPOINTS, "v3"), second)
        == ((service,), "5f0c1a9e:7")
    )


def _answer_twice(listener: socket.socket, service: str, bodies: list[bytes]) -> None:
    listener.settimeout(15)
    connection, _ = listener.accept()
    with connection:
        stream = connection.makefile("rb")
        for _ in range(2):
            length = 0
            while (line := stream.readline().strip()) != b"":
                name, _, value = line.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            bodies.append(stream.read(length))
            answer = b'{"version_info":"5f0c1a9e:7","resources":[]}'
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(answer), answer))


def test_a_management_cluster_with_a_dotted_name_is_served(
    shared_registry: Registry, workplace: Path, service: str
) -> None:
    """Envoy sends that name as Host in polls and in checks of /livez; it is no browser, so any name is right."""
    shared_registry.register(service, "10.0.0.1:80")
    name = "registry.mesh.internal"
    with (
        envoy(workplace, [shared_registry.port], [service], management=name, livez=True) as found,
        _accepted(found, service),
    ):
        eventually(partial(_holds, found, service, {"10.0.0.1:80": "HEALTHY"}))
        eventually(lambda: found.counter(name, "health_check.success") > 0)
        assert found.counter(name, "health_check.failure") == 0
        assert found.counter(name, "upstream_rq_4xx") == 0
