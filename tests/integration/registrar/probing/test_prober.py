"""A registrar's probes of real sockets, each host an address of loopback."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from harness.fake_registry import FakeRegistry
from harness.process import free_port

from registrar.config.settings import Service
from registrar.endpoint.endpoint import Endpoint
from registrar.errors import RegistryRefused, RegistryRequestError
from registrar.identity.resolver import Identity
from registrar.identity.source import Location
from registrar.identity.spec import EndpointSpec
from registrar.probing import record
from registrar.probing.prober import MAX_ENDPOINTS, Prober
from registrar.registry_client.client import RegistryClient
from registrar.registry_client.registries import RegistryUrls
from wire.probe_report import ProbeReport
from wire.probe_request import ProbeRequest, ProbeSuspect, ProbeTarget
from wire.problem import Problem

pytestmark = pytest.mark.usefixtures("quick")

SUSPECT, FIRST, SECOND = "127.0.0.5", "127.0.0.6", "127.0.0.7"


class Registry:
    """What takes the reports; ``failure`` is raised instead if it is set."""

    def __init__(self) -> None:
        self.reports: list[ProbeReport] = []
        self.failure: RegistryRequestError | None = None

    async def report_probes(self, report: ProbeReport) -> None:
        """Take a report."""
        self.reports.append(report)
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the rounds follow one another at once."""
    monkeypatch.setattr(record, "REFUSED_SPACING", 0.02)
    monkeypatch.setattr(record, "TIMED_OUT_SPACING", 0.02)


def endpoint(*, prober: bool = True, address: str = "127.0.0.1", port: int = 8080) -> Endpoint:
    """Return an endpoint of the process that probes."""
    service = Service(service="shop", endpoint=EndpointSpec.parse(f"{address}:{port}"))
    return Endpoint(service, Location(address, port), Identity("i-1", 1, prober=prober), 0.0)


@asynccontextmanager
async def listening(address: str, port: int) -> AsyncIterator[str]:
    """Accept connections within a block, and return the endpoint."""

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(accept, address, port):
        yield f"{address}:{port}"


@asynccontextmanager
async def probing(registry: Registry) -> AsyncIterator[Prober]:
    """Run a prober within a block."""
    prober = Prober(registry)
    running = asyncio.create_task(prober.run())
    try:
        yield prober
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def idle(prober: Prober) -> None:
    """Wait until every request is worked off."""
    async with asyncio.timeout(10):
        while prober._busy:
            await asyncio.sleep(0.01)


async def ask(prober: Prober, own: Endpoint, request: ProbeRequest) -> None:
    """Ask, and wait for the end."""
    prober.ask(own, request)
    await idle(prober)


async def test_a_suspect_that_was_reached_and_refuses_is_reported() -> None:
    """The base line is taken while it is healthy; three resets later the registry hears of it."""
    registry, port = Registry(), free_port()
    suspect = f"{SUSPECT}:{port}"
    async with probing(registry) as prober, listening(FIRST, port) as first, listening(SECOND, port) as second:
        async with listening(SUSPECT, port):
            await ask(prober, endpoint(), ProbeRequest(base_lines=[ProbeTarget(suspect, 7)]))
        assert registry.reports == []
        await ask(prober, endpoint(), ProbeRequest(suspects=[ProbeSuspect(suspect, 7, (first, second))]))
        # Another incarnation was never reached.
        await ask(prober, endpoint(), ProbeRequest(suspects=[ProbeSuspect(suspect, 8, (first, second))]))
    (report,) = registry.reports
    assert (report.service, report.endpoint, report.instance_id) == ("shop", "127.0.0.1:8080", "i-1")
    (result,) = report.results
    assert (result.endpoint, result.incarnation, result.outcome, result.attempts) == (suspect, 7, "refused", 3)
    assert result.ago < 1
    assert result.reached_ago is not None
    assert result.reached_ago < 5


async def test_a_suspect_that_accepts_is_reported_at_once() -> None:
    """That counts for it without any base line, and the others are tried on."""
    registry, port = Registry(), free_port()
    async with (
        probing(registry) as prober,
        listening(FIRST, port) as first,
        listening(SECOND, port) as second,
        listening(SUSPECT, port) as suspect,
    ):
        await ask(prober, endpoint(), ProbeRequest(suspects=[ProbeSuspect(suspect, 7, (first, second))]))
    ((result,),) = [report.results for report in registry.reports]
    assert (result.outcome, result.attempts, result.reached_ago) == ("connected", 1, None)


@pytest.mark.parametrize("controls", [(FIRST,), (FIRST, FIRST), (FIRST, SUSPECT), (FIRST, "127.0.0.1"), (FIRST, "x")])
async def test_without_two_controls_nothing_is_said(controls: tuple[str, ...]) -> None:
    """They have to be on two hosts, and neither the suspect's nor the prober's own."""
    registry, port = Registry(), free_port()
    suspect = f"{SUSPECT}:{port}"
    async with probing(registry) as prober, listening(FIRST, port), listening("127.0.0.1", port):
        async with listening(SUSPECT, port):
            await ask(prober, endpoint(), ProbeRequest(base_lines=[ProbeTarget(suspect, 7)]))
        named = tuple(f"{control}:{port}" for control in controls)
        await ask(prober, endpoint(), ProbeRequest(suspects=[ProbeSuspect(suspect, 7, named)]))
    assert registry.reports == []


async def test_a_control_that_refuses_mutes_the_prober() -> None:
    """Nothing is said of anybody then, also with controls that connect."""
    registry, port = Registry(), free_port()
    suspect = f"{SUSPECT}:{port}"
    async with probing(registry) as prober, listening(FIRST, port) as first:
        async with listening(SUSPECT, port):
            await ask(prober, endpoint(), ProbeRequest(base_lines=[ProbeTarget(suspect, 7)]))
        bad = ProbeRequest(suspects=[ProbeSuspect(suspect, 7, (first, f"{SECOND}:{port}"))])
        await ask(prober, endpoint(), bad)
        async with listening(SECOND, port):
            await ask(prober, endpoint(), bad)
    assert registry.reports == []


async def test_who_did_not_say_yes_connects_to_nobody() -> None:
    """Nor does an endpoint that drains, and one that is asked while it is busy is asked once."""
    registry, port = Registry(), free_port()
    connections = 0

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.close()

    request = ProbeRequest(base_lines=[ProbeTarget(f"{SUSPECT}:{port}", 7)])
    leaving = endpoint(port=8081)
    leaving.drain()
    async with probing(registry) as prober, await asyncio.start_server(accept, SUSPECT, port):
        await ask(prober, endpoint(prober=False), request)
        await ask(prober, leaving, request)
        assert connections == 0
        for number in range(MAX_ENDPOINTS + 3):
            prober.ask(endpoint(port=9000 + number), request)
            prober.ask(endpoint(port=9000 + number), request)
        await idle(prober)
        async with asyncio.timeout(10):
            while connections < MAX_ENDPOINTS:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
    assert connections == MAX_ENDPOINTS


async def test_a_registry_cannot_have_this_machine_scanned() -> None:
    """Loopback is probed only by who registered there, and a metadata service by nobody."""
    registry, port = Registry(), free_port()
    own = endpoint(address="10.0.0.5")
    async with probing(registry) as prober, listening(SUSPECT, port) as target:
        targets = [target, "169.254.169.254:80", "[fe80::1]:80", "0.0.0.0:80", "x", ""]
        await ask(prober, own, ProbeRequest(base_lines=[ProbeTarget(each, 7) for each in targets]))
        assert prober._records["shop", "10.0.0.5:8080"]._base_lines == {}


async def test_a_report_that_is_refused_ends_nothing() -> None:
    """The registrar goes on, and reports the next time."""
    registry, port = Registry(), free_port()
    registry.failure = RegistryRefused(Problem("Forbidden", 403, "not allowed"), from_registry=True)
    async with (
        probing(registry) as prober,
        listening(FIRST, port) as first,
        listening(SECOND, port) as second,
        listening(SUSPECT, port) as suspect,
    ):
        for _ in range(2):
            await ask(prober, endpoint(), ProbeRequest(suspects=[ProbeSuspect(suspect, 7, (first, second))]))
    assert len(registry.reports) == 2


async def test_an_old_registrar_ignores_the_field(registry: FakeRegistry) -> None:
    """A grant may have more fields than a registrar reads; this one takes a report over real HTTP as refused."""
    registry.failures.append((404, {}, b""))
    async with RegistryClient(RegistryUrls(registry.url), 0.5) as client:
        with pytest.raises(RegistryRequestError):
            await client.report_probes(ProbeReport("shop", "127.0.0.1:8080", "i-1", []))
