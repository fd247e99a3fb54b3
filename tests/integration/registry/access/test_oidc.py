"""Sign-in by a provider of OpenID Connect: a real one on loopback, which lies in each way that a token can lie."""

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from harness.access import bearer, first_token
from harness.no_tls import NO_TLS
from harness.oidc_provider import CLIENT_ID, CLIENT_SECRET, Provider, new_ec_key, oidc_provider
from harness.postgres import Postgres
from harness.process import eventually, free_port
from harness.registry import Registry, registry

from registry.auth.access_table import AccessTable
from registry.auth.oidc import new_attempt
from registry.auth.oidc_provider import OidcProvider, OidcSettings
from registry.auth.policy import Policy
from registry.background.access_feed import AccessFeed
from registry.core.audit import AuditQueue
from registry.core.clock import Clock
from registry.errors import LimitError, UnavailableError
from registry.store.database import Database
from registry.usecases.audit import Audit
from registry.usecases.oidc_sign_in import OidcSignIns
from registry.usecases.sign_in import SIGN_IN_BURST, SignIns

SHOP = "/ui/services/shop"
START = f"/ui/login/oidc?next={SHOP}"
FORM = {"sec-fetch-site": "same-origin"}
ANN = {"source": "oidc", "match": "ann@example.org", "kind": "operator"}
DOMAIN = {"source": "oidc", "match": "*@example.org", "kind": "operator"}


class Closed:
    """A registry with access on, the provider of its people, and the token of its administrator."""

    def __init__(self, served: Registry, provider: Provider, admin: str) -> None:
        self.registry = served
        self.provider = provider
        self.admin = admin

    def put_identity(self, name: str, identity: dict[str, Any], *verbs: str) -> None:
        """Set an identity that may do something with the shop."""
        grants = [{"verbs": list(verbs), "services": ["shop"]}]
        answer = self.registry.client.put(
            f"/v1/identities/{name}", json=identity | {"grants": grants}, headers=bearer(self.admin)
        )
        assert answer.status_code == 200, answer.text

    @contextlib.contextmanager
    def browser(self) -> Iterator[httpx.Client]:
        """Return a client that keeps cookies, as a browser does; it follows no redirect."""
        with httpx.Client(base_url=self.registry.url, trust_env=False, verify=NO_TLS, timeout=30) as client:
            yield client

    def answer_for(self, client: httpx.Client) -> str:
        """Begin a sign-in, and return the URL that the provider sends the browser to."""
        begun = client.get(START)
        assert begun.status_code == 303, begun.text
        assert urlsplit(begun.headers["location"]).path == "/authorize"
        answer = httpx.get(begun.headers["location"], trust_env=False, verify=NO_TLS)
        return str(answer.headers["location"])

    def sign_in(self, client: httpx.Client) -> httpx.Response:
        """Sign in, up to the answer that ends it."""
        return client.get(self.answer_for(client))


@pytest.fixture(scope="module")
def closed(server: Postgres, workplace: Path) -> Iterator[Closed]:
    """A registry with access on and a provider."""
    database, port = server.migrated_database(), free_port()
    secret = workplace / "oidc-secret"
    secret.write_text(f"{CLIENT_SECRET}\n")
    with oidc_provider() as provider:
        settings = {
            "oidc_issuer": provider.url,
            "oidc_client_id": CLIENT_ID,
            "oidc_client_secret_file": secret,
            "oidc_redirect": f"http://127.0.0.1:{port}/ui/login/oidc/callback",
        }
        with registry(database, workplace, auth="on", listen=f"127.0.0.1:{port}", **settings) as served:
            admin = first_token(database)
            eventually(lambda: served.client.get("/v1/tokens", headers=bearer(admin)).status_code == 200, within=10)
            url, body = "/v1/services/shop/endpoints/10.0.0.1:80", {"instance_id": "i-1", "incarnation": 1, "ttl": 3600}
            assert served.client.put(url, json=body, headers=bearer(admin)).status_code == 200
            ready = Closed(served, provider, admin)
            ready.put_identity("ann", ANN, "read", "operate")
            yield ready


@pytest.fixture(autouse=True)
def honest(closed: Closed) -> Iterator[None]:
    """Have the provider tell the truth again after each test."""
    key, published, header = closed.provider.key, closed.provider.published, closed.provider.header
    yield
    closed.provider.key, closed.provider.published, closed.provider.header = key, published, header
    closed.provider.become_honest()


def test_a_person_signs_in_by_the_provider(closed: Closed) -> None:
    """From the login page to the page that was asked for, in the person's proven name."""
    with closed.browser() as client:
        assert "Sign in at" in client.get(f"/ui/login?next={SHOP}").text
        answer = closed.sign_in(client)
        assert (answer.status_code, answer.headers["location"]) == (303, SHOP)
        assert "headcount_oidc" not in client.cookies
        assert client.get("/v1/whoami").json()["principal"] == "oidc:ann@example.org from 127.0.0.1"
        assert client.post(f"{SHOP}/endpoints/10.0.0.1:80/drain", headers=FORM).status_code == 303
        event = client.get("/v1/events?service=shop&limit=1").json()["events"][0]
        assert event["actor"] == "oidc:ann@example.org from 127.0.0.1"
        # It is no bearer token, and no credential of a workload.
        session = client.cookies["headcount_session"]
    assert closed.registry.client.get("/v1/whoami", headers=bearer(session)).json()["problem"]
    assert closed.provider.requests.count("/.well-known/openid-configuration") == 1


def test_a_domain_gives_grants_to_its_people_and_an_address_wins(closed: Closed) -> None:
    """Whoever has no identity learns the way to one."""
    closed.provider.person["email"] = "Bob@Example.org"
    with closed.browser() as client:
        refused = closed.sign_in(client)
        assert (refused.status_code, "no identity means bob@example.org" in refused.text) == (403, True)
        closed.put_identity("people", DOMAIN, "read")
        assert closed.sign_in(client).status_code == 303
        assert client.get("/v1/whoami").json()["grants"][0]["verbs"] == ["read"]
    closed.provider.become_honest()
    with closed.browser() as client:
        assert closed.sign_in(client).status_code == 303
        assert client.get("/v1/whoami").json()["grants"][0]["verbs"] == ["read", "operate"]
        # The session follows its identity, and ends when that means somebody else.
        closed.put_identity("ann", ANN | {"match": "eve@example.org"}, "read")
        assert eventually(lambda: client.get(SHOP).status_code == 303, within=5) < 5
        closed.put_identity("ann", ANN, "read", "operate")
    removed = closed.registry.client.delete("/v1/identities/people", headers=bearer(closed.admin))
    assert removed.status_code == 204


LIES: dict[str, tuple[dict[str, Any], str]] = {
    "aud": ({"aud": "another"}, "aud"),
    "aud-several": ({"aud": [CLIENT_ID, "another"]}, "aud"),
    "azp": ({"azp": "another"}, "azp"),
    "iss": ({"iss": "https://evil.example"}, "iss"),
    "nonce": ({"nonce": "another"}, "nonce"),
    "no-nonce": ({"nonce": None}, "nonce"),
    "expired": ({"exp": int(time.time()) - 3600}, "exp"),
    "no-exp": ({"exp": None}, "exp"),
    "exp-true": ({"exp": True}, "exp"),
    "future": ({"iat": int(time.time()) + 86_400}, "iat"),
    "unverified": ({"email_verified": False}, "not verified"),
    "verified-1": ({"email_verified": None}, "not verified"),
    "no-email": ({"email": None}, "no e-mail address"),
    "wildcard": ({"email": "*@example.org"}, "no e-mail address"),
    "look-alike": ({"email": "\u0430nn@example.org"}, "no e-mail address"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_token_that_lies_proves_nobody(closed: Closed, lie: str) -> None:
    """Each claim by itself, while all others are right."""
    closed.provider.changed, says = LIES[lie]
    assert_refused(closed, says)


def assert_refused(closed: Closed, says: str) -> None:
    """Check that a sign-in gives nothing, and says why."""
    with closed.browser() as client:
        answer = closed.sign_in(client)
        assert answer.status_code == 401, answer.text
        assert says in answer.text
        assert "headcount_session" not in client.cookies


@pytest.mark.parametrize(
    "forge",
    [
        lambda provider: provider.sign_by(None, alg="none"),
        lambda provider: provider.sign_by(provider.public_key_as_secret(), alg="HS256", kid="a"),
        lambda provider: provider.sign_by(new_ec_key("a"), alg="ES256", kid="a"),
        lambda provider: provider.sign_by(new_ec_key("b"), alg="ES256", kid="b"),
    ],
    ids=["none", "hs256-by-the-public-key", "another-key-of-its-name", "a-key-that-is-not-shown"],
)
def test_a_token_of_another_signer_proves_nobody(closed: Closed, forge: Callable[[Provider], None]) -> None:
    """Nor one without a signature, nor one that the public key has signed as a secret."""
    forge(closed.provider)
    assert_refused(closed, "not signed by a key of its issuer")


def test_an_answer_counts_for_the_browser_that_began(closed: Closed) -> None:
    """A link to the end of another one's sign-in signs nobody in: neither here, nor as somebody else."""
    with closed.browser() as attacker, closed.browser() as victim:
        link = closed.answer_for(attacker)
        empty = victim.get(link)
        assert (empty.status_code, "not begun" in empty.text) == (401, True)
        closed.answer_for(victim)
        mixed = victim.get(link)
        assert (mixed.status_code, "another sign-in" in mixed.text) == (401, True)
        assert "headcount_session" not in victim.cookies


def test_an_answer_is_good_once(closed: Closed) -> None:
    """Also where the provider takes its code twice, and the browser has kept its cookie."""
    closed.provider.codes_once = False
    with closed.browser() as client:
        link = closed.answer_for(client)
        kept = dict(client.cookies)
        assert client.get(link).status_code == 303
        assert client.get(link).status_code == 401
        cookie = {"cookie": f"headcount_oidc={kept['headcount_oidc']}"}
        again = httpx.get(link, headers=cookie, trust_env=False, verify=NO_TLS)
        assert (again.status_code, "finished before" in again.text) == (401, True)


def test_an_answer_of_another_provider_and_a_refusal_prove_nobody(closed: Closed) -> None:
    """The answer names its issuer (RFC 9207); what it says of an error is shown as a word at most."""
    with closed.browser() as client:
        link = closed.answer_for(client)
        other = client.get(link.replace("iss=", "iss=https%3A%2F%2Fevil.example%2F"))
        assert (other.status_code, "another provider" in other.text) == (401, True)
        link = closed.answer_for(client).replace("code=", "error=access_denied&was=")
        denied = client.get(link)
        assert (denied.status_code, "access_denied" in denied.text) == (401, True)


async def test_keys_are_rotated_without_a_restart(closed: Closed) -> None:
    """A key that is not known yet is asked for; the same key is not asked for at each sign-in."""
    shown = closed.provider
    settings = OidcSettings(shown.url, CLIENT_ID, CLIENT_SECRET, "http://127.0.0.1:1/ui/login/oidc/callback")
    provider = OidcProvider(settings, key_interval=0.0)

    async def person() -> str:
        attempt = new_attempt(SHOP, time.time())
        back = httpx.get(await provider.url_for(attempt), trust_env=False, verify=NO_TLS).headers["location"]
        code = parse_qs(urlsplit(back).query)["code"][0]
        return await provider.email_of(code, attempt, time.time())

    try:
        assert [await person(), await person()] == ["ann@example.org"] * 2
        asked = shown.requests.count("/keys")
        shown.published = [*shown.published, key := new_ec_key("c")]
        shown.sign_by(key, alg="ES256", kid="c")
        assert [await person(), await person()] == ["ann@example.org"] * 2
        assert shown.requests.count("/keys") == asked + 1
    finally:
        await provider.close()


async def test_who_signs_in_while_the_provider_hangs_is_refused_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who come at once wait for one request together, and those who come after it wait for none."""
    monkeypatch.setattr("registry.auth.oidc_provider.FAILURE_TTL", 1.0)
    monkeypatch.setattr("registry.auth.oidc_provider.MAX_WAITING", 4, raising=False)
    for module in ("bounded_client", "oidc_provider"):
        monkeypatch.setattr(f"registry.auth.{module}.TIMEOUT", 1.0, raising=False)
    asked: list[asyncio.StreamWriter] = []

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(writer)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        provider = OidcProvider(OidcSettings(url, CLIENT_ID, "", f"{url}/back"))

        async def seconds_of(_number: int) -> float:
            begun = time.monotonic()
            with pytest.raises(UnavailableError):
                await provider.url_for(new_attempt(SHOP, time.time()))
            return time.monotonic() - begun

        try:
            waited = sorted(await asyncio.gather(*map(seconds_of, range(8))))
            later = await seconds_of(9)
            # One asks, four wait for it, and three are too many.
            assert waited[2] < 0.8, waited
            assert max(*waited, later + 1.0) < 1.8, (waited, later)
            assert len(asked) == 1
            await asyncio.sleep(1.0)
            assert await seconds_of(10) > 0.9
            assert len(asked) == 2
        finally:
            await provider.close()


@pytest.mark.parametrize(
    "lie",
    [
        {"authorization_endpoint": None},
        {"token_endpoint": "http://idp.example/token"},
        {"jwks_uri": 7},
        {"issuer": "https://another.example"},
    ],
    ids=lambda lie: next(iter(lie)),
)
async def test_a_discovery_document_that_is_none_is_asked_for_again_soon(
    closed: Closed, monkeypatch: pytest.MonkeyPatch, lie: dict[str, Any]
) -> None:
    """It is not kept for an hour, and strangers who begin sign-ins do not make the registry ask each time."""
    monkeypatch.setattr("registry.auth.oidc_provider.FAILURE_TTL", 1.0)
    closed.provider.configuration = lie
    provider = OidcProvider(OidcSettings(closed.provider.url, CLIENT_ID, "", "http://127.0.0.1:1/back"))
    asked = len(closed.provider.requests)
    try:
        for _ in range(3):
            with pytest.raises(UnavailableError):
                await provider.url_for(new_attempt(SHOP, time.time()))
        assert len(closed.provider.requests) == asked + 1
        closed.provider.become_honest()
        await asyncio.sleep(1.0)
        assert "/authorize?" in await provider.url_for(new_attempt(SHOP, time.time()))
    finally:
        await provider.close()


async def test_codes_that_a_provider_does_not_answer_wait_in_small_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its documents are there, and its token endpoint hangs: few wait, others are refused at once, and for a moment."""
    monkeypatch.setattr("registry.auth.oidc_provider.FAILURE_TTL", 1.0)
    monkeypatch.setattr("registry.auth.oidc_provider.MAX_EXCHANGES", 2)
    monkeypatch.setattr("registry.auth.bounded_client.TIMEOUT", 1.0)
    codes: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = await reader.readline()
        if line.startswith(b"GET"):
            document = {name: f"{url}/{name}" for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")}
            body = json.dumps(document | {"issuer": url}).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        else:
            codes.append(line)
            await reader.read()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        provider = OidcProvider(OidcSettings(url, CLIENT_ID, "", f"{url}/back"))

        async def seconds_of(_number: int) -> float:
            begun = time.monotonic()
            with pytest.raises(UnavailableError):
                await provider.email_of("code", new_attempt(SHOP, time.time()), time.time())
            return time.monotonic() - begun

        try:
            await provider.url_for(new_attempt(SHOP, time.time()))
            waited = sorted(await asyncio.gather(*map(seconds_of, range(6))))
            assert (waited[3] < 0.8, waited[4] > 0.9, len(codes)) == (True, True, 2), waited
            assert (await seconds_of(7) < 0.8, len(codes)) == (True, 2)
            await asyncio.sleep(1.0)
            assert (await seconds_of(8) > 0.9, len(codes)) == (True, 3)
        finally:
            await provider.close()


async def test_one_peer_begins_so_many_sign_ins(closed: Closed) -> None:
    """To begin needs the provider's documents, so that it counts as the end of a sign-in does; others go on."""
    database = Database("postgresql://nobody@127.0.0.1:1/nothing", connections=8, timeout=1.0)
    table, clock = AccessTable(), Clock()
    feed, audit = AccessFeed(database, table, clock), Audit(AuditQueue(), clock)
    provider = OidcProvider(OidcSettings(closed.provider.url, CLIENT_ID, CLIENT_SECRET, f"{closed.registry.url}/back"))
    oidc = OidcSignIns(provider, SignIns(Policy("on"), database, table, feed, clock, audit), clock)
    try:
        for _ in range(SIGN_IN_BURST):
            await oidc.begin("10.0.0.5", SHOP)
        with pytest.raises(LimitError):
            await oidc.begin("10.0.0.5", SHOP)
        await oidc.begin("10.0.0.6", SHOP)
    finally:
        await provider.close()


def test_secrets_are_nowhere(closed: Closed) -> None:
    """Neither the secret, nor codes, nor the cookie of a sign-in are in the log or on a page."""
    with closed.browser() as client:
        closed.sign_in(client)
        page = client.get("/ui/registry").text
    log = closed.registry.log.read_text()
    assert "oidc:ann@example.org" in log
    assert [text in log + page for text in (CLIENT_SECRET, "code-0", "Basic ")] == [False] * 3


def test_without_a_provider_there_is_no_way_to_it(closed: Closed, server: Postgres, workplace: Path) -> None:
    """The routes are there, and say what is missing."""
    with registry(server.migrated_database(), workplace, auth="on") as served:
        assert "Sign in at" not in served.client.get("/ui/login").text
        for path in ("/ui/login/oidc", "/ui/login/oidc/callback"):
            answer = served.client.get(path)
            assert (answer.status_code, "REGISTRY_OIDC_ISSUER" in answer.text) == (404, True)
