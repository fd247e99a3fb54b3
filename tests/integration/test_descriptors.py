"""File descriptors of a registry: how many it takes, who gets them, and what happens when they run out."""

import asyncio
import contextlib
import os
import re
import resource
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from harness.line import Line, poll
from harness.process import eventually, free_port, running, script
from harness.registry import Registry, registry
from harness.scarcity import Heard, beat, limited, pollers

from registry.descriptors import MAX_DESCRIPTORS, RESERVE, cap_held_polls, cap_streams, raised_descriptor_limit

SOFT = 1024


def soft_limit(pid: int) -> int:
    """Return the soft limit of descriptors of a process."""
    found = re.search(r"^Max open files +(\d+)", Path(f"/proc/{pid}/limits").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def raised() -> int:
    """Return what a process that is started here is to raise its limit to."""
    return min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], MAX_DESCRIPTORS)


def soft(count: int, program: list[str]) -> list[str]:
    """Return a command whose soft limit of descriptors is so low, as that of a login is."""
    return ["sh", "-c", f'ulimit -S -n {count} && exec "$@"', "limited", *program]


def serving(parent: psutil.Process, workers: int) -> list[psutil.Process]:
    """Return the processes that listen: the children of several workers, the process itself otherwise."""
    if workers == 1:
        return [parent]
    return [one for one in parent.children() if {"serve", "worker"} & {*one.cmdline()} and one.net_connections("tcp4")]


@pytest.mark.parametrize("workers", [1, 2])
def test_each_serving_process_raises_its_limit(database: str, workplace: Path, workers: int) -> None:
    """The soft limit of a login is a thousand; the hard limit, up to 65,536, is what a process uses."""
    with registry(database, workplace, workers=workers, program=soft(SOFT, script("registry"))) as found:
        parent = psutil.Process(found.process.pid)
        # It is ready as soon as one of them listens.
        eventually(lambda: len(serving(parent, workers)) == workers, within=20)
        assert [soft_limit(one.pid) for one in serving(parent, workers)] == [raised()] * workers


def test_the_embedded_postgresql_keeps_the_limit_of_before(tmp_path: Path) -> None:
    """What a registry starts gets the limit that the registry was started with."""
    port = free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
    env |= {"REGISTRY_LISTEN": f"127.0.0.1:{port}", "REGISTRY_DATA_DIR": str(tmp_path / "data")}
    log = tmp_path / "registry.log"
    with running(soft(SOFT, [*script("registry"), "serve"]), env=env, log=log) as process:
        found = Registry(f"http://127.0.0.1:{port}", process, log)
        with contextlib.closing(found.client):
            eventually(found.ready, within=60, said=log.read_text)
        assert soft_limit(process.pid) == raised()
        servers = [
            one.pid
            for one in psutil.process_iter(["name", "cmdline"])
            if one.info["name"] == "postgres" and str(tmp_path) in " ".join(one.info["cmdline"] or [])
        ]
        assert servers
        assert {soft_limit(pid) for pid in servers} == {SOFT}
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_a_program_that_is_started_after_the_block_has_the_limit_of_before() -> None:
    """The limit is raised for the length of the block alone."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT, before[1]))
    try:
        with raised_descriptor_limit() as limit:
            assert limit == resource.getrlimit(resource.RLIMIT_NOFILE)[0] == raised()
        told = subprocess.run(["sh", "-c", "ulimit -n"], capture_output=True, text=True, check=True)
        assert int(told.stdout) == SOFT
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.parametrize(
    ("wanted", "limit", "most"),
    [(10_000, 65_536, 10_000), (10_000, 1024, 768), (10_000, 256, 0), (10_000, 100, 0), (5, 1024, 5), (0, 1024, 0)],
)
def test_held_polls_leave_a_reserve(wanted: int, limit: int, most: int) -> None:
    """However few descriptors there are, 256 of them are not for held polls."""
    assert cap_held_polls(wanted, limit) == most


@pytest.mark.parametrize(
    ("wanted", "limit", "most"), [(10_000, 65_536, 10_000), (10_000, 1024, 768), (10_000, 200, 50), (5, 1024, 5)]
)
def test_streams_leave_a_reserve(wanted: int, limit: int, most: int) -> None:
    """However few descriptors there are, 256 of them are not for streams, or else three quarters."""
    assert cap_streams(wanted, limit) == most


def test_a_poll_beyond_the_reserve_is_answered_at_once(database: str, workplace: Path, service: str) -> None:
    """It is answered as one beyond REGISTRY_MAX_HELD_POLLS is, and the log says at the start how many are held."""
    few = RESERVE + 20
    with (
        registry(database, workplace, program=limited(few, script("registry"))) as found,
        contextlib.ExitStack() as stack,
    ):
        found.register(service, "10.0.0.1:80", ttl=600)
        version = found.poll(service).json()["version_info"]
        lines = [stack.enter_context(Line(found)) for _ in range(25)]
        for line in lines:
            line.send(poll(service, version=version, hold=20))
        eventually(lambda: "registry_polls_held 20.0" in found.client.get("/metrics").text, within=5)
        answered = 0
        for line in lines:
            line.socket.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                answered += line.answer()[0] == 304
        assert answered == 5
        assert '"max_held_polls": 20' in found.log.read_text()


def test_idle_connections_give_way(database: str, workplace: Path, service: str) -> None:
    """When every descriptor has a connection that nobody uses now, a heartbeat gets in within a second or two."""
    with (
        registry(database, workplace, program=limited(120, script("registry"))) as found,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(120):
            line = stack.enter_context(Line(found))
            line.send(b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n")
        heard = Heard()
        asyncio.run(beat(found.port, service, ["10.0.0.1:80"], 4, 3, heard))
        assert heard.failed_beats <= 1, heard
        assert heard.beats >= 2, heard
        told = found.log.read_text()
        assert "accepts_refused" in told
        assert "accepts_resumed" in told
        assert "PostgreSQL is away" not in told


def test_held_polls_give_way(database: str, workplace: Path, service: str) -> None:
    """Polls that are held already are answered, the oldest first, when descriptors become fewer while it runs."""
    with registry(database, workplace) as found:
        found.register(service, "10.0.0.1:80", ttl=600)
        version = found.poll(service).json()["version_info"]
        asyncio.run(_squeezed(found, service, version))
        events = found.client.get(f"/v1/events?service={service}").json()["events"]
        assert {event["kind"] for event in events} <= {"registered", "changed"}


async def _squeezed(found: Registry, service: str, version: str) -> None:
    heard = Heard()

    def held() -> bool:
        return "registry_polls_held 150.0" in found.client.get("/metrics").text

    async with pollers(found.port, service, version, 150, heard):
        await asyncio.to_thread(eventually, held)
        assert heard.polls == 0
        resource.prlimit(found.process.pid, resource.RLIMIT_NOFILE, (150, raised()))
        await beat(found.port, service, ["10.0.0.1:80"], 4, 3, heard)
    assert heard.failed_beats == 0, heard
    # Each beat needs one of them to go, and no more than that.
    assert 0 < heard.polls < 150


def test_the_state_tells_of_refused_connections(database: str, workplace: Path, service: str) -> None:
    """While no connection can be accepted, one that is open already hears why from /v1/state."""
    with registry(database, workplace) as found, Line(found) as line:
        line.send(b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n")
        assert line.answer()[0] == 200
        # Less than are open, so that not a single file can be opened.
        resource.prlimit(found.process.pid, resource.RLIMIT_NOFILE, (5, raised()))
        waiting = [Line(found) for _ in range(2)]
        time.sleep(0.5)
        line.send(b"GET /v1/state HTTP/1.1\r\nhost: test\r\n\r\n")
        state = line.answer()[2].decode()
        resource.prlimit(found.process.pid, resource.RLIMIT_NOFILE, (raised(), raised()))
        for one in waiting:
            one.send(b"GET /metrics HTTP/1.1\r\nhost: test\r\n\r\n")
            status, _, body = one.answer()
            assert status == 200
            one.socket.close()
        assert "Too many open files" in state
        refused = re.search(rb"registry_accepts_refused_total (\d+)", body)
        assert refused is not None
        assert int(refused[1]) > 0


@pytest.mark.parametrize(("workers", "needed"), [(1, 132), (2, 148)])
def test_a_limit_that_leaves_no_client_a_descriptor_is_told(database: str, workers: int, needed: int) -> None:
    """Otherwise it would accept nobody for ever, and credit leases for as long; workers have files of metrics."""
    env = os.environ | {
        "REGISTRY_DATABASE_URL": database,
        "REGISTRY_DATABASE_CONNECTIONS": "80",
        "REGISTRY_LISTEN": f"127.0.0.1:{free_port()}",
        "REGISTRY_WORKERS": str(workers),
    }
    command = ["sh", "-c", f'ulimit -n {needed - 1}; exec "$@"', "sh", *script("registry"), "serve"]
    told = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
    assert told.returncode == 2
    said = f"REGISTRY_DATABASE_CONNECTIONS=80 needs {needed} file descriptors, and this process may have {needed - 1}"
    assert said in told.stderr
    assert "Traceback" not in told.stderr
