"""Errands of operators: the registrar asks for them, does one at a time, and answers."""

import asyncio
import math
from collections.abc import Callable
from pathlib import Path
from typing import Never, Protocol
from zlib import crc32

import msgspec

from registrar import jitter
from registrar.endpoint.endpoint import Endpoint
from registrar.envoy_admin.client import EnvoyAdminClient
from registrar.errands import clusters, config, tap, top
from registrar.errands.admin import ErrandAdmin
from registrar.errands.log_level import LogLevels
from registrar.errands.refused import RefusedError
from registrar.errors import EnvoyAdminError, RegistryRefused, RegistryUnavailable
from registrar.event_log import EventLogger
from registrar.registry_client.client import TakenErrand
from wire.errand import (
    MAX_ENDPOINTS,
    MAX_RESULT_BYTES,
    READING,
    Arguments,
    Clusters,
    Config,
    ErrandResult,
    LogLevel,
    Mode,
    Tap,
    Top,
    printable,
    verb_of,
)

_BACKOFF_BASE = 2.0
"""Seconds at most before the next request after one that failed; each further one may wait twice as long."""
_MAX_BACKOFF = 30.0
"""Seconds between two requests at most while they fail, unless the registry asks for more."""
_UNKNOWN_DELAY = 60.0
"""Seconds before the next request to a registry that knows no errands, or refuses."""
_UNREGISTERED_DELAY = 2.0
"""Seconds before the next request after a registry did not know an endpoint."""
_LOOK_INTERVAL = 0.5
"""Seconds between two looks whether an endpoint is registered."""
_MAX_ATTEMPTS = 4
"""Attempts to send a result."""
_MAX_DETAIL = 1500
"""Characters of a detail."""

log = EventLogger(__name__)


class Registry(Protocol):
    """The part of the registry's client that errands need."""

    async def next_errand(self, instance_id: str, endpoints: list[str]) -> tuple[TakenErrand | None, float]:
        """Return the next errand when there is one, and the seconds to wait before the next request."""

    async def answer_errand(self, instance_id: str, endpoint: str, errand_id: str, result: bytes) -> None:
        """Send the result of an errand."""


_decode_arguments = msgspec.json.Decoder(Arguments).decode


class Errands:
    """Asks for errands and does them, one at a time.

    Args:
        registry: has the errands.
        client: sends requests to Envoy's admin interface.
        mode: the errands that are done; ``none``: the registry is not asked.
        directory: where log levels are kept that have to be put back.
        endpoints: returns the endpoints of this process.
    """

    def __init__(
        self,
        registry: Registry,
        client: EnvoyAdminClient,
        mode: Mode,
        directory: Path,
        endpoints: Callable[[], list[Endpoint]],
    ) -> None:
        self._registry = registry
        self._admin = ErrandAdmin(client)
        self._mode = mode
        # One file for each Envoy: registrars of one machine share the directory.
        self._levels = LogLevels(self._admin, directory / f"log-level-{crc32(str(client.address).encode()):08x}.json")
        self._endpoints = endpoints
        self._refused = ""
        """Why the last request was refused; each reason is logged once."""

    async def run(self) -> None:
        """Take errands and put log levels back, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._levels.run(), name="envoy log levels")
            if self._mode != "none":
                tasks.create_task(self._take(), name="errands")

    async def _take(self) -> Never:
        backoff = jitter.Backoff(_BACKOFF_BASE, _MAX_BACKOFF)
        while True:
            registered = [each for each in self._endpoints() if each.lease.grant is not None]
            if not registered:
                await asyncio.sleep(_LOOK_INTERVAL)
                continue
            instance = registered[0].identity.instance_id
            names = [f"{each.service.service}/{each.name}" for each in registered[:MAX_ENDPOINTS]]
            try:
                errand, delay = await self._registry.next_errand(instance, names)
                backoff.reset()
                self._refused = ""
            except RegistryUnavailable as error:
                errand, delay = None, backoff.failed(math.inf, error.retry_after)
            except RegistryRefused as error:
                # One that knows errands says so of an endpoint that it does not know (yet).
                errand, delay = None, _UNREGISTERED_DELAY if _is_unregistered(error) else _UNKNOWN_DELAY
                self._log_refusal(str(error))
            if errand is not None:
                await self._do(instance, errand)
            if delay:
                await asyncio.sleep(jitter.around(delay, 0.2))

    def _log_refusal(self, reason: str) -> None:
        if reason != self._refused:
            log.warning("errands_refused", reason=reason)
        self._refused = reason

    async def _result_of(self, errand: TakenErrand) -> ErrandResult:
        try:
            return await self.result_of(errand)
        except Exception:
            # Whatever it is, it is no reason to stop the heartbeats of this process.
            log.exception("errand_crashed", id=errand.id)
            return ErrandResult("failed", "the registrar failed at this errand; its log says why")

    async def _do(self, instance: str, errand: TakenErrand) -> None:
        result = await self._result_of(errand)
        log.info("errand_done", id=errand.id, outcome=result.outcome, detail=result.detail)
        content = msgspec.json.encode(result)
        if len(content) > MAX_RESULT_BYTES:
            content = _failure(f"the result has {len(content)} bytes, and {MAX_RESULT_BYTES} may be sent; ask for less")
        for attempt in range(_MAX_ATTEMPTS):
            try:
                name = f"{errand.service}/{errand.endpoint}"
                await self._registry.answer_errand(instance, name, errand.id, content)
            except RegistryUnavailable:
                await asyncio.sleep(jitter.around(0.5 * 2**attempt, 0.2))
            except RegistryRefused as error:
                log.warning("errand_result_refused", id=errand.id, reason=str(error))
                if error.problem.status != 413:
                    return
                content = _failure(f"the registry takes no result of {len(content)} bytes (REGISTRY_MAX_BODY)")
            else:
                return
        log.warning("errand_result_not_sent", id=errand.id)

    async def result_of(self, errand: TakenErrand) -> ErrandResult:
        """Do an errand and return its result; whatever goes wrong is one too."""
        try:
            arguments = _decode_arguments(errand.arguments)
        except msgspec.DecodeError as error:
            return ErrandResult("refused", printable(f"this registrar does not know the errand: {error}", _MAX_DETAIL))
        if not isinstance(arguments, READING) and self._mode != "debug":
            return ErrandResult(
                "refused",
                f"REGISTRAR_ERRANDS is {self._mode} here, and {verb_of(arguments)} needs debug",
            )
        try:
            async with asyncio.timeout(errand.seconds):
                return await self._call(arguments, errand.callee)
        except RefusedError as error:
            return ErrandResult("refused", printable(str(error), _MAX_DETAIL))
        except (EnvoyAdminError, TimeoutError, ValueError, RecursionError) as error:
            return ErrandResult("failed", printable(_reason(error, arguments, errand.seconds), _MAX_DETAIL))

    async def _call(self, arguments: Arguments, callee: str) -> ErrandResult:
        match arguments:
            case Clusters():
                return ErrandResult("done", clusters=await clusters.look(self._admin, arguments))
            case Config():
                return ErrandResult("done", config=await config.look(self._admin, arguments))
            case LogLevel():
                return ErrandResult("done", log_level=await self._levels.set(arguments))
            case Tap():
                return ErrandResult("done", tap=await tap.look(self._admin, arguments, callee))
            case Top():
                return ErrandResult("done", top=await top.look(self._admin, arguments, callee))


def _is_unregistered(error: RegistryRefused) -> bool:
    return error.from_registry and error.problem.status == 404


def _failure(detail: str) -> bytes:
    return msgspec.json.encode(ErrandResult("failed", detail))


def _reason(error: Exception, arguments: Arguments, seconds: float) -> str:
    if isinstance(error, EnvoyAdminError):
        return str(error)
    if isinstance(error, TimeoutError):
        return f"Envoy did not do {verb_of(arguments)} within {seconds:.0f} s"
    # Its own text may quote what Envoy said, which may be secret.
    log.warning("errand_failed", verb=verb_of(arguments), error=type(error).__name__)
    return "Envoy's answer is not understood; its version may be unknown here"
