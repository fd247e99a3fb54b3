"""Envoy without a registry and a registrar: the Lua filter of docs/edge.md, at a static server."""

import functools
import http.server
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
import yaml
from harness.envoy import Envoy, binary
from harness.process import eventually, free_port, running
from harness.registry import Registry

from registry.background.publish_target import DirectoryTarget, object_name

pytestmark = pytest.mark.envoy

PAGE = Path(__file__).parents[2] / "docs" / "edge.md"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and keeps the requests."""

    requests: list[tuple[str, str, str]] = []  # noqa: RUF012  # of the one server of a test

    def do_GET(self) -> None:
        """Serve a file."""
        self.requests.append((self.command, self.path, self.headers.get("host", "")))
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        """Say nothing."""


@pytest.fixture
def static_port(tmp_path: Path) -> Iterator[int]:
    """The port of a static server of a directory."""
    (tmp_path / "served" / "prefix").mkdir(parents=True)
    _Quiet.requests.clear()
    handler = functools.partial(_Quiet, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield int(server.server_address[1])
        server.shutdown()
        thread.join()


def shown(port: int, admin: int, service: str) -> str:
    """Return the configuration of the page, for this server and service."""
    (text,) = re.findall(r"```yaml\n(static_resources:.*?)```", PAGE.read_text(), re.DOTALL)
    config = yaml.safe_load(text)
    published, shop = config["static_resources"]["clusters"]
    (endpoint,) = published["load_assignment"]["endpoints"][0]["lb_endpoints"]
    endpoint["endpoint"]["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": port}
    shop["name"] = service
    shop["eds_cluster_config"]["eds_config"]["api_config_source"]["refresh_delay"] = "0.5s"
    config["node"] = {"id": "alone", "cluster": "tests"}
    config["admin"] = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}}
    return str(yaml.safe_dump(config))


def test_an_envoy_reads_what_was_published(
    shared_registry: Registry, static_port: int, tmp_path: Path, service: str
) -> None:
    """It is live with all hosts, follows a new object, and keeps its hosts when there is none any more."""
    service = f"{service}:v2"
    target, name = DirectoryTarget(tmp_path / "served" / "prefix"), object_name(service)
    shared_registry.register(service, "10.0.0.1:80")
    target.put(name, shared_registry.poll(service).content)
    admin = free_port()
    config, log = tmp_path / "envoy.yaml", tmp_path / "envoy.log"
    config.write_text(shown(static_port, admin, service))
    command = [binary(), "-c", str(config), "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]
    with running(command, log=log) as process:
        envoy = Envoy(admin, 0, log)
        try:
            eventually(lambda: process.poll() is not None or envoy.live(), within=20, said=log.read_text)
            assert envoy.hosts(service) == {"10.0.0.1:80": "HEALTHY"}
            method, path, host = _Quiet.requests[0]
            assert (method, path, host) == ("GET", f"/prefix/{quote(service, safe='')}.json", "static.internal")
            shared_registry.register(service, "10.0.0.2:80")
            target.put(name, shared_registry.poll(service).content)
            eventually(lambda: len(envoy.hosts(service)) == 2, within=20)
            (tmp_path / "served" / "prefix" / name).unlink()
            eventually(lambda: envoy.counter(service.replace(":", "_"), "update_failure") > 0, within=20)
            assert len(envoy.hosts(service)) == 2
        finally:
            envoy.close()
