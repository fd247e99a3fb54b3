"""The reporter: when it reads, what it sends, and what it does with refusals."""

import logging
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from registrar.errors import EnvoyAdminError, RegistryRefused, RegistryRequestError, RegistryUnavailable
from registrar.traffic.envoy import Envoy
from registrar.traffic.reporter import LOG_INTERVAL, REFUSED_PAUSE, UNSUPPORTED_PAUSE, TrafficReporter
from registrar.traffic.statistics import Reading, Statistic
from registrar.traffic.topology import Cluster, EnvoyNode, Tries
from wire.problem import Problem
from wire.traffic_digest import MAX_DIGEST_BYTES, DigestAnswer, TrafficDigest


class Counters:
    """An Envoy in memory, whose clusters all have the same statistics."""

    def __init__(self) -> None:
        self.node: EnvoyNode | None = None
        self.clusters = [Cluster("payments", "payments", "payments")]
        self.completed = 0
        self.others = 0
        """All its other statistics."""
        self.connections = 0
        self.error: EnvoyAdminError | None = None
        self.tries = Tries()
        self.looks = 0

    async def identify(self) -> EnvoyNode:
        """Say who it is."""
        self.node = EnvoyNode("i-1", "shop", "r", "z")
        return self.node

    async def look(self) -> None:
        """Count the looks."""
        self.looks += 1

    async def read(self) -> Reading:
        """Return the statistics, or fail."""
        if self.error is not None:
            raise self.error
        self.connections += 1
        reading = Reading()
        for cluster in self.clusters:
            reading.clusters[cluster.statistics] = [
                self.completed if place is Statistic.COMPLETED else self.others for place in Statistic
            ]
        reading.admin_connections = self.connections
        return reading

    def has_new_clusters(self, _reading: Reading) -> bool:
        """Say no."""
        return False

    async def endpoints(self, services: Collection[str]) -> dict[tuple[str, str], Tries]:
        """Return the attempts at the only endpoint."""
        return {("payments", "10.0.0.5:80"): msgspec.structs.replace(self.tries)} if "payments" in services else {}


class Registry:
    """A registry in memory."""

    def __init__(self) -> None:
        self.digests: list[TrafficDigest] = []
        self.answer: DigestAnswer | RegistryRequestError = DigestAnswer()

    async def report_traffic(self, digest: bytes) -> DigestAnswer:
        """Keep a digest, or refuse it."""
        assert len(digest) <= MAX_DIGEST_BYTES
        if isinstance(self.answer, RegistryRequestError):
            raise self.answer
        self.digests.append(msgspec.json.decode(digest, type=TrafficDigest))
        return self.answer


@pytest.fixture
async def parts() -> tuple[TrafficReporter, Counters, Registry]:
    """A reporter of an Envoy and to a registry in memory."""
    envoy, registry = Counters(), Registry()
    return TrafficReporter(registry, cast("Envoy", envoy), 10.0), envoy, registry


Parts = tuple[TrafficReporter, Counters, Registry]


async def passes(reporter: TrafficReporter, times: int = 1) -> float:
    """Let some intervals pass, and return the seconds to the next."""
    pause = 0.0
    for _ in range(times):
        pause = await reporter._pass()
    return pause


async def test_the_first_reading_is_the_base_line(parts: Parts) -> None:
    """What was counted before is nobody's; then each digest has what came since the one before."""
    reporter, envoy, registry = parts
    envoy.completed = 1000
    assert await passes(reporter) == 10
    assert registry.digests == []
    for completed in (1005, 1005, 1012):
        envoy.completed = completed
        await passes(reporter)
    counts = [[edge.counts.completed for edge in digest.edges] for digest in registry.digests]
    assert counts == [[5], [], [7]]
    first, second, _ = (digest.sequence for digest in registry.digests)
    assert second == first + 1
    assert (registry.digests[0].caller, registry.digests[0].node, registry.digests[0].zone) == ("shop", "i-1", "z")
    assert envoy.looks == 1


async def test_a_restarted_envoy_counts_from_0(parts: Parts) -> None:
    """Also when it has counted more than before already."""
    reporter, envoy, registry = parts
    envoy.completed = 5
    await passes(reporter, 3)
    envoy.connections, envoy.completed = 0, 9
    await passes(reporter)
    assert registry.digests[-1].edges[0].counts.completed == 9


async def test_an_envoy_that_does_not_answer_is_asked_again(parts: Parts) -> None:
    """Its counters go on, and nothing of them is lost; the reason is kept for the status."""
    reporter, envoy, registry = parts
    await passes(reporter)
    envoy.error = EnvoyAdminError("http://127.0.0.1:9901", "/stats", "no complete answer within 5s")
    assert await passes(reporter, 2) == 10
    assert (reporter.status.failed, "within 5s" in reporter.status.problem) == (2, True)
    envoy.error, envoy.completed = None, 4
    await passes(reporter)
    assert registry.digests[-1].edges[0].counts.completed == 4
    assert (reporter.status.sent, reporter.status.problem) == (1, "")


def refused(status: int, *, from_registry: bool = True) -> RegistryRefused:
    """Return the refusal of a request."""
    return RegistryRefused(Problem("no", status, "because"), from_registry=from_registry)


@pytest.mark.parametrize(
    ("answer", "pause", "problem"),
    [
        (refused(404), UNSUPPORTED_PAUSE, "does not know digests of traffic (404)"),
        (refused(405, from_registry=False), UNSUPPORTED_PAUSE, "does not know digests of traffic (405)"),
        (refused(403), REFUSED_PAUSE, "403 no: because"),
        (refused(422), REFUSED_PAUSE, "422 no: because"),
        (RegistryUnavailable("away"), 10, "away"),
        (RegistryUnavailable("busy", retry_after=30), 30, "busy"),
        (RegistryUnavailable("busy", retry_after=1e9), REFUSED_PAUSE, "busy"),
    ],
)
async def test_a_digest_that_is_not_taken_is_not_sent_again(
    parts: Parts, answer: RegistryRequestError, pause: float, problem: str
) -> None:
    """Nor does it make the reporter ask more often; an old registry is asked again after ten minutes."""
    reporter, envoy, registry = parts
    registry.answer = answer
    envoy.completed = 3
    await passes(reporter)
    envoy.completed = 5
    assert await passes(reporter) == pytest.approx(pause, rel=0.11)
    assert problem in reporter.status.problem
    registry.answer = DigestAnswer()
    envoy.completed = 6
    await passes(reporter)
    assert [edge.counts.completed for edge in registry.digests[0].edges] == [1]


async def test_what_was_beyond_a_limit_is_in_the_next_digest(parts: Parts) -> None:
    """Nothing of it was counted, so nothing is lost and nothing counts twice; the base line stays."""
    reporter, envoy, registry = parts
    await passes(reporter)
    registry.answer = RegistryUnavailable("429 Too Many Requests", retry_after=15, limited=True)
    envoy.completed = 3
    assert await passes(reporter) == 15
    envoy.completed = 5
    await passes(reporter)
    registry.answer = DigestAnswer()
    envoy.completed = 9
    await passes(reporter)
    (digest,) = registry.digests
    assert [edge.counts.completed for edge in digest.edges] == [9]
    assert (reporter.status.sent, reporter.status.failed, reporter.status.problem) == (1, 2, "")


async def test_a_failure_that_comes_and_goes_is_not_logged_each_time(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor one whose reason differs each time; the status has the newest reason."""
    reporter, _, registry = parts
    now = 1_000.0
    monkeypatch.setattr(reporter, "_loop", SimpleNamespace(time=lambda: now))
    with caplog.at_level(logging.INFO):
        for number in range(60):
            now += 10
            registry.answer = DigestAnswer() if number % 2 else RegistryUnavailable(f"busy for {number} s")
            await passes(reporter)
    events = [record.getMessage() for record in caplog.records]
    assert 1 <= events.count("traffic_not_sent") <= 600 / LOG_INTERVAL + 1
    assert events.count("traffic_recovered") == events.count("traffic_not_sent")


async def test_two_reporters_of_one_node_are_told_apart(parts: Parts) -> None:
    """By a name of their own, which stays; the registry knows copied node ids by it."""
    reporter, envoy, registry = parts
    twin = TrafficReporter(registry, cast("Envoy", envoy), 10.0)
    for each in (reporter, twin):
        await passes(each, 3)
    senders = [digest.sender for digest in registry.digests]
    assert senders[0] == senders[1] != senders[2] == senders[3]
    assert len(senders[0]) == 16


async def test_a_registry_that_shifts_gets_endpoints_sooner(parts: Parts) -> None:
    """Each two seconds while it asks for them, and as before when it does not any more."""
    reporter, envoy, registry = parts
    registry.answer = DigestAnswer(2.0, ("payments",))
    assert await passes(reporter, 2) == 2.0
    envoy.tries, envoy.completed = Tries(10, 8, 2), 10
    await passes(reporter)  # the base line of the endpoints
    envoy.tries, envoy.completed = Tries(14, 10, 4), 14
    registry.answer = DigestAnswer()
    assert await passes(reporter) == 10
    (edge,) = registry.digests[-1].edges
    (endpoint,) = edge.endpoints
    assert (endpoint.endpoint, endpoint.counts.attempts, endpoint.counts.errors) == ("10.0.0.5:80", 4, 2)
    assert registry.digests[-2].edges[0].endpoints == ()


async def test_a_digest_is_never_too_long(parts: Parts, caplog: pytest.LogCaptureFixture) -> None:
    """With long names the least busy callees are left out, and the status and the log say so until they fit again."""
    reporter, envoy, registry = parts
    envoy.clusters = [Cluster(name, name, name) for name in (f"{'s' * 250}{number}" for number in range(1000, 1200))]
    await passes(reporter)
    for _ in range(2):
        envoy.completed += 2**50
        envoy.others += 2**50
        await passes(reporter)
    for digest in registry.digests:
        assert 0 < len(digest.edges) < 200
        assert len(msgspec.json.encode(digest)) <= MAX_DIGEST_BYTES
    assert reporter.status.problem == "72 callees and routes do not fit into a digest"
    assert [record.getMessage() for record in caplog.records] == ["traffic_omitted"]
    del envoy.clusters[100:]
    envoy.completed += 1
    await passes(reporter)
    assert len(registry.digests[-1].edges) == 100
    assert reporter.status.problem == ""


async def test_a_fault_of_the_reporter_is_noted(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are not worth the process: it goes on, and says what happened."""
    reporter, _, _ = parts

    async def broken(*_: Any) -> float:
        raise KeyError("a fault")

    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) > 2:
            raise RuntimeError("enough")

    monkeypatch.setattr("registrar.traffic.reporter.asyncio.sleep", sleep)
    monkeypatch.setattr(TrafficReporter, "_pass", broken)
    with pytest.raises(RuntimeError, match="enough"):
        await reporter.run()
    assert slept[1] == pytest.approx(REFUSED_PAUSE, abs=5)
    assert "a fault" in reporter.status.problem
