"""Credentials for tests: the first token of a registry, and tokens that it makes."""

import os
from collections.abc import Mapping
from typing import Any

from harness.preloaded import run_registry
from harness.registry import Registry


def first_token(database_url: str, name: str = "admin") -> str:
    """Return an administrator's token, made as an operator makes the first one."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("REGISTRY_")}
    words = ["token", "create", "--admin", "--name", name]
    made = run_registry(*words, env=env | {"REGISTRY_DATABASE_URL": database_url})
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def secret_of(token: str) -> str:
    """Return the secret of a token, in which an underscore may be: its end alone could be as short as nothing."""
    _prefix, _token_id, secret = token.split("_", 2)
    return secret


def bearer(token: str) -> dict[str, str]:
    """Return the headers that a client with a token sends."""
    return {"authorization": f"Bearer {token}"}


def new_token(registry: Registry, admin: str, name: str, *grants: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
    """Return a new token of the registry, with its text."""
    answer = registry.client.post(
        "/v1/tokens", json={"name": name, "grants": list(grants)} | fields, headers=bearer(admin)
    )
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    return created
