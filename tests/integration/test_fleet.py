"""Many registrars on one machine and one registry."""

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.process import eventually, running
from harness.registry import Registry

FLEET = 200
# Every registrar is a process of its own, with its own interpreter; forked from one that has done the imports,
# because 200 starts of Python would measure Python.
LAUNCHER = """
import os, signal, sys, time
import anyio._backends._asyncio
import registrar.commands.run
from registrar.cli import main
children = []
for number, port in enumerate(sys.argv[1:]):
    child = os.fork()
    if child == 0:
        os.environ["REGISTRAR_ENDPOINT"] = f"127.0.0.1:{port}"
        os.environ["REGISTRAR_INSTANCE_ID"] = f"i-{number}"
        os._exit(main(["run"]))
    children.append(child)
    time.sleep(0.08)
def stop(*_):
    for child in children:
        os.kill(child, signal.SIGTERM)
signal.signal(signal.SIGTERM, stop)
sys.exit(max(os.waitpid(child, 0)[1] for child in children) and 1)
"""


@contextlib.contextmanager
def _ports(count: int) -> Iterator[list[int]]:
    """Listen on so many ports; a tcp check needs nobody who accepts."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64)) for _ in range(count)]
        yield [one.getsockname()[1] for one in found]


@pytest.mark.proof
def test_a_fleet_of_200_heartbeats_without_an_error(shared_registry: Registry, tmp_path: Path, service: str) -> None:
    """200 processes register, beat for two intervals and stop: no warning in any log, no endpoint lost."""
    log = tmp_path / "fleet.log"
    env = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRAR_")}
    env |= {
        "REGISTRAR_REGISTRY_URL": shared_registry.url,
        "REGISTRAR_SERVICE": service,
        "REGISTRAR_ADMIN_LISTEN": "off",
        "REGISTRAR_CHECK_INTERVAL": "2s",
    }
    with _ports(FLEET) as ports:
        command = [sys.executable, "-c", LAUNCHER, *map(str, ports)]
        with running(command, env=env, log=log) as launcher:
            expected = {f"127.0.0.1:{port}": "HEALTHY" for port in ports}
            eventually(
                lambda: shared_registry.statuses(service) == expected,
                within=40,
                every=0.5,
                said=lambda: f"{len(shared_registry.statuses(service))} of {FLEET}; {log.read_text()[-1000:]}",
            )
            time.sleep(11)
            assert shared_registry.statuses(service) == expected
            launcher.send_signal(signal.SIGTERM)
            assert launcher.wait(15) == 0
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert [event for event in events if event["level"] not in ("info", "debug")] == []
    assert sum(event["event"] == "endpoint_published" for event in events) == FLEET
