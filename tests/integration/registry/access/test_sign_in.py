"""People at the console of a registry with access on: sign in, what each may see and do, and the end of a session."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from harness.access import bearer, first_token, new_token, secret_of
from harness.no_tls import NO_TLS
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

READS_SHOP = {"verbs": ["read"], "services": ["shop"]}
OPERATES_SHOP = {"verbs": ["read", "operate"], "services": ["shop"]}
SHOP = "/ui/services/shop"
DRAIN = f"{SHOP}/endpoints/10.0.0.1:80/drain"
FORM = {"sec-fetch-site": "same-origin"}
COOKIE = "headcount_session"


class Closed:
    """A registry with access on and two services, and the token of its administrator."""

    def __init__(self, served: Registry, database: str, admin: str) -> None:
        self.registry = served
        self.database = database
        self.admin = admin

    def token(self, name: str, *grants: Mapping[str, Any], **fields: Any) -> dict[str, Any]:
        """Return a new token, with its text."""
        return new_token(self.registry, self.admin, name, *grants, **fields)

    @contextlib.contextmanager
    def browser(self, url: str = "") -> Iterator[httpx.Client]:
        """Return a client that keeps cookies, as a browser does; it follows no redirect."""
        with httpx.Client(base_url=url or self.registry.url, trust_env=False, verify=NO_TLS, timeout=30) as client:
            yield client

    @contextlib.contextmanager
    def signed_in(self, text: str) -> Iterator[httpx.Client]:
        """Return a browser that has pasted a token."""
        with self.browser() as client:
            assert sign_in(client, text).status_code == 303
            yield client


def sign_in(client: httpx.Client, text: str, **fields: str) -> httpx.Response:
    """Send the form of the sign-in."""
    return client.post("/ui/login", data={"token": text} | fields, headers=FORM)


@pytest.fixture(scope="module")
def closed(server: Postgres, workplace: Path) -> Iterator[Closed]:
    """A registry with access on."""
    database = server.migrated_database()
    with registry(database, workplace, auth="on") as served:
        admin = first_token(database)
        eventually(lambda: served.client.get("/v1/tokens", headers=bearer(admin)).status_code == 200, within=10)
        for service in ("shop", "web"):
            url = f"/v1/services/{service}/endpoints/10.0.0.1:80"
            body = {"instance_id": "i-1", "incarnation": 1, "ttl": 3600}
            assert served.client.put(url, json=body, headers=bearer(admin)).status_code == 200
        yield Closed(served, database, admin)


def test_a_page_without_a_session_leads_to_the_sign_in(closed: Closed) -> None:
    """And back to where it led; what a script asks for is 401, and says nothing of what there is."""
    with closed.browser() as client:
        answer = client.get("/ui/events?service=shop&kind=drain")
        assert answer.status_code == 303
        where = urlsplit(answer.headers["location"])
        assert (where.netloc, where.path) == ("", "/ui/login")
        assert parse_qs(where.query) == {"next": ["/ui/events?service=shop&kind=drain"]}
        assert client.get(answer.headers["location"]).status_code == 200
        live = client.get(SHOP, headers={"hx-request": "true"})
        assert (live.status_code, "10.0.0.1" in live.text) == (401, False)
        form = client.post(DRAIN, headers=FORM)
        assert (form.status_code, f"next={SHOP}/endpoints/10.0.0.1".replace("/", "%2F") in form.text) == (401, True)


def test_a_pasted_token_begins_a_session(closed: Closed) -> None:
    """Its cookie is for this host and no script; the person is named on each page and in the history."""
    made = closed.token("ann", OPERATES_SHOP)
    with closed.browser() as client:
        answer = sign_in(client, f"  {made['token']}\n", next=f"{SHOP}?q=10")
        assert (answer.status_code, answer.headers["location"]) == (303, f"{SHOP}?q=10")
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith(f"{COOKIE}=hcb_")
        attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
        assert attributes == {"httponly", "samesite=lax", "path=/", "max-age=28800"}
        assert "token:ann" in client.get(SHOP).text
        assert client.post(DRAIN, data={"who": "Ann"}, headers=FORM).status_code == 303
        event = client.get("/v1/events?service=shop&limit=1").json()["events"][0]
        assert event["actor"] == "token:ann as Ann from 127.0.0.1"
        assert client.get("/v1/whoami").json()["principal"] == "token:ann from 127.0.0.1"
        with client.stream("GET", "/v1/events?service=shop", headers={"accept": "text/event-stream"}) as stream:
            assert stream.status_code == 200


def test_the_text_of_a_session_is_nowhere(closed: Closed) -> None:
    """Neither in the log, nor in a page, nor in the list of tokens, where sessions are not."""
    made = closed.token("quiet", READS_SHOP)
    with closed.signed_in(made["token"]) as client:
        secret = secret_of(client.cookies[COOKIE])
        pages = [client.get(path).text for path in ("/ui/login", SHOP)]
    assert [secret in text for text in (*pages, closed.registry.log.read_text())] == [False] * 3
    listed = closed.registry.client.get("/v1/tokens", headers=bearer(closed.admin)).json()["tokens"]
    assert [token["name"] for token in listed].count("quiet") == 1
    assert not any(token["name"].startswith("token:") for token in listed)


@pytest.mark.parametrize("text", ["", "x", "hct_aaaaaaaaaaaaaaaa_" + "A" * 43, "hcs_aaaaaaaaaaaaaaaa_" + "A" * 43])
def test_a_token_that_is_none_begins_no_session(closed: Closed, text: str) -> None:
    """The page says why, without the text; the attempt is in the log."""
    with closed.browser() as client:
        answer = sign_in(client, text)
        assert (answer.status_code, "set-cookie" in answer.headers) == (401, False)
        assert 'role="alert"' in answer.text
        assert "AAAA" not in answer.text
    assert "sign_in_refused" in closed.registry.log.read_text()


def test_a_person_sees_and_does_what_the_token_may(closed: Closed) -> None:
    """Other services are on no list; buttons that would be refused are greyed with the reason, and refused."""
    made = closed.token("reader", READS_SHOP)
    with closed.signed_in(made["token"]) as client:
        services = client.get("/ui/services").text
        assert ("/ui/services/shop" in services, "/ui/services/web" in services) == (True, False)
        refused = client.get("/ui/services/web")
        assert refused.status_code == 403
        assert "no grant of token:reader allows the verb read for the service web" in refused.text
        page = client.get(SHOP).text
        reason = "no grant of token:reader allows the verb operate for the service shop"
        assert f'aria-disabled="true" title="{reason}"' in page
        drained = client.post(DRAIN, headers=FORM)
        assert (drained.status_code, reason in drained.text, "signed in as" in drained.text) == (403, True, True)
    with closed.signed_in(closed.token("operator", OPERATES_SHOP)["token"]) as client:
        assert "aria-disabled" not in client.get(SHOP).text


def test_a_write_needs_a_page_of_ours(closed: Closed) -> None:
    """The cookie of a browser that says nothing of where a write comes from, or says elsewhere, does not count."""
    made = closed.token("written", OPERATES_SHOP)
    with closed.signed_in(made["token"]) as client:
        override = "/v1/services/shop/endpoints/10.0.0.1:80/override"
        put = {"weight": 7}
        assert client.put(override, json=put).status_code == 401
        assert client.put(override, json=put, headers={"sec-fetch-site": "same-site"}).status_code == 403
        assert client.put(override, json=put, headers={"origin": "http://evil.example"}).status_code == 403
        assert client.put(override, json=put, headers={"sec-fetch-site": "none"}).status_code == 401
        assert client.put(override, json=put, headers=FORM).status_code == 200
        assert client.put(override, json=put, headers={"origin": closed.registry.url}).status_code == 200
        loaded = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}
        assert client.get("/v1/services", headers=loaded).status_code == 401


def test_signing_in_is_for_our_own_form(closed: Closed) -> None:
    """A page elsewhere cannot sign a browser in as somebody of its choice, nor out."""
    with closed.browser() as client:
        for path in ("/ui/login", "/ui/logout"):
            foreign = {"sec-fetch-site": "cross-site", "origin": "http://evil.example"}
            assert client.post(path, data={"token": closed.admin}, headers=foreign).status_code == 403


def test_signing_out_revokes_the_session(closed: Closed, workplace: Path) -> None:
    """Everywhere: a copy of the cookie is of no use any more, at a second process neither."""
    made = closed.token("leaving", READS_SHOP)
    with (
        registry(closed.database, workplace, auth="on") as second,
        closed.signed_in(made["token"]) as client,
        closed.browser(second.url) as elsewhere,
    ):
        copy = {"cookie": f"{COOKIE}={client.cookies[COOKIE]}"}
        assert elsewhere.get("/v1/whoami", headers=copy).json()["principal"].startswith("token:leaving")
        answer = client.post("/ui/logout", headers=FORM)
        assert (answer.status_code, answer.headers["location"]) == (303, "/ui/login")
        assert COOKIE not in client.cookies
        assert client.get(SHOP, headers=copy).status_code == 303
        took = eventually(lambda: elsewhere.get(SHOP, headers=copy).status_code == 303, within=5)
        assert took < 5
        # The token itself goes on.
        assert closed.registry.client.get("/v1/services/shop", headers=bearer(made["token"])).status_code == 200


def test_a_session_ends_with_its_token(closed: Closed) -> None:
    """Revoked by an administrator, and the person is told what happened."""
    made = closed.token("revoked", READS_SHOP)
    with closed.signed_in(made["token"]) as client:
        assert client.get(SHOP).status_code == 200
        revoked = closed.registry.client.delete(f"/v1/tokens/{made['id']}", headers=bearer(closed.admin))
        assert revoked.status_code == 204
        answer = client.get(SHOP)
        assert answer.status_code == 303
        assert "the token revoked was revoked" in client.get(answer.headers["location"]).text


def test_a_second_sign_in_ends_the_session_before(closed: Closed) -> None:
    """A browser has one session."""
    ann, bob = (closed.token(name, READS_SHOP)["token"] for name in ("first", "second"))
    with closed.signed_in(ann) as client:
        before = {"cookie": f"{COOKIE}={client.cookies[COOKIE]}"}
        assert sign_in(client, bob).status_code == 303
        assert client.get("/v1/whoami").json()["principal"].startswith("token:second")
    assert closed.registry.client.get("/v1/whoami", headers=before).json()["problem"]


def new_code(closed: Closed, **headers: str) -> httpx.Response:
    """Ask for a code that signs in once."""
    return closed.registry.client.post("/v1/login/code", headers=headers or bearer(closed.admin))


def test_a_code_signs_in_once(closed: Closed) -> None:
    """What fetches the link uses nothing up; its form does, and a second one finds nothing."""
    made = new_code(closed)
    assert made.status_code == 201
    path, code = made.json()["path"], made.json()["code"]
    with closed.browser() as client:
        for _ in range(2):
            page = client.get(path)
            assert (page.status_code, f'value="{code}"' in page.text, "set-cookie" in page.headers) == (
                200,
                True,
                False,
            )
        answer = client.post("/ui/login", data={"code": code, "next": SHOP}, headers=FORM)
        assert (answer.status_code, answer.headers["location"]) == (303, SHOP)
        assert client.get("/v1/whoami").json()["principal"].startswith("token:admin")
    with closed.browser() as client:
        again = client.post("/ui/login", data={"code": code}, headers=FORM)
        assert (again.status_code, "used already" in again.text, "set-cookie" in again.headers) == (401, True, False)


def test_a_code_ends_after_a_minute(closed: Closed, server: Postgres) -> None:
    """By PostgreSQL's clock."""
    code = new_code(closed).json()["code"]
    server.execute("UPDATE sign_in_codes SET expires_at = expires_at - interval '61 seconds'", url=closed.database)
    with closed.browser() as client:
        assert client.post("/ui/login", data={"code": code}, headers=FORM).status_code == 401


def test_codes_are_made_by_administrators_with_a_token(closed: Closed) -> None:
    """Nobody makes himself a session of more than he has."""
    reader = closed.token("no-admin", READS_SHOP)["token"]
    assert closed.registry.client.post("/v1/login/code").status_code == 401
    assert new_code(closed, **bearer(reader)).status_code == 403
    with closed.signed_in(closed.admin) as client:
        # Of the token behind the session.
        made = client.post("/v1/login/code", headers=FORM)
        assert made.status_code == 201


def test_a_session_goes_on_while_postgresql_is_away(server: Postgres, workplace: Path) -> None:
    """Known sessions do; to sign in and out needs PostgreSQL, and the page says so."""
    database = server.migrated_database()
    with registry(database, workplace, auth="on", database_timeout="1s") as served:
        admin = first_token(database)
        eventually(lambda: served.client.get("/v1/tokens", headers=bearer(admin)).status_code == 200, within=10)
        with httpx.Client(base_url=served.url, trust_env=False, verify=NO_TLS, timeout=30) as client:
            assert sign_in(client, admin).status_code == 303
            name = urlsplit(database).path.removeprefix("/")
            server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            server.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
            assert "token:admin" in client.get("/ui/services").text
            assert client.post("/ui/logout", headers=FORM).status_code == 503
            refused = sign_in(client, admin)
            assert (refused.status_code, 'role="alert"' in refused.text) == (503, True)
            server.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


def test_sign_ins_are_in_the_audit(closed: Closed, server: Postgres) -> None:
    """Accepted, refused and ended ones, with the principal and the session; the refused token is not repeated."""
    made = closed.token("audited", READS_SHOP)
    with closed.signed_in(made["token"]) as client:
        session_id = client.cookies[COOKIE].split("_")[1]
        client.post("/ui/logout", headers=FORM)
        sign_in(client, made["token"].upper())
    rows = (
        "SELECT action, decision, principal, credential FROM audit WHERE action LIKE 'sign_%' AND $1 IN (principal, '')"
    )

    def noted(principal: str) -> set[tuple[str, ...]]:
        return {tuple(row) for row in server.execute(rows, principal, url=closed.database)}

    person = "token:audited"
    expected = {("sign_in", "allowed", person, session_id), ("sign_out", "allowed", person, session_id)}
    eventually(lambda: noted(person) == expected, within=10)
    eventually(lambda: ("sign_in", "refused", "anonymous", "") in noted("anonymous"), within=10)


def test_every_page_says_that_access_is_in_audit(server: Postgres, workplace: Path) -> None:
    """The page of the registry counts what would be refused, and leads to the list."""
    with registry(server.migrated_database(), workplace, auth="audit") as served:
        assert served.client.get("/ui/services").status_code == 200
        assert 'id="mode-flag"' in served.client.get("/ui/services").text
        link = '<a href="/ui/audit?decision=would_refuse">'
        eventually(lambda: link in served.client.get("/ui/registry").text, within=30)
        # Its greyed buttons are those that would be refused now, and in audit none is.
        assert '<button type="button" data-dialog="pause">' in served.client.get("/ui/registry").text


def test_a_closed_registry_says_so(closed: Closed) -> None:
    """On its own page, and nowhere else."""
    with closed.signed_in(closed.admin) as client:
        text = client.get("/ui/registry").text
        assert 'id="mode-flag"' not in text
        assert '<section class="tile fine" id="tile-access">' in text
