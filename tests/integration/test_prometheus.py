"""Service discovery for Prometheus, tried with a real one."""

import contextlib
import http.server
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from harness.process import eventually, free_port
from harness.prometheus import prometheus
from harness.registry import Registry, forked_registry, registry


@contextlib.contextmanager
def scraped(text: str) -> Iterator[int]:
    """Serve metrics, as an app does at a port of its own."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def targets(found: Registry, **query: Any) -> dict[str, dict[str, str]]:
    """Return the labels of each target, without what they all begin with."""
    groups = found.client.get("/v1/prometheus/targets", params=query).json()
    return {
        group["targets"][0]: {name.removeprefix("__meta_headcount_"): value for name, value in group["labels"].items()}
        for group in groups
    }


@pytest.mark.slow
def test_a_real_prometheus_scrapes_what_is_registered(database: str, workplace: Path, service: str) -> None:
    """It finds the app's metrics port, keeps the labels, follows changes, and loses no target while we are away."""
    with scraped("# TYPE orders_total counter\norders_total 7\n") as port, contextlib.ExitStack() as stack:
        listen = f"127.0.0.1:{free_port()}"
        found = stack.enter_context(registry(database, workplace, listen=listen, removal_delay="0s"))
        endpoint = f"127.0.0.1:{free_port()}"
        told = {"metadata": {"metrics_port": str(port)}, "zone": "za", "ttl": 600}
        found.register(service, endpoint, **told)
        found.register(service, "127.0.0.1:1", ttl=600)
        discovery = {"url": f"{found.url}/v1/prometheus/targets?port=metrics_port", "refresh_interval": "1s"}
        job = {
            "job_name": "apps",
            "scrape_interval": "1s",
            "http_sd_configs": [discovery],
            "relabel_configs": [
                {"source_labels": ["__meta_headcount_service"], "target_label": "service"},
                {"source_labels": ["__meta_headcount_zone"], "target_label": "zone"},
            ],
        }
        seen = stack.enter_context(prometheus(workplace, yaml.safe_dump({"scrape_configs": [job]})))
        eventually(lambda: seen.query("orders_total") != [], within=20)
        (result,) = seen.query("orders_total")
        assert result["value"][1] == "7"
        labels = {name: result["metric"][name] for name in ("service", "zone", "instance")}
        assert labels == {"service": service, "zone": "za", "instance": f"127.0.0.1:{port}"}
        assert [one["health"] for one in seen.targets()] == ["up"]
        found.register(f"{service}-2", "127.0.0.1:2", metadata={"metrics_port": 9}, ttl=600)
        eventually(lambda: len(seen.targets()) == 2, within=10)
        found.process.terminate()
        found.process.wait(20)
        eventually(lambda: seen.failed_refreshes() >= 3, within=20)
        assert len(seen.targets()) == 2


def test_the_port_is_the_one_that_the_metadata_names(shared_registry: Registry, service: str) -> None:
    """A text or a number; who names none, or what is no port, is left out."""
    for number, metadata in enumerate(
        [{"metrics_port": "9102"}, {"metrics_port": 9103}, {}, {"metrics_port": "x"}, {"metrics_port": 70000}]
    ):
        shared_registry.register(service, f"10.0.0.{number}:80", metadata=metadata)
    assert list(targets(shared_registry, service=service, port="metrics_port")) == ["10.0.0.0:9102", "10.0.0.1:9103"]
    assert len(targets(shared_registry, service=service)) == 5
    shared_registry.register(service, "[2001:db8::5]:80", metadata={"metrics_port": 1})
    assert "[2001:db8::5]:1" in targets(shared_registry, service=service, port="metrics_port")


def test_labels_say_what_is_known(shared_registry: Registry, service: str) -> None:
    """Everything that one may want to relabel by, metadata in names that Prometheus takes."""
    metadata = {"stage": "blue", "team/name": "a", "shards": 3, "warm": True, "nested": {"a": 1}, "none": None}
    shared_registry.register(
        service, "10.0.0.1:80", zone="za", region="r", revision="7", canary=True, metadata=metadata
    )
    assert targets(shared_registry, service=service)["10.0.0.1:80"] == {
        "service": service,
        "endpoint": "10.0.0.1:80",
        "status": "HEALTHY",
        "region": "r",
        "zone": "za",
        "revision": "7",
        "instance_id": "i-10.0.0.1:80",
        "canary": "true",
        "metadata_stage": "blue",
        "metadata_team_name": "a",
        "metadata_shards": "3",
        "metadata_warm": "true",
    }


@pytest.mark.parametrize("query", ["", "?service=shop", "?port=metrics_port"])
def test_without_a_state_it_is_503_and_never_empty(query: str, never_ready: Registry) -> None:
    """An empty list would drop every target; an error keeps them."""
    assert never_ready.client.get(f"/v1/prometheus/targets{query}").status_code == 503


@pytest.fixture(scope="module")
def never_ready(workplace: Path) -> Iterator[Registry]:
    """A registry whose PostgreSQL never answers."""
    listen = f"127.0.0.1:{free_port()}"
    env = {
        **os.environ,
        "REGISTRY_DATABASE_URL": f"postgresql://nobody@127.0.0.1:{free_port()}/nothing",
        "REGISTRY_LISTEN": listen,
        "REGISTRY_DATA_DIR": str(workplace / "never-ready"),
    }
    log = workplace / "never-ready.log"
    with forked_registry(env, log) as process:
        found = Registry(f"http://{listen}", process, log)
        with contextlib.closing(found.client):
            eventually(lambda: answers(found), within=30, said=lambda: log.read_text()[-2000:])
            yield found


def answers(found: Registry) -> bool:
    """Tell whether it takes requests, ready or not."""
    try:
        return found.client.get("/livez").status_code == 200
    except httpx.TransportError:
        return False
