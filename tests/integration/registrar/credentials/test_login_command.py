"""`registrar login`: the step before an Envoy starts."""

import json
from pathlib import Path

import pytest
from harness.fake_app import FakeApp
from harness.fake_registry import FakeRegistry
from harness.link import FakeKeys
from integration.registrar.credentials.logging_in import logging_in
from integration.registrar.processes import environment, run_verb

from registrar.commands import login
from registrar.config.configuration import load_settings
from wire.envoy_token import SDS_FILE, TOKEN_FILE


async def test_it_writes_the_token_of_a_login_and_registers_nothing(
    registry: FakeRegistry, app: FakeApp, agent: FakeKeys, tmp_path: Path
) -> None:
    """The token of Envoy's own session, with its SDS document; no secret is printed."""
    status, out, err = await run_verb(logging_in(registry, app, agent, tmp_path), "login")
    assert status == 0, err
    assert (tmp_path / TOKEN_FILE).read_text().startswith("hcs_envoy")
    assert json.loads((tmp_path / SDS_FILE).read_text())
    assert registry.batches == []
    assert not any(secret in out + err for secret in ("hcs_", "s3cret"))


async def test_it_writes_a_static_token(registry: FakeRegistry, app: FakeApp, tmp_path: Path) -> None:
    """Where no login is used the token comes from its source, and no registry is asked."""
    source = tmp_path / "source"
    source.write_text("hct_static\n")
    environ = environment(registry, app) | {
        "REGISTRAR_ENVOY_TOKEN_FILE": str(tmp_path / TOKEN_FILE),
        "REGISTRAR_ENVOY_TOKEN_SOURCE": str(source),
        "REGISTRAR_INSTANCE_ID": "task-1",
    }
    status, _, err = await run_verb(environ, "login")
    assert status == 0, err
    assert (tmp_path / TOKEN_FILE).read_text() == "hct_static"


async def test_it_needs_a_file(registry: FakeRegistry, app: FakeApp) -> None:
    """Without one it has nothing to do, and says which variable is missing."""
    status, _, err = await run_verb(environment(registry, app) | {"REGISTRAR_INSTANCE_ID": "task-1"}, "login")
    assert status == 2
    assert "REGISTRAR_ENVOY_TOKEN_FILE: not set" in err


async def test_a_login_that_is_impossible_does_not_keep_envoy_from_starting(
    registry: FakeRegistry, app: FakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives up in time, says why, and leaves an SDS document and an empty token, without which Envoy exits."""
    monkeypatch.setattr(login, "LOGIN_TIMEOUT", 1.0)
    for name, value in {"AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": "eu-central-1"}.items():
        monkeypatch.setenv(name, value)
    environ = environment(registry, app) | {
        "REGISTRAR_LOGIN": "aws",
        "REGISTRAR_LOGIN_AUDIENCE": "headcount-tests",
        "REGISTRAR_ENVOY_TOKEN_FILE": str(tmp_path / TOKEN_FILE),
        "REGISTRAR_INSTANCE_ID": "task-1",
    }
    missing = await login.write_envoy_token(load_settings({}, environ))
    assert "keys" in missing
    assert (tmp_path / SDS_FILE).exists()
    assert (tmp_path / TOKEN_FILE).read_bytes() == b""
