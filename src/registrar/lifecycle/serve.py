"""From settings to a running registrar, with or without its app as a child."""

import asyncio
import contextlib
import errno
import os
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

import msgspec
import structlog

from registrar.admin.api import PROBE_PATHS, AdminApi, problem_response
from registrar.admin.client import AdminClient
from registrar.admin.server import AdminServer
from registrar.admin.status import RegistrarStatus
from registrar.admin.target_check import describe
from registrar.config.listen import ListenAddress
from registrar.config.settings import LaunchSettings, Settings
from registrar.endpoint.endpoints import build_endpoints, identity_sources
from registrar.errors import AdminRefused, AdminUnavailable, ConfigurationError
from registrar.lifecycle.app import App
from registrar.lifecycle.reload import Reloader
from registrar.lifecycle.sidecar import Sidecar
from registrar.lifecycle.signals import Signals
from registrar.registry_client.client import RegistryClient
from registrar.thread_call import call_in_thread
from wire.sd_notify import notify

T = TypeVar("T")

# For the question who has our place.
_PATIENCE = 1.5

log: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger()


async def serve(load: Callable[[], Settings], launch: LaunchSettings, command: Sequence[str] = ()) -> int:
    """Check and register until a signal, or until the app's end, and return the exit status.

    Args:
        load: reads the settings, now and at each SIGHUP.
        launch: where the admin API listens, and from which file the settings are.
        command: the app to start; empty if somebody else starts it.

    Raises:
        AddressError: an endpoint has no address that may be advertised.
        AppNotStarted: the command cannot be run.
        ConfigurationError: the settings cannot be used.
    """
    settings = load()
    if settings.token is not None and settings.registry_url.exposed:
        log.warning(
            "token_in_plain_text",
            registries=settings.registry_url.exposed,
            meaning="whoever sees the traffic can use the token",
            fix="let REGISTRAR_REGISTRY_URL begin with https://",
        )
    asked = identity_sources(settings, os.environ)
    async with contextlib.AsyncExitStack() as stack:
        # Before anything is waited for: as the first process of a container only handlers make signals work.
        signals = stack.enter_context(Signals())
        endpoints = await _unless_stopped(build_endpoints(settings, asked), signals)
        if endpoints is None:
            return 0
        client = await stack.enter_async_context(RegistryClient(settings.registry_url, token=settings.bearer))
        sidecar = Sidecar(settings, client, endpoints, signals, Reloader(load, asked))
        await _listen(stack, AdminApi(sidecar, launch.config), launch.admin_listen)
        app = await stack.enter_async_context(App(command, os.environ)) if command else None
        # Not when the registry answered: an app's start must not wait for ours.
        notify("READY=1")
        return await sidecar.run(app)


async def _unless_stopped(work: Coroutine[Any, Any, T], signals: Signals) -> T | None:
    """Return what ``work`` returns, or None when a signal came first: there is nothing to drain yet."""
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
        fault = f"cannot listen on {listen}: {os.strerror(error.errno) if error.errno else error}"
        if error.errno == errno.EADDRINUSE:
            fault = f"{fault}, by {await call_in_thread(partial(_occupant, listen))}"
        if listen != LaunchSettings().admin_listen:
            raise ConfigurationError([f"REGISTRAR_ADMIN_LISTEN: {fault}"]) from error
        # Nobody asked for this place; the second registrar of a machine must not fail because of it.
        log.warning(
            "admin_unavailable",
            reason=fault,
            meaning="registrar healthcheck, status and drain find that one there, and not this registrar",
            fix="set REGISTRAR_ADMIN_LISTEN to a place of its own, or off",
        )


def _occupant(listen: ListenAddress) -> str:
    """Name who listens there."""
    try:
        _, said = AdminClient(listen, _PATIENCE).request("GET", "/status")
        return describe(msgspec.json.decode(said, type=RegistrarStatus))
    except (AdminRefused, AdminUnavailable, msgspec.DecodeError):
        return "another program"
