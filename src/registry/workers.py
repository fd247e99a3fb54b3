"""The start of the server: in this process, or in several workers whose parent this process is.

``registry.server`` is the server of one process; ``registry.supervisor`` is what the parent becomes.
"""

import faulthandler
import gc
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import structlog

from registry.background.server_tls import ServerTls
from registry.database_url import DatabaseUrl
from registry.descriptors import raised_descriptor_limit
from registry.errors import BadSettingsError
from registry.event_log import configure_logs
from registry.http2.installed import check_installed
from registry.server import SPARE_FILES, XDS_LISTEN, Parent, bind_all, serve_here
from registry.settings import Settings
from registry.supervisor import DUMP_SIGNAL, STOP_SIGNALS, Supervised, Supervisor, become, python_command, stack_file
from registry.worker_metrics import VARIABLE as METRICS_DIRECTORY
from registry.worker_metrics import forget_process
from wire.log_stream import drain_log

log = structlog.get_logger()


_PROBE_TIMEOUT = 60.0
"""Seconds for which a new Python may take to find this program."""
_OWN_DESCRIPTORS = 20
"""Descriptors that are open before the first client connects: logs, event loop, listener."""
_WORKER_DESCRIPTORS = 16
"""Those of each of several workers besides: two for each file of its metrics, and the pipes of its parent."""


def serve(settings: Settings, database_url: DatabaseUrl, *, embedded: bool = False) -> int:
    """Serve until SIGTERM or SIGINT; return the exit status.

    Args:
        settings: of the registry.
        database_url: of its database.
        embedded: whether this process runs the database, and stops it at its end.

    Raises:
        BadSettingsError: the process cannot serve with these settings on this machine.
    """
    with raised_descriptor_limit() as limit:
        _check_descriptors(settings, limit)
    if settings.xds_listen is not None:
        check_installed(XDS_LISTEN)
        # Before workers are forked, which share what was imported.
        import registry.streams  # noqa: F401, PLC0415  # only where there are streams
    _warn_of_open_access(settings)
    if settings.workers == 1:
        return serve_here(settings, database_url)
    return _Workers(settings, database_url).run(lasting=embedded)


def _warn_of_open_access(settings: Settings) -> None:
    if settings.auth != "off":
        return
    fix = "set REGISTRY_AUTH=audit, then on: docs/security.md"
    if settings.on_loopback:
        # As `make run` starts it.
        log.info("access_off", consequence="every program on this machine may do everything", fix=fix)
        return
    log.warning(
        "access_off",
        listen=", ".join(settings.addresses),
        consequence="whoever reaches it may read, register, drain and deregister",
        fix=fix,
    )


def _check_descriptors(settings: Settings, limit: int) -> None:
    """Refuse settings that leave no descriptor to clients: connections to PostgreSQL come first."""
    own = _OWN_DESCRIPTORS + (_WORKER_DESCRIPTORS if settings.workers > 1 else 0)
    needed = settings.database_connections + SPARE_FILES + own
    if limit < needed:
        raise BadSettingsError(
            f"REGISTRY_DATABASE_CONNECTIONS={settings.database_connections} needs {needed} file descriptors, and this "
            f"process may have {limit}; raise its limit (ulimit -n, LimitNOFILE=, ulimits of the container), or lower "
            "REGISTRY_DATABASE_CONNECTIONS"
        )


class _Workers:
    """The parent of several server processes, until it becomes the supervisor of the first ones.

    The kernel spreads connections over sockets of one address, but not over processes that share one socket. Workers
    are forks of this process, which has imported everything and runs no thread and no event loop: so they start at
    once, and share the memory of what was imported.
    """

    def __init__(self, settings: Settings, database_url: DatabaseUrl) -> None:
        self._settings = settings
        self._database_url = database_url
        alive, own = os.pipe()
        signs, living = os.pipe()
        for descriptor in (signs, living):
            # A worker must not wait for a parent that was stopped.
            os.set_blocking(descriptor, False)
        self._parent = Parent(alive, living)
        """This process as its workers see it."""
        self._supervised = Supervised(
            settings.workers,
            [],
            os.environ[METRICS_DIRECTORY],
            alive=alive,
            own=own,
            signs=signs,
            living=living,
            timeout=settings.worker_timeout,
        )

    def run(self, *, lasting: bool) -> int:
        """Start the workers and supervise them until they have ended; return the exit status.

        Args:
            lasting: whether this process has to stay as it is, because it has something to stop at its end.

        Raises:
            BadSettingsError: an address is not ours, a certificate is not good, or no process can be started.
        """
        # Checked here, once, instead of in each child.
        for listener in bind_all(self._settings, shared=False).values():
            listener.close()
        ServerTls.of_http(self._settings)
        ServerTls.of_streams(self._settings)
        lasting = lasting or not _is_found_anew()
        # The counts so far, which would stand in the metrics as those of a worker.
        forget_process(os.getpid())
        # Imported modules are no garbage. Were it searched for some, each worker would copy its pages.
        gc.collect()
        gc.freeze()
        # A signal waits until the supervisor takes it.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        for _ in range(self._settings.workers):
            self._supervised.children.append(self._start_first())
        if not lasting:
            try:
                become(self._supervised)
            except OSError as error:
                # It costs memory, and nothing else.
                log.warning("supervisor_not_executed", reason=str(error))
        return Supervisor(self._supervised, self._start).run()

    def _start_first(self) -> int:
        try:
            return self._start()
        except OSError as error:
            # Those that run end with this process.
            raise BadSettingsError(
                f"REGISTRY_WORKERS={self._settings.workers}: no process can be started: {error.strerror}; raise the "
                "limit of processes (TasksMax=, ulimit -u, the pids limit of the container), give the machine memory, "
                "or lower REGISTRY_WORKERS"
            ) from None

    def _start(self) -> int:
        child = os.fork()
        if child != 0:
            return child
        try:
            status = self._work()
        except BaseException:  # noqa: BLE001  # what the parent would do at its end is not to be done here
            traceback.print_exc()
            status = 1
        finally:
            sys.stderr.flush()
            drain_log()
            os._exit(status)

    def _work(self) -> int:
        """Serve, as a worker that was forked."""
        os.close(self._supervised.own)
        os.close(self._supervised.signs)
        # Out of the terminal's group: Ctrl-C goes to the parent, which signals its children once.
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return serve_as_worker(self._settings, self._database_url, *self._parent)


def _is_found_anew() -> bool:
    """Tell whether a new Python finds this program; one that was frozen, or unpacked by a loader, it does not."""
    command = [*python_command(), "-c", "import registry.supervisor"]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_PROBE_TIMEOUT)  # noqa: S603  # our own
    except (OSError, subprocess.SubprocessError) as error:
        # It costs memory, and nothing else.
        log.warning("supervisor_not_executed", reason=str(error))
        return False
    return True


def serve_as_worker(settings: Settings, database_url: DatabaseUrl, alive: int, living: int) -> int:
    """Serve as one of several workers until it is told to stop; return the exit status.

    Args:
        settings: of the registry.
        database_url: of its database.
        alive: a descriptor that reads the end of a file when the parent has ended.
        living: a descriptor to which signs of life are written.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, _ignore)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    for descriptor in (alive, living):
        os.set_inheritable(descriptor, False)  # positional alone
    configure_logs(settings.log_level)
    try:
        with _dumped_stacks():
            return serve_here(settings, database_url, Parent(alive, living))
    except BadSettingsError as error:
        # They were good when the parent started: files have changed since, or the address is taken.
        log.error("worker_not_started", reason=str(error))  # noqa: TRY400  # the reason says it all
        return 2


@contextmanager
def _dumped_stacks() -> Iterator[None]:
    """Have the stacks of all threads written when the parent asks for them, even by a thread that never returns."""
    try:
        file = stack_file(Path(os.environ[METRICS_DIRECTORY]), os.getpid()).open("w")
    except OSError as error:
        log.warning("worker_stacks_not_kept", reason=str(error))
        yield
        return
    with file:
        faulthandler.register(DUMP_SIGNAL, file, all_threads=True)
        try:
            yield
        finally:
            faulthandler.unregister(DUMP_SIGNAL)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Ignore the signal that uvicorn raises again after it has served its last request."""
