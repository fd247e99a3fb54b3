"""Write the recommended Envoy bootstrap wherever it is shown: `python deploy/envoy/generate.py`; --check compares.

src/wire/envoy_bootstrap.py has the text itself; here is who, where and for which service in each place.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from wire.envoy_bootstrap import Address, Node, Registries, Service, bootstrap

ROOT = Path(__file__).parents[2]
_PAGES = (ROOT / "docs" / "quickstart.md",)
_COMPOSE = ROOT / "deploy" / "compose" / "envoy.yaml"
_TASK = ROOT / "deploy" / "ecs" / "task-definition.json"
_BLOCK = re.compile(r"(?<=```yaml\n)(?:(?!```).)*?static_resources:.*?(?=```)", re.DOTALL)
_SAID = (
    "# The Envoy of docker-compose.yml: port 10000 leads to the service `shop`. Written by deploy/envoy/generate.py.\n"
)


def of_pages() -> str:
    """Return the bootstrap for a registry on the same machine."""
    return bootstrap(
        Node("my-envoy", "web", "r1", "a"),
        Address("127.0.0.1", 9901),
        Registries([Address("127.0.0.1", 8080)]),
        [Service("shop", Address("127.0.0.1", 10000))],
    )


def of_compose() -> str:
    """Return the bootstrap for the containers of docker-compose.yml, which publishes its ports on loopback."""
    return _SAID + bootstrap(
        Node("compose", "compose", "local", "z1"),
        Address("0.0.0.0", 9901),  # noqa: S104  # in a container, whose ports are published on loopback
        Registries([Address("registry-1", 8080), Address("registry-2", 8080)], by_name=True),
        [Service("shop", Address("0.0.0.0", 10000))],  # noqa: S104  # as above
    )


def of_task() -> str:
    """Return the bootstrap for an ECS task whose app calls the service `payments`, as one line of JSON."""
    text = bootstrap(
        Node("shop", "shop", "eu-west-1"),
        Address("127.0.0.1", 9901),
        Registries([Address("registry.internal", 8080)], by_name=True),
        [Service("payments", Address("127.0.0.1", 10000))],
    )
    return json.dumps(yaml.safe_load(text), separators=(",", ":"))


def files() -> dict[Path, str]:
    """Return the text of each file that shows a bootstrap."""
    written = {page: _BLOCK.sub(lambda _: of_pages(), page.read_text()) for page in _PAGES}
    return written | {_COMPOSE: of_compose(), _TASK: _task_definition()}


def _task_definition() -> str:
    """Return the task definition with the bootstrap as the argument behind --config-yaml."""
    text = _TASK.read_text()
    document: dict[str, Any] = json.loads(text)
    (envoy,) = [one for one in document["containerDefinitions"] if one["name"] == "envoy"]
    place = envoy["command"].index("--config-yaml") + 1
    return text.replace(json.dumps(envoy["command"][place]), json.dumps(of_task()))


def main(arguments: list[str]) -> int:
    """Write the files, or compare them; return the exit status."""
    drifted = {path: text for path, text in files().items() if path.read_text() != text}
    for path, text in drifted.items():
        if arguments == ["--check"]:
            print(f"{path} shows another bootstrap; run `make docs` and commit the file", file=sys.stderr)
        else:
            path.write_text(text)
            print(f"wrote {path}")
    return bool(drifted) if arguments == ["--check"] else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
