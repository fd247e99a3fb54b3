"""Checks against real sockets."""

import asyncio

import pytest
from harness.fake_app import FakeApp

from registrar.checks.check import Check, CheckTarget, Options
from registrar.checks.http import HttpOptions, StatusRange
from registrar.checks.result import Outcome, Result
from registrar.checks.schedule import repeat
from registrar.checks.tcp import TcpOptions
from registrar.duration import Duration


def ok(status: str, headers: str = "", body: bytes = b"") -> bytes:
    """Return an answer's bytes."""
    return f"HTTP/1.1 {status}\r\n{headers}content-length: {len(body)}\r\n\r\n".encode() + body


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


def http(path: str = "/healthz", interval: float = 0.2, *status: StatusRange) -> HttpOptions:
    """Return http options with a short interval."""
    return HttpOptions(path=path, interval=Duration(interval), expect_status=status or (StatusRange(200, 299),))


async def test_http_passes_on_an_expected_status(app: FakeApp) -> None:
    """200 passes, and the request names path, address and sender."""
    (result,) = await results(http("/healthz?deep=1"), app.port)
    assert result == Result(Outcome.PASSED, "200 OK")
    assert app.requests[0].startswith(f"GET /healthz?deep=1 HTTP/1.1\r\nhost: 127.0.0.1:{app.port}\r\n")
    assert "connection: close" in app.requests[0]


async def test_http_sends_method_and_headers(app: FakeApp) -> None:
    """The method and headers of the configuration reach the app, also another Host."""
    options = HttpOptions(path="/", method="HEAD", headers={"Host": "shop.internal", "X-Why": "check"})
    await results(options, app.port)
    assert app.requests[0].startswith("HEAD / HTTP/1.1\r\nhost: shop.internal\r\n")
    assert "x-why: check\r\n" in app.requests[0]


async def test_http_fails_on_any_other_status_and_says_why(app: FakeApp) -> None:
    """A 503 fails, with the start of its body for people."""
    app.answer = ok("503 Whatever", body=b"database\naway")
    (result,) = await results(http(), app.port)
    assert result == Result(Outcome.FAILED, "503 Service Unavailable database away")


async def test_http_takes_ranges_of_statuses(app: FakeApp) -> None:
    """The configured statuses replace 2xx: 404 can pass and 200 can fail."""
    app.answer = ok("404 No")
    (result,) = await results(http("/", 0.2, StatusRange(401, 404)), app.port)
    assert result.outcome is Outcome.PASSED
    app.answer = ok("200 OK")
    (result,) = await results(http("/", 0.2, StatusRange(401, 404)), app.port)
    assert result.outcome is Outcome.FAILED


async def test_http_knows_envoys_degraded_header(app: FakeApp) -> None:
    """x-envoy-degraded on a passing answer is DEGRADED."""
    app.answer = ok("200 OK", "X-Envoy-Degraded: true\r\n")
    (result,) = await results(http(), app.port)
    assert result.outcome is Outcome.DEGRADED


async def test_http_skips_interim_answers(app: FakeApp) -> None:
    """103 Early Hints is not the verdict."""
    app.answer = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + ok("200 OK")
    (result,) = await results(http(), app.port)
    assert result.outcome is Outcome.PASSED


@pytest.mark.parametrize(
    "answer",
    [b"", b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"x" * 40_000],
)
async def test_what_is_not_http_fails(app: FakeApp, answer: bytes) -> None:
    """Another protocol, half an answer and an endless head are failures with a reason, not crashes."""
    app.answer = answer
    (result,) = await results(http(), app.port)
    assert result.outcome is Outcome.FAILED
    assert result.detail


async def test_an_app_that_accepts_and_hangs_fails_http_in_the_timeout(app: FakeApp) -> None:
    """Fault 1: a frozen app is found, and the intervals run from start to start."""
    app.answer = None
    started = asyncio.get_running_loop().time()
    timed_out = await results(http("/", 0.2), app.port, 3)
    assert {result.detail for result in timed_out} == {"no answer within 0.1s"}
    # Three intervals and one timeout; 0.3 s for a busy machine.
    assert asyncio.get_running_loop().time() - started <= 0.2 * 3 + 0.1 + 0.3


async def test_the_first_verdict_does_not_wait_for_a_long_interval(app: FakeApp) -> None:
    """Until then they are a second apart."""
    started = asyncio.get_running_loop().time()
    await results(http("/", 60), app.port, 2, starting=2)
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


async def test_tcp_passes_where_somebody_listens(app: FakeApp) -> None:
    """A connection is enough, even if nothing answers on it."""
    app.answer = None
    (result,) = await results(TcpOptions(), app.port)
    assert result == Result(Outcome.PASSED, "connected")


@pytest.mark.parametrize("options", [TcpOptions(), http()])
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
