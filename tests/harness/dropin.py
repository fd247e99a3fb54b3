"""The clients of the two registries that ours replaces, as they speak."""

import json
from typing import Any

import httpx

from harness.registry import Registry

TAGS = {"az": "zone-a", "region": "region-1", "instance_id": "i-1"}
"""What both registries ask for."""

FORM_TYPE = {"content-type": "application/x-www-form-urlencoded"}
"""What `curl -d` and Ruby's Net::HTTP send with any body."""


def post_raw(registry: Registry, service: str, body: bytes | str) -> httpx.Response:
    """Register with a body as it is."""
    return registry.client.post(f"/v1/registration/{service}", content=body, headers=FORM_TYPE)


def register_json(registry: Registry, service: str, **changes: Any) -> httpx.Response:
    """Register as a client of cookpad/sds."""
    body = {"ip": "10.0.0.1", "port": 80, "revision": "r1", "tags": TAGS | {"canary": False}} | changes
    return post_raw(registry, service, json.dumps(body))


def register_form(registry: Registry, service: str, **changes: Any) -> httpx.Response:
    """Register as a client of lyft/discovery; a field that is None is not sent."""
    form = {"ip": "10.0.0.1", "service_repo_name": "repo-1", "port": "80", "revision": "r1", "tags": TAGS} | changes
    if isinstance(form["tags"], dict):
        form["tags"] = json.dumps(form["tags"])
    sent = {name: value for name, value in form.items() if value is not None}
    return registry.client.post(f"/v1/registration/{service}", data=sent)


def hosts(registry: Registry, service: str) -> list[dict[str, Any]]:
    """Return the hosts of a service, as either client reads them."""
    answer = registry.client.get(f"/v1/registration/{service}")
    assert answer.status_code == 200, answer.text
    listed: list[dict[str, Any]] = answer.json()["hosts"]
    return listed


def tags(registry: Registry, service: str) -> dict[str, Any]:
    """Return the tags of the only host of a service."""
    (host,) = hosts(registry, service)
    listed: dict[str, Any] = host["tags"]
    return listed
