"""What a connection keeps from one request to the next changes no answer."""

import asyncio
import re
import time
from collections.abc import Callable

import pytest
from harness.memory_front import DATABASE_ID, Connection, MemoryFront, poll
from msgspec.structs import replace

from registry.auth.access_table import AccessTable
from registry.auth.credential import Credential
from registry.auth.grants import Grant
from registry.auth.tokens import TOKEN, new_token
from registry.auth.verbs import Verb

SERVICES = {"shop": 2, "cart": 1}
NEW, OTHER = new_token(TOKEN), new_token(TOKEN)
SHOP = Grant((Verb.DISCOVER,), ("shop",))
CREDENTIAL = Credential(NEW.id, NEW.digest, "envoys", "envoy", time.time() + 3600, (SHOP,))
CARTS = Credential(OTHER.id, OTHER.digest, "carts", "envoy", time.time() + 3600, (replace(SHOP, services=("cart",)),))
BEARER = b"authorization: Bearer " + NEW.text.encode()
BODY = b'{"resource_names":["shop"]}'
HELD = b'{"version_info":"%b:1","resource_names":["shop"]}' % DATABASE_ID.encode()
FIRST = poll(BODY, BEARER)
TOO_LONG = FIRST.replace(b"%d" % len(BODY), b"99999999")
"""A request that is refused before it is complete, so what follows is no request of its own."""

_OF_REQUEST = re.compile(rb"x-request-id: \S+|\"request_id\":\"[^\"]*\"|content-length: \d+")
"""Parts of an answer in which the id of its request shows; the id is random, and so is its length."""


@pytest.fixture(scope="module")
def built() -> MemoryFront:
    """Return a front, which takes longer to build than all tests here take."""
    return MemoryFront(SERVICES, auth="on")


@pytest.fixture
def front(built: MemoryFront) -> MemoryFront:
    """Return the front, which knows the tokens of an Envoy for ``shop`` and of one for ``cart``."""
    built.process.access.replace([CREDENTIAL, CARTS], (), ())
    return built


async def ask(front: MemoryFront, connection: Connection, request: bytes) -> bytes:
    """Send a request and return its whole response, without the id of the request."""
    before = front.answered
    connection.wire.receive(request)
    for _ in range(1000):
        if front.answered > before or connection.wire.closed:
            break
        await asyncio.sleep(0)
    return _OF_REQUEST.sub(b"", connection.answer())


def status(response: bytes) -> int:
    """Return the status of a response."""
    return int(response[9:12])


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(poll(BODY), id="no token"),
        pytest.param(poll(BODY, BEARER[:-1] + b"A"), id="a wrong token"),
        pytest.param(poll(BODY, b"authorization: Bearer " + OTHER.text.encode()), id="another token"),
        pytest.param(poll(b'{"resource_names":["cart"]}', BEARER), id="another service"),
        pytest.param(poll(HELD, BEARER), id="a version"),
        pytest.param(poll(BODY, BEARER, url="/v2/discovery:endpoints"), id="another path"),
        pytest.param(poll(BODY, BEARER, url="/v1/nothing"), id="no path of a poll"),
        pytest.param(poll(BODY, BEARER, method=b"PUT"), id="another method"),
        pytest.param(poll(BODY, BEARER, version=b"HTTP/1.0"), id="HTTP/1.0"),
        pytest.param(poll(BODY, BEARER, b"connection: close"), id="the last one"),
        pytest.param(poll(BODY, BEARER, b"expect: 100-continue"), id="one that waits for 100 Continue"),
        pytest.param(poll(BODY, BEARER, b"host: other"), id="two hosts"),
        pytest.param(poll(BODY, BEARER, b"origin: http://evil.example"), id="a page of another site"),
        pytest.param(poll(BODY, BEARER, b"user-agent: Mozilla/5.0"), id="a browser"),
        pytest.param(poll(BODY, BEARER, b"x-actor: ann"), id="one that names its actor"),
        pytest.param(poll(BODY, BEARER, b"x-envoy-expected-rq-timeout-ms: 100"), id="a timeout"),
        pytest.param(TOO_LONG, id="one that is too long"),
        pytest.param(FIRST, id="the same"),
    ],
)
async def test_a_later_request_is_answered_as_over_a_new_connection(front: MemoryFront, second: bytes) -> None:
    """Whatever a request has in common with the one before it, the answer is that of its own words."""
    fresh = await ask(front, front.connect(), second)
    connection = front.connect()
    assert status(await ask(front, connection, FIRST)) == 200
    assert await ask(front, connection, second) == fresh
    if not connection.wire.closed and second is not TOO_LONG:
        assert status(await ask(front, connection, FIRST)) == 200


async def test_the_version_of_http_is_part_of_a_request(front: MemoryFront) -> None:
    """HTTP/1.0 that wants to keep its connection has the headers of an HTTP/1.1 that does, and another answer."""
    lines = (BEARER, b"connection: keep-alive")
    old = poll(BODY, *lines, version=b"HTTP/1.0")
    fresh = await ask(front, front.connect(), old)
    connection = front.connect()
    assert status(await ask(front, connection, poll(BODY, *lines))) == 200
    assert await ask(front, connection, old) == fresh


async def test_the_same_head_is_read_once(front: MemoryFront) -> None:
    """Otherwise the tests here prove nothing: the second request of a connection is answered by the head kept."""
    connection = front.connect()
    await ask(front, connection, FIRST)
    kept = connection.protocol._kept
    assert kept is not None
    await ask(front, connection, FIRST)
    assert connection.protocol._kept is kept


def _revoke(access: AccessTable) -> None:
    access.replace([replace(CREDENTIAL, revoked_at=time.time())], (), ())


def _narrow(access: AccessTable) -> None:
    access.replace([replace(CREDENTIAL, grants=CARTS.grants)], (), ())


def _bind(access: AccessTable) -> None:
    access.replace([replace(CREDENTIAL, networks=("10.99.0.0/16",))], (), ())


@pytest.mark.parametrize(
    ("change", "expected"),
    [(_revoke, 401), (_narrow, 403), (_bind, 401)],
    ids=["revoked", "narrowed", "bound to a network"],
)
async def test_a_kept_head_does_not_keep_its_access(
    front: MemoryFront, change: Callable[[AccessTable], None], expected: int
) -> None:
    """The next poll over the same connection, of the same bytes, is decided by what the token is then."""
    connection = front.connect()
    request = poll(HELD, BEARER)
    assert [status(await ask(front, connection, request)) for _ in range(3)] == [304, 304, 304]
    change(front.process.access)
    assert [status(await ask(front, connection, request)) for _ in range(2)] == [expected] * 2
    front.process.access.replace([CREDENTIAL], (), ())
    assert status(await ask(front, connection, request)) == 304


async def test_a_kept_head_does_not_outlive_its_token(front: MemoryFront, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that has expired is noticed by the next poll after the table was looked through."""
    connection = front.connect()
    request = poll(HELD, BEARER)
    assert status(await ask(front, connection, request)) == 304
    later = CREDENTIAL.expires_at + 1
    monkeypatch.setattr(front.process.cache.clock, "now", lambda: later)
    front.process.access.expire(later)
    assert status(await ask(front, connection, request)) == 401


async def test_wider_grants_are_seen_by_the_next_poll(front: MemoryFront) -> None:
    """A service that was refused is answered as soon as the table has the new grants."""
    connection = front.connect()
    request = poll(HELD.replace(b"shop", b"cart"), BEARER)
    assert status(await ask(front, connection, request)) == 403
    front.process.access.replace([replace(CREDENTIAL, grants=(SHOP, *CARTS.grants))], (), ())
    assert status(await ask(front, connection, request)) == 304
