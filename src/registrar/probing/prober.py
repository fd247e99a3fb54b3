"""The prober connects to endpoints of the same service when the registry asks for it, and reports what it found."""

import asyncio
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Never, Protocol

from registrar.endpoint.endpoint import Endpoint
from registrar.errors import RegistryRequestError
from registrar.event_log import EventLogger
from registrar.probing.record import ROUNDS, ProbeRecord, conclude, spacing
from wire.address import parse_endpoint
from wire.probe_report import ProbeReport, ProbeResult
from wire.probe_request import MAX_BASE_LINES, MAX_SUSPECTS, ProbeRequest, ProbeSuspect
from wire.tcp_probe import Outcome, probe

MAX_ENDPOINTS = 4
"""Endpoints of this process that probe at the same time; requests to further ones are dropped, and come again."""
BASE_LINE_GAP = 0.05
"""Seconds between two connections for base lines, so that a registrar makes at most 20 a second."""
CONTROLS = 2
"""Controls that have to connect in each round."""

log = EventLogger(__name__)


class Reporter(Protocol):
    """The part of the registry's client that the prober needs."""

    async def report_probes(self, report: ProbeReport) -> None:
        """Send results of probes.

        Raises:
            RegistryRequestError: they were not taken.
        """


class Prober:
    """Probes for the endpoints of this process; one request of an endpoint at a time.

    Args:
        client: sends the results.
    """

    def __init__(self, client: Reporter) -> None:
        self._client = client
        self._loop = asyncio.get_running_loop()
        # By the key of an endpoint of this process: what it has connected to. An entry stays until the endpoint has
        # gone; written by _work().
        self._records: dict[tuple[str, str], ProbeRecord] = {}
        # The keys of the endpoints whose request is under way.
        self._busy: set[tuple[str, str]] = set()
        # Requests that were taken in and have not begun.
        self._queue: asyncio.Queue[tuple[Endpoint, ProbeRequest]] = asyncio.Queue()
        # The reason of the last report that was not taken; each reason is logged once.
        self._refused_for = ""

    def ask(self, endpoint: Endpoint, request: ProbeRequest) -> None:
        """Take in a request that a grant of an endpoint had; it is dropped while another one is under way."""
        key = (endpoint.service.service, endpoint.name)
        if not endpoint.identity.prober or endpoint.draining or endpoint.retired:
            return
        if key not in self._busy and len(self._busy) < MAX_ENDPOINTS:
            self._busy.add(key)
            self._queue.put_nowait((endpoint, request))

    async def run(self) -> Never:
        """Work off the requests until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                endpoint, request = await self._queue.get()
                tasks.create_task(self._work(endpoint, request), name=f"probes {endpoint.name}")

    async def _work(self, endpoint: Endpoint, request: ProbeRequest) -> None:
        key = (endpoint.service.service, endpoint.name)
        record = self._records.setdefault(key, ProbeRecord())
        try:
            await self._renew_base_lines(endpoint, request, record)
            results = await self._investigate(endpoint, request.suspects[:MAX_SUSPECTS], record)
            if results and not endpoint.retired:
                await self._report(ProbeReport(*key, endpoint.identity.instance_id, results))
        finally:
            self._busy.discard(key)
            if endpoint.retired:
                self._records.pop(key, None)

    async def _renew_base_lines(self, endpoint: Endpoint, request: ProbeRequest, record: ProbeRecord) -> None:
        for target in record.due(request.base_lines[:MAX_BASE_LINES], self._loop.time()):
            if await _connect(endpoint, target.endpoint) == "connected":
                record.reached(target, self._loop.time())
            await asyncio.sleep(BASE_LINE_GAP)

    async def _investigate(
        self, endpoint: Endpoint, suspects: Sequence[ProbeSuspect], record: ProbeRecord
    ) -> list[ProbeResult]:
        """Try suspects in rounds, with their controls in each, and return what that comes to."""
        attempts: dict[ProbeSuspect, list[tuple[Outcome, float]]] = {}
        pending = [] if record.is_muted(self._loop.time()) else list(suspects)
        for _ in range(ROUNDS):
            if not pending:
                break
            began = self._loop.time()
            if not await self._controls_connect(endpoint, pending):
                record.control_failed(self._loop.time())
                attempts = {each: made for each, made in attempts.items() if made[-1][0] == "connected"}
                break
            outcomes = await asyncio.gather(*(_connect(endpoint, each.endpoint) for each in pending))
            ended = self._loop.time()
            for each, outcome in zip(pending, outcomes, strict=True):
                attempts.setdefault(each, []).append((outcome, ended))
            # One that connects needs no other attempt.
            pending = [each for each in pending if attempts[each][-1][0] != "connected"]
            if pending and len(attempts[pending[0]]) < ROUNDS:
                await asyncio.sleep(max(0.0, began + spacing(outcomes) - self._loop.time()))
        return list(self._results(attempts, record))

    async def _controls_connect(self, endpoint: Endpoint, suspects: Sequence[ProbeSuspect]) -> bool:
        """Return whether every control connects; each suspect needs two on other hosts than its own and this one."""
        controls = {control for each in suspects for control in each.controls[:CONTROLS]}
        if any(len(_hosts(each, endpoint)) < CONTROLS for each in suspects):
            return False
        outcomes = await asyncio.gather(*(_connect(endpoint, control) for control in controls))
        return all(outcome == "connected" for outcome in outcomes)

    def _results(
        self, attempts: Mapping[ProbeSuspect, Sequence[tuple[Outcome, float]]], record: ProbeRecord
    ) -> Iterable[ProbeResult]:
        now = self._loop.time()
        for suspect, made in attempts.items():
            conclusion, reached_at = conclude(made), record.reached_at(suspect)
            if conclusion is None or not (conclusion.outcome == "connected" or record.has_base_line(suspect, now)):
                continue
            yield ProbeResult(
                suspect.endpoint,
                suspect.incarnation,
                conclusion.outcome,
                conclusion.attempts,
                round(now - conclusion.at, 3),
                None if reached_at is None else round(now - reached_at, 3),
            )

    async def _report(self, report: ProbeReport) -> None:
        try:
            await self._client.report_probes(report)
        except RegistryRequestError as error:
            # The registry asks again while there are suspects.
            if str(error) != self._refused_for:
                log.warning("probes_not_reported", service=report.service, endpoint=report.endpoint, reason=str(error))
            self._refused_for = str(error)
        else:
            self._refused_for = ""


def _hosts(suspect: ProbeSuspect, endpoint: Endpoint) -> set[str]:
    """Return the hosts of a suspect's controls, without its own and this one."""
    hosts = {_host(control) for control in suspect.controls[:CONTROLS]}
    return hosts - {"", _host(suspect.endpoint), endpoint.location.address}


def _host(endpoint: str) -> str:
    try:
        return parse_endpoint(endpoint)[0]
    except ValueError:
        return ""


async def _connect(endpoint: Endpoint, target: str) -> Outcome:
    """Try to connect to an endpoint of the service; addresses that are no other machine's are not tried."""
    try:
        address, port = parse_endpoint(target)
    except ValueError:
        return "nothing"
    if not _may_be_probed(address, endpoint.location.address):
        return "nothing"
    return await probe(address, port)


def _may_be_probed(address: str, own: str) -> bool:
    """Return whether a registry may have an address probed: no metadata service, and loopback only where it is used."""
    ip = ipaddress.ip_address(address)
    if ip.is_link_local or ip.is_multicast or ip.is_unspecified:
        return False
    return not ip.is_loopback or ipaddress.ip_address(own).is_loopback
