"""The end of an endpoint, against a registry over real HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from harness.fake_registry import FakeRegistry, fenced

from registrar.checks.result import Outcome, Result
from registrar.checks.threshold import State
from registrar.config.settings import Service
from registrar.endpoint.endpoint import Endpoint
from registrar.heartbeat.agent import HeartbeatAgent
from registrar.identity.resolver import Identity
from registrar.identity.source import Location
from registrar.identity.spec import EndpointSpec
from registrar.lifecycle.drain import Drain
from registrar.registry_client.client import RegistryClient
from registrar.registry_client.registries import RegistryUrls
from wire.model import Report
from wire.problem import Problem

PASSED = Result(Outcome.PASSED, "fine")
FAILED = Result(Outcome.FAILED, "broken")


class Process:
    """An agent with one endpoint, and its drain."""

    def __init__(self, url: str, client: RegistryClient) -> None:
        settings = Service(service="shop", endpoint=EndpointSpec.parse(":8080"))
        self.endpoint = Endpoint(settings, Location("10.0.0.5", 8080), Identity("i-1", 100), 0)
        self.agent = HeartbeatAgent(client, [self.endpoint])
        self._client = client
        self._loop = asyncio.get_running_loop()

    async def publish(self, registry: FakeRegistry) -> None:
        """Pass the threshold and wait for the grant."""
        self.observe(PASSED)
        await registry.until(lambda: registry.batches)
        async with asyncio.timeout(2):
            while not self.endpoint.lease.accepted:
                await asyncio.sleep(0.005)

    def observe(self, result: Result) -> None:
        """Give the endpoint as many results as any threshold takes."""
        for _ in range(10):
            if self.endpoint.observe(0, result, 1000):
                self.agent.changed()

    async def drain(self, limit: float = 5.0, wait: float | None = None) -> float:
        """Drain to the end and return the seconds it took."""
        started = self._loop.time()
        self.last = Drain(self.agent, self._client, wait, started + limit)
        await self.last.run([self.endpoint])
        return self._loop.time() - started

    async def leave(self, limit: float = 5.0) -> None:
        """Give everything back without a wait."""
        await Drain(self.agent, self._client, None, self._loop.time() + limit).deregister([self.endpoint])


@asynccontextmanager
async def process(url: str) -> AsyncIterator[Process]:
    """Run the agent of one process."""
    async with RegistryClient(RegistryUrls(url), 0.5) as client:
        it = Process(url, client)
        task = asyncio.create_task(it.agent.run())
        yield it
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_drain_then_wait_then_deregister(registry: FakeRegistry) -> None:
    """The drain is stored first, the granted wait runs from then on, and the lease is given back last."""
    registry.drain_wait = 0.5
    async with process(registry.url) as it:
        await it.publish(registry)
        await it.drain()
    stored = next(at for at, batch in registry.batches if batch.heartbeats[0].registration.draining)
    (deleted,) = registry.deregistrations
    assert 0.45 <= deleted.at - stored <= 1.0
    assert (deleted.instance_id, deleted.incarnation) == ("i-1", 100)


async def test_heartbeats_go_on_during_the_wait(registry: FakeRegistry) -> None:
    """A wait that is longer than the TTL must not end in an expiry; after it no heartbeat follows."""
    registry.interval, registry.drain_wait = 0.1, 0.5
    async with process(registry.url) as it:
        await it.publish(registry)
        await it.drain()
        await asyncio.sleep(0.25)
    draining = [at for at, batch in registry.batches if batch.heartbeats[0].registration.draining]
    assert len(draining) >= 4
    assert max(draining) <= registry.deregistrations[0].at


async def test_the_configured_wait_replaces_the_granted_one(registry: FakeRegistry) -> None:
    """REGISTRAR_DRAIN_WAIT wins over what the registry says."""
    registry.drain_wait = 60
    async with process(registry.url) as it:
        await it.publish(registry)
        assert await it.drain(wait=0.2) < 1.0
    assert len(registry.deregistrations) == 1


async def test_the_wait_runs_from_the_acknowledged_write(registry: FakeRegistry) -> None:
    """A drain that had to be repeated does not shorten the time in which the app still serves."""
    registry.drain_wait = 0.5
    async with process(registry.url) as it:
        await it.publish(registry)
        registry.failures.extend([(503, {"retry-after": "0"}, b""), (503, {}, b"")])
        await it.drain()
    # Not by counting: a heartbeat that was due before the drain may have met the first failure.
    acknowledged = next(at for at, batch in registry.accepted if batch.heartbeats[0].registration.draining)
    assert registry.deregistrations[0].at - acknowledged >= 0.45


async def test_an_endpoint_that_was_never_published_has_nothing_to_wait_for(registry: FakeRegistry) -> None:
    """A stop during the start-up asks the registry whether it lists anything, and leaves at its no."""
    async with process(registry.url) as it:
        assert await it.drain() < 3.0
    assert set(registry.drains) == {"/v1/services/shop/endpoints/10.0.0.5:8080/drain?instance_id=i-1&incarnation=100"}
    assert registry.batches == []
    assert registry.deregistrations == []


async def test_what_an_earlier_start_had_published_is_drained(registry: FakeRegistry) -> None:
    """After a crash the registry lists what this start never published: it drains, waits and is deregistered."""
    registry.listed = {"status": "DRAINING", "health": "DEGRADED", "detail": "slow"}
    registry.failures.append((503, {"retry-after": "0"}, b""))
    registry.interval, registry.drain_wait = 0.1, 0.5
    async with process(registry.url) as it:
        assert await it.drain() >= 0.45
        await asyncio.sleep(0.2)
    said = [beat.registration for beat in registry.heartbeats]
    assert len(registry.drains) >= 2
    assert len(said) >= 3
    assert {(registration.health, registration.draining, registration.detail) for registration in said} == {
        (Report.DEGRADED, True, "slow")
    }
    (deleted,) = registry.deregistrations
    assert deleted.at >= max(at for at, _ in registry.batches)


@pytest.mark.parametrize("leaving", [None, 1_763_600_000.0])
async def test_what_nobody_is_sent_to_any_more_is_not_waited_for(registry: FakeRegistry, leaving: float | None) -> None:
    """An earlier start's endpoint that is UNHEALTHY is deregistered, and one that is leaving is left alone."""
    registry.listed = {"status": "UNHEALTHY", "health": "UNHEALTHY", "leaving_at": leaving}
    registry.drain_wait = 60
    async with process(registry.url) as it:
        assert await it.drain() < 1.0
    assert registry.batches == []
    assert len(registry.deregistrations) == (1 if leaving is None else 0)


async def test_an_app_that_died_before_its_first_check_is_deregistered(registry: FakeRegistry) -> None:
    """The registration of an earlier start is deregistered too: its app has ended."""
    async with process(registry.url) as it:
        await it.leave()
    assert [
        (deregistration.instance_id, deregistration.incarnation) for deregistration in registry.deregistrations
    ] == [("i-1", 100)]


async def test_a_dead_app_is_deregistered_without_a_wait(registry: FakeRegistry) -> None:
    """UNHEALTHY is out of rotation already."""
    registry.drain_wait = 60
    async with process(registry.url) as it:
        await it.publish(registry)
        it.observe(FAILED)
        assert await it.drain() < 1.0
    assert len(registry.deregistrations) == 1


async def test_a_registry_that_is_away_is_given_up_before_the_deadline(registry: FakeRegistry) -> None:
    """Fault 8: the TTL finishes what could not be said."""
    async with process(registry.url) as it:
        await it.publish(registry)
        registry.silent = True
        assert 0.7 <= await it.drain(limit=0.8) <= 1.2
    assert it.endpoint.state is State.DRAINING


async def test_a_registry_that_never_answered_is_asked_until_the_deadline(unused_tcp_port: int) -> None:
    """Nobody else knows what an earlier start had published; once the registry is there, it is drained."""
    async with process(f"http://127.0.0.1:{unused_tcp_port}") as it:
        assert 0.5 <= await it.drain(limit=0.6) < 1.0
    async with process(f"http://127.0.0.1:{unused_tcp_port}") as it:
        task = asyncio.create_task(it.drain())
        await asyncio.sleep(0.3)
        async with FakeRegistry(unused_tcp_port) as registry:
            registry.listed = {"status": "DRAINING", "health": "HEALTHY"}
            await task
            assert len(registry.deregistrations) == 1


async def test_what_was_never_stored_is_not_announced_as_draining(registry: FakeRegistry) -> None:
    """A drain of an endpoint whose heartbeats were all refused is the end of them, while the process goes on."""
    registry.refuse = lambda _: Problem("bad", 422, "weight")
    registry.interval = 0.1
    async with process(registry.url) as it:
        it.observe(PASSED)
        await registry.until(lambda: registry.batches)
        await asyncio.sleep(0.05)
        registry.refuse = lambda _: None
        await it.drain()
        it.agent.changed()
        await asyncio.sleep(0.3)
    assert not any(beat.registration.draining for beat in registry.heartbeats)


async def test_a_wait_beyond_the_deadline_is_cut_and_still_deregisters(registry: FakeRegistry) -> None:
    """A short stop timeout costs the rest of the wait, not the deregistration."""
    registry.drain_wait = 60
    async with process(registry.url) as it:
        await it.publish(registry)
        assert await it.drain(limit=1.2) <= 1.3
    assert len(registry.deregistrations) == 1


@pytest.mark.parametrize(
    "failure",
    [
        pytest.param((503, {}, b""), id="a registry that fails once"),
        # The endpoint would stay listed until its lease ends.
        pytest.param((404, {"content-type": "text/html"}, b"<html>"), id="a proxy without a registry behind it"),
        pytest.param((409, {}, b""), id="a program that is no registry"),
    ],
)
async def test_deregistration_is_repeated(registry: FakeRegistry, failure: tuple[int, dict[str, str], bytes]) -> None:
    """Until the registry itself has answered."""
    registry.drain_wait = 0.3
    registry.interval = 60
    async with process(registry.url) as it:
        await it.publish(registry)
        task = asyncio.create_task(it.drain())
        await registry.until(lambda: registry.last.registration.draining)
        registry.failures.append(failure)
        await task
    assert len(registry.deregistrations) == 2


async def test_a_fenced_endpoint_is_not_deregistered(registry: FakeRegistry) -> None:
    """An endpoint that a newer process owns is neither drained nor deregistered."""
    async with process(registry.url) as it:
        await it.publish(registry)
        registry.refuse = lambda _: fenced("i-1", 900)
        assert await it.drain() < 1.0
    assert registry.deregistrations == []


async def test_a_foreign_address_is_not_deregistered(registry: FakeRegistry) -> None:
    """An endpoint that never became ours is left to its owner."""
    registry.refuse = lambda _: fenced("i-2", 900)
    async with process(registry.url) as it:
        it.observe(PASSED)
        await registry.until(lambda: registry.batches)
        assert await it.drain() < 1.0
    assert registry.deregistrations == []


@pytest.mark.parametrize("results", [[FAILED] * 9, [PASSED] * 9, [FAILED, PASSED] * 9])
async def test_results_after_the_drain_began_change_nothing(registry: FakeRegistry, results: list[Result]) -> None:
    """Fault 9: checks that end during the drain, in any order, are not published."""
    registry.interval, registry.drain_wait = 0.1, 0.4
    async with process(registry.url) as it:
        await it.publish(registry)
        task = asyncio.create_task(it.drain())
        await asyncio.sleep(0)
        for result in results:
            it.observe(result)
            await asyncio.sleep(0.02)
        await task
    first = next(index for index, beat in enumerate(registry.heartbeats) if beat.registration.draining)
    said = [beat.registration for beat in registry.heartbeats[first:]]
    assert len(said) >= 3
    assert {(registration.health, registration.draining, registration.detail) for registration in said} == {
        (Report.HEALTHY, True, "fine")
    }


async def test_a_drain_whose_heartbeat_is_refused_is_asked_for_by_itself(registry: FakeRegistry) -> None:
    """A 422 is about what the heartbeat says; a plain drain says nothing, and the granted wait follows it."""
    registry.drain_wait = 0.4
    registry.listed = {"status": "DRAINING", "health": "HEALTHY"}
    async with process(registry.url) as it:
        await it.publish(registry)
        registry.refuse = lambda _: Problem("bad", 422, "weight")
        assert 0.4 <= await it.drain() < 1.5
    assert registry.drains
    assert registry.deregistrations
    assert it.last.refused == []


async def test_a_refused_drain_ends_with_the_lease(registry: FakeRegistry) -> None:
    """A token that is no longer valid is not tried for ever; Envoys learn of the end of the lease as of a drain."""
    registry.ttl, registry.interval, registry.drain_wait = 1.5, 0.1, 0.5
    async with process(registry.url) as it:
        await it.publish(registry)
        registry.failures.extend([(401, {}, b"")] * 99)
        assert 1.5 <= await it.drain(limit=30) < 3.0
        seen = len(registry.batches)
        await asyncio.sleep(0.3)
    assert len(registry.batches) == seen
    assert it.last.refused == [it.endpoint]
    assert it.endpoint.lease.problem is not None
    assert it.endpoint.lease.problem.status == 401


async def test_a_refused_question_is_told_at_once(registry: FakeRegistry) -> None:
    """Without a registration of this start there is no lease to wait for, but an earlier start may have one."""
    registry.failures.extend([(401, {}, b"")] * 9)
    async with process(registry.url) as it:
        assert await it.drain(limit=30) < 3.0
    assert it.last.refused == [it.endpoint]


async def test_a_refused_endpoint_has_nothing_to_wait_for(registry: FakeRegistry) -> None:
    """An endpoint that the registry refused is not listed, so a stop does not wait for it."""
    registry.failures.append((422, {}, b""))
    async with process(registry.url) as it:
        it.observe(PASSED)
        await registry.until(lambda: registry.batches)
        await asyncio.sleep(0.05)
        assert await it.drain() < 1.0
    assert registry.deregistrations == []


async def test_a_drain_does_not_wait_for_what_was_refused_meanwhile(registry: FakeRegistry) -> None:
    """A first heartbeat that is under way when the drain begins may be refused; so nothing was published."""
    registry.refuse = lambda _: Problem("bad", 422, "weight")
    async with process(registry.url) as it:
        it.observe(PASSED)
        it.endpoint.lease.perhaps_stored = True
        task = asyncio.create_task(it.drain())
        # It waits by now, and the heartbeat that is coalesced for 0.1 s has not left.
        await asyncio.sleep(0.03)
        it.endpoint.lease.perhaps_stored = False
        assert await task < 1.0
    assert registry.deregistrations == []


async def test_a_refusal_leaves_open_what_was_open(registry: FakeRegistry) -> None:
    """Of a heartbeat that is refused nothing was stored; of one before it, whose answer was lost, perhaps."""
    registry.refuse = lambda _: Problem("bad", 422, "weight")
    for before in (False, True):
        async with process(registry.url) as it:
            it.endpoint.lease.perhaps_stored = before
            it.observe(PASSED)
            registry.batches.clear()
            await registry.until(lambda: registry.batches)
            await asyncio.sleep(0.05)
            assert it.endpoint.lease.problem is not None
            assert it.endpoint.lease.perhaps_stored is before
