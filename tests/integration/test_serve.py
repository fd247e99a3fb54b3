"""`registry serve` as a process: workers, signals, settings, the embedded PostgreSQL."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from harness.postgres import Postgres
from harness.process import end, eventually, free_port, running, script
from harness.registry import Registry, registry


def test_workers_share_the_address_and_end_together(database: str, workplace: Path, service: str) -> None:
    """REGISTRY_WORKERS=2 runs two processes; both answer, a dead one is replaced, SIGTERM ends all."""
    with registry(database, workplace, workers=2) as found:
        parent = psutil.Process(found.process.pid)
        eventually(lambda: len(_servers(parent)) == 2, within=10)
        found.register(service, "10.0.0.1:80")
        eventually(lambda: _answering(found, service) == {200}, within=5)
        victim = _servers(parent)[0]
        victim.kill()
        eventually(lambda: len(_servers(parent)) == 2 and victim not in _servers(parent), within=15)
        children = parent.children(recursive=True)
        assert end(found.process) == 0
        eventually(lambda: not any(child.is_running() for child in children), within=5)


def test_metrics_count_all_workers(database: str, workplace: Path, service: str) -> None:
    """/metrics sums over the workers, whichever answers."""
    with registry(database, workplace, workers=2) as found:
        eventually(lambda: _answering(found, service) == {200}, within=10)
        before = _polls(found)
        for _ in range(30):
            # A connection each, so that both processes get some.
            with _another_connection(found) as asking:
                asking.poll(service)
        assert _polls(found) - before == 30


def test_sigterm_answers_held_polls_and_exits(database: str, workplace: Path, service: str) -> None:
    """A stopping process answers the polls that it holds with 304, finishes, and exits 0."""
    with registry(database, workplace) as found:
        found.register(service, "10.0.0.1:80")
        version = found.poll(service).json()["version_info"]
        statuses: list[int] = []
        waiting = threading.Thread(
            target=lambda: statuses.append(found.poll(service, version=version, hold=30).status_code)
        )
        waiting.start()
        time.sleep(0.5)
        started = time.monotonic()
        os.kill(found.process.pid, signal.SIGTERM)
        assert found.process.wait(15) == 0
        waiting.join(5)
        assert statuses == [304]
        assert time.monotonic() - started < 5


def test_acknowledged_writes_survive_sigkill(database: str, workplace: Path, service: str) -> None:
    """What was answered 200 is there after kill -9 at once."""
    with registry(database, workplace) as found:
        for number in range(20):
            assert found.register(service, f"10.0.0.{number + 1}:80").status_code == 200
        found.process.kill()
        found.process.wait(5)
    with registry(database, workplace) as after:
        assert len(after.statuses(service)) == 20


def test_wrong_settings_are_named(workplace: Path) -> None:
    """Each wrong variable is named with what was expected, and the exit status is 2."""
    env = os.environ | {
        "REGISTRY_LISTEN": "nowhere",
        "REGISTRY_LEASE_TTL": "soon",
        "REGISTRY_WORKERS": "0",
    }
    told = subprocess.run(
        [*script("registry"), "serve"], env=env, capture_output=True, text=True, timeout=30, check=False
    )
    assert told.returncode == 2
    assert "REGISTRY_LISTEN" in told.stderr
    assert "'soon' is no duration; write it like 5s" in told.stderr
    assert "REGISTRY_WORKERS" in told.stderr
    assert "Traceback" not in told.stderr


def test_a_taken_address_is_told(database: str, workplace: Path) -> None:
    """An address that another program listens on ends the start with a message, not a traceback."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        env = os.environ | {
            "REGISTRY_LISTEN": f"127.0.0.1:{taken.getsockname()[1]}",
            "REGISTRY_DATABASE_URL": database,
        }
        told = subprocess.run(
            [*script("registry"), "serve"], env=env, capture_output=True, text=True, timeout=30, check=False
        )
    assert told.returncode == 2
    assert "Address already in use" in told.stderr
    assert "Traceback" not in told.stderr


def test_the_embedded_postgresql_keeps_its_data_and_ends_with_the_registry(tmp_path: Path, service: str) -> None:
    """Without a database URL a real PostgreSQL runs under the data directory, and stops on SIGTERM."""
    port = free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
    env |= {"REGISTRY_LISTEN": f"127.0.0.1:{port}", "REGISTRY_DATA_DIR": str(tmp_path / "data")}
    log = tmp_path / "registry.log"
    for expected in (0, 1):
        with running([*script("registry"), "serve"], env=env, log=log) as process:
            found = Registry(f"http://127.0.0.1:{port}", process, log)
            eventually(found.ready, within=30, said=log.read_text)
            assert len(found.statuses(service)) == expected
            found.register(service, "10.0.0.1:80", ttl=600)
            found.client.close()
            assert end(process) == 0
        assert _postgres_under(tmp_path) == []


def test_ipv6_can_be_listened_on(database: str, workplace: Path, service: str) -> None:
    """REGISTRY_LISTEN takes an IPv6 address in brackets."""
    with registry(database, workplace, listen=f"[::1]:{free_port('::1')}") as found:
        found.register(service, "[2001:db8::5]:80")
        assert found.statuses(service) == {"2001:db8::5:80": "HEALTHY"}


def test_readyz_tells_of_each_part(shared_registry: Registry) -> None:
    """/readyz?verbose names the parts; /version and /livez answer without PostgreSQL."""
    parts = {part["name"]: part["ok"] for part in shared_registry.client.get("/readyz?verbose").json()["parts"]}
    assert parts == {"snapshot": True, "postgresql": True, "sweeper": True}
    assert shared_registry.client.get("/livez").text == "ok\n"
    assert shared_registry.client.get("/version").json()["name"] == "headcount"


def test_docs_ask_nothing_of_the_internet(shared_registry: Registry) -> None:
    """/docs loads its script and style from this process alone."""
    import re

    page = shared_registry.client.get("/docs").text
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert links
    for link in links:
        assert link.startswith("/ui/static/")
        assert shared_registry.client.get(link).status_code == 200
    assert "http://" not in page
    assert "https://" not in page


def _servers(parent: psutil.Process) -> list[psutil.Process]:
    return [child for child in parent.children() if child.status() != "zombie" and _is_worker(child)]


def _is_worker(child: psutil.Process) -> bool:
    try:
        return "spawn_main" in " ".join(child.cmdline())
    except psutil.Error:
        return False


@contextlib.contextmanager
def _another_connection(found: Registry) -> Iterator[Registry]:
    another = Registry(found.url, found.process, found.log)
    with contextlib.closing(another.client):
        yield another


def _polls(found: Registry) -> float:
    lines = found.client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("registry_polls_total{"))


def _answering(found: Registry, service: str) -> set[int]:
    statuses = set()
    for _ in range(10):
        with _another_connection(found) as asking:
            statuses.add(asking.poll(service).status_code)
    return statuses


def _postgres_under(directory: Path) -> list[int]:
    return [
        process.pid
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] == "postgres" and str(directory) in " ".join(process.info["cmdline"] or [])
    ]


def test_a_database_that_is_away_at_the_start_is_told(server: Postgres) -> None:
    """When the schema cannot be brought up, the program says what is away and exits 2."""
    env = os.environ | {"REGISTRY_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"}
    told = subprocess.run(
        [*script("registry"), "migrate"], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert told.returncode == 2
    assert "PostgreSQL is away" in told.stderr
    assert "Traceback" not in told.stderr
