"""What the client makes of a server's bytes, however they are cut into pieces: no socket is opened."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.http1 import MAX_HEAD_BYTES, Http1Protocol, NoResponseError, NotHttpError, Request, Response

GET = Request("GET", "/healthz", {"host": "app"})
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

RESPONSES = {
    "length": (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello"),
    "no body": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "no reason": (b"HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n", 404, b""),
    "chunks": (CHUNKED + b"3;name=value\r\nabc\r\n0002 \r\nde\r\n0\r\n\r\n", 200, b"abcde"),
    "trailers": (CHUNKED + b"1\r\na\r\n0\r\nDigest: x\r\nContent-Length: 7\r\n\r\n", 200, b"a"),
    "until close": (b"HTTP/1.1 200 OK\r\n\r\nto the end", 200, b"to the end"),
    "1.0": (b"HTTP/1.0 503 Away\r\n\r\nto the end", 503, b"to the end"),
    "bare line feeds": (b"HTTP/1.0 200 OK\nContent-Type: text/plain\n\nwell\n", 200, b"well\n"),
    "continue": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", 200, b"x"),
    "hints": (
        b"HTTP/1.1 103 Early Hints\r\nLink: y\r\n\r\n" * 3 + b"HTTP/1.1 201 Made\r\nContent-Length: 0\r\n\r\n",
        201,
        b"",
    ),
}

BROKEN = {
    "chunk size -5": CHUNKED + b"-5\r\nhello\r\n0\r\n\r\n",
    "chunk size +5": CHUNKED + b"+5\r\nhello\r\n0\r\n\r\n",
    "chunk size 1_0": CHUNKED + b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    "chunk size 0x5": CHUNKED + b"0x5\r\nhello\r\n0\r\n\r\n",
    "chunk size empty": CHUNKED + b"\r\nhello\r\n0\r\n\r\n",
    "chunk size blank": CHUNKED + b" 5\r\nhello\r\n0\r\n\r\n",
    "chunk size of 21 digits": CHUNKED + b"0" * 20 + b"5\r\nhello\r\n0\r\n\r\n",
    "chunk longer than its size": CHUNKED + b"3\r\nhello\r\n0\r\n\r\n",
    "chunk shorter than its size": CHUNKED + b"f\r\nhello\r\n0\r\n\r\n",
    "huge chunk": CHUNKED + b"f" * 16 + b"\r\nhello",
    "chunks without an end": CHUNKED + b"5\r\nhello\r\n",
    "chunk header without an end": CHUNKED + b"5;" + b"x" * 70_000,
    "trailers without an end": CHUNKED + b"0\r\n" + b"name: value\r\n" * 6_000,
    "length too long": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
    "length -1": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "length 1_0": b"HTTP/1.1 200 OK\r\nContent-Length: 1_0\r\n\r\n0123456789",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    "no status": b"HTTP/1.1 abc\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "header without a colon": b"HTTP/1.1 200 OK\r\nname\r\n\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nname: value\r\n",
    "half a status line": b"HTT",
    "only informational": b"HTTP/1.1 100 Continue\r\n\r\n",
    "switched": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "HTTP/2": b"\0\0\x12\x04\0\0\0\0\0",
    "version 2": b"HTTP/2.0 200 OK\r\n\r\n",
    "nothing": b"",
}


def play(protocol: Http1Protocol, pieces: list[bytes]) -> Response:
    """Return the response to a request that was sent, fed in these pieces and closed behind them."""
    coming = iter([*pieces, b""])
    while (head := protocol.next_head()) is None:
        protocol.receive(next(coming))
    body = bytearray()
    while (piece := protocol.next_piece()) != b"":
        if piece is None:
            protocol.receive(next(coming))
        else:
            body += piece
    return Response(head.status, head.reason, head.headers, bytes(body))


def pieces_of(whole: bytes, cuts: list[int]) -> list[bytes]:
    """Cut ``whole`` at these places."""
    places = sorted({0, len(whole), *(cut % (len(whole) + 1) for cut in cuts)})
    return [whole[start:end] for start, end in itertools.pairwise(places)]


@pytest.mark.parametrize("name", RESPONSES)
def test_each_way_to_frame_a_body_is_read(name: str) -> None:
    """By length, in chunks, until the connection ends, and after informational responses; one byte at a time too."""
    whole, status, body = RESPONSES[name]
    for pieces in ([whole], [bytes([byte]) for byte in whole]):
        protocol = Http1Protocol()
        protocol.send(GET)
        response = play(protocol, pieces)
        assert (response.status, response.body) == (status, body)


@given(name=st.sampled_from(sorted(RESPONSES)), cuts=st.lists(st.integers(0, 4096), max_size=8))
def test_a_response_is_the_same_wherever_it_is_cut(name: str, cuts: list[int]) -> None:
    """TCP keeps no boundaries."""
    whole, status, body = RESPONSES[name]
    protocol = Http1Protocol()
    protocol.send(GET)
    response = play(protocol, pieces_of(whole, cuts))
    assert (response.status, response.body) == (status, body)


@given(
    chunks=st.lists(st.binary(min_size=1, max_size=300), max_size=6),
    cuts=st.lists(st.integers(0, 4096), max_size=8),
    upper=st.booleans(),
)
def test_chunks_of_any_sizes_are_joined(chunks: list[bytes], cuts: list[int], upper: bool) -> None:
    """Sizes are hexadecimal in either case."""
    framed = b"".join(f"{len(chunk):{'X' if upper else 'x'}}\r\n".encode() + chunk + b"\r\n" for chunk in chunks)
    protocol = Http1Protocol()
    protocol.send(GET)
    assert play(protocol, pieces_of(CHUNKED + framed + b"0\r\n\r\n", cuts)).body == b"".join(chunks)


@given(name=st.sampled_from(sorted(BROKEN)), cuts=st.lists(st.integers(0, 90_000), max_size=8))
def test_what_is_no_response_is_an_error_wherever_it_is_cut(name: str, cuts: list[int]) -> None:
    """Never half a body, never a wait for more, and never an error of another kind."""
    protocol = Http1Protocol()
    protocol.send(GET)
    with pytest.raises(ValueError, match=r"\w"):
        play(protocol, pieces_of(BROKEN[name], cuts))


@given(
    noise=st.binary(max_size=400), cuts=st.lists(st.integers(0, 400), max_size=4), begin=st.sampled_from(["", "head"])
)
def test_noise_is_a_response_or_an_error(noise: bytes, cuts: list[int], begin: str) -> None:
    """Whatever a server sends, the only other outcome is ValueError."""
    protocol = Http1Protocol()
    protocol.send(GET)
    try:
        play(protocol, pieces_of((CHUNKED if begin else b"") + noise, cuts))
    except ValueError:
        return


@pytest.mark.parametrize("name", ["chunk size -5", "chunk size 1_0", "chunk size 0x5", "chunk size empty"])
def test_a_chunk_size_that_is_none_is_shown(name: str) -> None:
    """The error quotes what came in its place."""
    protocol = Http1Protocol()
    protocol.send(GET)
    size = BROKEN[name].removeprefix(CHUNKED).split(b"\r\n")[0].decode()
    with pytest.raises(ValueError, match="illegal chunk header") as raised:
        play(protocol, [BROKEN[name]])
    assert size in str(raised.value)


@pytest.mark.parametrize("size", [1, 1000, MAX_HEAD_BYTES + 1])
@pytest.mark.parametrize("informational", [False, True])
def test_a_head_is_read_up_to_its_bound(size: int, informational: bool) -> None:
    """64 KiB pass and one byte more does not, however it is cut; informational responses count."""
    begin = b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10 if informational else b""
    begin += b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nName: "
    for excess in (0, 1):
        whole = begin + b"x" * (MAX_HEAD_BYTES + excess - len(begin) - 4) + b"\r\n\r\n"
        assert len(whole) == MAX_HEAD_BYTES + excess
        protocol = Http1Protocol()
        protocol.send(GET)
        pieces = [whole[place : place + size] for place in range(0, len(whole), size)] if size > 1 else [whole]
        if not excess:
            assert play(protocol, [*pieces, b"x"]).body == b"x"
            continue
        with pytest.raises(ValueError, match="the answer's head is longer than 65536 bytes"):
            play(protocol, [*pieces, b"x"])


def test_a_server_that_never_answers_is_told_from_one_that_stops() -> None:
    """Nothing of the response came: only that request may be sent again."""
    protocol = Http1Protocol()
    protocol.send(GET)
    with pytest.raises(NoResponseError):
        play(protocol, [])
    assert not protocol.response_began
    begun = Http1Protocol()
    begun.send(GET)
    with pytest.raises(ValueError, match="head never ended") as raised:
        play(begun, [b"H"])
    assert begun.response_began
    assert not isinstance(raised.value, NoResponseError)


def test_another_protocol_is_told_by_its_first_byte() -> None:
    """A server that waits after its banner is not waited for."""
    protocol = Http1Protocol()
    protocol.send(GET)
    with pytest.raises(NotHttpError, match=r"not an HTTP answer: SSH-2\.0") as raised:
        protocol.receive(b"SSH-2.0-OpenSSH\r\nmore")
    assert raised.value.received.startswith(b"SSH-2.0")


def test_headers_of_one_name_are_joined() -> None:
    """Names are in lower case, values in the order in which they came."""
    protocol = Http1Protocol()
    protocol.send(GET)
    head = play(protocol, [b"HTTP/1.1 200 Fine so far\r\nContent-Length: 0\r\nX-A: 1\r\nx-a: 2\r\n\r\n"])
    assert head.headers == {"content-length": "0", "x-a": "1, 2"}
    assert head.reason == "Fine so far"


def test_requests_follow_each_other_on_one_connection() -> None:
    """Each has its own response, and what is known of the last one is forgotten."""
    protocol = Http1Protocol()
    for number in range(3):
        protocol.send(GET)
        assert not protocol.response_began
        response = f"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}".encode()
        protocol.receive(response)
        while protocol.next_head() is None:
            pass
        assert protocol.next_piece() == str(number).encode()
        assert protocol.next_piece() == b""
        assert protocol.reusable


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        # Longer than its length: the rest would be taken for the next response.
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_a_connection_that_is_not_clean_is_not_used_again(answer: bytes) -> None:
    """A server that closes it, that is too old to keep it, or that said more than it announced."""
    protocol = Http1Protocol()
    protocol.send(GET)
    assert play(protocol, [answer]).body == b"ok"
    assert not protocol.reusable


def test_a_request_is_written_whole() -> None:
    """Names in lower case, Host first, the body's length added."""
    protocol = Http1Protocol()
    request = Request("POST", "/v1/heartbeats?x=1", {"User-Agent": "headcount", "Host": "registry:8080"}, b"{}")
    assert protocol.send(request) == (
        b"POST /v1/heartbeats?x=1 HTTP/1.1\r\nhost: registry:8080\r\nuser-agent: headcount\r\n"
        b"content-length: 2\r\n\r\n{}"
    )


@pytest.mark.parametrize(
    "request_",
    [
        Request("GET", "/a b", {"host": "app"}),
        Request("GET", "/", {}),
        Request("GET", "/", {"host": "app", "name": "a\r\nb: c"}),
        Request("POST", "/", {"host": "app", "content-length": "5"}),
    ],
)
def test_a_request_that_is_not_valid_is_not_sent(request_: Request) -> None:
    """It could be read as two, or never ends."""
    with pytest.raises(ValueError, match="the request cannot be sent"):
        Http1Protocol().send(request_)


def test_an_answer_to_head_has_no_body() -> None:
    """Its length is that of another body."""
    protocol = Http1Protocol()
    protocol.send(Request("HEAD", "/", {"host": "app"}))
    assert play(protocol, [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"]).body == b""


@pytest.mark.parametrize(
    "framing",
    [
        "Transfer-Encoding: identity",
        "transfer-encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Content-Length: ",
        "Content-Length: -2",
        "Content-Length: +2",
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: " + "9" * 25,
    ],
)
def test_framing_that_is_refused_may_be_ignored(framing: str) -> None:
    """The status and the other headers count where nobody reads the body."""
    whole = f"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Away\r\nA: 1\r\n{framing}\r\nB: 2\r\n\r\nok".encode()
    for pieces in ([whole], [bytes([byte]) for byte in whole]):
        lenient, strict = Http1Protocol(ignore_framing=True), Http1Protocol()
        lenient.send(GET)
        response = play(lenient, pieces)
        assert (response.status, response.headers, response.body) == (503, {"a": "1", "b": "2"}, b"ok")
        strict.send(GET)
        with pytest.raises(ValueError, match="not valid HTTP"):
            play(strict, pieces)


def test_an_illegal_line_is_shown_readably() -> None:
    """Bounded, with its control characters escaped, and without Python's types."""
    protocol = Http1Protocol()
    protocol.send(GET)
    with pytest.raises(ValueError, match="not valid") as raised:
        play(protocol, [b"HTTP/1.1 200 OK\r\nServer : \x1b[31m" + b"x" * 1_000 + b"\r\n\r\n"])
    assert "illegal header line: 'Server : \\x1b[31mxxx" in str(raised.value)
    assert len(str(raised.value)) < 300
