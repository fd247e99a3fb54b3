"""A mesh configuration to look at: a first revision, another one, and Envoys of which one refuses it."""

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Self

import httpx
from browser.visit import HOSTILE
from harness.no_tls import NO_TLS
from harness.process import eventually
from harness.registry import Registry

WEB = """service: web
provides: {protocol: http1, defaults: {timeout: 3s}}
dependencies:
- service: user
  retry: {attempts: 3, per_try_timeout: 1s}
  routes:
  - {path: /ping, timeout: 100ms, retry: null}
  - {prefix: /}
"""
CART = """- service: cart
  timeout: 2s
"""
FILES = {
    "mesh.yaml": "environment: production\ndefaults:\n  connect_timeout: 500ms\n",
    "services/web.yaml": WEB,
    "services/user.yaml": "service: user\n",
    "services/cart.yaml": "service: cart\ndependencies:\n- service: user\n",
}
_MARKUP = HOSTILE.partition(" {{")[0]
"""Of the hostile words what YAML takes, and a value of a header."""
CHANGED_FILES = {**FILES, "services/web.yaml": WEB + CART}
HOSTILE_FILES = {
    **FILES,
    "services/web.yaml": WEB + CART + f"  headers:\n    add:\n      x-note: {json.dumps(_MARKUP)}\n",
    "services/cart.yaml": f"# {_MARKUP}\n" + FILES["services/cart.yaml"],
}


@contextmanager
def rolling_out(target: Registry, changed: Mapping[str, str]) -> Iterator[None]:
    """Apply a first revision and another one, which waits because an Envoy refuses it."""
    _apply(target, FILES, "web calls user")
    with MeshEnvoys(target.url):
        eventually(lambda: len(_current(target)) == 2, within=20)
        _apply(target, changed, f"web calls cart {_MARKUP}" if changed is HOSTILE_FILES else "web calls cart")
        eventually(lambda: "refused" in {each["state"] for each in _rollouts(target)}, within=20)
        yield


def _apply(target: Registry, files: Mapping[str, str], reason: str) -> None:
    document = {"files": files, "reason": reason, "commit": "5f0c1a9e77d1", "unproven": True}
    answer = target.client.post("/v1/mesh/revisions", json=document, headers={"x-actor": "ann"})
    assert answer.status_code == 201, answer.text


def _rollouts(target: Registry) -> list[dict[str, Any]]:
    rollouts: list[dict[str, Any]] = target.client.get("/v1/mesh/rollout").json()["rollouts"]
    return rollouts


def _current(target: Registry) -> list[str]:
    """Return the Envoys that show what they are served, by the page of their service."""
    return re.findall(r"</svg>current</span>", target.client.get("/ui/mesh/services/web").text)


class MeshEnvoys(threading.Thread):
    """Envoys of web: one that takes everything, and one that takes the first answer alone.

    Args:
        url: the registry.
    """

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._over = threading.Event()
        self._held: dict[tuple[str, str], str] = {}

    def run(self) -> None:
        """Poll until told to end."""
        with httpx.Client(base_url=self._url, timeout=10, trust_env=False, verify=NO_TLS) as client:
            while not self._over.wait(0.2):
                for kind in ("clusters", "routes"):
                    self._poll(client, kind, "web/task-1", takes=True)
                    self._poll(client, kind, "web/task-2", takes=False)

    def _poll(self, client: httpx.Client, kind: str, node: str, *, takes: bool) -> None:
        held = self._held.get((kind, node), "")
        names = {"resource_names": ["default"]} if kind == "routes" else {}
        version = {"version_info": held} if held else {}
        build = {"version": {"major_number": 1, "minor_number": 40, "patch": 0}}
        about = {"id": node, "cluster": "web", "user_agent_build_version": build}
        answer = client.post(f"/v3/discovery:{kind}", json={**version, **names, "node": about})
        if answer.status_code == 200 and (takes or not held):
            self._held[kind, node] = str(answer.json()["version_info"])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self.join(10)
