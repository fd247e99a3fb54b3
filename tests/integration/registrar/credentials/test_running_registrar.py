"""A running registrar with a credential: its requests, its files, what it shows, and what it never shows."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import httpx
import msgspec
from harness.fake_app import FakeApp
from harness.fake_registry import FakeRegistry
from harness.link import FakeKeys
from harness.prometheus import promtool
from integration.registrar.credentials.logging_in import logging_in
from integration.registrar.processes import admin, environment, registrar, run_verb, until
from prometheus_client.parser import text_string_to_metric_families

from registrar.admin.metrics_text import METRICS
from wire.envoy_token import SDS_FILE, TOKEN_FILE
from wire.problem import Problem

# What may be nowhere but in requests and in Envoy's file.
SECRETS = ("hcs_registrar", "hcs_envoy", "s3cret-key", "s3cret-session", "s3cret-authorization")


def running(registry: FakeRegistry, app: FakeApp, agent: FakeKeys, tmp_path: Path, **more: str) -> dict[str, str]:
    """Return the environment of a registrar that logs in, and that shows on a socket what it does."""
    return logging_in(
        registry,
        app,
        agent,
        tmp_path,
        REGISTRAR_ADMIN_LISTEN=f"unix:{tmp_path}/admin.sock",
        REGISTRAR_DRAIN_WAIT="200ms",
        REGISTRAR_ON_SIGTERM="drain",
        **more,
    )


async def status_of(client: httpx.AsyncClient) -> dict[str, Any]:
    """Return the status document."""
    document: dict[str, Any] = (await client.get("/status")).json()
    return document


async def test_a_registrar_that_logs_in(registry: FakeRegistry, app: FakeApp, agent: FakeKeys, tmp_path: Path) -> None:
    """Its first heartbeat has the session, Envoy's token is in its file, a revoked session is replaced in a drain."""
    environ = running(registry, app, agent, tmp_path)
    # Longer than the checks take.
    agent.latency = 1.0
    async with registrar(environ) as process, admin(environ["REGISTRAR_ADMIN_LISTEN"]) as client:
        await until(client, "/readyz", 200)
        await until(client, "/healthcheck", 200)
        assert len(registry.logins) == 1
        # Access control refused nothing: the first heartbeat waited for the login.
        assert len(registry.accepted) == len(registry.batches)
        assert (tmp_path / TOKEN_FILE).read_text() == "hcs_envoy-1"
        assert (tmp_path / SDS_FILE).exists()
        credential = (await status_of(client))["credential"]
        assert (credential["kind"], credential["failure"]) == ("aws", None)
        assert credential["principal"] == "aws:111122223333:shop-task-role/task-1"
        assert 3500 < credential["seconds_left"] <= 3600
        assert 3500 < credential["envoy"]["seconds_left"] <= 3600
        shown = [(await client.get(path)).text for path in ("/status", "/metrics", "/healthcheck", "/readyz")]
        for arguments in (("status",), ("status", "--json"), ("healthcheck",), ("validate",)):
            shown += (await run_verb(environ, *arguments))[1:]
        assert "login     aws: aws:111122223333:shop-task-role/task-1, ends in" in "".join(shown)
        assert 'registrar_logins_total{result="accepted"} 1' in "".join(shown)
        assert promtool("check", "metrics", text=shown[1]) == ""
        families = {family.name: family for family in text_string_to_metric_families(shown[1])}
        for metric in METRICS:
            if metric.name.startswith(("registrar_edge_", "registrar_traffic_")):
                continue  # this registrar has no edge, and no Envoy that it could ask
            family = families.pop(metric.name.removesuffix("_total"))
            assert {tuple(sample.labels) for sample in family.samples} == {metric.labels}
        registry.tokens.clear()
        agent.latency = 0.0
        process.terminate()
        async with asyncio.timeout(15):
            out, err = await process.communicate()
        assert process.returncode == 0
    assert registry.deregistrations
    assert any(beat.registration.draining for _, batch in registry.accepted for beat in batch.heartbeats)
    assert len(registry.logins) == 2
    shown += [out.decode(), err.decode()]
    events = [json.loads(line) for line in shown[-1].splitlines()]
    named = [event["event"] for event in events]
    assert (named.count("logged_in"), named.count("heartbeats_refused"), named.count("registry_away")) == (2, 1, 0)
    assert not [secret for secret in SECRETS if secret in "".join(shown)]


async def test_a_refused_login_changes_nothing_but_is_shown(
    registry: FakeRegistry, app: FakeApp, agent: FakeKeys, tmp_path: Path
) -> None:
    """An open registry goes on; health waits for Envoy's token; status, metrics and log have the registry's words."""
    registry.closed = False
    registry.refuse_login = Problem("Not allowed", 403, "no identity for the role shop-task-role")
    environ = running(registry, app, agent, tmp_path)
    async with registrar(environ) as process, admin(environ["REGISTRAR_ADMIN_LISTEN"]) as client:
        await until(client, "/readyz", 200)
        health = await client.get("/healthcheck")
        assert (health.status_code, "no identity for the role" in health.text) == (503, True)
        text = (await run_verb(environ, "status"))[1]
        assert "no session, so requests carry no credential" in text
        assert "refused: 403 Not allowed: no identity for the role shop-task-role" in text
        assert 'registrar_login_failing{failure="refused"} 1' in (await client.get("/metrics")).text
        registry.refuse_login = None
        await until(client, "/healthcheck", 200, 70)
        assert (tmp_path / TOKEN_FILE).read_text() == "hcs_envoy-1"
        process.terminate()
        async with asyncio.timeout(15):
            _, err = await process.communicate()
    events = [json.loads(line) for line in err.decode().splitlines()]
    assert len([event for event in events if event["event"] == "login_refused"]) == 1


async def test_a_token_that_is_rotated_while_it_drains(registry: FakeRegistry, app: FakeApp, tmp_path: Path) -> None:
    """The old token ends in the middle of a drain: the new one in the file is sent, and the drain ends well."""
    file = tmp_path / "registrar-token"
    file.write_text("hct_old\n")
    registry.tokens = {"hct_old"}
    environ = environment(
        registry,
        app,
        REGISTRAR_TOKEN_FILE=str(file),
        REGISTRAR_ADMIN_LISTEN=f"unix:{tmp_path}/admin.sock",
        REGISTRAR_ON_SIGTERM="drain",
        REGISTRAR_DRAIN_WAIT="500ms",
    )
    async with registrar(environ) as process, admin(environ["REGISTRAR_ADMIN_LISTEN"]) as client:
        await until(client, "/readyz", 200)
        assert (await status_of(client))["credential"]["kind"] == "token_file"
        process.terminate()
        await registry.until(lambda: registry.last.registration.draining)
        successor = tmp_path / "new"
        successor.write_text("hct_new\n")
        successor.replace(file)
        registry.tokens = {"hct_new"}
        async with asyncio.timeout(15):
            _, err = await process.communicate()
        assert process.returncode == 0
    assert registry.deregistrations
    assert registry.headers["authorization"] == "Bearer hct_new"
    assert "hct_" not in err.decode()


async def test_a_static_token_for_envoy(registry: FakeRegistry, app: FakeApp, tmp_path: Path) -> None:
    """Without a login the token of a setting, or of a file that changes, is written."""
    source = tmp_path / "source"
    source.write_text("hct_envoy-1\n")
    registry.closed = False
    directory = tmp_path / "run"
    directory.mkdir()
    environ = environment(
        registry,
        app,
        REGISTRAR_ENVOY_TOKEN_FILE=str(directory / TOKEN_FILE),
        REGISTRAR_ENVOY_TOKEN_SOURCE=str(source),
        REGISTRAR_ADMIN_LISTEN=f"unix:{tmp_path}/admin.sock",
    )
    async with registrar(environ), admin(environ["REGISTRAR_ADMIN_LISTEN"]) as client:
        await until(client, "/healthcheck", 200)
        assert (directory / TOKEN_FILE).read_text() == "hct_envoy-1"
        source.write_text("hct_envoy-2\n")
        async with asyncio.timeout(10):
            while (directory / TOKEN_FILE).read_text() != "hct_envoy-2":
                await asyncio.sleep(0.05)
        assert "hct_" not in (await client.get("/status")).text


async def test_no_room_for_envoys_token_stops_no_heartbeat(
    registry: FakeRegistry, app: FakeApp, agent: FakeKeys, tmp_path: Path
) -> None:
    """A directory that is missing is named by status and log; the endpoint is registered all the same."""
    environ = running(registry, app, agent, tmp_path)
    environ["REGISTRAR_ENVOY_TOKEN_FILE"] = str(tmp_path / "missing" / TOKEN_FILE)
    async with registrar(environ), admin(environ["REGISTRAR_ADMIN_LISTEN"]) as client:
        await until(client, "/readyz", 200)
        health = await client.get("/healthcheck")
        assert (health.status_code, health.text) == (
            503,
            "registered; Envoy has no token: No such file or directory\n",
        )
        sent = len(registry.accepted)
        await registry.until(lambda: len(registry.accepted) > sent + 2)
        (tmp_path / "missing").mkdir()
        await until(client, "/healthcheck", 200)


def test_the_app_of_exec_gets_no_token() -> None:
    """Neither the registrar's nor Envoy's is passed on."""
    from registrar.environment import app_environment, check_environment

    environ = {"PATH": os.defpath, "REGISTRAR_TOKEN": "a", "REGISTRAR_ENVOY_TOKEN": "b"}
    assert app_environment(environ) == {"PATH": os.defpath}
    assert check_environment(environ, ["REGISTRAR_ENVOY_TOKEN"]) == {"PATH": os.defpath}


def test_no_status_document_lacks_the_credential() -> None:
    """A document of the version before has none, and is read all the same."""
    from registrar.admin.status import RegistrarStatus

    document = {
        "instance_id": "i",
        "seconds_up": 1,
        "healthy": True,
        "ready": True,
        "drain": "serving",
        "registry": {"url": "u", "away": None, "seconds_since_acknowledged": 1, "sent": 1, "failed": 0},
        "reloads": {"applied": 0, "rejected": 0, "fault": None},
        "endpoints": [],
    }
    assert msgspec.convert(document, RegistrarStatus).credential.kind == "none"
