"""Static tokens against a running registry with access on: what each may do, until it ends."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from harness import access
from harness.access import bearer, first_token
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

from registry.auth.tokens import SESSION, new_token
from registry.auth.verbs import Verb

SHOP = {"verbs": ["register", "discover"], "services": ["shop"]}


class Closed:
    """A registry with access on, and the token of its administrator."""

    def __init__(self, served: Registry, database: str, admin: str) -> None:
        self.registry = served
        self.database = database
        self.admin = admin

    def token(self, name: str, *grants: Mapping[str, object], **fields: object) -> str:
        """Return a new token."""
        text: str = access.new_token(self.registry, self.admin, name, *grants, **fields)["token"]
        return text

    def put(self, token: str, service: str, endpoint: str, **fields: object) -> httpx.Response:
        """Register an endpoint with a token."""
        body = {"instance_id": f"i-{endpoint}", "incarnation": 1} | fields
        url = f"/v1/services/{service}/endpoints/{endpoint}"
        return self.registry.client.put(url, json=body, headers=bearer(token))

    def poll(self, token: str, service: str) -> httpx.Response:
        """Poll as an Envoy that has hosts."""
        body = {"node": {"id": "test"}, "resource_names": [service], "version_info": "other:1"}
        return self.registry.client.post("/v3/discovery:endpoints", json=body, headers=bearer(token))


@pytest.fixture(scope="module")
def closed(server: Postgres, workplace: Path) -> Iterator[Closed]:
    """A registry with access on."""
    database = server.migrated_database()
    with registry(database, workplace, auth="on") as served:
        admin = first_token(database)
        eventually(lambda: served.client.get("/v1/tokens", headers=bearer(admin)).status_code == 200, within=10)
        yield Closed(served, database, admin)


def test_nothing_is_answered_without_a_credential(closed: Closed) -> None:
    """401 names the way in, and says nothing of what there is; probes are free."""
    client = closed.registry.client
    for method, url in (
        ("GET", "/v1/services"),
        ("GET", "/v1/services/shop"),
        ("GET", "/metrics"),
        ("GET", "/v1/state"),
    ):
        answer = client.request(method, url)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="headcount"'), url
    assert closed.registry.poll("shop").status_code == 401
    assert closed.registry.register("shop", "10.0.0.9:80").status_code == 401
    assert client.get("/livez").status_code == 200
    assert client.get("/v1/whoami").json()["mode"] == "on"


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("hct_abc", "form"),
        ("hct_aaaaaaaaaaaaaaaa_" + "A" * 43, "not one of this registry"),
        ("hcs_aaaaaaaaaaaaaaaa_" + "A" * 43, "not one of this registry"),
        ("x", "form"),
    ],
)
def test_a_token_that_is_none_is_refused_in_words(closed: Closed, token: str, says: str) -> None:
    """What is wrong with a token is said, and the token itself is not repeated."""
    answer = closed.registry.client.get("/v1/services", headers=bearer(token))
    assert answer.status_code == 401
    assert says in answer.json()["detail"]
    assert "AAAA" not in answer.text


def test_a_grant_holds_for_its_services_and_verbs_alone(closed: Closed) -> None:
    """A registrar's token registers its service, and neither another one nor anything else."""
    token = closed.token("scoped", SHOP)
    assert closed.put(token, "shop", "10.0.1.1:80").status_code == 200
    refused = closed.put(token, "web", "10.0.1.1:80")
    assert (refused.status_code, refused.json()["title"]) == (403, "Not allowed")
    assert refused.json()["detail"] == "no grant of token:scoped allows the verb register for the service web"
    batch = {
        "heartbeats": [
            {
                "service": name,
                "endpoint": "10.0.1.1:80",
                "registration": {"instance_id": "i-10.0.1.1:80", "incarnation": 1},
            }
            for name in ("shop", "web")
        ]
    }
    results = closed.registry.client.post("/v1/heartbeats", json=batch, headers=bearer(token)).json()["results"]
    assert [result.get("problem", {}).get("status") for result in results] == [None, 403]
    client = closed.registry.client
    assert client.get("/v1/services", headers=bearer(token)).status_code == 403
    assert client.delete("/v1/services/shop/endpoints/10.0.1.1:80?force=true", headers=bearer(token)).status_code == 403
    assert client.get("/v1/tokens", headers=bearer(token)).status_code == 403


def test_addresses_of_a_grant_bind(closed: Closed) -> None:
    """A grant with networks allows endpoints in them; with ``peer`` only the sender's own address."""
    token = closed.token("bound", SHOP | {"services": ["bound"], "addresses": ["10.7.0.0/16"]})
    assert closed.put(token, "bound", "10.7.1.1:80").status_code == 200
    refused = closed.put(token, "bound", "10.8.1.1:80")
    assert refused.status_code == 403
    assert "10.7.0.0/16" in refused.json()["detail"]
    peer = closed.token("peer", SHOP | {"services": ["bound"], "addresses": ["peer"]})
    assert closed.put(peer, "bound", "10.7.1.2:80").status_code == 403


def test_an_endpoint_belongs_to_the_identity_that_registered_it(closed: Closed) -> None:
    """Another identity that may register the service neither renews, takes, drains nor deregisters it."""
    ours, theirs = (closed.token(name, SHOP | {"services": ["owned", "owned-2"]}) for name in ("ours", "theirs"))
    assert closed.put(ours, "owned", "10.0.3.1:80").status_code == 200
    for service, instance in (("owned", "i-10.0.3.1:80"), ("owned", "thief"), ("owned-2", "thief")):
        refused = closed.put(theirs, service, "10.0.3.1:80", instance_id=instance, incarnation=5)
        assert (refused.status_code, refused.json()["title"]) == (409, "Not yours"), (service, instance)
    url = "/v1/services/owned/endpoints/10.0.3.1:80"
    query = "?instance_id=i-10.0.3.1:80&incarnation=1"
    client = closed.registry.client
    assert client.post(f"{url}/drain{query}", headers=bearer(theirs)).status_code == 409
    assert client.delete(f"{url}{query}", headers=bearer(theirs)).status_code == 409
    assert closed.put(ours, "owned", "10.0.3.1:80").status_code == 200
    assert client.delete(f"{url}{query}", headers=bearer(ours)).status_code == 204


def test_an_endpoint_from_before_access_is_its_instances(closed: Closed, server: Postgres) -> None:
    """Until its own registrar has sent a heartbeat, no other instance takes it; then it has an owner."""
    ours, theirs = (closed.token(name, SHOP | {"services": ["before*"]}) for name in ("before-1", "before-2"))
    assert closed.put(ours, "before", "10.0.3.8:80").status_code == 200
    server.execute("update endpoints set owner = '' where service = 'before'", url=closed.database)
    url, client = "/v1/services/before/endpoints/10.0.3.8:80", closed.registry.client
    refused = [
        closed.put(theirs, "before", "10.0.3.8:80", instance_id="thief", incarnation=2),
        closed.put(theirs, "before-2", "10.0.3.8:80", instance_id="thief"),
        client.post(f"{url}/drain", params={"incarnation": 1}, headers=bearer(theirs)),
        client.delete(url, params={"incarnation": 1}, headers=bearer(theirs)),
        client.delete("/v1/registration/before/10.0.3.8", headers=bearer(theirs)),
    ]
    assert [answer.status_code for answer in refused] == [409] * len(refused)
    assert "before access was introduced" in refused[0].json()["detail"]
    assert closed.put(ours, "before", "10.0.3.8:80", incarnation=2).status_code == 200
    rows = server.execute("select owner from endpoints where service = 'before'", url=closed.database)
    assert [row["owner"] for row in rows] == ["token:before-1"]


def test_an_address_of_two_owners_is_deregistered_whole_or_not(closed: Closed) -> None:
    """A drop-in client deregisters all ports of an address; one that is not its own keeps the others."""
    ours, theirs = (closed.token(name, SHOP | {"services": ["halves"]}) for name in ("half-1", "half-2"))
    assert closed.put(ours, "halves", "10.0.3.9:80").status_code == 200
    assert closed.put(theirs, "halves", "10.0.3.9:81").status_code == 200
    client, url = closed.registry.client, "/v1/registration/halves/10.0.3.9"
    assert client.delete(url, headers=bearer(ours)).status_code == 409
    # Behind every write that began: changes of one service are stored in their order.
    assert closed.put(theirs, "halves", "10.0.3.9:82").status_code == 200
    listed = client.get("/v1/services/halves/endpoints", headers=bearer(closed.admin)).json()["endpoints"]
    assert {each["endpoint"]: each["status"] for each in listed} == {
        f"10.0.3.9:{port}": "HEALTHY" for port in (80, 81, 82)
    }


def test_an_endpoint_that_is_only_kept_is_not_owned(closed: Closed, server: Postgres) -> None:
    """Its lease expired, and the guard or a pause keeps it served: another identity may take or renew it."""
    ours, theirs = (closed.token(name, SHOP | {"services": ["kept"]}) for name in ("kept-old", "kept-new"))
    for endpoint, instance in (("10.0.3.2:80", "i-10.0.3.2:80"), ("10.0.3.3:80", "successor")):
        assert closed.put(ours, "kept", endpoint).status_code == 200
        assert closed.put(theirs, "kept", endpoint, instance_id=instance, incarnation=2).status_code == 409
        server.execute(
            "update endpoints set suspect_since = now(), suspect_reason = 'the guard' where service = 'kept'",
            url=closed.database,
        )
        assert closed.put(theirs, "kept", endpoint, instance_id=instance, incarnation=2).status_code == 200, instance
        assert closed.put(ours, "kept", endpoint, instance_id=instance, incarnation=3).status_code == 409, instance


def test_a_session_changes_its_own_instance_alone(closed: Closed, server: Postgres) -> None:
    """One task of a role neither drains, deregisters nor takes the living endpoint of another by naming no instance."""
    grant = {"verbs": ["register"], "services": ["fleet*"], "addresses": ["10.0.0.0/8"], "instance": "session"}
    body = {"source": "aws", "match": "111122223333:fleet", "kind": "registrar", "grants": [grant]}
    client = closed.registry.client
    assert client.put("/v1/identities/fleet", json=body, headers=bearer(closed.admin)).status_code < 300
    ours, theirs = (session(server, closed.database, "fleet", name) for name in ("i-1", "i-2"))
    url = "/v1/services/fleet/endpoints/10.0.5.1:80"
    assert closed.put(ours, "fleet", "10.0.5.1:80", instance_id="i-1").status_code == 200
    attempts = [
        client.post(f"{url}/drain", params={"incarnation": 1}, headers=bearer(theirs)),
        client.delete(url, params={"incarnation": 1}, headers=bearer(theirs)),
        client.delete("/v1/registration/fleet/10.0.5.1:80", headers=bearer(theirs)),
        client.delete("/v1/registration/fleet/10.0.5.1", headers=bearer(theirs)),
        closed.put(theirs, "fleet", "10.0.5.1:80", instance_id="i-2"),
        closed.put(theirs, "fleet-2", "10.0.5.1:80", instance_id="i-2"),
    ]
    assert [attempt.status_code for attempt in attempts] == [409] * len(attempts)
    assert "another instance" in attempts[0].json()["detail"]
    assert client.post(f"{url}/drain", params={"incarnation": 1}, headers=bearer(ours)).status_code == 200
    server.execute("update endpoints set lapsed_at = now() where service = 'fleet'", url=closed.database)
    assert closed.put(theirs, "fleet", "10.0.5.1:80", instance_id="i-2").status_code == 200


def test_an_address_is_refused_alike_whether_it_is_registered(closed: Closed) -> None:
    """A grant for ``peer`` does not tell by a deregistration which addresses a service has."""
    assert closed.put(closed.token("alike", SHOP), "shop", "10.0.6.1:80").status_code == 200
    peer = closed.token("alike-peer", SHOP | {"addresses": ["peer"]})
    for address in ("10.0.6.1", "10.0.6.2"):
        url = f"/v1/registration/shop/{address}"
        assert closed.registry.client.delete(url, headers=bearer(peer)).status_code == 403, address


def session(server: Postgres, database: str, identity: str, name: str) -> str:
    """Return the token of a session that an instance has as if it had logged in."""
    made = new_token(SESSION)
    server.execute(
        "insert into credentials (id, digest, name, kind, grants, networks, created_by, created_at, expires_at,"
        " identity, session_name, login_at) values ($1, $2, $3, 'registrar', '[]', '[]', $4, now(),"
        " now() + interval '1 hour', $5, $6, now())",
        made.id,
        made.digest,
        f"aws:111122223333:{identity}/{name}",
        f"AROA:{name}",
        identity,
        name,
        url=database,
    )
    return made.text


def test_a_successor_owns_what_the_token_before_it_registered(closed: Closed) -> None:
    """Rotation in the middle of a drain: both tokens work until the overlap ends, then the old one is refused."""
    made = access.new_token(closed.registry, closed.admin, "rotated", SHOP | {"services": ["rotated"]})
    assert closed.put(made["token"], "rotated", "10.0.4.1:80").status_code == 200
    client = closed.registry.client
    answer = client.post(f"/v1/tokens/{made['id']}/rotate", json={"overlap": 1.5}, headers=bearer(closed.admin))
    assert answer.status_code == 201
    successor = answer.json()["token"]
    assert closed.put(successor, "rotated", "10.0.4.1:80", draining=True).status_code == 200
    assert closed.put(made["token"], "rotated", "10.0.4.1:80").status_code == 200
    eventually(lambda: closed.put(made["token"], "rotated", "10.0.4.1:80").status_code == 401, within=5)
    assert "has expired" in closed.put(made["token"], "rotated", "10.0.4.1:80").json()["detail"]
    assert closed.put(successor, "rotated", "10.0.4.1:80").status_code == 200


def test_a_revoked_token_is_refused_everywhere_within_seconds(closed: Closed, workplace: Path) -> None:
    """Also by a second process, and on a connection that has used it."""
    with registry(closed.database, workplace, auth="on") as second:
        made = access.new_token(closed.registry, closed.admin, "revoked", SHOP | {"services": ["revoked"]})
        headers = bearer(made["token"])
        body = {"node": {"id": "test"}, "resource_names": ["revoked"], "version_info": "other:1"}

        def status() -> int:
            return second.client.post("/v3/discovery:endpoints", json=body, headers=headers).status_code

        def renew(process: Closed) -> int:
            return process.put(made["token"], "revoked", "10.0.9.1:80", ttl=600).status_code

        processes = [closed, Closed(second, closed.database, closed.admin)]
        eventually(lambda: status() == 200, within=5)
        # The same words over and over: both processes recognize them, and the decision about them.
        eventually(lambda: [renew(process) for process in processes * 2] == [200] * 4, within=5)
        revoked = closed.registry.client.delete(f"/v1/tokens/{made['id']}", headers=bearer(closed.admin))
        assert revoked.status_code == 204
        assert closed.poll(made["token"], "revoked").status_code == 401
        assert renew(closed) == 401
        assert eventually(lambda: status() == 401, within=5) < 5
        assert [renew(process) for process in processes] == [401, 401]


def test_whoami_and_authorize_explain(closed: Closed) -> None:
    """A client learns who it is and why something is refused; to ask about another one needs admin."""
    token = closed.token("explained", SHOP, kind="registrar")
    client = closed.registry.client
    me = client.get("/v1/whoami", headers=bearer(token)).json()
    assert (me["principal"], me["kind"], me["owner"]) == (
        "token:explained from 127.0.0.1",
        "registrar",
        "token:explained",
    )
    asked = {"verb": "register", "service": "web"}
    said = client.post("/v1/authorize", json=asked, headers=bearer(token)).json()
    assert (said["allowed"], said["enforced"]) == (False, True)
    assert "no grant of token:explained" in said["reason"]
    about = asked | {"principal": "token:explained"}
    assert client.post("/v1/authorize", json=about, headers=bearer(token)).status_code == 403
    assert client.post("/v1/authorize", json=about, headers=bearer(closed.admin)).json()["allowed"] is False


@pytest.mark.parametrize("endpoint", ["[::1", "::1:80", "[::1:80", "shop:80", "10.0.0.1:0", "10.0.0.1:80\n"])
def test_authorize_refuses_what_is_no_endpoint(closed: Closed, endpoint: str) -> None:
    """Also to a token that is bound to its address, for which the endpoint has to be read."""
    bound = SHOP | {"addresses": ["peer"]}
    token = closed.token(f"bound-{endpoint.encode().hex()}", bound, kind="registrar")
    asked = {"verb": "register", "service": "shop", "endpoint": endpoint}
    answer = closed.registry.client.post("/v1/authorize", json=asked, headers=bearer(token))
    assert (answer.status_code, bool(answer.json()["detail"])) == (422, True), answer.text


def test_audit_refuses_nothing_and_counts_what_on_would_refuse(server: Postgres, workplace: Path) -> None:
    """In audit everything goes on, each would-be refusal is counted, and credentials need their verb all the same."""
    database = server.migrated_database()
    with registry(database, workplace, auth="audit") as served:
        assert served.register("shop", "10.0.0.1:80").status_code == 200
        assert served.poll("shop").status_code == 200
        assert served.client.get("/v1/tokens").status_code == 401
        text = served.client.get("/metrics").text
        assert 'registry_access_refusals_total{decision="would_refuse",verb="register"} 1.0' in text
        assert 'registry_access_refusals_total{decision="would_refuse",verb="discover"}' in text
        noted = served.client.get("/v1/whoami").json()["noted_verbs"]
        assert set(noted) == {verb.value for verb in Verb} - {"admin"}


def test_the_text_of_a_token_is_nowhere(closed: Closed) -> None:
    """A token is shown once: not in lists, the log or PostgreSQL."""
    made = access.new_token(closed.registry, closed.admin, "secret", SHOP)
    secret = made["token"].split("_", 2)[2]
    closed.put(made["token"], "shop", "10.0.9.1:80")
    closed.put(made["token"], "web", "10.0.9.1:80")
    assert secret not in closed.registry.client.get("/v1/tokens", headers=bearer(closed.admin)).text
    assert secret not in closed.registry.log.read_text()


def test_v1_hosts_are_whole_or_refused(closed: Closed) -> None:
    """A refusal has no body, since an empty list would take the hosts from a v1 client. A repository's are filtered."""
    writer = closed.token("v1-writer", {"verbs": ["register"], "services": ["*"]})
    for number, service in enumerate(("v1-shop", "v1-cart")):
        assert closed.put(writer, service, f"10.44.0.{number}:80", repository="acme-v1").status_code == 200
    narrow = closed.token("v1-narrow", {"verbs": ["discover"], "services": ["v1-shop"]})
    wide = closed.token("v1-wide", {"verbs": ["discover"], "services": ["*"]})
    client = closed.registry.client

    def statuses(**headers: str) -> list[int]:
        answers = [
            client.get(f"/v1/registration/{path}", headers=headers) for path in ("v1-shop", "v1-cart", "repo/acme-v1")
        ]
        for answer in answers:
            assert answer.status_code == 200 or answer.content == b""
            assert (answer.status_code == 401) == ("www-authenticate" in answer.headers)
            assert answer.status_code != 200 or answer.json()["hosts"]
        return [answer.status_code for answer in answers]

    assert statuses() == [401, 401, 401]
    assert statuses(**bearer("hct_none")) == [401, 401, 401]
    assert statuses(**bearer(narrow)) == [200, 403, 200]
    listed = client.get("/v1/registration/repo/acme-v1", headers=bearer(narrow)).json()["hosts"]
    assert [host["service"] for host in listed] == ["v1-shop"]
    assert statuses(**bearer(wide)) == [200, 200, 200]
