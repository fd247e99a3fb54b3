"""Endpoints whose host port changes while the process runs."""

import asyncio
from collections.abc import Sequence

import pytest
from harness.link import FakeTask

from registrar.config.settings import Service
from registrar.endpoint.endpoint import Endpoint
from registrar.endpoint.port_follower import PortFollower
from registrar.identity.ecs_task import EcsTask
from registrar.identity.metadata import Metadata
from registrar.identity.resolver import Identity
from registrar.identity.source import Location, Source
from registrar.identity.spec import EndpointSpec
from registrar.identity.vm import Vm


def endpoint(port: int) -> Endpoint:
    """Return the app's endpoint behind that port of the host."""
    service = Service(service="shop", endpoint=EndpointSpec.parse(":8080"), container="app")
    return Endpoint(service, Location("10.0.8.17", port), Identity("task-1", 1), 0)


async def nobody(_: Endpoint) -> None:
    """Hear of a move that there is none of."""
    pytest.fail("nothing moved")


async def moves(sources: Sequence[Source], port: int, seconds: float = 0.3) -> bool:
    """Tell whether a follower noticed a move within that time, and of which endpoint."""
    noticed, mine = asyncio.Event(), endpoint(port)

    async def moved(reported: Endpoint) -> None:
        assert reported is mine
        noticed.set()

    task = asyncio.create_task(PortFollower(sources, lambda: [mine], moved, interval=0.02).run())
    try:
        async with asyncio.timeout(seconds):
            await noticed.wait()
    except TimeoutError:
        return False
    else:
        return True
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_only_another_port_is_a_move() -> None:
    """The same port is none, and neither is a container that is just being started again."""
    with FakeTask("tmds-v4-ec2-bridge-dynamic-task") as task:
        sources = [EcsTask(Metadata.of(task.variables))]
        assert not await moves(sources, 32769)
        assert await moves(sources, 32768, seconds=10)
        del task.container("app")["Ports"]
        assert not await moves(sources, 32768)


async def test_metadata_that_fails_is_no_move() -> None:
    """Metadata that cannot be read changes nothing."""
    with FakeTask("tmds-v4-ec2-bridge-dynamic-task") as task:
        task.task = {}
        assert not await moves([EcsTask(Metadata(f"{task.url}/v4/gone"))], 32768)


async def test_where_no_port_is_mapped_nobody_is_asked() -> None:
    """In awsvpc and host mode the port is the setting's, and nothing can move."""
    with FakeTask("tmds-v4-fargate-awsvpc-task") as task:
        sources = [EcsTask(Metadata.of(task.variables))]
        assert PortFollower(sources, list, nobody).needed
        assert not await moves(sources, 8080)
        assert task.requests == []
    assert not PortFollower([EcsTask(None), Vm()], list, nobody).needed
