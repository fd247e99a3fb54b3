"""People whom a load balancer of AWS has signed in: what ours signs counts, and nothing else does."""

import asyncio
import base64
import hmac
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness.access import bearer, first_token
from harness.load_balancer import ANN, ARN, CLIENT_ID, ISSUER, OTHER_ARN, LoadBalancers, load_balancers, signed_part
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry
from joserfc.jwk import ECKey

from registry.auth import load_balancer_keys, signed_headers
from registry.auth.load_balancer import LoadBalancer
from registry.auth.load_balancer_keys import LoadBalancerKeys
from registry.auth.oidc import BadIdTokenError
from registry.auth.signed_headers import SignedHeaders
from registry.errors import UnavailableError

HEADER = "x-amzn-oidc-data"
PROXY = "127.0.0.2"
"""The address of the load balancer; every other one is foreign."""
SHOP = "/ui/services/shop"
DRAIN = f"{SHOP}/endpoints/10.0.0.1:80/drain"
OURS = {"sec-fetch-site": "same-origin"}


class Closed:
    """A registry with access on behind a load balancer, and the token of its administrator."""

    def __init__(self, served: Registry, region: LoadBalancers, admin: str, proxy: httpx.Client) -> None:
        self.registry = served
        self.region = region
        self.admin = admin
        self.proxy = proxy
        """Asks from the address of the load balancer."""

    def get(self, statement: str, url: str = "/v1/whoami", **headers: str) -> httpx.Response:
        """Ask as the load balancer does for a person."""
        return self.proxy.get(url, headers={HEADER: statement, **headers})


@pytest.fixture(scope="module")
def closed(server: Postgres, workplace: Path) -> Iterator[Closed]:
    """A registry with access on, whose load balancer is at another address than everybody else."""
    database = server.migrated_database()
    with load_balancers() as region:
        settings = {
            "alb_arn": ARN,
            "alb_client_id": CLIENT_ID,
            "alb_issuer": ISSUER,
            "alb_keys_endpoint": region.url,
            "trusted_proxies": f"{PROXY}/32",
        }
        with registry(database, workplace, auth="on", **settings) as served:
            admin = first_token(database)
            eventually(lambda: served.client.get("/v1/tokens", headers=bearer(admin)).status_code == 200, within=10)
            url, body = "/v1/services/shop/endpoints/10.0.0.1:80", {"instance_id": "i-1", "incarnation": 1, "ttl": 3600}
            assert served.client.put(url, json=body, headers=bearer(admin)).status_code == 200
            grants = [{"verbs": ["read", "operate"], "services": ["shop"]}]
            identity = {"source": "oidc", "match": "ann@example.org", "kind": "operator", "grants": grants}
            put = served.client.put("/v1/identities/ann", json=identity, headers=bearer(admin))
            assert put.status_code == 200, put.text
            transport = httpx.HTTPTransport(local_address=PROXY)
            with httpx.Client(base_url=served.url, trust_env=False, timeout=30, transport=transport) as proxy:
                yield Closed(served, region, admin, proxy)


def test_a_person_reads_and_writes_in_his_name(closed: Closed) -> None:
    """With the padding of AWS and without, and one key is asked for once."""
    statement = closed.region.statement()
    assert "=" in statement
    who = closed.get(statement).json()
    assert (who["principal"], who["problem"]) == (f"oidc:ann@example.org from {PROXY}", None)
    assert who["grants"][0]["verbs"] == ["read", "operate"]
    assert closed.get(statement, SHOP).status_code == 200
    done = closed.proxy.post(DRAIN, headers={HEADER: statement, **OURS})
    assert done.status_code == 303, done.text
    event = closed.get(statement, "/v1/events?service=shop&limit=1").json()["events"][0]
    assert event["actor"] == f"oidc:ann@example.org from {PROXY}"
    for _ in range(3):
        assert closed.get(closed.region.statement(), SHOP).status_code == 200
    assert closed.region.requests.count(f"/{closed.region.key_id}") == 1


def test_a_header_of_a_foreign_peer_is_not_looked_at(closed: Closed) -> None:
    """It is ignored and not refused, whether it would be good or not; no key is asked for because of it."""
    asked = len(closed.region.requests)
    for statement in (closed.region.statement(), closed.region.statement(kid=str(uuid.uuid4())), "nonsense"):
        who = closed.registry.client.get("/v1/whoami", headers={HEADER: statement}).json()
        assert (who["kind"], who["problem"]) == ("anonymous", None)
    assert len(closed.region.requests) == asked


LIES: dict[str, tuple[dict[str, Any], str]] = {
    "another-signer": ({"signer": OTHER_ARN}, "signer"),
    "no-signer": ({"signer": None}, "signer"),
    "a-list-of-signers": ({"signer": [ARN]}, "signer"),
    "another-client": ({"client": "another"}, "client"),
    "another-issuer": ({"iss": "https://evil.example"}, "iss"),
    "expired": ({"exp": int(time.time()) - 3600}, "expired"),
    "no-exp": ({"exp": None}, "exp"),
    "exp-true": ({"exp": True}, "exp"),
    "exp-endless": ({"exp": float("inf")}, "exp"),
    "exp-none": ({"exp": float("nan")}, "exp"),
    "exp-of-400-digits": ({"exp": 10**400}, "exp"),
    "none": ({"alg": "none"}, "alg"),
    "hs256": ({"alg": "HS256"}, "alg"),
    "crit": ({"crit": ["exp"]}, "alg"),
    "no-kid": ({"kid": None}, "kid"),
    "kid-path": ({"kid": "../../evil"}, "kid"),
    "kid-host": ({"kid": "@evil.example/00000000-0000-0000-0000-000000000000"}, "kid"),
    "kid-line": ({"kid": "00000000-0000-0000-0000-000000000000\n"}, "kid"),
    "kid-number": ({"kid": 7}, "kid"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies_is_refused_in_words(closed: Closed, lie: str) -> None:
    """Each field by itself, well signed by a key of the region, while all others are right; no key is asked for."""
    changed, says = LIES[lie]
    asked = len(closed.region.requests)
    assert_refused(closed, closed.region.statement(**changed), says)
    assert len(closed.region.requests) == asked


def assert_refused(closed: Closed, statement: str, says: str) -> None:
    """Check that a header gives nothing, and says why."""
    answer = closed.get(statement, "/v1/services/shop")
    assert answer.status_code == 401, answer.text
    assert says in answer.json()["detail"]
    # What it says of the person is nowhere.
    assert "ann@" not in answer.text


CLAIMS: dict[str, tuple[dict[str, Any], str]] = {
    "unverified": ({"email_verified": False}, "not verified"),
    "unsaid": ({"email_verified": None}, "not verified"),
    "wildcard": ({"email": "*@example.org"}, "no e-mail address"),
    "another-issuer": ({"iss": "https://evil.example"}, "iss"),
    "expired": ({"exp": int(time.time()) - 3600}, "expired"),
    "future": ({"nbf": int(time.time()) + 3600}, "nbf"),
}


@pytest.mark.parametrize("lie", CLAIMS)
def test_claims_that_prove_nobody_are_refused(closed: Closed, lie: str) -> None:
    """The address counts where the provider vouches for it, as for a sign-in of our own."""
    changed, says = CLAIMS[lie]
    answer = closed.get(closed.region.statement(ANN | changed), "/v1/services/shop")
    assert (answer.status_code, says in answer.json()["detail"]) == (401, True), answer.text


def _by_the_public_key(region: LoadBalancers) -> str:
    signed = signed_part(region.header(alg="HS256"), ANN)
    signature = hmac.digest(region.shown[region.key_id], signed.encode(), "sha256")
    return f"{signed}.{base64.urlsafe_b64encode(signature).decode()}"


def _with(part: int, text: str) -> Callable[[LoadBalancers], str]:
    def forge(region: LoadBalancers) -> str:
        parts = region.statement().split(".")
        parts[part] = text
        return ".".join(parts)

    return forge


ZEROS = base64.urlsafe_b64encode(bytes(64)).decode()
EVE = signed_part({}, ANN | {"email": "eve@example.org"}).partition(".")[2]


@pytest.mark.parametrize(
    "forge",
    [
        lambda region: region.statement(key=ECKey.generate_key("P-256", private=True)),
        _by_the_public_key,
        _with(2, ""),
        _with(2, ZEROS),
        _with(2, ZEROS.rstrip("=")),
        _with(1, EVE),
        _with(0, "e30="),
        _with(0, "W10="),
        lambda region: region.statement().replace("=", ""),
        lambda region: region.statement() + "=",
        lambda region: region.statement() + ".x",
        lambda _: "nonsense",
        lambda _: "a" * 20_000,
    ],
    ids=[
        "another-key-of-its-name",
        "hs256-by-the-public-key",
        "no-signature",
        "zeros",
        "zeros-without-padding",
        "other-claims",
        "empty-header",
        "a-list",
        "padding-taken-off-what-is-signed",
        "more-padding",
        "four-parts",
        "nonsense",
        "long",
    ],
)
def test_a_forged_header_is_refused(closed: Closed, forge: Callable[[LoadBalancers], str]) -> None:
    """Nothing of it counts, in whatever way it is bent."""
    answer = closed.get(forge(closed.region), "/v1/services/shop")
    assert (answer.status_code, HEADER in answer.json()["detail"]) == (401, True), answer.text


def test_a_header_twice_is_refused(closed: Closed) -> None:
    """One of them is a client's own."""
    statement = closed.region.statement()
    answer = closed.proxy.get("/v1/services/shop", headers=[(HEADER, statement), (HEADER, statement)])
    assert (answer.status_code, "more than once" in answer.json()["detail"]) == (401, True)


def test_writes_of_other_pages_do_not_count(closed: Closed) -> None:
    """The load balancer adds the header to whatever a browser sends; a write needs to come from a page of ours."""
    header = {HEADER: closed.region.statement()}
    assert closed.proxy.post(DRAIN, headers=header | {"sec-fetch-site": "cross-site"}).status_code == 403
    assert closed.proxy.post(DRAIN, headers=header | {"origin": "https://evil.example"}).status_code == 403
    silent = closed.proxy.delete("/v1/services/shop/endpoints/10.0.0.1:80", headers=header)
    assert silent.status_code == 401, silent.text
    loaded = header | {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}
    assert closed.proxy.get("/v1/services/shop", headers=loaded).status_code == 401


def test_a_credential_that_is_meant_counts_before(closed: Closed) -> None:
    """A token that somebody sends decides alone, also where it is bad."""
    statement = closed.region.statement()
    assert closed.get(statement, **bearer(closed.admin)).json()["principal"].startswith("token:admin ")
    assert closed.get(statement, **bearer("hct_no")).json()["problem"]


def test_a_person_without_an_identity_learns_his_name(closed: Closed) -> None:
    """He is known, and may do nothing."""
    answer = closed.get(closed.region.statement(ANN | {"email": "Bob@Example.org"}), "/v1/services/shop")
    assert (answer.status_code, "oidc:bob@example.org" in answer.json()["detail"]) == (403, True)


def test_polls_and_heartbeats_of_programs_do_not_count(closed: Closed) -> None:
    """They say nothing of the page that they come from, so the header is none of theirs; no key is asked for."""
    asked = len(closed.region.requests)
    header = {HEADER: closed.region.statement(kid=str(uuid.uuid4()))}
    poll = {"node": {"id": "e", "cluster": "e"}, "resource_names": ["shop"], "type_url": ""}
    assert closed.proxy.post("/v3/discovery:endpoints", json=poll, headers=header).status_code == 401
    body = {"instance_id": "i-1", "incarnation": 1}
    beat = closed.proxy.put("/v1/services/shop/endpoints/10.0.0.1:80", json=body, headers=header)
    assert beat.status_code == 401
    assert len(closed.region.requests) == asked


def test_a_key_that_cannot_be_asked_for_is_503_for_those_alone(closed: Closed) -> None:
    """Whoever has a known key goes on, and so do tokens; the next key is asked for once the server is back."""
    region = closed.region
    known = region.statement()
    assert closed.get(known, "/v1/services/shop").status_code == 200
    region.status = 500
    new_id, new_key = str(uuid.uuid4()), ECKey.generate_key("P-256", private=True)
    region.shown[new_id] = new_key.as_pem(private=False)
    new = region.statement(kid=new_id, key=new_key)
    try:
        away = closed.get(new, "/v1/services/shop")
        assert (away.status_code, "key server" in away.json()["detail"]) == (503, True), away.text
        asked = len(region.requests)
        assert closed.get(new, "/v1/services/shop").status_code == 503
        assert len(region.requests) == asked
        assert closed.get(region.statement(), "/v1/services/shop").status_code == 200
        assert closed.get(new, "/v1/services/shop", **bearer(closed.admin)).status_code == 200
    finally:
        region.status = 0
    eventually(lambda: closed.get(new, "/v1/services/shop").status_code == 200, within=10)


def test_a_key_that_aws_does_not_have_is_asked_for_once(closed: Closed) -> None:
    """A stranger who reaches the load balancer makes no flood of it; a key of another kind is none."""
    region = closed.region
    for document in (b"", b"no key", ECKey.generate_key("P-384", private=True).as_pem(private=False)):
        name = str(uuid.uuid4())
        region.shown[name] = document
        for _ in range(2):
            assert_refused(closed, region.statement(kid=name), "does not have")
        assert region.requests.count(f"/{name}") == 1


def test_the_header_is_nowhere(closed: Closed) -> None:
    """Neither in the log nor on a page."""
    statement = closed.region.statement()
    page = closed.get(statement, SHOP).text
    log = closed.registry.log.read_text()
    assert [part in log + page for part in statement.split(".")[1:]] == [False, False]


async def test_many_who_need_a_new_key_ask_once(closed: Closed) -> None:
    """And those beyond a limit do not wait behind them."""
    region = closed.region
    keys = LoadBalancerKeys(region.url)
    asked = region.requests.count(f"/{region.key_id}")
    waiting = load_balancer_keys.MAX_WAITING
    try:
        answers = await asyncio.gather(*(keys.key(region.key_id) for _ in range(waiting + 3)), return_exceptions=True)
        assert sum(isinstance(answer, UnavailableError) for answer in answers) == 3
        assert sum(not isinstance(answer, Exception) for answer in answers) == waiting
        assert region.requests.count(f"/{region.key_id}") == asked + 1
        # They have gone, and a new one may wait.
        with pytest.raises(BadIdTokenError):
            await keys.key(str(uuid.uuid4()))
    finally:
        await keys.close()


async def test_a_header_is_verified_once_until_it_ends(closed: Closed, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a page costs no signature; after its end it is refused, though it was good."""
    region = closed.region
    verified: list[bytes] = []
    check = signed_headers._has_signed

    def counted(key: Any, signed: bytes, signature: bytes) -> bool:
        verified.append(signed)
        return check(key, signed, signature)

    monkeypatch.setattr(signed_headers, "_has_signed", counted)
    people, now = SignedHeaders(LoadBalancer(ARN, CLIENT_ID, ISSUER), LoadBalancerKeys(region.url)), time.time()
    value = region.statement(exp=int(now) + 100).encode()
    try:
        first = await people.person(value, now)
        assert [await people.person(value, now + 150) for _ in range(3)] == [first] * 3
        assert (first.email, len(verified)) == ("ann@example.org", 1)
        with pytest.raises(BadIdTokenError, match="expired"):
            await people.person(value, first.expires_at)
    finally:
        await people.close()
