"""A registrar whose wall clock is wrong: nothing that it does may go by it."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.fake_app import FakeApp
from harness.fake_registry import FakeRegistry
from harness.faketime import Clock, clock_of, faked
from harness.link import FakeKeys
from integration.registrar.processes import environment, registrar

_LOOK = 1.5


@pytest.fixture
def agent() -> Iterator[FakeKeys]:
    """The agent of a container, with the keys of its role."""
    with FakeKeys() as fake:
        yield fake


@pytest.mark.parametrize("zone", ["UTC", "JST-9"])
async def test_a_wall_clock_that_jumps_changes_no_pace(
    registry: FakeRegistry, app: FakeApp, agent: FakeKeys, tmp_path: Path, zone: str
) -> None:
    """Heartbeats and checks go on, nothing else is published, and a drain takes its time; no session ends early."""
    clock = Clock(tmp_path / "clock")
    environ = environment(registry, app, REGISTRAR_ON_SIGTERM="drain", REGISTRAR_DRAIN_WAIT="1s", TZ=zone)
    login = {"REGISTRAR_LOGIN": "aws", "REGISTRAR_LOGIN_AUDIENCE": "headcount-tests", "AWS_REGION": "eu-central-1"}
    registry.closed = True
    async with registrar(environ | login | agent.variables | faked(clock)) as process:
        await registry.until(lambda: registry.batches and registry.last.registration.health, 15)
        last = registry.last
        for seconds in (-3600, 3600):
            beats, checks = len(registry.batches), len(app.requests)
            clock.jump(seconds)
            assert abs(clock_of(clock) - time.time() - seconds) < 60
            await asyncio.sleep(_LOOK)
            # At 0.2 s and 0.1 s; half of it is enough on a busy machine.
            assert _LOOK / 0.2 / 2 < len(registry.batches) - beats < _LOOK / 0.2 * 3
            assert _LOOK / 0.1 / 2 < len(app.requests) - checks < _LOOK / 0.1 * 3
        assert registry.last == last
        clock.jump(-3600)
        began = asyncio.get_running_loop().time()
        process.terminate()
        await registry.until(lambda: registry.deregistrations, 10)
        assert 1 <= registry.deregistrations[0].at - began < 4
        assert await process.wait() == 0
    assert (len(registry.logins), registry.renewals) == (1, [])
