"""The schedule of checks, with checks of an app on loopback."""

import asyncio

import pytest
from harness.fake_app import FakeApp

from registrar.checks.check import Check, CheckTarget, Options
from registrar.checks.http import HttpOptions
from registrar.checks.result import Outcome, Result
from registrar.checks.schedule import repeat
from registrar.checks.tcp import TcpOptions
from registrar.duration import Duration


async def results(options: Options, port: int, count: int = 1, starting: int = 0) -> list[Result]:
    """Return the first results that the schedule reports, of which so many are waited for."""
    results_so_far: list[Result] = []
    enough = asyncio.Event()

    def observe(result: Result) -> None:
        results_so_far.append(result)
        if len(results_so_far) == count:
            enough.set()

    check = options.check(CheckTarget("127.0.0.1", port))
    task = asyncio.create_task(repeat(check, options, observe, lambda: len(results_so_far) < starting))
    async with asyncio.timeout(5):
        await enough.wait()
    task.cancel()
    return results_so_far


async def test_an_app_that_accepts_and_hangs_fails_http_in_the_timeout(app: FakeApp) -> None:
    """Fault 1: a frozen app is found, and the intervals run from start to start."""
    app.answer = None
    started = asyncio.get_running_loop().time()
    timed_out = await results(HttpOptions(path="/", interval=Duration(0.2)), app.port, 3)
    assert {result.detail for result in timed_out} == {"no answer within 0.1s"}
    # Three intervals and one timeout; 0.3 s for a busy machine.
    assert asyncio.get_running_loop().time() - started <= 0.2 * 3 + 0.1 + 0.3


async def test_the_first_verdict_does_not_wait_for_a_long_interval(app: FakeApp) -> None:
    """Until then they are a second apart."""
    started = asyncio.get_running_loop().time()
    await results(HttpOptions(path="/", interval=Duration(60)), app.port, 2, starting=2)
    assert 0.85 <= asyncio.get_running_loop().time() - started <= 1.5


async def test_a_slow_check_is_at_work_for_half_of_the_time_at_most() -> None:
    """A start of two minutes does not keep an app busy with a check that takes long."""

    class Slow:
        async def probe(self) -> Result:
            await asyncio.sleep(0.7)
            return Result(Outcome.FAILED, "")

    class SlowOptions(Options, frozen=True):
        def check(self, target: CheckTarget) -> Check:
            return Slow()

    started = asyncio.get_running_loop().time()
    await results(SlowOptions(interval=Duration(60), jitter=0), 1, 2, starting=2)
    assert asyncio.get_running_loop().time() - started >= 2.1


@pytest.mark.parametrize("options", [TcpOptions(), HttpOptions(path="/")])
async def test_a_refused_connection_fails(options: Options, unused_tcp_port: int) -> None:
    """A closed port is a failure that says so."""
    (result,) = await results(options, unused_tcp_port)
    assert (result.outcome, result.detail) == (Outcome.FAILED, "Connection refused")


async def test_a_check_that_breaks_is_a_failure() -> None:
    """An error that no check foresees fails its own endpoint and leaves the others alone."""

    class Broken:
        async def probe(self) -> Result:
            raise ZeroDivisionError

    class BrokenOptions(Options, frozen=True):
        def check(self, target: CheckTarget) -> Check:
            return Broken()

    (result,) = await results(BrokenOptions(), 1)
    assert (result.outcome, "ZeroDivisionError" in result.detail) == (Outcome.FAILED, True)
