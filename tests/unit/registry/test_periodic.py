"""Jobs that are repeated at intervals of monotonic time."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from registry import periodic
from registry.errors import UnavailableError
from registry.periodic import Periodic


@pytest.fixture
async def jobs() -> AsyncIterator[Periodic]:
    """Jobs that are stopped at the end."""
    started = Periodic()
    yield started
    await started.stop()


async def _until(count: list[float], passes: int) -> None:
    async with asyncio.timeout(5):
        while len(count) < passes:  # the job under test tells nobody
            await asyncio.sleep(0.005)


async def test_passes_come_at_the_interval_and_never_overlap(jobs: Periodic) -> None:
    """A slow pass is followed at once by one pass, and not by all that were missed."""
    loop, began, running = asyncio.get_running_loop(), [], 0

    async def work() -> None:
        nonlocal running
        running += 1
        assert running == 1
        began.append(loop.time())
        await asyncio.sleep(0.5 if len(began) == 2 else 0)
        running -= 1

    started = loop.time()
    jobs.every(0.05, "work", work)
    await _until(began, 8)
    assert began[0] - started >= 0.049
    assert began[2] - began[1] >= 0.499
    # A pass that a busy machine delays is followed by one that is on time, so two may be close to each other; all ten
    # that the slow pass missed would be.
    assert began[7] - began[2] >= 4 * 0.05


async def test_a_pass_that_fails_is_told_once_a_reason_and_the_next_one_comes(jobs: Periodic) -> None:
    """The log has the first failure of each reason in a row, and the first success after it."""
    outcomes = iter([ValueError("a"), ValueError("a"), ValueError("b"), None, ValueError("b")])
    passes: list[float] = []

    async def work() -> None:
        passes.append(0.0)
        outcome = next(outcomes, None)
        if outcome is not None:
            raise outcome

    with capture_logs() as logs:
        jobs.every(0.01, "work", work)
        await _until(passes, 7)
    assert [(entry["event"], entry["job"]) for entry in logs] == [
        ("job_failed", "work"),
        ("job_failed", "work"),
        ("job_recovered", "work"),
        ("job_failed", "work"),
        ("job_recovered", "work"),
    ]


async def test_an_outage_is_one_line_in_the_log(jobs: Periodic) -> None:
    """A traceback would say that the program is wrong."""
    outcomes = iter([UnavailableError("PostgreSQL is away", cause="connection refused")])
    passes: list[float] = []

    async def work() -> None:
        passes.append(0.0)
        for outcome in outcomes:
            raise outcome

    with capture_logs() as logs:
        jobs.every(0.01, "work", work)
        await _until(passes, 3)
    assert [(entry["event"], entry.get("reason"), "exc_info" in entry) for entry in logs] == [
        ("job_postponed", "connection refused", False),
        ("job_recovered", None, False),
    ]


async def test_a_cancelled_wait_inside_a_pass_does_not_end_the_job(jobs: Periodic) -> None:
    """Somebody cancels what the pass waits for; the next pass comes."""
    passes: list[float] = []

    async def work() -> None:
        passes.append(0.0)
        future = asyncio.get_running_loop().create_future()
        if len(passes) == 1:
            future.cancel()
            await future

    jobs.every(0.01, "work", work)
    await _until(passes, 3)


@pytest.mark.parametrize("becomes", [ValueError("of the cancellation"), None])
async def test_a_pass_that_swallows_its_cancellation_ends_the_job(jobs: Periodic, becomes: Exception | None) -> None:
    """Stopping does not wait for a job that would go on for ever."""
    passes: list[float] = []

    async def work() -> None:
        passes.append(0.0)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if becomes is not None:
                raise becomes from None

    with capture_logs():
        jobs.every(0.001, "work", work)
        await _until(passes, 1)
        async with asyncio.timeout(5):
            await jobs.stop()
    assert len(passes) == 1


async def test_one_job_that_hangs_is_told_and_holds_up_no_other(
    jobs: Periodic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named once it is overdue, and stopping ends it."""
    monkeypatch.setattr(periodic, "MIN_OVERDUE", 0.05)
    passes: list[float] = []

    async def hang() -> None:
        await asyncio.Event().wait()

    async def work() -> None:
        passes.append(0.0)

    with capture_logs() as logs:
        jobs.every(0.001, "hangs", hang)
        jobs.every(0.01, "work", work)
        await _until(passes, 10)
        async with asyncio.timeout(5):
            while not logs:
                await asyncio.sleep(0.01)
        await jobs.stop()
    assert [(entry["event"], entry["job"]) for entry in logs] == [("job_overdue", "hangs")]
    passes.clear()
    await asyncio.sleep(0.03)
    assert passes == []
