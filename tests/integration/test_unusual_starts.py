"""Starts of a registry where the environment is unusual: it runs, or says in one sentence what to mend."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from harness.preloaded import run_registry
from harness.process import end, eventually, free_port, running, script
from harness.registry import Registry, forked_registry, registry


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: the socket of PostgreSQL lies in it."""
    with tempfile.TemporaryDirectory(prefix="hc-") as found:
        yield Path(found)


def environment(data_dir: Path, **more: str) -> dict[str, str]:
    """Return the environment of a registry with the embedded PostgreSQL on a port of its own."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
    return env | {"REGISTRY_LISTEN": f"127.0.0.1:{free_port()}", "REGISTRY_DATA_DIR": str(data_dir)} | more


@contextlib.contextmanager
def started(env: dict[str, str], log: Path, *, fresh: bool = False) -> Iterator[Registry]:
    """Run a registry until the end of the block, ``fresh`` as a process that imports everything itself."""
    command = [*script("registry"), "serve"]
    with running(command, env=env, log=log) if fresh else forked_registry(env, log) as process:
        found = Registry(f"http://{env['REGISTRY_LISTEN']}", process, log)
        with contextlib.closing(found.client):
            yield found


def refusal(env: dict[str, str], *before: str) -> str:
    """Return what a registry says that does not start, of a command behind ``before`` or a fork: exit status 2."""
    if before:
        command = [*before, *script("registry"), "serve"]
        run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    else:
        run = run_registry("serve", env=env)
    assert run.returncode == 2, run.stderr[-2000:] + run.stdout[-2000:]
    assert "Traceback" not in run.stderr + run.stdout
    return run.stderr


def servers(directory: Path) -> list[psutil.Process]:
    """Return the PostgreSQL processes of a directory."""
    return [
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if process.info["name"] == "postgres" and str(directory) in " ".join(process.info["cmdline"] or [])
    ]


@pytest.mark.parametrize("name", ["x y", "x'y", 'x"y', "x$y", "x;y", "x\\y", "x*y", "x\ny"])
def test_a_path_that_postgresql_cannot_start_under_is_told(directory: Path, name: str) -> None:
    """The sentence names the character and a path that would do; nothing is made there."""
    said = refusal(environment(directory / name))
    assert "REGISTRY_DATA_DIR" in said
    assert "/var/lib/headcount" in said
    assert list(directory.iterdir()) == []


def test_two_registries_on_one_empty_directory_both_start(directory: Path, service: str) -> None:
    """The second waits while the first makes the database, and the last one that stops ends PostgreSQL."""
    data = directory / "data"
    with (
        started(environment(data), directory / "1.log") as one,
        started(environment(data), directory / "2.log") as two,
    ):
        for found in (one, two):
            eventually(found.ready, within=60, said=found.log.read_text)
        one.register(service, "10.0.0.1:80")
        eventually(lambda: two.statuses(service) == {"10.0.0.1:80": "HEALTHY"})
        assert end(one.process) == 0
        two.register(service, "10.0.0.2:80")
        assert len(two.endpoints(service)) == 2
        assert end(two.process) == 0
    assert servers(directory) == []


def test_a_registry_that_was_killed_leaves_no_postgresql_behind_the_next_one(directory: Path) -> None:
    """Its server is found by the next registry, which stops it."""
    env = environment(directory / "data")
    with started(env, directory / "log") as found:
        eventually(found.ready, within=60, said=found.log.read_text)
        found.process.send_signal(signal.SIGKILL)
        found.process.wait(10)
    assert servers(directory)
    with started(env, directory / "log") as found:
        eventually(found.ready, within=60, said=found.log.read_text)
        assert end(found.process) == 0
    assert servers(directory) == []


def test_a_lock_of_another_user_in_tmp_is_none_of_our_business(directory: Path) -> None:
    """The file that the package would lock, in the directory for temporary files, is not touched."""
    temporary = directory / "tmp"
    temporary.mkdir()
    (temporary / ".lockfile").mkdir()
    env = environment(directory / "data", TMPDIR=str(temporary))
    with started(env, directory / "log", fresh=True) as found:
        eventually(found.ready, within=60, said=found.log.read_text)
        assert end(found.process) == 0
    assert servers(directory) == []


def test_a_data_directory_that_cannot_be_made_is_told(directory: Path) -> None:
    """Here a file stands in the way, which stops root too."""
    (directory / "file").write_text("")
    said = refusal(environment(directory / "file" / "data"))
    assert str(directory / "file") in said
    assert "REGISTRY_DATABASE_URL" in said


@pytest.fixture(scope="module")
def read_only() -> list[str]:
    """The command line before a program that has nothing to write to: a mount namespace with a read-only root."""
    if os.geteuid() or shutil.which("unshare") is None:
        pytest.skip("a read-only root takes a mount namespace, which takes root and unshare")
    script_ = "for point in / /tmp /var/tmp /usr/tmp; do [ -d $point ] && mount --rbind $point $point && "
    script_ += 'mount -o remount,bind,ro $point; done; cd /; exec "$@"'
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script_, "sh"]
    probe = subprocess.run([*command, "sh", "-c", "! touch /tmp/x 2>/dev/null"], check=False, capture_output=True)
    if probe.returncode:
        pytest.skip(f"no mount namespace can be made here: {probe.stderr.decode()[-200:]}")
    return command


def test_workers_without_a_place_for_their_metrics_are_told_of(
    read_only: list[str], database: str, directory: Path
) -> None:
    """Read-only root without /tmp and two workers: what to mount."""
    env = environment(directory / "data", REGISTRY_WORKERS="2", REGISTRY_DATABASE_URL=database)
    said = refusal(env, *read_only)
    assert "REGISTRY_WORKERS=2" in said
    assert "mount a volume" in said


_STOPPED_AT_THE_FIRST_IMPORT = """
import os, signal, sys

class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == "registry.cli":
            os.kill(os.getpid(), int(sys.argv.pop()))

sys.meta_path.insert(0, Stop())
from registry.entry_points import registry
registry()
"""


@pytest.mark.parametrize("verb", ["serve", "migrate"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stop_during_the_imports_ends_the_start(tmp_path: Path, verb: str, number: signal.Signals) -> None:
    """The first process of a container loses every signal that it has no handler for, and imports take a second."""
    command = [sys.executable, "-c", _STOPPED_AT_THE_FIRST_IMPORT, verb, str(int(number))]
    run = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, timeout=120, check=False)
    assert (run.returncode, run.stderr) == (0, "")


_FOUND_BY_ITS_LOADER = """
import sys
sys.path[:0] = {path!r}
from registry.entry_points import registry
registry()
"""


def test_a_program_that_only_its_loader_finds_keeps_its_workers(database: str, directory: Path) -> None:
    """As one that was frozen or unpacked: the parent of workers stays as it is, and forks again."""
    code = _FOUND_BY_ITS_LOADER.format(path=[path for path in sys.path if path])
    python = str(Path(sys.executable).resolve())
    if subprocess.run([python, "-I", "-c", "import registry"], check=False, capture_output=True).returncode == 0:
        pytest.skip("the Python of this environment has the program itself")
    with registry(database, directory, workers=2, program=[python, "-I", "-c", code]) as found:
        assert "supervisor_not_executed" in found.log.read_text()
        parent = psutil.Process(found.process.pid)
        (killed, _) = parent.children()
        killed.kill()
        eventually(lambda: len(parent.children()) == 2 and killed not in parent.children(), within=30)
        eventually(lambda: found.log.read_text().count('"serving"') == 3, within=30)
        assert end(found.process) == 0


_WITHOUT_STANDARD_FILES = 'exec "$@" <&- >&- 2>&-'


def test_a_start_without_standard_files_serves(database: str, directory: Path) -> None:
    """As of a daemon that closes them: what is written to standard error goes to no connection that has its number."""
    program = ["sh", "-c", _WITHOUT_STANDARD_FILES, "sh", *script("registry")]
    with registry(database, directory, workers=2, program=program) as found:
        parent = psutil.Process(found.process.pid)
        for process in (parent, *parent.children()):
            assert [os.path.realpath(f"/proc/{process.pid}/fd/{number}") for number in range(3)] == [os.devnull] * 3
        assert found.client.get("/metrics").status_code == 200
        assert end(found.process) == 0


_SECOND_FORK_FAILS = """
import errno, os

fork, left = os.fork, [1]

def limited():
    if not left:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    left.pop()
    return fork()

os.fork = limited
"""


def test_a_limit_of_processes_is_told(database: str, directory: Path) -> None:
    """The workers that could be started end with the parent."""
    (directory / "sitecustomize.py").write_text(_SECOND_FORK_FAILS)
    env = environment(
        directory / "data", REGISTRY_WORKERS="2", REGISTRY_DATABASE_URL=database, PYTHONPATH=str(directory)
    )
    # A process of its own, which reads that module.
    said = refusal(env, "env")
    assert "REGISTRY_WORKERS=2: no process can be started" in said
    assert "TasksMax=" in said
