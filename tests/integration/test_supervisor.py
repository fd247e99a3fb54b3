"""The parent of workers: how it paces itself, what it says, and how it finds a worker that hangs."""

import contextlib
import itertools
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from harness.no_tls import NO_TLS
from harness.process import end, eventually, free_port, script
from harness.registry import Registry, registry

STARTS = 13
# Workers end at once, and from some start on they serve before that.
PROGRAM = f"""
import os, signal, sys, time
import prometheus_client.mmap_dict
from registry import supervisor
from registry.worker_watchdog import show_life

supervisor._RESTART_PAUSE, supervisor._LONGEST_PAUSE, supervisor._SIGNAL_INTERVAL = 0.1, float(sys.argv[2]), 0.01
(alive, own), (signs, living) = os.pipe(), os.pipe()
os.set_blocking(signs, False)
starts = []

def start():
    starts.append(time.monotonic())
    child = os.fork()
    if child == 0:
        if len(starts) >= int(sys.argv[3]):
            show_life(living, serves=True)
        os._exit(3)
    if len(starts) == {STARTS}:
        signal.raise_signal(signal.SIGTERM)
    return child

signal.pthread_sigmask(signal.SIG_BLOCK, supervisor.STOP_SIGNALS)
ends = dict(alive=alive, own=own, signs=signs, living=living)
supervised = supervisor.Supervised(1, [], sys.argv[1], **ends, timeout=30.0)
status = supervisor.Supervisor(supervised, start).run()
print(*starts)
sys.exit(status)
"""


# Workers count, serve and end at once, 200 of them.
MANY = """
import json, os, signal, sys
from pathlib import Path
import prometheus_client.mmap_dict
from prometheus_client.mmap_dict import mmap_key
from registry import supervisor
from registry.allocated_values import WorkerValues
from registry.worker_watchdog import show_life

supervisor._RESTART_PAUSE, supervisor._SIGNAL_INTERVAL = 0.0, 0.01
metrics, ends = Path(sys.argv[1]), dict(zip(("alive", "own", "signs", "living"), (*os.pipe(), *os.pipe())))
os.set_blocking(ends["signs"], False)
starts, seen = 0, []

def look():
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    seen.append((len(os.listdir("/proc/self/fd")), len(list(metrics.iterdir())), resident))

def start():
    global starts
    starts += 1
    if starts in (20, 201):
        look()
    if starts == 201:
        signal.raise_signal(signal.SIGTERM)
    child = os.fork()
    if child == 0:
        for kind in ("counter", "gauge_livesum"):
            values = WorkerValues(str(metrics / f"{kind}_{os.getpid()}.db"))
            values.write_value(mmap_key("a", "a_total", [], [], "A number."), 1.0, 0.0)
        supervisor.stack_file(metrics, os.getpid()).touch()
        show_life(ends["living"], serves=True)
        os._exit(0)
    return child

signal.pthread_sigmask(signal.SIG_BLOCK, supervisor.STOP_SIGNALS)
supervisor.Supervisor(supervisor.Supervised(1, [], str(metrics), **ends, timeout=30.0), start).run()
(counted,) = [v for k, v, _, _ in prometheus_client.mmap_dict.MmapedDict.read_all_values_from_file(
    str(metrics / "counter_ended.db")) if "a_total" in k]
print(json.dumps([seen, counted]))
"""


def run(directory: Path, longest: float, first_serving: int, stderr: int) -> subprocess.CompletedProcess[str]:
    """Run that program to its end."""
    command = [sys.executable, "-c", PROGRAM, str(directory), str(longest), str(first_serving)]
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, text=True, timeout=60, check=False)


def test_workers_that_end_at_once_are_started_less_and_less_often(tmp_path: Path) -> None:
    """Until one serves: otherwise this would take minutes. Each that ended is in the log, whatever replaces it."""
    told = run(tmp_path, 1000.0, 4, subprocess.PIPE)
    assert told.returncode == 0, told.stderr
    starts = [float(start) for start in told.stdout.split()]
    pauses = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert all(pause >= least for pause, least in zip(pauses, (0.1, 0.2, 0.4), strict=False)), pauses
    lines = [json.loads(line) for line in told.stderr.splitlines()]
    assert {(line["event"], line["exitcode"], line["level"]) for line in lines} == {("worker_died", 3, "error")}
    assert len(lines) == STARTS - 1
    assert all(line["timestamp"].endswith("Z") for line in lines)


@pytest.mark.proof
def test_two_hundred_replacements_leave_nothing_behind(tmp_path: Path) -> None:
    """Neither descriptors nor files nor memory of the parent grow, and what each worker counted is there once."""
    done = subprocess.run(
        [sys.executable, "-c", MANY, str(tmp_path)], capture_output=True, text=True, timeout=300, check=True
    )
    ((early, late), counted) = json.loads(done.stdout)
    assert late[:2] == early[:2]
    assert late[2] - early[2] < 1e6
    # The one that was started as the parent stopped is not added up any more.
    assert counted == 200.0


def test_a_log_that_nobody_reads_any_more_ends_no_worker(tmp_path: Path) -> None:
    """As where a pipe's reader was killed: the parent goes on, and its pauses do not grow for ever."""
    with subprocess.Popen(["true"], stdin=subprocess.PIPE) as reader:
        reader.wait()
        assert reader.stdin is not None
        assert run(tmp_path, 0.2, STARTS + 1, reader.stdin.fileno()).returncode == 0


# The event loop of a worker that gets this signal stands still, in Python.
HANGS = """
import signal, time

def stand_still(*_):
    time.sleep(3600)

signal.signal(signal.SIGUSR2, stand_still)
"""


def test_a_worker_that_hangs_is_replaced(database: str, tmp_path: Path, service: str) -> None:
    """The log tells where it hangs; a supervisor that was stopped itself kills nobody, and no stop waits for it."""
    (tmp_path / "sitecustomize.py").write_text(HANGS)
    env = {"PYTHONPATH": str(tmp_path)}
    with registry(database, tmp_path, workers=2, worker_timeout="5s", env=env) as found:
        parent = psutil.Process(found.process.pid)
        eventually(lambda: parent.name() == "registry", within=30)
        assert "registry serve" in parent.cmdline()
        hung, other = eventually_two(found)
        found.register(service, "10.0.0.1:80")
        hung.send_signal(signal.SIGUSR2)
        eventually(lambda: events(found.log, "worker_hung") != [], within=60, said=found.log.read_text)
        ((event),) = events(found.log, "worker_hung")
        assert event["pid"] == hung.pid
        assert "stand_still" in event["stack"]
        assert event["silent_for"] >= 5
        eventually(lambda: hung not in eventually_two(found), within=60)
        assert other in eventually_two(found)
        eventually(lambda: _ended(found) == {"died": 0.0, "hung": 1.0}, within=10)
        # Until the replacement has read the database it answers 503; whoever waited at the hung one is let go.
        eventually(lambda: {_asked_anew(found) for _ in range(8)} == {200}, within=30)
        os.kill(found.process.pid, signal.SIGSTOP)
        time.sleep(7)
        os.kill(found.process.pid, signal.SIGCONT)
        workers = eventually_two(found)
        workers[0].send_signal(signal.SIGSTOP)
        found.process.send_signal(signal.SIGTERM)
        assert found.process.wait(60) == 0
        # The one that was killed while the others stopped, and no other.
        assert [each["pid"] for each in events(found.log, "worker_hung")] == [hung.pid, workers[0].pid]
        assert not any(worker.is_running() for worker in workers)


def events(log: Path, name: str) -> list[dict[str, Any]]:
    """Return the events of that name in a log."""
    lines = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == name]


def eventually_two(found: Registry) -> list[psutil.Process]:
    """Wait for two workers that serve, and return them."""
    workers: list[psutil.Process] = []

    def both() -> bool:
        # A process that adds up metrics comes and goes.
        workers.clear()
        with contextlib.suppress(psutil.Error):
            workers.extend(child for child in psutil.Process(found.process.pid).children() if child.net_connections())
        return len(workers) == 2

    eventually(both, within=60, said=found.log.read_text)
    return list(workers)


def _asked_anew(found: Registry) -> int:
    """Return the status of a request by a connection of its own, which may reach either worker."""
    return httpx.get(f"{found.url}/v1/services", trust_env=False, verify=NO_TLS, timeout=10).status_code


def _ended(found: Registry) -> dict[str, float]:
    """Return the workers that ended, by reason."""
    text = found.client.get("/metrics").text
    return {
        reason: float(value)
        for reason, value in re.findall(r'^registry_workers_ended_total{reason="(.*)"} (.*)$', text, re.MULTILINE)
    }


def test_a_log_that_nobody_reads_stops_nothing(database: str, tmp_path: Path, service: str) -> None:
    """A pipe that is full from the beginning: registrations, a replacement and the end go on, and lines come later."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    filled = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            filled += os.write(write, b" " * 4_096)
    os.set_blocking(write, True)
    port = free_port()
    env = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")} | {
        "REGISTRY_DATABASE_URL": database,
        "REGISTRY_DATA_DIR": str(tmp_path),
        "REGISTRY_LISTEN": f"127.0.0.1:{port}",
        "REGISTRY_WORKERS": "2",
    }
    with subprocess.Popen([*script("registry"), "serve"], env=env, stderr=write) as process:
        os.close(write)
        found = Registry(f"http://127.0.0.1:{port}", process, tmp_path / "none")
        with contextlib.closing(found.client):
            try:
                eventually(found.ready, within=60)
                (tmp_path / "none").touch()
                killed, _ = eventually_two(found)
                assert found.register(service, "10.0.0.1:80").status_code == 200
                killed.kill()
                eventually(lambda: killed not in eventually_two(found), within=60)
                # More than the pipe holds, and less than is kept.
                os.read(read, filled)
                said = b""

                def is_told() -> bool:
                    nonlocal said
                    if select.select([read], [], [], 0)[0]:
                        said += os.read(read, 65_536)
                    # That of the killed one waited in its memory.
                    return b'"worker_died"' in said and said.count(b'"serving"') >= 2

                eventually(is_told, within=30)
            finally:
                assert end(process) == 0
                os.close(read)
