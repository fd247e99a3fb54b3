"""`registry serve` as a process: workers, signals, settings, the embedded PostgreSQL."""

import contextlib
import fcntl
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest
from harness.postgres import Postgres
from harness.preloaded import run_registry
from harness.process import Child, end, eventually, free_port, running, script
from harness.registry import Registry, forked_registry, registry

from registry.worker_metrics import VARIABLE as METRICS_DIRECTORY
from registry.worker_metrics import settled

_UNNEEDED = {
    "alembic",
    "google.protobuf",
    "h2",
    "httpx",
    "meshconfig.definition",
    "pydantic.v1.main",
    "pygments",
    "rich.console",
    "yaml",
}
"""Modules that a start would wait for in vain: they serve a feature that is off here, a command, or the compiler."""
_IMPORTED = re.compile(r"^import time: +\d+ \| +\d+ \| +(\S+)$", re.MULTILINE)
"""A line of Python's own account of imports."""


def test_workers_share_the_address_and_end_together(database: str, workplace: Path, service: str) -> None:
    """REGISTRY_WORKERS=2 runs two processes; both answer, a dead one is replaced, SIGTERM ends all.

    One is replaced beside another that was stopped in the middle of a scrape, too. None of them imports what it does
    not need.
    """
    with registry(database, workplace, workers=2, env={"PYTHONPROFILEIMPORTTIME": "1"}) as found:
        parent = psutil.Process(found.process.pid)
        eventually(lambda: len(_servers(parent)) == 2, within=10)
        found.register(service, "10.0.0.1:80")
        eventually(lambda: _answering(found, service) == {200}, within=5)
        victim = _servers(parent)[0]
        with settled(Path(parent.environ()[METRICS_DIRECTORY])):
            victim.kill()
            eventually(lambda: len(_servers(parent)) == 2 and victim not in _servers(parent), within=15)
        assert "worker_metrics_not_added_up" in found.log.read_text()
        _assert_locked(parent)
        # What is of its own is a bare Python, and not what it has imported to fork the first workers.
        assert parent.memory_full_info().uss < 20e6
        assert f'"pid": {victim.pid}' in found.log.read_text()
        # By the parent that was forked, and by the worker that was started anew.
        eventually(lambda: _imported(found).count("registry.server") == 2, within=30)
        assert _UNNEEDED & set(_imported(found)) == set()
        children = parent.children(recursive=True)
        assert end(found.process) == 0
        eventually(lambda: not any(child.is_running() for child in children), within=5)


def _assert_locked(parent: psutil.Process) -> None:
    """Assert that the supervisor, a program of its own, holds the lock by which systemd-tmpfiles spares old files."""
    directory = parent.environ()[METRICS_DIRECTORY]
    assert directory in [str(link.readlink()) for link in Path(f"/proc/{parent.pid}/fd").iterdir()]
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(descriptor)


def _imported(found: Registry) -> list[str]:
    """Return the modules that its processes have imported, in order."""
    return _IMPORTED.findall(found.log.read_text())


def test_workers_of_a_killed_parent_end(database: str, workplace: Path) -> None:
    """They are forks, whose requests have ids of their own each; without a parent they give the address back."""
    with registry(database, workplace, workers=2) as found:
        parent = psutil.Process(found.process.pid)
        eventually(lambda: len(_servers(parent)) == 2, within=10)
        ids = set[str]()

        def both_answered() -> bool:
            with _another_connection(found) as asking:
                ids.add(asking.client.get("/v1/services").headers["x-request-id"].partition("-")[0])
            return len(ids) == 2

        eventually(both_answered, within=10)
        workers = _servers(parent)
        parent.kill()
        eventually(lambda: not any(worker.is_running() for worker in workers), within=10)


@pytest.mark.parametrize("workers", [1, 2])
def test_systemd_is_told_by_the_main_process(database: str, workplace: Path, tmp_path: Path, workers: int) -> None:
    """READY once it serves, WATCHDOG while it does, then STOPPING, each from the process that systemd started.

    Of others it takes no word.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        manager.settimeout(60)
        manager.bind(path := str(tmp_path / "notify"))
        env = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1500000"}
        with registry(database, workplace, workers=workers, env=env) as found:
            told = [_told(manager)]
            while told.count(("WATCHDOG=1", found.process.pid)) < 4:
                told.append(_told(manager))
        manager.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                told.append(_told(manager))
    # Of two workers each says that it serves.
    assert {sender for _, sender in told} == {found.process.pid}
    texts = [text for text, _ in told if text != "WATCHDOG=1"]
    assert set(texts) == {"READY=1", "STOPPING=1"}
    assert texts[0] == "READY=1"


def _told(manager: socket.socket) -> tuple[str, int]:
    """Return a notification and the process that sent it."""
    text, ((_, _, sender), *_), *_ = manager.recvmsg(64, 64)
    return text.decode(), int.from_bytes(sender[:4], sys.byteorder)


def test_metrics_count_all_workers(database: str, workplace: Path, service: str) -> None:
    """/metrics sums over the workers, whichever answers; with their directory gone it is 503, and says so."""
    with registry(database, workplace, workers=2) as found:
        eventually(lambda: _answering(found, service) == {200}, within=10)
        before = _polls(found)
        for _ in range(30):
            # A connection each, so that both processes get some.
            with _another_connection(found) as asking:
                asking.poll(service)
        assert _polls(found) - before == 30
        shutil.rmtree(psutil.Process(found.process.pid).environ()[METRICS_DIRECTORY])
        gone = found.client.get("/metrics")
        assert gone.status_code == 503
        assert "metrics of the workers cannot be read" in gone.text


def test_sigterm_answers_held_polls_and_exits(database: str, workplace: Path, service: str) -> None:
    """A stopping process answers the polls that it holds with 304, finishes, and exits 0."""
    with registry(database, workplace, fresh=True) as found:
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
    with registry(database, workplace, fresh=True) as found:
        for number in range(20):
            assert found.register(service, f"10.0.0.{number + 1}:80").status_code == 200
        found.process.kill()
        found.process.wait(5)
    with registry(database, workplace, fresh=True) as after:
        assert len(after.statuses(service)) == 20


def test_wrong_settings_are_named(workplace: Path) -> None:
    """Each wrong variable is named with what was expected, and the exit status is 2."""
    env = os.environ | {
        "REGISTRY_LISTEN": "nowhere",
        "REGISTRY_LEASE_TTL": "soon",
        "REGISTRY_WORKERS": "0",
    }
    told = run_registry("serve", env=env)
    assert told.returncode == 2
    assert "REGISTRY_LISTEN" in told.stderr
    assert "'soon' is not a duration; write it like 5s" in told.stderr
    assert "REGISTRY_WORKERS" in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize("host", ["a..b", ".", "a" * 64])
def test_a_name_that_cannot_be_in_dns_is_told(database: str, host: str) -> None:
    """Python refuses such a name itself, by another error than a resolver's."""
    env = os.environ | {"REGISTRY_LISTEN": f"{host}:8080", "REGISTRY_DATABASE_URL": database}
    told = run_registry("serve", env=env)
    assert told.returncode == 2
    assert f"{host!r} is no host name" in told.stderr
    assert "Traceback" not in told.stderr


def test_a_taken_address_is_told(database: str, workplace: Path) -> None:
    """An address that another program listens on ends the start with a message; what is not needed is not imported."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        env = os.environ | {
            "REGISTRY_LISTEN": f"127.0.0.1:{taken.getsockname()[1]}",
            "REGISTRY_DATABASE_URL": database,
            "PYTHONPROFILEIMPORTTIME": "1",
        }
        told = subprocess.run(
            [*script("registry"), "serve"], env=env, capture_output=True, text=True, timeout=120, check=False
        )
    assert told.returncode == 2
    assert "Address already in use" in told.stderr
    imported = set(re.findall(r"^import time:.*\| +([\w.]+)$", told.stderr, re.MULTILINE))
    assert "registry.server" in imported
    assert not imported & {"httpx", "rich.console", "pygments", "yaml"}
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
    parts = shared_registry.client.get("/readyz?verbose").json()["parts"]
    assert {part["name"]: part["ok"] for part in parts} == dict.fromkeys(
        ("snapshot", "postgresql", "sweeper", "heartbeats"), True
    )
    # A PostgreSQL that froze a moment ago still seems well: the age of its last answer says how sure that is.
    (postgresql,) = (part["detail"] for part in parts if part["name"] == "postgresql")
    assert re.fullmatch(r"answered \d+\.\d s ago", postgresql)
    assert shared_registry.client.get("/livez").text == "ok\n"
    assert shared_registry.client.get("/version").json()["name"] == "headcount"


def test_docs_ask_nothing_of_the_internet(shared_registry: Registry) -> None:
    """/docs loads its script and style from this process alone."""
    page = shared_registry.client.get("/docs").text
    links = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert links
    for link in links:
        assert link.startswith("/ui/static/")
        assert shared_registry.client.get(link).status_code == 200
    assert "http://" not in page
    assert "https://" not in page


def _servers(parent: psutil.Process) -> list[psutil.Process]:
    return [child for child in parent.children() if _is_worker(child)]


def _is_worker(child: psutil.Process) -> bool:
    # It may end while it is looked at, as what adds up metrics soon does.
    with contextlib.suppress(psutil.NoSuchProcess):
        return child.status() != "zombie" and {"serve", "worker"} & set(child.cmdline()) != set()
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
    told = run_registry("migrate", env=env)
    assert told.returncode == 2
    assert "PostgreSQL is away" in told.stderr
    assert "Traceback" not in told.stderr


def _env(database_url: str, **settings: object) -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
    told = {f"REGISTRY_{name.upper()}": str(value) for name, value in settings.items()}
    return env | {"REGISTRY_DATABASE_URL": database_url, "REGISTRY_LISTEN": f"127.0.0.1:{free_port()}"} | told


def test_sigterm_at_any_moment_of_the_start_ends_everything(database: str, tmp_path: Path) -> None:
    """While workers are started a signal may meet one that cannot hear it yet; it is told again until it is gone."""
    chance = random.Random(4)
    marker = f"headcount-{uuid.uuid4().hex}"
    env = _env(database, workers=3, environment=marker, data_dir=tmp_path)
    migrated = run_registry("migrate", env=env)
    assert migrated.returncode == 0
    log = tmp_path / "registry.log"
    for attempt in range(6):
        with running([*script("registry"), "serve"], env=env, log=log) as process:
            if attempt % 2:
                # The worst moment: a worker has begun to take signals, and does nothing with them yet.
                eventually(partial(_has_deaf_worker, process.pid), within=60, every=0.002, said=log.read_text)
                time.sleep(chance.uniform(0, 0.05))
            else:
                time.sleep(chance.uniform(0.2, 3.5))
            process.send_signal(signal.SIGTERM)
            status = _ended(process)
            try:
                eventually(lambda: not _marked(marker), within=5, said=lambda: _commands(marker))
            finally:
                for stray in _marked(marker):
                    stray.kill()
            # Before it has any handler the signal itself ends it.
            assert status in (0, -signal.SIGTERM), (attempt, log.read_text()[-2000:])


def _has_deaf_worker(pid: int) -> bool:
    with contextlib.suppress(OSError):
        # Read directly: psutil looks at every process of the machine, and would take half of a core from the workers.
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if b"\0serve\0" not in Path(f"/proc/{child}/cmdline").read_bytes():
                continue
            (caught,) = re.findall(r"SigCgt:\s*(\w+)", Path(f"/proc/{child}/status").read_text())
            if int(caught, 16) & 1 << (signal.SIGTERM - 1):
                return True
    return False


def _commands(marker: str) -> str:
    return "; ".join(" ".join(process.cmdline()) for process in _marked(marker))


def _ended(process: Child) -> int | None:
    """Return the exit status, or None if it does not end."""
    try:
        return process.wait(30)
    except subprocess.TimeoutExpired:
        return None


def _marked(marker: str) -> list[psutil.Process]:
    """Return the processes that were started with this in their environment and still run."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("REGISTRY_ENVIRONMENT") == marker and process.status() != "zombie":
                found.append(process)
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_a_terminal_that_closes_ends_it_in_order(database: str, workplace: Path, service: str, workers: int) -> None:
    """SIGHUP is as good as SIGTERM: held polls are answered, every process ends, the status is 0."""
    with registry(database, workplace, workers=workers) as found:
        found.register(service, "10.0.0.1:80")
        children = psutil.Process(found.process.pid).children(recursive=True)
        with ThreadPoolExecutor() as pool:
            version = found.poll(service).json()["version_info"]
            held = pool.submit(found.poll, service, version=version, hold=30)
            time.sleep(0.5)
            found.process.send_signal(signal.SIGHUP)
            assert found.process.wait(20) == 0
            assert held.result(10).status_code == 304
        eventually(lambda: not any(child.is_running() for child in children), within=5)


def test_a_terminal_that_closes_ends_the_embedded_postgresql(tmp_path: Path) -> None:
    """A server that outlived its registry would keep the data directory from the next one."""
    port = free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
    env |= {"REGISTRY_LISTEN": f"127.0.0.1:{port}", "REGISTRY_DATA_DIR": str(tmp_path / "data")}
    log = tmp_path / "registry.log"
    with forked_registry(env, log) as process:
        found = Registry(f"http://127.0.0.1:{port}", process, log)
        with contextlib.closing(found.client):
            eventually(found.ready, within=60, said=log.read_text)
        process.send_signal(signal.SIGHUP)
        assert process.wait(30) == 0
    assert _postgres_under(tmp_path) == []


@pytest.mark.parametrize("verb", ["serve", "migrate"])
def test_a_malformed_url_is_told_without_its_password(tmp_path: Path, verb: str) -> None:
    """Exit status 2 and what to mend, in a line; no traceback, and no part of the URL, which is a secret."""
    log = tmp_path / "registry.log"
    env = _env("postgresql://u:hunter2@db:none/h", data_dir=tmp_path)
    with forked_registry(env, log, verb) as process:
        status = _ended(process)
    said = log.read_text()
    assert "hunter2" not in said
    assert "Traceback" not in said
    assert (status, "REGISTRY_DATABASE_URL" in said) == (2, True), said


def test_without_migrations_an_empty_database_says_what_to_run(
    empty_database: str, workplace: Path, service: str
) -> None:
    """REGISTRY_MIGRATE=false: the process is not ready, its log names the command, and after it all goes on."""
    env = _env(empty_database, migrate="false", data_dir=workplace / service)
    log = workplace / f"unmigrated-{service}.log"
    with forked_registry(env, log) as process:
        found = Registry(f"http://{env['REGISTRY_LISTEN']}", process, log)
        with contextlib.closing(found.client):
            eventually(lambda: "registry migrate" in log.read_text(), within=30, said=log.read_text)
            assert found.client.get("/readyz").status_code == 503
            assert found.register(service, "10.0.0.1:80").status_code == 503
            done = run_registry("migrate", env=env)
            assert done.returncode == 0
            eventually(found.ready, within=30, said=log.read_text)
            eventually(lambda: found.register(service, "10.0.0.1:80").status_code == 200, within=10)
        assert "Traceback" not in log.read_text()


def test_polls_that_hang_up_are_let_go(database: str, workplace: Path, service: str) -> None:
    """A subscriber that is gone costs nothing: neither its place among the held, nor memory, nor a traceback."""
    with registry(database, workplace) as found:
        found.register(service, "10.0.0.1:80", ttl=600)
        version = found.poll(service).json()["version_info"]
        asked = json.dumps({"version_info": version, "node": {"id": "x" * 70_000}, "resource_names": [service]})
        head = (
            "POST /v3/discovery:endpoints HTTP/1.1\r\nhost: test\r\nx-envoy-expected-rq-timeout-ms: 50000\r\n"
            f"content-type: application/json\r\ncontent-length: {len(asked)}\r\n\r\n"
        )
        before = psutil.Process(found.process.pid).memory_info().rss
        with contextlib.ExitStack() as stack:
            for _ in range(500):
                sock = stack.enter_context(socket.create_connection(("127.0.0.1", found.port)))
                sock.sendall((head + asked).encode())
            eventually(lambda: _held(found) == 500, within=20)
            grown = psutil.Process(found.process.pid).memory_info().rss - before
        eventually(lambda: _held(found) == 0, within=8)
        assert grown < 500 * 50_000, "their bodies were kept"
        found.register(service, "10.0.0.2:80", ttl=600)
        assert len(found.statuses(service)) == 2
        assert "Traceback" not in found.log.read_text()
        assert "defect" not in found.log.read_text()


def test_a_poll_that_hangs_up_takes_no_other_with_it(database: str, workplace: Path, service: str) -> None:
    """Who still waits for the same service is answered when it changes."""
    with registry(database, workplace) as found, ThreadPoolExecutor() as pool:
        found.register(service, "10.0.0.1:80")
        version = found.poll(service).json()["version_info"]
        waiting = pool.submit(found.poll, service, version=version, hold=20)
        eventually(lambda: _held(found) == 1, within=10)
        with _another_connection(found) as impatient, pytest.raises(httpx.ReadTimeout):
            impatient.client.post(
                "/v3/discovery:endpoints",
                json={"version_info": version, "resource_names": [service]},
                headers={"x-envoy-expected-rq-timeout-ms": "20000"},
                timeout=1,
            )
        eventually(lambda: _held(found) == 1, within=8)
        found.register(service, "10.0.0.2:80")
        assert waiting.result(10).status_code == 200


def _held(found: Registry) -> float:
    lines = found.client.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("registry_polls_held"))
