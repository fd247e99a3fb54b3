"""Asking AWS STS who signed a login: moto's STS, and servers that answer wrongly, late or not at all."""

import asyncio
import gzip
import json
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from harness.aws_login import BODY, Workload
from harness.aws_sts import FakeSts, Moto, response
from harness.probing import Authority
from harness.process import free_port

from registrar.credentials.aws_identity import identity_headers
from registrar.credentials.sigv4 import AwsKeys
from registry.auth import sts_client
from registry.auth.aws_login import BadLoginError, LoginRules, SignedRequest, read_login
from registry.auth.sts_client import StsClient
from registry.errors import UnavailableError

RULES = LoginRules(frozenset({"eu-west-1"}), frozenset({"registry.example.com"}))
CALLER = {
    "Arn": "arn:aws:sts::111122223333:assumed-role/shop-task/0123456789abcdef",
    "UserId": "AROAQWERTYUIOPASDFGHJ:0123456789abcdef",
    "Account": "111122223333",
}
ANSWER = json.dumps({"GetCallerIdentityResponse": {"GetCallerIdentityResult": CALLER}}).encode()
WORKLOAD = Workload()


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    """A moto server that checks signatures."""
    with Moto.running() as server:
        yield server


@asynccontextmanager
async def client(endpoint: str, timeout: float = 3.0) -> AsyncIterator[StsClient]:
    """Return a client that is closed at the end."""
    sts = StsClient(endpoint, timeout)
    try:
        yield sts
    finally:
        await sts.close()


def signed(workload: Workload = WORKLOAD) -> SignedRequest:
    """Return the request that the registry builds of a login of this moment."""
    now = time.time()
    return read_login(workload.login(now), RULES, now)


async def answered(answer: bytes, timeout: float = 3.0) -> str:
    """Return why there is no caller where STS answers so."""
    async with FakeSts(answer).running() as sts, client(sts.url, timeout) as asked:
        with pytest.raises(UnavailableError) as caught:
            await asked.caller_of(signed())
        assert caught.value.retry_after == sts_client.RETRY_AFTER
        return str(caught.value)


async def test_sts_names_the_signer(moto: Moto) -> None:
    """Account, role, session and the role's id, of a request whose signature was checked."""
    keys = moto.keys("team/shop-task", "0123456789abcdef")
    async with client(moto.url) as sts:
        caller = await sts.caller_of(signed(Workload(keys)))
    assert (caller.match, caller.session) == ("111122223333:shop-task", "0123456789abcdef")
    assert caller.unique_id.startswith("AROA")


async def test_what_the_registrar_signs_is_taken(moto: Moto) -> None:
    """The sidecar's own Signature Version 4, through the rules and through STS."""
    keys = moto.keys("shop-task", "i-0abc")
    now = time.time()
    headers = identity_headers(
        AwsKeys(keys.access_key_id, keys.secret, keys.token),
        "eu-west-1",
        "registry.example.com",
        "i-0abc",
        secrets.token_hex(16),
        now,
    )
    request = read_login(json.dumps({"headers": headers}).encode(), RULES, now)
    async with client(moto.url) as sts:
        assert (await sts.caller_of(request)).session == "i-0abc"


async def test_a_login_that_was_changed_after_it_was_signed_is_refused(moto: Moto) -> None:
    """STS checks the signature: of the instance, the audience, the token, and of a key that is not the role's."""
    keys = moto.keys("shop-task", "0123456789abcdef")
    now = time.time()
    headers = Workload(keys).headers(now) | {"x-registry-instance": "fedcba9876543210"}
    changed = read_login(json.dumps({"headers": headers}).encode(), RULES, now)
    forged = signed(Workload(replace(keys, secret="guessed")))
    async with client(moto.url) as sts:
        for request in (changed, forged):
            with pytest.raises(BadLoginError, match="refused the login with 403 SignatureDoesNotMatch"):
                await sts.caller_of(request)
        with pytest.raises(BadLoginError, match="403 InvalidClientTokenId"):
            await sts.caller_of(signed())


async def test_the_request_is_ours() -> None:
    """Method, path, body and the names of the headers; the signed host stays, wherever it is sent."""
    async with FakeSts(response("200 OK", ANSWER)).running() as sts, client(sts.url) as asked:
        await asked.caller_of(signed())
        head, _, body = sts.requests[0].decode().partition("\r\n\r\n")
    line, *headers = head.split("\r\n")
    names = [header.partition(":")[0].lower() for header in headers]
    assert (line, body) == ("POST / HTTP/1.1", BODY)
    assert "host: sts.eu-west-1.amazonaws.com" in [header.lower() for header in headers]
    assert sorted(names) == sorted({*names})
    assert set(names) == {*WORKLOAD.headers(0), "accept-encoding", "content-length"}


async def test_connections_are_kept_and_cookies_are_not() -> None:
    """A fleet's logins share connections; what STS tells one caller is not sent with the next."""
    answer = response("200 OK", ANSWER, "set-cookie: a=b")
    async with FakeSts(answer).running() as sts, client(sts.url) as asked:
        for _ in range(3):
            await asked.caller_of(signed())
        assert (sts.connections, len(sts.requests)) == (1, 3)
        assert b"cookie" not in b"".join(sts.requests).lower()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (response("302 Found", b"", "location: http://127.0.0.1:1/"), "answered 302"),
        (response("204 No Content"), "answered 204"),
        (response("500 Internal Server Error"), "answered 500"),
        (response("503 Slow Down", b"<Code>SlowDown</Code>"), "answered 503 SlowDown"),
        (response("429 Too Many Requests"), "answered 429"),
        (response("400 Bad Request", b"<Code>Throttling</Code>"), "answered 400 Throttling"),
        (response("200 OK", b"<html>sign in</html>"), "not exactly one"),
        (response("200 OK", gzip.compress(ANSWER), "content-encoding: gzip"), "not ASCII"),
        (response("200 OK", b" " * 65_537), "exceeds 65,536 bytes"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 70_000, "exceeds 65,536 bytes"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 400\r\n\r\n" + ANSWER, "did not answer within"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000, "cannot be reached: RemoteProtocolError"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "cannot be reached: RemoteProtocolError"),
        (b"", "did not answer within"),
    ],
)
async def test_an_answer_that_says_nothing_of_the_caller_is_an_outage(answer: bytes, reason: str) -> None:
    """The workload tries again: it is not to blame."""
    assert reason in await answered(answer, timeout=0.5 if "within" in reason else 3.0)


async def test_a_refusal_repeats_nothing_of_the_answer_but_its_code() -> None:
    """The message of SignatureDoesNotMatch has the canonical request with the session token in it."""
    body = f"<Code>SignatureDoesNotMatch</Code><Message>{WORKLOAD.keys.token}</Message>".encode()
    async with FakeSts(response("403 Forbidden", body)).running() as sts, client(sts.url) as asked:
        with pytest.raises(BadLoginError) as caught:
            await asked.caller_of(signed())
    assert str(caught.value) == "AWS STS refused the login with 403 SignatureDoesNotMatch"


async def test_nobody_listens() -> None:
    """A port without a listener, as where a security group refuses."""
    async with client(f"http://127.0.0.1:{free_port()}") as sts:
        with pytest.raises(UnavailableError, match="cannot be reached: ConnectError"):
            await sts.caller_of(signed())


async def test_the_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would see logins, and could answer them."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    async with FakeSts(response("200 OK", ANSWER)).running() as sts, client(sts.url) as asked:
        assert (await asked.caller_of(signed())).match == "111122223333:shop-task"


async def test_tls_is_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate of an unknown authority, or of another name, is no STS; SSL_CERT_FILE names an authority."""
    authority = Authority(tmp_path)
    good, other = authority.server("127.0.0.1"), authority.server("sts.example.com")
    async with FakeSts(response("200 OK", ANSWER)).running(good) as sts:
        async with client(sts.url) as asked:
            with pytest.raises(UnavailableError, match="cannot be reached: ConnectError"):
                await asked.caller_of(signed())
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
        async with client(sts.url) as asked:
            assert (await asked.caller_of(signed())).match == "111122223333:shop-task"
    async with FakeSts(response("200 OK", ANSWER)).running(other) as sts, client(sts.url) as asked:
        with pytest.raises(UnavailableError, match="cannot be reached: ConnectError"):
            await asked.caller_of(signed())


async def test_an_outage_holds_a_bounded_number_of_logins() -> None:
    """STS takes connections and says nothing: logins end in time, those beyond the bound at once, and it recovers."""
    async with FakeSts(b"").running() as sts, client(sts.url, timeout=1.5) as asked:
        requests = [signed() for _ in range(sts_client.MAX_WAITING + 50)]
        logins = [asyncio.create_task(asked.caller_of(request)) for request in requests]
        async with asyncio.timeout(1.5):
            while sts.connections < sts_client.MAX_CONNECTIONS:
                await asyncio.sleep(0.01)
        assert (sts.connections, sum(login.done() for login in logins)) == (sts_client.MAX_CONNECTIONS, 50)
        async with asyncio.timeout(5):
            results = await asyncio.gather(*logins, return_exceptions=True)
        assert all(isinstance(result, UnavailableError) for result in results)
        assert "logins wait for AWS STS already" in str(results[-1])
        sts.answer = response("200 OK", ANSWER)
        assert (await asked.caller_of(signed())).match == "111122223333:shop-task"


async def test_a_resolver_that_hangs_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All logins wait for one look-up, in a thread of its own: those of the loop stay free for other work."""
    asked = 0
    over = threading.Event()

    def hang(*_: object) -> None:
        nonlocal asked
        asked += 1
        over.wait(30)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    async with client("https://sts.invalid", timeout=0.2) as sts:
        try:
            results = await asyncio.gather(*(sts.caller_of(signed()) for _ in range(10)), return_exceptions=True)
            assert all("did not answer within" in str(result) for result in results)
            assert asked == 1
            await asyncio.wait_for(asyncio.to_thread(int), 10)
        finally:
            over.set()


async def test_a_name_that_is_not_known_is_an_outage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as without a route to a name server."""

    def fail(*_: object) -> None:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    async with client("https://sts.invalid:1") as sts:
        with pytest.raises(UnavailableError, match="cannot be reached: OSError"):
            await sts.caller_of(signed())
