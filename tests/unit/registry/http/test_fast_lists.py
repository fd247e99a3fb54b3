"""Lists from the fast protocol and from the application: the same bytes, for whatever is asked and by whom."""

import asyncio
import re
import time
from itertools import product
from urllib.parse import quote, urlencode

import httpx
import pytest
from harness.memory_front import Connection, MemoryFront
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import generate_latest

from registry.app import build_app
from registry.auth.credential import Credential
from registry.auth.grants import Grant
from registry.auth.principal import Principal
from registry.auth.tokens import TOKEN, new_token
from registry.auth.verbs import Verb
from registry.core.silence import STATUSES_FOR_PEOPLE
from registry.http.legacy import hosts
from registry.http.legacy.hosts import read_hosts_request
from registry.http.lists import document, requests
from registry.http.lists.document import Document, accepts_gzip
from registry.http.lists.lists import Lists
from registry.http.lists.requests import ListRequest, TargetsRequest, read_list_request
from registry.http.parameters import write_cursor

SERVICES = {"shop": 3, "cart": 1, "shop-eu": 2}
TOKENS = {name: new_token(TOKEN) for name in ("everything", "shop", "nothing")}
GRANTS = {"everything": ("*",), "shop": ("shop*",)}
APPLICATION = b"accept-language: en"
"""A header of browsers, which the application answers."""
_OWN = re.compile(
    rb"x-request-id: \S+|,\"request_id\":\"[^\"]*\"|content-length: \d+(?=\r\ncontent-type: application/problem)"
)
"""Parts of a response that are of its request alone."""


def credential(name: str) -> Credential:
    """Return the credential of a token, which may read the services of its name."""
    grants = [Grant((Verb.READ,), GRANTS[name])] if name in GRANTS else [Grant((Verb.DISCOVER,))]
    token = TOKENS[name]
    return Credential(token.id, token.digest, name, "operator", time.time() + 3600, tuple(grants))


@pytest.fixture(scope="module")
def front() -> MemoryFront:
    """Return a front that knows the tokens."""
    return MemoryFront(SERVICES, *map(credential, TOKENS), auth="on")


def bearer(name: str) -> list[bytes]:
    """Return the header of a token; none without a name."""
    return [b"authorization: Bearer " + TOKENS[name].text.encode()] if name else []


def request(url: str, *lines: bytes, method: bytes = b"GET", version: bytes = b"1.1") -> bytes:
    """Return a request with further lines in its head."""
    start = b"%b %b HTTP/%b" % (method, url.encode(), version)
    return b"\r\n".join([start, b"host: registry", *lines]) + b"\r\n\r\n"


async def ask(front: MemoryFront, connection: Connection, sent: bytes) -> tuple[bytes, bool]:
    """Return the whole response without what is its own, and whether it came at once, without the application."""
    before = front.answered
    connection.protocol.data_received(sent)
    at_once = front.answered > before
    for _ in range(1000):
        if front.answered > before or connection.wire.closed:
            break
        await asyncio.sleep(0)
    return _OWN.sub(b"", connection.answer()), at_once


AT_ONCE = [
    "/v1/services",
    "/v1/services?",
    "/v1/services?limit=1",
    "/v1/services?limit=1000&prefix=shop",
    "/v1/services?prefix=",
    "/v1/services?cursor=",
    f"/v1/services?cursor={write_cursor('shop')}",
    f"/v1/services?cursor={quote(write_cursor('shop'), safe='')}",
    "/v1/services?prefix=sh%6Fp+x",
    "/v1/services/shop",
    "/v1/services/shop/endpoints",
    "/v1/services/shop/endpoints?limit=2",
    f"/v1/services/shop/endpoints?limit=2&cursor={write_cursor('1')}",
    "/v1/services/shop/endpoints?status=HEALTHY&status=SILENT",
    "/v1/services/shop/endpoints?zone=eu-west-1b&region=eu-west-1&revision=&instance_id=i-1&canary=false",
    "/v1/services/shop/endpoints?metadata=a=b=c",
    "/v1/prometheus/targets?service=shop",
    "/v1/prometheus/targets?service=shop&service=nowhere&port=metrics",
    "/v1/prometheus/targets",
]
BY_THE_APPLICATION = [
    "/v1/services/",
    "/v1/services?limit=0",
    "/v1/services?limit=1001",
    "/v1/services?limit=01",
    "/v1/services?limit=x",
    "/v1/services?limit=1&limit=2",
    "/v1/services?cursor=no",
    "/v1/services?unknown=1",
    f"/v1/services?prefix={'a' * 256}",
    "/v1/services?prefix=a;limit=1",
    "/v1/services/nowhere",
    "/v1/services/sh%6Fp",
    "/v1/services/-shop",
    f"/v1/services/{'a' * 256}",
    "/v1/services/shop/endpoints/",
    "/v1/services/shop/endpoints?cursor=",
    "/v1/services/shop/endpoints?cursor=no",
    f"/v1/services/shop/endpoints?cursor={write_cursor('-1')}",
    "/v1/services/shop/endpoints?status=GOOD",
    "/v1/services/shop/endpoints?status=",
    "/v1/services/shop/endpoints?canary=1",
    "/v1/services/shop/endpoints?canary=x",
    "/v1/services/nowhere/endpoints?cursor=no",
    "/v1/prometheus/targets?service=sh%20p#a",
    "/v1/prometheus/targets/",
]


@pytest.mark.parametrize("url", [*AT_ONCE, *BY_THE_APPLICATION])
async def test_both_answer_alike(front: MemoryFront, url: str) -> None:
    """By GET and HEAD, compressed or not, with the ETag or another one, whoever asks, and on the last request."""
    connection = front.connect()
    held = [b"", b'if-none-match: "other"', b"if-none-match: *"]
    options = product(
        (b"GET", b"HEAD"), ("everything", "shop", "nothing", ""), (b"", b"accept-encoding: gzip, br"), held
    )
    for method, name, *more in options:
        lines = [*bearer(name), *filter(None, more)]
        fast, at_once = await ask(front, connection, request(url, *lines, method=method))
        slow, later = await ask(front, connection, request(url, *lines, APPLICATION, method=method))
        assert fast == slow
        assert not later
        if name == "everything":
            assert at_once is (url in AT_ONCE)
    for version, last in ((b"1.1", [b"connection: close"]), (b"1.0", []), (b"1.1", [b"x-actor: ann"])):
        fast, _ = await ask(front, front.connect(), request(url, *bearer("everything"), *last, version=version))
        slow, _ = await ask(
            front, front.connect(), request(url, *bearer("everything"), *last, APPLICATION, version=version)
        )
        assert fast == slow


async def test_an_etag_is_good_for_both(front: MemoryFront) -> None:
    """That of a compressed list, too; and not for a principal that sees another list."""
    connection = front.connect()
    for url in AT_ONCE:
        answer, _ = await ask(front, connection, request(url, *bearer("everything"), b"accept-encoding: gzip"))
        etag = re.search(rb"etag: ([^\r]*)", answer)
        assert etag is not None
        for more in ([], [APPLICATION]):
            held = request(url, *bearer("everything"), b"if-none-match: " + etag[1], *more)
            answer, _ = await ask(front, connection, held)
            assert answer.startswith(b"HTTP/1.1 304 ")
            assert etag[1] in answer
            assert answer.endswith(b"\r\n\r\n")
    answer, _ = await ask(front, connection, request("/v1/services", *bearer("everything")))
    etag = re.search(rb"etag: ([^\r]*)", answer)
    assert etag is not None
    answer, _ = await ask(front, connection, request("/v1/services", *bearer("shop"), b"if-none-match: " + etag[1]))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"cart"' not in answer


async def test_a_request_is_counted(front: MemoryFront) -> None:
    """By the same labels as in the application."""

    def counted() -> list[float]:
        name = 'registry_http_requests_total{code="%s",method="%s",route="/v1/services/{service}/endpoints"}'
        lines = dict(
            line.rsplit(" ", 1) for line in generate_latest().decode().splitlines() if not line.startswith("#")
        )
        return [float(lines.get(name % labels, 0)) for labels in ((200, "GET"), (304, "GET"), (200, "HEAD"))]

    connection = front.connect()
    url = "/v1/services/shop/endpoints"
    for more in ([], [APPLICATION]):
        before = counted()
        await ask(front, connection, request(url, *bearer("shop"), *more))
        await ask(front, connection, request(url, *bearer("shop"), *more, b"if-none-match: *"))
        await ask(front, connection, request(url, *bearer("shop"), *more, method=b"HEAD"))
        assert [after - former for after, former in zip(counted(), before, strict=True)] == [1, 1, 1]


class Recorder(Lists):
    """Keeps the last request that a route has read."""

    def __init__(self) -> None:
        self.asked: list[ListRequest] = []

    async def answer(self, principal: Principal, request: ListRequest) -> Document:
        """Keep a request."""
        del principal
        self.asked.append(request)
        return Document(b"[]")


TEXT = st.text(st.sampled_from("aZ0._-~@:=&%+ ;,ü\n\x00"), max_size=6) | st.sampled_from(
    ["a" * 255, "a" * 256, "1", "true"]
)
CURSORS = TEXT | st.builds(write_cursor, TEXT)
PARAMETERS = {
    "prefix": TEXT,
    "limit": st.sampled_from(["1", "100", "1000", "1001", "0", "007", "-1", "", "1e2", "٣"]),
    "cursor": CURSORS,
    "status": st.sampled_from([*STATUSES_FOR_PEOPLE, "", "healthy"]),
    "canary": st.sampled_from(["true", "false", "1", "no", "", "TRUE"]),
    "service": TEXT,
} | dict.fromkeys(("region", "zone", "revision", "instance_id", "metadata", "port", "other"), TEXT)
PATHS = {
    "/v1/services": ["prefix", "limit", "cursor"],
    "/v1/services/shop": [],
    "/v1/services/a@b:c~d": [],
    "/v1/services/shop/endpoints": [
        "status", "region", "zone", "revision", "instance_id", "canary", "metadata", "limit", "cursor"
    ],
    "/v1/prometheus/targets": ["service", "service", "port"],
}  # fmt: skip


@st.composite
def urls(draw: st.DrawFn) -> str:
    """Return the address of a list with some parameters, mostly its own."""
    path = draw(st.sampled_from(sorted(PATHS)))
    names = draw(st.lists(st.sampled_from([*PATHS[path] * 4, "other"]), max_size=3))
    query = urlencode([(name, draw(PARAMETERS[name])) for name in names], safe=draw(st.sampled_from(["", "=@:~,"])))
    return f"{path}?{query}" if query else path


@pytest.fixture(scope="module")
def recorded(front: MemoryFront) -> tuple[httpx.AsyncClient, Recorder]:
    """Return a client of an application whose routes only read."""
    app = build_app(front.process)
    recorder = app.state.parts[Lists] = Recorder()
    headers = {"authorization": f"Bearer {TOKENS['everything'].text}"}
    client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://registry", headers=headers)
    return client, recorder


@settings(deadline=None)
@given(url=urls())
def test_an_address_is_read_as_its_route_reads_it(recorded: tuple[httpx.AsyncClient, Recorder], url: str) -> None:
    """What the fast protocol reads is what the route reads; the rest it leaves to the route."""
    client, recorder = recorded
    read = read_list_request(url.encode())
    recorder.asked.clear()
    asyncio.run(client.get(url))
    assert read is None or recorder.asked == [read]


def test_ordinary_addresses_are_read() -> None:
    """As clients write them, with and without escapes."""
    assert all(read_list_request(url.encode()) is not None for url in AT_ONCE)
    assert read_list_request(b"/v1/prometheus/targets?service=a&service=b&port=p") == TargetsRequest(("a", "b"), "p")
    assert read_list_request(b"/v1/services?prefix=" + b"a" * 3000) is None


def test_what_is_remembered_as_read_is_short() -> None:
    """Anybody sends addresses and headers of 64 KiB: thousands would be kept, and one takes 25 ms to be read."""
    remembered = (hosts._read, requests._read, document._takes_gzip)
    before = [read.cache_info() for read in remembered]
    for number in range(3):
        long = b"%d" % number + b"," * 65_000
        assert read_hosts_request(b"/v1/registration/" + long) is None
        assert read_list_request(b"/v1/services?prefix=" + long) is None
        assert not accepts_gzip(b"gzip," + long)
    assert [read.cache_info() for read in remembered] == before
    assert read_hosts_request(b"/v1/registration/repo/" + b"a" * 255 + b"/") is not None
