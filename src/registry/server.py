"""The server of one process: its listening sockets, uvicorn on them, the gRPC listener beside it, and its end."""

import asyncio
import os
import signal
import socket
from collections.abc import Sequence
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
from registry.http.accepting_server import SCARCITY_PERIOD, AcceptingServer, Listener
from registry.http.acceptor import BACKLOG, Acceptor
from registry.http.peer_connections import PeerConnections
from registry.http.protocol_selftest import acceptor_fits, select_protocol
from registry.process import RegistryProcess
from registry.settings import Settings
from registry.worker_watchdog import SIGN_INTERVAL, show_life
from wire.log_stream import flush_log
from wire.sd_notify import notify, watchdog_interval

if TYPE_CHECKING:
    from registry.http2.listener import Http2Listener

log = structlog.get_logger()

_LISTEN, _PLAIN_LISTEN, XDS_LISTEN = "REGISTRY_LISTEN", "REGISTRY_PLAIN_LISTEN", "REGISTRY_XDS_LISTEN"
_HTTP = (_LISTEN, _PLAIN_LISTEN)
"""The settings of the addresses that serve HTTP."""

SPARE_FILES = 32
"""Descriptors for the snapshot on disk, metrics, names and the like."""
_FLUSH_INTERVAL = 0.1
"""Seconds between two tries to write lines of the log that wait for its reader."""


class Parent(NamedTuple):
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
        parent: Parent | None,
        accepts: bool,
        counts: bool,
        stream_listener: Listener | None,
    ) -> None:
        # Every connection to PostgreSQL may have to be made again, and some files are opened now and then.
        spare = process.settings.database_connections + SPARE_FILES
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


def serve_here(settings: Settings, database_url: DatabaseUrl, parent: Parent | None = None) -> int:
    """Serve in this process until it is told to stop; return the exit status.

    Args:
        settings: of the registry.
        database_url: of its database.
        parent: the parent of this worker; None: it has none.

    Raises:
        BadSettingsError: the process cannot serve with these settings on this machine.
    """
    tls, streams_tls = ServerTls.of_http(settings), ServerTls.of_streams(settings)
    sockets = bind_all(settings, shared=settings.workers > 1)
    listeners = [Listener(sockets[name], tls if name == _LISTEN else None) for name in _HTTP if name in sockets]
    streams = Listener(sockets[XDS_LISTEN], streams_tls) if XDS_LISTEN in sockets else None
    with raised_descriptor_limit() as limit:
        held = cap_held_polls(settings.max_held_polls, limit)
        capped = settings.model_copy(update={"max_held_polls": held})
        followed = [each for each in (tls, streams_tls) if each is not None]
        return _serve_on(listeners, streams, RegistryProcess(capped, database_url, tls=followed), parent)


def _serve_on(
    listeners: Sequence[Listener], streams: Listener | None, process: RegistryProcess, parent: Parent | None
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


def bind_all(settings: Settings, *, shared: bool) -> dict[str, socket.socket]:
    """Return a listening socket for each address, by the setting that has it."""
    listens = {_LISTEN: settings.listen, _PLAIN_LISTEN: settings.plain_listen, XDS_LISTEN: settings.xds_listen}
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


def _as_sigterm(_number: int, _frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
