"""Identities against a running registry with access on: certificates and networks, without any token."""

import ssl
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness.access import bearer, first_token
from harness.dropin import hosts, register_form, register_json
from harness.postgres import Postgres
from harness.probing import Authority
from harness.process import eventually, free_port
from harness.registry import Registry, registry

SPIFFE = "spiffe://example.org/shop"


class Closed:
    """A registry with access on and TLS, its authority, and the token of its administrator."""

    def __init__(self, served: Registry, authority: Authority, admin: str) -> None:
        self.registry = served
        self.authority = authority
        self.admin = admin

    def identity(self, name: str, source: str, match: str, *grants: Mapping[str, Any]) -> httpx.Response:
        """Set an identity."""
        body = {"source": source, "match": match, "grants": list(grants)}
        return self.registry.client.put(f"/v1/identities/{name}", json=body, headers=bearer(self.admin))

    def client(self, *names: str) -> httpx.Client:
        """Return a client with a certificate of these names; without any, with none."""
        context = ssl.create_default_context(cafile=self.authority.ca)
        if names:
            context.load_cert_chain(self.authority.issue(*names, file="client.pem"))
        return httpx.Client(base_url=self.registry.url, verify=context, trust_env=False)


@pytest.fixture(scope="module")
def closed(server: Postgres, workplace: Path) -> Iterator[Closed]:
    """A registry with access on and TLS."""
    database = server.migrated_database()
    authority = Authority(workplace / "tls")
    settings = {"auth": "on", "tls_cert_file": authority.issue("127.0.0.1"), "tls_client_ca_file": authority.ca}
    context = ssl.create_default_context(cafile=authority.ca)
    with registry(database, workplace, tls=context, **settings) as served:
        admin = first_token(database)
        eventually(lambda: served.client.get("/v1/tokens", headers=bearer(admin)).status_code == 200, within=10)
        yield Closed(served, authority, admin)


def put(client: httpx.Client, service: str, endpoint: str, **fields: Any) -> httpx.Response:
    """Register an endpoint."""
    body = {"instance_id": f"i-{endpoint}", "incarnation": 1} | fields
    return client.put(f"/v1/services/{service}/endpoints/{endpoint}", json=body)


def test_a_certificate_proves_an_identity(closed: Closed) -> None:
    """By its SPIFFE id or its DNS name; another name of the same authority proves nothing."""
    grant = {"verbs": ["register"], "services": ["shop"]}
    assert closed.identity("shop", "spiffe", SPIFFE, grant).status_code == 200
    assert closed.identity("web", "dns", "web.example.org", grant | {"services": ["web"]}).status_code == 200
    with (
        closed.client(SPIFFE) as shop,
        closed.client("web.example.org") as web,
        closed.client("x.example.org") as other,
    ):
        assert put(shop, "shop", "10.0.0.1:80").status_code == 200
        assert put(shop, "web", "10.0.0.1:80").status_code == 403
        assert put(web, "web", "10.0.0.2:80").status_code == 200
        assert put(other, "shop", "10.0.0.3:80").status_code == 401
        assert web.get("/v1/whoami").json()["owner"] == "identity:web"
    listed = closed.registry.client.get("/v1/services/shop/endpoints", headers=bearer(closed.admin)).json()
    assert [each["endpoint"] for each in listed["endpoints"]] == ["10.0.0.1:80"]


def test_a_cookie_over_tls_is_for_this_very_host(closed: Closed) -> None:
    """Its name begins with ``__Host-``, and one of the plain name, which another host could plant, is none."""
    form = {"sec-fetch-site": "same-origin"}
    with closed.client() as client:
        answer = client.post("/ui/login", data={"token": closed.admin}, headers=form)
        assert answer.status_code == 303, answer.text
        name, _, rest = answer.headers["set-cookie"].partition("=")
        text, *attributes = (part.strip() for part in rest.split(";"))
        assert name == "__Host-headcount_session"
        assert sorted(each.lower() for each in attributes) == [
            "httponly",
            "max-age=28800",
            "path=/",
            "samesite=lax",
            "secure",
        ]
        assert client.get("/v1/whoami").json()["principal"] == "token:admin from 127.0.0.1"
        pause = {"reason": "x", "expires_in": 60}
        assert client.put("/v1/expiry/pause", json=pause, headers=form).status_code == 200
        assert client.delete("/v1/expiry/pause", headers=form).status_code == 204
    with closed.client() as other:
        for cookie, kind in ((f"headcount_session={text}", "anonymous"), (f"{name}={text}; {name}=hcb_x", "anonymous")):
            assert other.get("/v1/whoami", headers={"cookie": cookie}).json()["kind"] == kind
        both = {"cookie": f"headcount_session=hcb_planted; {name}={text}", **form}
        assert other.get("/v1/whoami", headers=both).json()["principal"].startswith("token:admin")
        out = other.post("/ui/logout", headers=both)
        assert f"{name}=" in str(out.headers.get_list("set-cookie"))
        assert other.get("/v1/whoami", headers=both).json()["problem"], "the session is revoked"


def test_a_removed_identity_proves_nothing_on_open_connections(closed: Closed) -> None:
    """A connection that is used for polls and heartbeats loses its rights within seconds."""
    grant = {"verbs": ["register", "discover"], "services": ["shop"]}
    closed.identity("shop", "spiffe", SPIFFE, grant)
    with closed.client(SPIFFE) as shop:
        assert put(shop, "shop", "10.0.0.1:80").status_code == 200
        removed = closed.registry.client.delete("/v1/identities/shop", headers=bearer(closed.admin))
        assert removed.status_code == 204
        eventually(lambda: put(shop, "shop", "10.0.0.1:80").status_code == 401, within=5)


def test_drop_in_clients_are_let_in_by_their_network(closed: Closed) -> None:
    """Clients of cookpad/sds and lyft/discovery know no credentials: the address that they come from is theirs."""
    other = {"instance_id": "i-9", "incarnation": 1, "repository": "repo-1"}
    url = "/v1/services/secret/endpoints/10.0.7.9:80"
    assert closed.registry.client.put(url, json=other, headers=bearer(closed.admin)).status_code == 200
    assert register_json(closed.registry, "old", ip="10.0.7.1").status_code == 401
    assert register_json(closed.registry, "old", ip="10.0.7.1").content == b""
    grant = {"verbs": ["register", "discover"], "services": ["old"], "addresses": ["10.0.0.0/8"]}
    assert closed.identity("old-clients", "network", "127.0.0.0/8", grant).status_code == 200
    eventually(lambda: register_json(closed.registry, "old", ip="10.0.7.1").status_code == 202, within=5)
    assert register_form(closed.registry, "old", ip="10.0.7.2").status_code == 200
    assert sorted(host["ip_address"] for host in hosts(closed.registry, "old")) == ["10.0.7.1", "10.0.7.2"]
    repository = closed.registry.client.get("/v1/registration/repo/repo-1").json()
    assert [host["service"] for host in repository["hosts"]] == ["old"], "hosts of other services are of no concern"
    assert register_form(closed.registry, "old", ip="192.168.0.2").status_code == 403
    assert register_json(closed.registry, "web").status_code == 403
    assert closed.registry.client.delete("/v1/registration/old/10.0.7.1:80").status_code == 202
    assert closed.registry.client.get("/v1/services").status_code == 403
    closed.registry.client.delete("/v1/identities/old-clients", headers=bearer(closed.admin))
    eventually(lambda: closed.registry.client.get("/v1/services").status_code == 401, within=5)


def test_an_ipv4_client_of_a_listener_for_both_has_its_ipv4_address(server: Postgres, workplace: Path) -> None:
    """``[::]`` takes IPv4 as ``::ffff:127.0.0.1``, which no network of IPv4 contains."""
    database, port = server.migrated_database(), free_port()
    with (
        registry(database, workplace, auth="on", listen=f"[::]:{port}"),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client,
    ):
        admin = bearer(first_token(database))
        eventually(lambda: client.get("/v1/tokens", headers=admin).status_code == 200, within=10)
        grant = {"verbs": ["register"], "addresses": ["peer"]}
        body = {"source": "network", "match": "127.0.0.0/8", "grants": [grant]}
        assert client.put("/v1/identities/local", json=body, headers=admin).status_code == 200
        assert client.get("/v1/whoami").json()["owner"] == "identity:local"
        assert put(client, "shop", "10.0.0.1:80").status_code == 403
        code = client.post("/v1/login/code", headers=admin).json()["code"]
        signed_in = client.post("/ui/login", data={"code": code}, headers={"origin": str(client.base_url)})
        assert signed_in.status_code == 303, "the browser is on the registry's own machine"


@pytest.mark.parametrize(
    ("source", "match", "says"),
    [
        ("network", "10.0.0.1/8", "host bits set"),
        ("network", "everywhere", "no network"),
        ("spiffe", "https://example.org", "spiffe://example.org/shop"),
        ("aws", "shop-task-role", "111122223333:shop-task-role"),
        ("oidc", "ann", "ann@example.org"),
        ("dns", "*.example.org", "shop.example.org"),
    ],
)
def test_what_can_never_be_proven_is_refused(closed: Closed, source: str, match: str, says: str) -> None:
    """An identity that would match nobody is a mistake, and its place is named."""
    refused = closed.identity("x", source, match, {"verbs": ["read"]})
    assert (refused.status_code, refused.json()["pointer"]) == (422, "$.match")
    assert says in refused.json()["detail"]


def test_two_identities_never_match_the_same(closed: Closed) -> None:
    """It would depend on their order which of them counts."""
    assert closed.identity("a", "network", "10.0.0.0/8", {"verbs": ["read"]}).status_code == 200
    refused = closed.identity("b", "network", "10.0.0.0/8", {"verbs": ["read"]})
    assert (refused.status_code, "identity a matches" in refused.json()["detail"]) == (422, True)
    assert closed.identity("a", "network", "10.0.0.0/8", {"verbs": ["discover"]}).status_code == 200
