"""The parent of workers, over workers that do nothing: how it paces itself, and what it says."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

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


def test_a_log_that_nobody_reads_any_more_ends_no_worker(tmp_path: Path) -> None:
    """As where a pipe's reader was killed: the parent goes on, and its pauses do not grow for ever."""
    with subprocess.Popen(["true"], stdin=subprocess.PIPE) as reader:
        reader.wait()
        assert reader.stdin is not None
        assert run(tmp_path, 0.2, STARTS + 1, reader.stdin.fileno()).returncode == 0
