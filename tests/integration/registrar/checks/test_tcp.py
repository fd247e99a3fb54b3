"""The tcp check's conversation."""

import pytest
from harness.fake_app import FakeApp
from harness.probing import probe

from registrar.checks.check import CheckTarget
from registrar.checks.result import Outcome, Result
from registrar.checks.tcp import TcpOptions
from registrar.duration import Duration

SHORT = Duration(0.3)


async def test_what_is_expected_passes(app: FakeApp) -> None:
    """The text is sent as it stands, and the answer may say more than is expected."""
    app.answer = b"220 mail ready\r\n+PONG\r\n"
    result = await probe(TcpOptions(send="PING\r\n\r\n", expect="+PONG"), app.port)
    assert (result.outcome, result.detail) == (Outcome.PASSED, "said '+PONG'")
    assert app.requests == ["PING\r\n\r\n"]


async def test_another_answer_fails_and_is_shown(app: FakeApp) -> None:
    """The detail has both sides."""
    app.answer = b"-LOADING\r\n"
    result = await probe(TcpOptions(send="PING\r\n\r\n", expect="+PONG"), app.port)
    assert (result.outcome, result.detail) == (Outcome.FAILED, "expected '+PONG', got '-LOADING\\r\\n'")


async def test_an_app_that_says_too_much_fails(app: FakeApp) -> None:
    """Only the first 64 KiB are read."""
    app.answer = b"x" * 70_000 + b"+PONG"
    assert (await probe(TcpOptions(send="\r\n\r\n", expect="+PONG"), app.port)).outcome is Outcome.FAILED


async def test_an_app_that_accepts_and_hangs_is_found_out(app: FakeApp) -> None:
    """Where something is expected, a connection is not enough."""
    app.answer = None
    result = await probe(TcpOptions(send="\r\n\r\n", expect="+PONG", interval=SHORT), app.port)
    assert (result.outcome, result.detail) == (Outcome.FAILED, "no answer within 0.15s")


@pytest.mark.parametrize("override", [{"address": "127.0.0.1"}, {"address": "127.0.0.1", "port": 0}])
async def test_another_place_may_be_named(app: FakeApp, override: dict[str, object]) -> None:
    """An explicit address, or address and port, replace what is advertised."""
    if "port" in override:
        override["port"] = app.port
    options = TcpOptions(**override)  # type: ignore[arg-type]
    advertised = CheckTarget("127.0.0.2", 1 if "port" in override else app.port)
    assert (await probe(options, target=advertised)).outcome is Outcome.PASSED
    assert (await probe(TcpOptions(), target=advertised)).outcome is Outcome.FAILED


async def test_tcp_passes_where_somebody_listens(app: FakeApp) -> None:
    """A connection is enough, even if nothing answers on it."""
    app.answer = None
    result = await probe(TcpOptions(), app.port)
    assert result == Result(Outcome.PASSED, "connected")
