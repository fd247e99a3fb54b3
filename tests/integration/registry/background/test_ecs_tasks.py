"""The questions to ECS about the tasks of suspects, against a real moto server on loopback."""

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest
from harness.ecs import Ecs
from msgspec.structs import replace
from unit.registry.making import NOW, endpoint, registration

from registry.background import ecs_tasks
from registry.background.ecs_tasks import EcsTaskPoller
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.endpoint import Endpoint
from registry.core.evidence import PlatformWord
from registry.core.snapshot import SnapshotDelta
from registry.errors import BadSettingsError


@pytest.fixture(scope="module")
def ecs() -> Iterator[Ecs]:
    """A moto server on a port of its own, with a cluster."""
    with Ecs.running() as running:
        yield running


@pytest.fixture
def aws(ecs: Ecs, monkeypatch: pytest.MonkeyPatch) -> Ecs:
    """The environment of a registry whose SDK talks to moto."""
    for name, value in ecs.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return ecs


def suspect(number: int, task: str, cluster: str, since: float | None = NOW) -> Endpoint:
    """Return an endpoint whose lease expired and that the guard holds, of a task of ECS."""
    stored = registration(task, metadata={"ecs_cluster": cluster})
    return endpoint(number, stored=stored, suspect_since=since, change=number)


def poller(*listed: Endpoint, leads: bool = True) -> EcsTaskPoller:
    """Return a poller of these endpoints."""
    cache = SnapshotCache()
    cache.apply([SnapshotDelta("shop", 1, 1, listed=listed, whole=True)])
    return EcsTaskPoller(cache, lambda: leads)


async def test_a_stopped_task_is_found(aws: Ecs) -> None:
    """One request asks for all suspects of the cluster, and for nobody who renews."""
    running, stopped, renewing = aws.run_task(), aws.run_task(), aws.run_task()
    aws.stop_task(stopped, "Task failed ELB health checks")
    aws.stop_task(renewing, "is not asked for")
    listed = [
        suspect(1, running, aws.cluster_arn),
        suspect(2, stopped, aws.cluster_arn),
        suspect(3, renewing, aws.cluster_arn, since=None),
    ]
    asking = poller(*listed)
    await asking.poll()
    said = f"ECS says that its task {stopped} of the cluster prod is STOPPED: Task failed ELB health checks"
    assert [asking.word(each) for each in listed] == [None, PlatformWord(2, 1, said), None]
    assert (asking.requests, asking.watched, asking.stopped_count, asking.failures) == (1, 2, 1, [])
    assert asking.answered_at is not None


async def test_a_cluster_that_is_not_there_fails_alone(aws: Ecs) -> None:
    """Its error says nothing of its task; the task of the other cluster is found all the same."""
    stopped = aws.run_task()
    aws.stop_task(stopped, "")
    bad = aws.cluster_arn.replace("cluster/", "cluster/not-")
    listed = [suspect(1, "0" * 32, bad), suspect(2, stopped, aws.cluster_arn)]
    asking = poller(*listed)
    for _ in range(2):
        await asking.poll()
    assert [asking.word(each) is not None for each in listed] == [False, True]
    assert [failure.cluster.name for failure in asking.failures] == [bad]
    assert "Cluster not found" in asking.failures[0].reason


async def test_without_an_answer_nothing_is_said(aws: Ecs, monkeypatch: pytest.MonkeyPatch) -> None:
    """An AWS that is not there, and one without keys, are errors."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    asking = poller(suspect(1, "0" * 32, aws.cluster_arn))
    await asking.poll()
    assert asking.stopped_count == 0
    assert "Could not connect" in asking.failures[0].reason
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    asking = poller(suspect(1, "0" * 32, aws.cluster_arn))
    await asking.poll()
    assert "credentials" in asking.failures[0].reason


async def test_a_process_that_does_not_sweep_asks_nothing(aws: Ecs) -> None:
    """One process asks for all."""
    asking = poller(suspect(1, "0" * 32, aws.cluster_arn), leads=False)
    await asking.poll()
    assert (asking.requests, asking.watched) == (0, 0)


async def test_desired_counts_become_expected_numbers(aws: Ecs) -> None:
    """Every process asks, suspects' tasks come first, and what cannot be asked or is scaled to 0 fails alone."""
    aws.create_service("shop-prod", 6)
    aws.create_service("idle", 0)
    bad = aws.cluster_arn.replace("cluster/", "cluster/not-")

    def of_service(number: int, cluster: str, name: str) -> Endpoint:
        stored = registration(aws.run_task(), metadata={"ecs_cluster": cluster, "ecs_service": name})
        return endpoint(number, stored=stored, change=number)

    cache = SnapshotCache()
    named = {
        "shop": (aws.cluster_arn, "shop-prod"),
        "idle": (aws.cluster_arn, "idle"),
        "missing": (aws.cluster_arn, "nobody"),
        "foreign": (bad, "shop-prod"),
    }
    for number, (service, (cluster, name)) in enumerate(named.items(), start=1):
        listed = [of_service(10 * number, cluster, name), of_service(10 * number + 1, cluster, name)]
        if service == "missing":
            listed[0] = replace(listed[0], suspect_since=NOW)
        cache.apply(
            [SnapshotDelta(service, 1, 1, listed=[replace(each, service=service) for each in listed], whole=True)]
        )

    def expected() -> dict[str, tuple[str, int]]:
        numbers = {service: cache.get(service).presence(NOW, cache.desired_counts) for service in named}
        return {service: (presence.source, presence.expected) for service, presence in numbers.items()}

    observed = dict.fromkeys(named, ("observed", 2))
    sweeping = EcsTaskPoller(cache, lambda: True)
    await sweeping.poll()
    assert (sweeping.watched, sweeping.services.watched, expected()) == (1, 4, observed)
    for asking in (sweeping, EcsTaskPoller(cache, lambda: False)):
        cache.read_desired_counts({})
        for _ in range(2):
            await asking.poll()
        assert expected() == observed | {"shop": ("ecs", 6)}
        assert [failure.cluster.name for failure in asking.services.failures] == ["not-prod/shop-prod"]
        assert "Cluster not found" in asking.services.failures[0].reason


async def test_the_loop_goes_on_while_aws_is_silent(aws: Ecs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request blocks a thread of its own, which a stopping process does not wait for."""
    release = threading.Event()

    def silent(*_: object) -> dict[str, tuple[str, str]]:
        release.wait(10)
        return {}

    monkeypatch.setattr(EcsTaskPoller, "_describe", silent)
    asking = poller(suspect(1, "0" * 32, aws.cluster_arn))
    began = time.monotonic()
    pass_ = asyncio.create_task(asking.poll())
    await asyncio.sleep(0.05)
    assert time.monotonic() - began < 1
    pass_.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pass_
    release.set()
    # The answer that nobody waits for any more is dropped.
    await asyncio.sleep(0.05)


def test_without_boto3_the_process_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra."""
    monkeypatch.setitem(__import__("sys").modules, "boto3", None)
    with pytest.raises(BadSettingsError, match=r"pip install headcount\[server,aws\]"):
        ecs_tasks.check_installed()
