"""The command line, as processes."""

import asyncio
import json
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from harness.fake_app import FakeApp
from harness.fake_registry import FakeRegistry
from harness.link import FakeTask
from integration.registrar.processes import environment, run_verb

from registrar.cli import main
from wire.model import Health, Report

BANNED = ("fastapi", "sqlalchemy", "grpc", "boto3", "botocore", "pydantic", "typer", "yaml", "asyncpg")
# Runs the command line and then tells which of the packages that it must not need were loaded.
PROBE = f"""
import json, sys
from registrar.cli import main
status = main()
print(json.dumps(sorted(set(sys.modules) & set({BANNED!r}))))
sys.exit(status)
"""


@asynccontextmanager
async def sidecar(environ: dict[str, str]) -> AsyncIterator[Process]:
    """Run ``registrar run`` and end it whatever happens."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROBE, "run", env=environ, stdout=PIPE, stderr=PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ended(process: Process, limit: float = 5) -> tuple[int, list[str], list[dict[str, Any]]]:
    """Return the exit status, the banned modules that were loaded and the logged events."""
    async with asyncio.timeout(limit):
        out, err = await process.communicate()
    assert process.returncode is not None
    events = [json.loads(line) for line in err.decode().splitlines()]
    return process.returncode, json.loads(out), events


async def test_keep_leaves_the_registration_and_exits_at_once(registry: FakeRegistry, app: FakeApp) -> None:
    """SIGTERM on a VM exits with 0, sends nothing to the registry, and no heavy module was imported."""
    async with sidecar(environment(registry, app)) as process:
        await registry.until(lambda: registry.batches, 10)
        process.terminate()
        status, banned, events = await ended(process, 2)
    assert (status, banned, registry.deregistrations) == (0, [], [])
    assert not any(beat.registration.draining for beat in registry.heartbeats)
    names = [event["event"] for event in events]
    assert names.index("identified") < names.index("address_resolved") < names.index("health_changed")
    resolved = next(event for event in events if event["event"] == "address_resolved")
    assert (resolved["source"], resolved["endpoint"]) == ("configuration", f"127.0.0.1:{app.port}")


async def test_a_task_that_is_not_known_yet_sends_nothing_and_says_so(registry: FakeRegistry, app: FakeApp) -> None:
    """An ECS agent that does not answer is waited for, under no other name."""
    ecs = {"ECS_CONTAINER_METADATA_URI_V4": "http://127.0.0.1:9/v4/x"}
    async with sidecar(environment(registry, app, **ecs)) as process:
        assert process.stderr is not None
        async with asyncio.timeout(10):
            waiting = json.loads(await process.stderr.readline())
        assert (waiting["event"], waiting["at_most"]) == ("waiting_for_the_task", 120)
        process.terminate()
        status, _, events = await ended(process)
    assert (status, events, registry.batches) == (0, [], [])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_drain_in_an_ecs_task(registry: FakeRegistry, app: FakeApp, number: int) -> None:
    """In a task both signals drain, wait, deregister and exit with 0, and each transition is logged."""
    with FakeTask("tmds-v4-fargate-awsvpc-task") as task:
        environ = environment(registry, app, **task.variables)
        async with sidecar(environ) as process:
            await registry.until(lambda: registry.batches, 10)
            await registry.until(lambda: len(registry.batches) > 2)
            process.send_signal(number)
            status, _, events = await ended(process)
    assert status == 0
    assert registry.last.registration.draining
    assert len(registry.deregistrations) == 1
    published = [event["status"] for event in events if event["event"] == "endpoint_published"]
    assert published == [Health.HEALTHY, Health.DRAINING]
    assert [event["event"] for event in events][-1] == "endpoint_deregistered"


async def test_a_second_signal_does_not_wait(registry: FakeRegistry, app: FakeApp) -> None:
    """A second signal ends the wait for the drain."""
    registry.drain_wait = 60
    async with sidecar(environment(registry, app, REGISTRAR_ON_SIGTERM="drain")) as process:
        await registry.until(lambda: registry.batches, 10)
        process.terminate()
        await registry.until(lambda: registry.last.registration.draining)
        process.terminate()
        status, _, _ = await ended(process, 2)
    assert (status, registry.deregistrations) == (0, [])


async def test_a_stop_without_a_registry_ends_before_its_deadline(registry: FakeRegistry, app: FakeApp) -> None:
    """Fault 8: three seconds in front of the stop timeout the registrar is gone, with 0."""
    environ = environment(registry, app, REGISTRAR_ON_SIGTERM="drain", REGISTRAR_STOP_TIMEOUT="3500ms")
    async with sidecar(environ) as process:
        await registry.until(lambda: registry.batches, 10)
        await registry.until(lambda: len(registry.batches) >= 2)
        registry.silent = True
        process.terminate()
        status, _, events = await ended(process, 2)
    assert status == 0
    assert events[-1]["event"] == "drain_timed_out"


async def test_an_app_that_dies_is_reported(registry: FakeRegistry, app: FakeApp) -> None:
    """Fault 1: a frozen app is UNHEALTHY after three checks, with the reason."""
    async with sidecar(environment(registry, app)) as process:
        await registry.until(lambda: registry.batches, 10)
        app.answer = None
        await registry.until(lambda: registry.last.registration.health is Report.UNHEALTHY, 2)
        process.terminate()
        await ended(process)
    assert registry.last.registration.detail == "no answer within 0.05s"


async def test_systemd_hears_of_start_and_stop(registry: FakeRegistry, app: FakeApp, tmp_path: Path) -> None:
    """READY=1 does not wait for the registry, and STOPPING=1 begins the stop."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(path)
        channel.settimeout(5)
        environ = environment(registry, app, NOTIFY_SOCKET=path, REGISTRAR_REGISTRY_URL="http://127.0.0.1:9")
        async with sidecar(environ) as process:
            assert await asyncio.to_thread(channel.recv, 64) == b"READY=1"
            process.terminate()
            assert await asyncio.to_thread(channel.recv, 64) == b"STOPPING=1"
            status, _, _ = await ended(process)
    assert status == 0


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set the registrar's variables to exactly these."""
    for name in list(os.environ):
        if name.startswith("REGISTRAR_"):
            monkeypatch.delenv(name)

    def put(**variables: str) -> None:
        for name, text in variables.items():
            monkeypatch.setenv(f"REGISTRAR_{name}", text)

    return put


def test_validate_prints_the_effective_settings(clean: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    """Flags win over the environment, and the defaults are shown."""
    clean(REGISTRY_URL="http://r:1", SERVICE="shop", ENDPOINT=":80", WEIGHT="3")
    assert main(["validate", "--weight", "4", "--check-http-path", "/up"]) == 0
    shown = json.loads(capsys.readouterr().out)
    (service,) = shown["services"]
    assert (service["weight"], service["checks"][0]["path"], service["checks"][0]["interval"]) == (
        4,
        "/up",
        "2s",
    )
    assert (shown["on_sigterm"], shown["stop_timeout"]) == ("keep", "30s")


@pytest.mark.parametrize("verb", ["run", "validate"])
def test_a_bad_configuration_exits_with_2(
    clean: Callable[..., None], capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    """Each fault is a line on stderr."""
    clean(SERVICE="shop", ENDPOINT="80", ZOEN="x")
    assert main([verb]) == 2
    said = capsys.readouterr()
    assert (said.out, [line.split(": ")[1] for line in said.err.splitlines()]) == (
        "", ["REGISTRAR_ZOEN", "REGISTRAR_ENDPOINT"],
    )  # fmt: skip


async def test_an_address_that_must_not_be_advertised_exits_with_2(registry: FakeRegistry, app: FakeApp) -> None:
    """An interface with loopback addresses only is a fault of the configuration."""
    environ = environment(registry, app, REGISTRAR_ENDPOINT="iface:lo:80")
    async with sidecar(environ) as process, asyncio.timeout(10):
        _, err = await process.communicate()
    assert process.returncode == 2
    assert b"registrar: address refused: 127.0.0.1 is loopback" in err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """--version prints the distribution's version."""
    with pytest.raises(SystemExit) as raised:
        main(["--version"])
    assert raised.value.code == 0
    assert capsys.readouterr().out == f"registrar {metadata.version('headcount')}\n"


def test_flags_are_not_abbreviated(clean: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    """A prefix that is unique today is not tomorrow."""
    with pytest.raises(SystemExit) as raised:
        main(["validate", "--weig", "4"])
    assert raised.value.code == 2
    assert "--weig" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["run", "validate", "doctor"])
async def test_a_name_from_the_task_follows_the_registrys_rule(registry: FakeRegistry, app: FakeApp, verb: str) -> None:
    """ECS allows names that begin with _ or -, the registry does not: every verb says so."""
    with FakeTask("tmds-v4-fargate-awsvpc-task") as task:
        task.task["ServiceName"] = "_shop-1"
        environ = environment(registry, app, **task.variables)
        del environ["REGISTRAR_SERVICE"]
        status, out, err = await run_verb(environ, verb)
        assert status in (1, 2)
        assert "the registry refuses the task's ServiceName '_shop-1'" in out + err
        task.task["ServiceName"] = "shop-1"
        assert verb == "run" or (await run_verb(environ, verb))[0] == 0


LATIN = {"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


@pytest.mark.parametrize("locale", [LATIN, {"LC_ALL": "C.UTF-8"}], ids=["ascii", "utf-8"])
async def test_text_is_utf_8_in_every_locale(
    registry: FakeRegistry, app: FakeApp, tmp_path: Path, locale: dict[str, str]
) -> None:
    """Files, variables, flags and what is printed."""
    text = "Zürich ☃"
    path = tmp_path / "shop.yaml"
    path.write_text(f"services: [{{service: shop, endpoint: ':8080', metadata: {{city: {text}}}}}]\n", "utf-8")
    environ = environment(registry, app, REGISTRAR_ZONE=text, REGISTRAR_CONFIG=str(path), **locale)
    status, out, err = await run_verb(environ, "validate", "--region", text)
    assert (status, err) == (0, "")
    said = json.loads(out)
    assert (said["zone"], said["region"], said["services"][0]["metadata"]["city"]) == (text, text, text)


@pytest.mark.parametrize(
    ("url", "told_of"),
    [("http://registry.invalid:9", True), ("http://127.0.0.1:9", False), ("https://registry.invalid:9", False)],
)
async def test_a_token_in_plain_text_is_warned_of_once(
    registry: FakeRegistry, app: FakeApp, url: str, told_of: bool
) -> None:
    """At the start, without the token."""
    environ = environment(registry, app, REGISTRAR_REGISTRY_URL=url, REGISTRAR_TOKEN="s3cret")
    async with sidecar(environ) as process:
        assert process.stderr is not None
        events: list[dict[str, Any]] = []
        async with asyncio.timeout(10):
            while not events or events[-1]["event"] != "address_resolved":
                events.append(json.loads(await process.stderr.readline()))
        process.terminate()
        await ended(process)
    assert [event["event"] for event in events].count("token_in_plain_text") == told_of
    assert "s3cret" not in json.dumps(events)
