"""The start of the running registrar: settings, signals, endpoints, admin interface, sidecar."""

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec

from registrar.admin.api import PROBE_PATHS, AdminApi, problem_response
from registrar.admin.client import AdminClient
from registrar.admin.server import AdminServer
from registrar.admin.status import RegistrarStatus
from registrar.admin.target_check import describe
from registrar.config.listen import ListenAddress
from registrar.config.settings import LaunchSettings, Settings, kept_directory
from registrar.credentials.credentials import Credentials, warn_of_plain_text
from registrar.edge.asker import EDGE_TIMEOUT
from registrar.edge.disk_cache import DiskCache
from registrar.edge.edge import Edge
from registrar.edge.fallback import Fallback
from registrar.edge.server import EdgeServer
from registrar.endpoint.endpoints import build_endpoints, identity_sources
from registrar.envoy_admin.client import EnvoyAdminClient
from registrar.errands.errands import Errands
from registrar.errands.log_level import state_directory
from registrar.errors import AdminRefused, AdminUnavailable, ConfigurationError
from registrar.event_log import EventLogger
from registrar.lifecycle.app import App
from registrar.lifecycle.reload import Reloader
from registrar.lifecycle.sidecar import Sidecar
from registrar.lifecycle.signals import Signals
from registrar.registry_client.client import ATTEMPT_TIMEOUT, RegistryClient
from registrar.registry_client.tls import RegistryTls
from registrar.thread_call import call_in_thread
from wire.errand import MAX_HOLD
from wire.sd_notify import notify
from wire.tls_files import TlsFileError

T = TypeVar("T")

_OCCUPANT_TIMEOUT = 1.5
"""Seconds to ask the program that already listens at the admin address what it is."""

log = EventLogger(__name__)


async def serve(load: Callable[[], Settings], launch: LaunchSettings, command: Sequence[str] = ()) -> int:
    """Run the registrar until a signal, or until the app's end, and return the exit status.

    Args:
        load: reads the settings, now and at each SIGHUP.
        launch: the address of the admin API and the path of the settings' file.
        command: the command of the app to start as a child; empty for ``registrar run``.

    Raises:
        AddressError: an endpoint has no address that may be advertised.
        AppNotStarted: the command cannot be run.
        ConfigurationError: the settings are invalid.
    """
    settings = load()
    tls = _registry_tls(settings)
    warn_of_plain_text(settings)
    sources = identity_sources(settings, os.environ)
    async with contextlib.AsyncExitStack() as stack:
        # Before the first await: the kernel drops a signal without a handler for PID 1 (pid_namespaces(7)).
        signals = stack.enter_context(Signals())
        endpoints = await _unless_stopped(build_endpoints(settings, sources), signals)
        if endpoints is None:
            return 0
        credentials = Credentials(settings, endpoints[0].identity, os.environ)
        client = await stack.enter_async_context(
            RegistryClient(settings.registry_url, credential=credentials.of_requests, tls=tls)
        )
        edge = await _edge(stack, settings, credentials, endpoints[0].identity.instance_id, tls)
        sidecar = Sidecar(settings, client, endpoints, signals, Reloader(load, sources), credentials, edge)
        if settings.envoy_admin is not None:
            # A client of its own: the registry holds each of its requests for a while.
            waiting = RegistryClient(
                settings.registry_url, MAX_HOLD + ATTEMPT_TIMEOUT, credential=credentials.of_requests, tls=tls
            )
            sidecar.beside(
                Errands(
                    await stack.enter_async_context(waiting),
                    EnvoyAdminClient(settings.envoy_admin),
                    settings.errands.value,
                    state_directory(settings.state_directory),
                    sidecar.active_endpoints,
                ).run,
                "errands",
            )
        await _listen(stack, AdminApi(sidecar, launch.config), launch.admin_listen)
        app = await stack.enter_async_context(App(command, os.environ)) if command else None
        # Before the first response of the registry: units that start after this one must not wait for it.
        notify("READY=1")
        return await sidecar.run(app)


def _registry_tls(settings: Settings) -> RegistryTls:
    """Return the TLS of connections to registries, after a look at its files.

    Raises:
        ConfigurationError: a file cannot be used.
    """
    tls = settings.registry_tls
    if settings.registry_url.encrypted:
        try:
            _ = tls.context
        except TlsFileError as error:
            raise ConfigurationError([str(error)]) from error
    return tls


async def _edge(
    stack: contextlib.AsyncExitStack, settings: Settings, credentials: Credentials, instance_id: str, tls: RegistryTls
) -> EdgeServer | None:
    """Return the edge, which listens; None where there is none.

    Raises:
        ConfigurationError: its address cannot be used.
    """
    address = settings.edge_listen
    if address.off:
        return None
    # A client of its own: heartbeats must not wait behind questions that are held.
    client = await stack.enter_async_context(
        RegistryClient(settings.registry_url, EDGE_TIMEOUT, credential=credentials.of_requests, tls=tls)
    )
    fallback = Fallback(settings.edge_fallback) if settings.edge_fallback else None
    if fallback is not None:
        stack.push_async_callback(fallback.close)
    state = kept_directory(settings, os.environ)
    disk = None if state is None else DiskCache(state / "edge")
    server = EdgeServer(address, Edge(instance_id, client, disk, fallback))
    stack.callback(server.close)
    try:
        await server.listen()
    except OSError as error:
        raise ConfigurationError(
            [f"REGISTRAR_EDGE_LISTEN: cannot listen on {address}: {_listen_fault(error, address)}"]
        ) from error
    return server


async def _unless_stopped(work: Coroutine[Any, Any, T], signals: Signals) -> T | None:
    """Return the result of ``work``, or None if a stop signal comes first: nothing is registered yet."""
    task, stop = asyncio.ensure_future(work), asyncio.ensure_future(signals.stop.wait())
    await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if not task.done():
        task.cancel()
        return None
    return task.result()


async def _listen(stack: contextlib.AsyncExitStack, admin: AdminApi, listen: ListenAddress) -> None:
    try:
        await stack.enter_async_context(AdminServer(listen, admin.handle, problem_response, PROBE_PATHS))
    except OSError as error:
        fault = f"cannot listen on {listen}: {_listen_fault(error, listen)}"
        if error.errno == errno.EADDRINUSE:
            fault = f"{fault} by {await call_in_thread(partial(_occupant, listen))}"
        if listen != LaunchSettings().admin_listen:
            raise ConfigurationError([f"REGISTRAR_ADMIN_LISTEN: {fault}"]) from error
        # It is the default address: the second registrar of a machine must not fail because of it.
        log.warning(
            "admin_listen_failed",
            reason=fault,
            meaning="this registrar has no admin interface; healthcheck, status and drain reach the other program",
            fix="set REGISTRAR_ADMIN_LISTEN to another address, or to off",
        )


def _listen_fault(error: OSError, listen: ListenAddress) -> str:
    """Return why nothing can listen; asyncio puts the words of its own around those for an address."""
    if error.errno and listen.path is None:
        return os.strerror(error.errno)
    return error.strerror or str(error)


def _occupant(listen: ListenAddress) -> str:
    """Name the program that listens at the address."""
    try:
        _, body = AdminClient(listen, _OCCUPANT_TIMEOUT).request("GET", "/status")
        return describe(msgspec.json.decode(body, type=RegistrarStatus))
    except (AdminRefused, AdminUnavailable, msgspec.DecodeError):
        return "another program"
