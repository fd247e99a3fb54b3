"""The heartbeats of a process, against a registry over real HTTP."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import pytest
from harness.fake_registry import FakeRegistry, fenced

from registrar.checks.result import Outcome, Result
from registrar.config.settings import Service
from registrar.endpoint.endpoint import Endpoint
from registrar.heartbeat.agent import HeartbeatAgent
from registrar.identity.resolver import Identity
from registrar.identity.source import Location
from registrar.identity.spec import EndpointSpec
from registrar.registry_client.client import RegistryClient
from registrar.registry_client.registries import RegistryUrls
from wire.model import Grant, Health, Heartbeat, Report
from wire.problem import Problem

IDENTITY = Identity("i-1", 100, "eu", "a")
PASSED = Result(Outcome.PASSED, "fine")
FAILED = Result(Outcome.FAILED, "broken")


def endpoint(port: int = 8080, service: str = "shop") -> Endpoint:
    """Return an endpoint that has not been checked yet."""
    settings = Service(service=service, endpoint=EndpointSpec.parse(f":{port}"), revision="r1", weight=3)
    return Endpoint(settings, Location("10.0.0.5", port), IDENTITY, 0)


def become(it: Endpoint, result: Result = PASSED) -> Endpoint:
    """Give an endpoint as many results as its threshold takes."""
    for _ in range(4):
        it.observe(0, result, 1000)
    return it


@asynccontextmanager
async def running(*endpoints: Endpoint, urls: list[str]) -> AsyncIterator[HeartbeatAgent]:
    """Run an agent for these endpoints, with a first heartbeat soon."""
    async with RegistryClient(RegistryUrls(*urls), 0.5) as client:
        agent = HeartbeatAgent(client, endpoints)
        task = asyncio.create_task(agent.run())
        agent.changed()
        yield agent
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_one_request_carries_the_full_state_of_all_endpoints(registry: FakeRegistry) -> None:
    """Every beat has everything that is to be published, so that a registry without data is rebuilt."""
    async with running(become(endpoint(1)), become(endpoint(2, "admin")), urls=[registry.url]):
        await registry.until(lambda: registry.batches)
    first, second = registry.batches[0][1].heartbeats
    said = first.registration
    assert (first.service, first.endpoint, second.service, second.endpoint) == (
        "shop", "10.0.0.5:1", "admin", "10.0.0.5:2",
    )  # fmt: skip
    assert (said.instance_id, said.incarnation, said.region, said.zone) == ("i-1", 100, "eu", "a")
    assert (said.health, said.draining, said.revision, said.weight, said.detail) == (
        Report.HEALTHY, False, "r1", 3, "fine",
    )  # fmt: skip


async def test_an_endpoint_that_is_starting_is_not_registered(registry: FakeRegistry) -> None:
    """Only the endpoint that crossed its threshold is sent, and nothing at all before the first did."""
    slow, ready = endpoint(1), endpoint(2)
    slow.observe(0, PASSED, 1)
    async with running(slow, ready, urls=[registry.url]) as agent:
        await asyncio.sleep(0.2)
        assert registry.batches == []
        become(ready)
        agent.changed()
        await registry.until(lambda: registry.batches)
    assert {beat.endpoint for beat in registry.heartbeats} == {"10.0.0.5:2"}


async def test_heartbeats_follow_the_granted_interval(registry: FakeRegistry) -> None:
    """The registry sets the pace."""
    registry.interval = 0.1
    async with running(become(endpoint()), urls=[registry.url]):
        await registry.until(lambda: len(registry.batches) >= 7)
    moments = [at for at, _ in registry.batches[1:]]
    pauses = [later - earlier for earlier, later in pairwise(moments)]
    assert all(0.085 <= pause <= 0.25 for pause in pauses)


async def test_a_change_does_not_wait_for_the_interval(registry: FakeRegistry) -> None:
    """A failed endpoint is reported within a moment, with what its check said."""
    registry.interval = 60
    it = become(endpoint())
    async with running(it, urls=[registry.url]) as agent:
        await registry.until(lambda: registry.batches)
        await asyncio.sleep(0.05)
        become(it, FAILED)
        agent.changed()
        await registry.until(lambda: len(registry.batches) == 2, 1)
    assert (registry.last.registration.health, registry.last.registration.detail) == (
        Report.UNHEALTHY, "broken",
    )  # fmt: skip


async def test_details_of_steady_results_are_not_sent(registry: FakeRegistry) -> None:
    """A detail that changed with each result would make each heartbeat a change to publish."""
    it = become(endpoint())
    it.observe(0, Result(Outcome.PASSED, "fine, but in other words"), 2000)
    beat = it.heartbeat()
    assert beat is not None
    assert beat.registration.detail == "fine"


async def test_the_agent_never_gives_up(registry: FakeRegistry) -> None:
    """Errors of all kinds are followed by another attempt."""
    registry.ttl = 1.0
    for status in (500, 503, 404, 429, 200, 302):
        registry.failures.append((status, {}, b""))
    registry.interval = 0.1
    it = become(endpoint())
    # Before the first grant a refused batch waits for the default interval of five seconds.
    it.lease.granted(it.heartbeat().registration, _grant(it), 0)  # type: ignore[union-attr]
    async with running(it, urls=[registry.url]):
        await registry.until(lambda: len(registry.batches) == 8, 10)
    assert not registry.failures


async def test_an_absent_registry_is_found_when_it_comes(unused_tcp_port: int) -> None:
    """The first heartbeat after an outage carries the state of that moment."""
    it = become(endpoint())
    async with running(it, urls=[f"http://127.0.0.1:{unused_tcp_port}"]):
        await asyncio.sleep(0.3)
        become(it, FAILED)
        async with FakeRegistry(unused_tcp_port) as registry:
            await registry.until(lambda: registry.batches, 6)
            assert registry.heartbeats[0].registration.health is Report.UNHEALTHY
            assert it.lease.accepted or await _soon(lambda: it.lease.accepted)


async def test_retry_after_holds_everything_back(registry: FakeRegistry) -> None:
    """An overloaded registry is left alone for as long as it asked, whatever changes."""
    registry.failures.append((503, {"retry-after": "1"}, b""))
    it = become(endpoint())
    async with running(it, urls=[registry.url]) as agent:
        await registry.until(lambda: len(registry.batches) == 1)
        become(it, FAILED)
        agent.changed()
        await registry.until(lambda: len(registry.batches) == 2)
    (first, _), (second, _) = registry.batches
    assert second - first >= 0.99


async def test_an_overloaded_item_holds_the_next_request_back(registry: FakeRegistry) -> None:
    """A problem of one beat that asks to wait is heard like one of the whole request."""
    problems = [Problem("busy", 503, "later", retry_after=0.6)]
    registry.refuse = lambda _: problems.pop() if problems else None
    async with running(become(endpoint()), urls=[registry.url]):
        await registry.until(lambda: len(registry.batches) == 2)
    assert registry.batches[1][0] - registry.batches[0][0] >= 0.59


async def test_a_fenced_endpoint_goes_silent_and_the_others_go_on(registry: FakeRegistry) -> None:
    """Faults 20 and 21: 409 after a grant ends the heartbeats of that endpoint, for good."""
    lost, kept = become(endpoint(1)), become(endpoint(2))
    registry.interval = 0.1
    async with running(lost, kept, urls=[registry.url]):
        await registry.until(lambda: len(registry.batches) == 2)
        registry.refuse = lambda beat: fenced("i-1", 200) if beat.endpoint == "10.0.0.5:1" else None
        await _soon(lambda: lost.lease.fenced)
        registry.refuse = lambda _: None
        seen = len(registry.batches)
        await registry.until(lambda: len(registry.batches) >= seen + 3)
    after = [beat.endpoint for _, batch in registry.batches[seen:] for beat in batch.heartbeats]
    assert set(after) == {"10.0.0.5:2"}


async def test_a_clock_that_went_back_is_made_up_for_once(registry: FakeRegistry) -> None:
    """Fault 22: the first heartbeat is refused, the second exceeds the known incarnation."""
    registry.refuse = lambda beat: fenced("i-1", 900) if beat.registration.incarnation <= 900 else None
    it = become(endpoint())
    async with running(it, urls=[registry.url]):
        await _soon(lambda: it.lease.accepted)
    assert [beat.registration.incarnation for beat in registry.heartbeats[:2]] == [100, 901]


async def test_two_processes_of_one_instance_do_not_take_turns(registry: FakeRegistry) -> None:
    """Fault 21: the later start wins, the earlier is fenced, and it stays like that."""
    newest = 0

    def refuse(beat: Heartbeat) -> Problem | None:
        nonlocal newest
        if beat.registration.incarnation < newest:
            return fenced("i-1", newest)
        newest = beat.registration.incarnation
        return None

    registry.refuse, registry.interval = refuse, 0.1
    first, second = become(endpoint()), become(endpoint())
    first.lease.incarnation = 200
    async with running(first, urls=[registry.url]):
        await _soon(lambda: first.lease.accepted)
        async with running(second, urls=[registry.url]):
            await _soon(lambda: second.lease.accepted and first.lease.fenced)
            await asyncio.sleep(0.3)
    assert (first.lease.fenced, second.lease.fenced, newest) == (True, False, 201)


async def test_more_endpoints_than_a_batch_holds_go_out_in_several(registry: FakeRegistry) -> None:
    """The wire's limit of 1,000 beats makes two requests, not a refusal."""
    many = [become(endpoint(port)) for port in range(1, 1003)]
    registry.interval = 60
    async with running(*many, urls=[registry.url]):
        await registry.until(lambda: len(registry.batches) == 2)
    assert [len(batch.heartbeats) for _, batch in registry.batches] == [1000, 2]


def _grant(it: Endpoint) -> Grant:
    return Grant(it.service.service, it.name, Health.HEALTHY, 1, 1.0, 0.1, 1.0)


async def _soon(holds: Callable[[], bool]) -> bool:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.01)
    return True


async def test_an_endpoint_that_the_registry_refuses_is_its_own_problem(registry: FakeRegistry) -> None:
    """A name that no registry takes makes a request invalid as a whole: the others are registered all the same."""
    bad, good = become(endpoint(1, "_shop-1")), [become(endpoint(port)) for port in (2, 3, 4)]
    async with running(bad, *good, urls=[registry.url]) as agent:
        await registry.until(
            lambda: {beat.endpoint for beat in registry.heartbeats} == {f"10.0.0.5:{n}" for n in (2, 3, 4)}
        )
        await asyncio.sleep(0.1)
        assert agent.away is None
        assert bad.lease.problem is not None
        assert bad.lease.problem.status == 422
        assert [endpoint.lease.accepted for endpoint in (bad, *good)] == [False, True, True, True]


async def test_a_refused_name_is_no_registry_that_is_away(registry: FakeRegistry) -> None:
    """Alone in its request, too."""
    bad = become(endpoint(1, "_shop-1"))
    async with running(bad, urls=[registry.url]) as agent:
        async with asyncio.timeout(5):
            while bad.lease.problem is None:
                await asyncio.sleep(0.01)
        assert (agent.away, bad.lease.problem.status) == (None, 422)
