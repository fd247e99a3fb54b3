"""Registries behind a real nginx, with the configuration of deploy/nginx."""

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness.nginx import binary, deployed, nginx
from harness.no_tls import NO_TLS
from harness.postgres import Postgres
from harness.process import eventually, free_port
from harness.registry import Registry, registry

pytestmark = pytest.mark.skipif(binary() is None, reason="nginx is not installed (apt install nginx-light)")


class Proxied:
    """Two registries and the address of the nginx in front of them."""

    def __init__(self, registries: Sequence[Registry], port: int) -> None:
        self.registries = registries
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx.Client(base_url=self.url, timeout=30, trust_env=False, verify=NO_TLS)

    def poll(self, service: str, version: str = "", hold: float = 0.0) -> httpx.Response:
        """Ask as an Envoy does, which waits this long."""
        body: dict[str, Any] = {"node": {"id": "t", "cluster": "t"}, "resource_names": [service]}
        headers = {"x-envoy-expected-rq-timeout-ms": str(int(hold * 1000))} if hold else {}
        return self.client.post("/v3/discovery:endpoints", json=body | {"version_info": version}, headers=headers)


@pytest.fixture
def proxied(server: Postgres, tmp_path: Path) -> Iterator[Proxied]:
    """Two registries on one database, behind nginx."""
    database = server.migrated_database()
    with ExitStack() as stack:
        registries = [stack.enter_context(registry(database, tmp_path)) for _ in range(2)]
        port = free_port()
        stack.enter_context(nginx(deployed([each.port for each in registries], port), tmp_path / "nginx"))
        proxied = Proxied(registries, port)
        stack.callback(proxied.client.close)
        yield proxied


def test_polls_are_held_and_the_origin_is_kept(proxied: Proxied) -> None:
    """A held poll is answered by a change, and a page of the registry's own may write: its Host is unchanged."""
    path = "/v1/services/shop/endpoints/10.0.0.1:80"
    assert proxied.client.put(path, json={"instance_id": "i-1", "incarnation": 1}).status_code == 200
    # Of both registries, which are asked in turn.
    eventually(lambda: all("10.0.0.1" in proxied.poll("shop").text for _ in range(4)), within=20)
    version = proxied.poll("shop").json()["version_info"]
    with ThreadPoolExecutor() as pool:
        held = pool.submit(proxied.poll, "shop", version, 20)
        asked = [each.client.get("/v1/state") for each in proxied.registries]
        assert [state.status_code for state in asked] == [200, 200]
        drained = proxied.client.post(f"{path}/drain", headers={"origin": proxied.url})
        assert drained.status_code == 200, drained.text
        assert "DRAINING" in held.result(30).text


@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.proof)])
def test_no_poll_and_no_heartbeat_fails_when_a_registry_ends(proxied: Proxied, number: signal.Signals) -> None:
    """Held polls, polls and heartbeats go to the other registry, whichever way the first one ends."""
    ended = threading.Event()
    statuses: list[int] = []

    def send(instance: int) -> None:
        registration = {"instance_id": f"i-{instance}", "incarnation": 1}
        heartbeat = {"service": "shop", "endpoint": f"10.0.0.{instance}:80", "registration": registration}
        while not ended.is_set():
            sent = proxied.client.post("/v1/heartbeats", json={"heartbeats": [heartbeat]})
            polled = proxied.poll("shop", hold=1.0 if instance == 1 else 0.0)
            statuses.extend((sent.status_code, polled.status_code))
            time.sleep(0.02)

    first = proxied.registries[0]
    with ThreadPoolExecutor() as pool:
        senders = [pool.submit(send, instance) for instance in (1, 2, 3)]
        try:
            eventually(lambda: len(statuses) > 20, within=30)
            first.process.send_signal(number)
            first.process.wait(30)
            # The other one answers from here on.
            reached = len(statuses)
            eventually(lambda: len(statuses) > reached + 20, within=30)
        finally:
            ended.set()
        for sender in senders:
            sender.result(30)
    assert set(statuses) <= {200, 304}
