"""The grpc check against a server whose HTTP/2 is not ours."""

from collections.abc import AsyncIterator

import pytest
from harness.fake_app import FakeApp
from harness.fake_grpc import NOT_SERVING, SERVICE_UNKNOWN, SERVING, FakeGrpc
from harness.probing import Authority, probe

from registrar.checks.grpc import GrpcOptions
from registrar.checks.result import Outcome
from registrar.checks.tls import TlsOptions
from registrar.duration import Duration

SHORT = Duration(0.4)


@pytest.fixture
async def server() -> AsyncIterator[FakeGrpc]:
    """A server that is SERVING."""
    async with FakeGrpc() as running:
        yield running


async def test_serving_passes(server: FakeGrpc) -> None:
    """The call is that of grpc.health.v1, for the server as a whole."""
    result = await probe(GrpcOptions(), server.port)
    assert (result.outcome, result.detail) == (Outcome.PASSED, "SERVING")
    headers, message = server.requests[0]
    assert (headers[":path"], headers["content-type"]) == ("/grpc.health.v1.Health/Check", "application/grpc")
    assert (headers["te"], headers["grpc-timeout"], message) == ("trailers", "1000m", b"\0\0\0\0\0")


@pytest.mark.parametrize("name", ["shop.v1.Orders", "x" * 127, "x" * 255])
async def test_a_service_is_asked_for_by_its_name(server: FakeGrpc, name: str) -> None:
    """Each service has a state of its own; short and long names are encoded alike."""
    server.states = {"": NOT_SERVING}
    options = GrpcOptions(service=name)
    result = await probe(options, server.port)
    assert result.outcome is Outcome.FAILED
    message = server.requests[0][1]
    assert message[message.index(b"\x0a") :].endswith(name.encode())
    assert int.from_bytes(message[1:5], "big") == len(message) - 5


async def test_a_service_may_serve_while_the_server_as_a_whole_does_not(server: FakeGrpc) -> None:
    """The state that counts is that of the named service."""
    server.states = {"": NOT_SERVING, "shop.v1.Orders": SERVING}
    assert (await probe(GrpcOptions(service="shop.v1.Orders"), server.port)).outcome is Outcome.PASSED
    assert (await probe(GrpcOptions(), server.port)).outcome is Outcome.FAILED


@pytest.mark.parametrize(
    ("state", "detail"), [(NOT_SERVING, "NOT_SERVING"), (SERVICE_UNKNOWN, "SERVICE_UNKNOWN"), (0, "UNKNOWN")]
)
async def test_every_other_state_fails_by_its_name(server: FakeGrpc, state: int, detail: str) -> None:
    """Only SERVING takes requests."""
    server.states[""] = state
    result = await probe(GrpcOptions(), server.port)
    assert (result.outcome, result.detail) == (Outcome.FAILED, detail)


@pytest.mark.parametrize(
    ("code", "words", "detail"),
    [
        (12, "unknown service grpc.health.v1.Health", "UNIMPLEMENTED: the server has no grpc.health.v1.Health"),
        (5, "unknown service", "SERVICE_UNKNOWN: the server does not know 'shop'"),
        (14, "back%20off", "UNAVAILABLE: back off"),
        (99, "", "status 99"),
    ],
)
async def test_refusals_are_told_apart(server: FakeGrpc, code: int, words: str, detail: str) -> None:
    """A server without a health service is another fault than one that does not know the service."""
    server.trailer = (code, words)
    result = await probe(GrpcOptions(service="shop"), server.port)
    assert result.outcome is Outcome.FAILED
    assert result.detail.startswith(detail)


@pytest.mark.parametrize(
    ("fault", "detail"),
    [
        ("silent", "no answer within 0.2s"),
        ("reset", "the server gave up the call: REFUSED_STREAM"),
        ("goaway", "the server takes no call: ENHANCE_YOUR_CALM too_many_pings"),
        ("hangup", "the server hung up before its answer ended"),
    ],
)
async def test_transport_errors_are_told_apart(server: FakeGrpc, fault: str, detail: str) -> None:
    """Each way of not answering has words of its own."""
    server.fault = fault
    result = await probe(GrpcOptions(interval=SHORT), server.port)
    assert (result.outcome, result.detail) == (Outcome.FAILED, detail)


async def test_a_refused_connection_says_so(unused_tcp_port: int) -> None:
    """Nobody listens."""
    assert (await probe(GrpcOptions(), unused_tcp_port)).detail == "Connection refused"


async def test_an_http_1_server_is_no_grpc(app: FakeApp) -> None:
    """A response in another protocol fails at once."""
    app.answer = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n"
    result = await probe(GrpcOptions(), app.port)
    assert result.outcome is Outcome.FAILED
    assert result.detail.startswith("not HTTP/2")


async def test_http_2_without_grpc_names_its_status(server: FakeGrpc) -> None:
    """A proxy's 503 has no grpc-status."""
    server.status, server.trailer = 503, (0, "")
    server.fields = [("x-why", "overload")]
    result = await probe(GrpcOptions(), server.port)
    assert result.outcome is Outcome.FAILED


async def test_padding_tables_and_long_header_blocks_are_read(server: FakeGrpc) -> None:
    """Other servers may send padded frames, repeated fields, and blocks that need a CONTINUATION."""
    server.padding = 200
    # No letter of these has a short code, so that the block is larger than a frame.
    server.fields = [*[(f"x-{number}", "\\~" * 1500) for number in range(5)], *[("x-same", "again")] * 3]
    result = await probe(GrpcOptions(), server.port)
    assert (result.outcome, result.detail) == (Outcome.PASSED, "SERVING")


async def test_tls_negotiates_h2(authority: Authority) -> None:
    """ALPN says h2, as Go's servers demand, and the name is verified."""
    async with FakeGrpc(authority.server("shop.internal", "h2")) as server:
        tls = TlsOptions(ca_file=str(authority.ca), server_name="shop.internal")
        assert (await probe(GrpcOptions(tls=tls), server.port)).detail == "SERVING"
        wrong = await probe(GrpcOptions(tls=TlsOptions(ca_file=str(authority.ca))), server.port)
    assert server.protocols[0] == "h2"
    assert server.requests[0][0][":authority"] == "shop.internal"
    assert wrong.outcome is Outcome.FAILED
