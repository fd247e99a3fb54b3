"""The server: one process or several, each with a socket of its own on the same address."""

import asyncio
import faulthandler
import gc
import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

import structlog
import uvicorn

from registry.app import build_asgi_app
from registry.background.server_tls import ServerTls
from registry.core.peer_limit import PeerSlots
from registry.database_url import DatabaseUrl
from registry.descriptors import cap_held_polls, raised_descriptor_limit
from registry.errors import BadSettingsError
from registry.event_log import configure_logs
from registry.http.accepting_server import SCARCITY_PERIOD, AcceptingServer, Listener
from registry.http.acceptor import BACKLOG, Acceptor
from registry.http.peer_connections import PeerConnections
from registry.http.protocol_selftest import acceptor_fits, select_protocol
from registry.http2.installed import check_installed
from registry.process import RegistryProcess
from registry.settings import Settings
from registry.supervisor import (
    DUMP_SIGNAL,
    STOP_SIGNALS,
    Supervised,
    Supervisor,
    become,
    python_command,
    stack_file,
)
from registry.worker_metrics import VARIABLE as METRICS_DIRECTORY
from registry.worker_metrics import forget_process
from registry.worker_watchdog import SIGN_INTERVAL, show_life
from wire.log_stream import drain_log, flush_log
from wire.sd_notify import notify, watchdog_interval

if TYPE_CHECKING:
    from registry.http2.listener import Http2Listener

log = structlog.get_logger()

_LISTEN, _PLAIN_LISTEN, _XDS_LISTEN = "REGISTRY_LISTEN", "REGISTRY_PLAIN_LISTEN", "REGISTRY_XDS_LISTEN"
_HTTP = (_LISTEN, _PLAIN_LISTEN)
"""The settings of the addresses that serve HTTP."""

_FILES = 32
"""Descriptors for the snapshot on disk, metrics, names and the like."""
_PROBE_TIMEOUT = 60.0
"""Seconds for which a new Python may take to find this program."""
_OWN_DESCRIPTORS = 20
"""Descriptors that are open before the first client connects: logs, event loop, listener."""
_WORKER_DESCRIPTORS = 16
"""Those of each of several workers besides: two for each file of its metrics, and the pipes of its parent."""
_FLUSH_INTERVAL = 0.1
"""Seconds between two tries to write lines of the log that wait for its reader."""


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
        check_installed(_XDS_LISTEN)
        # Before workers are forked, which share what was imported.
        import registry.streams  # noqa: F401, PLC0415  # only where there are streams
    _warn_of_open_access(settings)
    if settings.workers == 1:
        return _serve_one(settings, database_url)
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
    needed = settings.database_connections + _FILES + own
    if limit < needed:
        raise BadSettingsError(
            f"REGISTRY_DATABASE_CONNECTIONS={settings.database_connections} needs {needed} file descriptors, and this "
            f"process may have {limit}; raise its limit (ulimit -n, LimitNOFILE=, ulimits of the container), or lower "
            "REGISTRY_DATABASE_CONNECTIONS"
        )


class _Parent(NamedTuple):
    """The parent of a worker, which alone talks to systemd: of its children systemd takes no word (NotifyAccess).

    Attributes:
        alive: a descriptor that reads the end of a file when the parent has ended.
        living: a descriptor to which a worker writes signs of life.
    """

    alive: int
    living: int


class _Streams(NamedTuple):
    """The gRPC listener.

    Attributes:
        connections: its connections.
        acceptor: takes them from the listening socket.
    """

    connections: "Http2Listener"
    acceptor: Acceptor


class _Server(AcceptingServer):
    """The server of one process; before it stops it answers the polls that are held."""

    def __init__(
        self,
        config: uvicorn.Config,
        listeners: Sequence[Listener],
        process: RegistryProcess,
        *,
        parent: _Parent | None,
        accepts: bool,
        counts: bool,
        stream_listener: Listener | None,
    ) -> None:
        # Every connection to PostgreSQL may have to be made again, and some files are opened now and then.
        spare = process.settings.database_connections + _FILES
        super().__init__(
            config,
            listeners,
            ability=process.abilities.accept,
            spare=spare,
            accepts=accepts,
            # uvicorn's own protocol does not tell when a connection ends.
            peers=_peer_connections(process) if counts else None,
        )
        self._process = process
        self._stream_listener = stream_listener
        """The socket of the gRPC listener; None: there is none."""
        self._streams: _Streams | None = None
        """The gRPC listener. Written by startup()."""
        self._parent = parent
        """The parent of this worker; None: it has none."""
        self._serves = False
        """Whether it has come to serve. Written by startup()."""
        self._watchdog_interval = watchdog_interval()
        """Seconds within which systemd wants to be told that a process without workers runs; None: it does not."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._show_life()
        self._flush_log()
        await super().startup(sockets)
        if self.started and self._stream_listener is not None:
            self._streams = self._start_streams(self._stream_listener)
        if self.started and self._parent is None:
            notify("READY=1")
        elif self.started and self._parent is not None:
            self._serves = True
            show_life(self._parent.living, serves=True)
        if self._parent is not None:
            # A worker whose parent was killed would keep serving unnoticed, and keep the address.
            asyncio.get_running_loop().add_reader(self._parent.alive, self._on_orphaned, self._parent.alive)

    def _show_life(self) -> None:
        """Let who watches this process know, for as long as there is an event loop, that it runs."""
        if self._parent is not None:
            show_life(self._parent.living, serves=self._serves)
            interval = SIGN_INTERVAL
        elif self._watchdog_interval:
            notify("WATCHDOG=1")
            interval = self._watchdog_interval / 3
        else:
            return
        asyncio.get_running_loop().call_later(interval, self._show_life)

    def _start_streams(self, listener: Listener) -> _Streams:
        from registry.streams import build_listener  # noqa: PLC0415  # only here are h2 and protobuf needed

        connections = build_listener(self._process)
        acceptor = self.make_acceptor(listener, connections.make_protocol)
        acceptor.start()
        return _Streams(connections, acceptor)

    def _flush_log(self) -> None:
        """Write what is left of the log, also while this process stops."""
        flush_log()
        asyncio.get_running_loop().call_later(_FLUSH_INTERVAL, self._flush_log)

    def make_room(self, count: int) -> int:
        """Close idle connections and, if those are too few, answer the polls that are held for the longest."""
        closed = 0 if self._streams is None else self._streams.connections.make_room(count)
        closed += super().make_room(count - closed)
        self._process.discovery.held_polls.hold_none(SCARCITY_PERIOD)
        self._process.discovery.held_polls.release_oldest(count - closed)
        return closed

    def _on_orphaned(self, alive: int) -> None:
        asyncio.get_running_loop().remove_reader(alive)
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._parent is None:
            notify("STOPPING=1")
        # uvicorn replaces the headers each second; it does so no more from here on.
        self.close_after_answers()
        # From here on the process is not ready, and holds no poll; then load balancers have time to notice.
        self._process.release()
        delay = self._process.settings.shutdown_delay
        if self._streams is None:
            await asyncio.sleep(delay)
        else:
            await asyncio.gather(asyncio.sleep(delay), self._streams.connections.drain(delay))
            await self._streams.acceptor.stop()
            self._streams.connections.abort()
        await super().shutdown(sockets)


def _peer_connections(process: RegistryProcess) -> PeerConnections | None:
    """Return what counts the connections of each peer; None while access is off."""
    settings = process.settings
    if settings.auth == "off":
        return None
    # Where access is not closed yet, an operator learns in time which addresses many clients share.
    slots, enforced = PeerSlots(settings.unlimited_networks), settings.auth == "on"
    return PeerConnections(slots, settings.max_peer_connections, process.reached_limits, enforced=enforced)


def _serve_one(settings: Settings, database_url: DatabaseUrl, parent: _Parent | None = None) -> int:
    tls, streams_tls = ServerTls.of_http(settings), ServerTls.of_streams(settings)
    sockets = _bind_all(settings, shared=settings.workers > 1)
    listeners = [Listener(sockets[name], tls if name == _LISTEN else None) for name in _HTTP if name in sockets]
    streams = Listener(sockets[_XDS_LISTEN], streams_tls) if _XDS_LISTEN in sockets else None
    with raised_descriptor_limit() as limit:
        held = cap_held_polls(settings.max_held_polls, limit)
        capped = settings.model_copy(update={"max_held_polls": held})
        followed = [each for each in (tls, streams_tls) if each is not None]
        return _serve_on(listeners, streams, RegistryProcess(capped, database_url, tls=followed), parent)


def _serve_on(
    listeners: Sequence[Listener], streams: Listener | None, process: RegistryProcess, parent: _Parent | None
) -> int:
    settings = process.settings
    ours = select_protocol(settings.door)
    protocol = ours or "httptools"
    config = uvicorn.Config(
        build_asgi_app(process),
        http=protocol,
        loop="uvloop",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        # A request must not inherit the id of the one before it on its connection.
        reset_contextvars=True,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(settings.shutdown_grace)),
    )
    server = _Server(
        config,
        listeners,
        process,
        parent=parent,
        # Without a listener there is nothing that libuv could accept.
        accepts=acceptor_fits(protocol) or not listeners,
        counts=ours is not None,
        stream_listener=streams,
    )
    # uvicorn stops by two signals; a terminal that closes sends a third.
    signal.signal(signal.SIGHUP, _as_sigterm)
    log.info("serving", **_urls(settings), pid=os.getpid())
    server.run(sockets=[])
    return 0 if server.started else 1


def _urls(settings: Settings) -> dict[str, str]:
    """Return the addresses that are served, as people open them."""
    urls = {}
    if settings.listen is not None:
        url = f"{'http' if settings.tls_cert_file is None else 'https'}://{settings.listen}"
        urls = {"url": url, "console": f"{url}/ui", "api": f"{url}/docs"}
    if settings.plain_listen is not None:
        urls["plain"] = f"http://{settings.plain_listen}"
    if settings.xds_listen is not None:
        urls["xds"] = f"{settings.xds_listen} ({'TLS' if settings.xds_tls_on else 'plain'})"
    return urls


def _bind_all(settings: Settings, *, shared: bool) -> dict[str, socket.socket]:
    """Return a listening socket for each address, by the setting that has it."""
    listens = {_LISTEN: settings.listen, _PLAIN_LISTEN: settings.plain_listen, _XDS_LISTEN: settings.xds_listen}
    return {name: bind(name, listen, shared=shared) for name, listen in listens.items() if listen is not None}


def bind(variable: str, listen: str, *, shared: bool) -> socket.socket:
    """Return a listening socket.

    Args:
        variable: the setting that has the address, for errors.
        listen: host:port, as the setting has it.
        shared: whether several processes have a socket each on this address. Otherwise a second registry that is
            started by mistake has to fail, and must not take half of the connections.

    Raises:
        BadSettingsError: the address is taken or not ours.
    """
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        raise BadSettingsError(f"{variable}={listen}: {error.strerror or error}") from None
    except UnicodeError:
        # Raised by Python for a name that cannot be in DNS, before any resolver is asked.
        raise BadSettingsError(
            f"{variable}={listen}: {host!r} is no host name; its parts between dots need 1 to 63 characters"
        ) from None
    listener.setblocking(False)
    return listener


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
        self._parent = _Parent(alive, living)
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
        for listener in _bind_all(self._settings, shared=False).values():
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
            return _serve_one(settings, database_url, _Parent(alive, living))
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


def _as_sigterm(_number: int, _frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Ignore the signal that uvicorn raises again after it has served its last request."""
