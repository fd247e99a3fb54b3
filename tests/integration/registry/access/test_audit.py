"""The audit of a running registry: who did what, who was refused, and what happens while it cannot be stored."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from harness.access import bearer, first_token, new_token, secret_of
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

SHOP = {"verbs": ["register", "discover"], "services": ["shop"]}
OPERATOR = {"verbs": ["operate", "read"], "services": ["*"]}


class Audited:
    """A registry, and the token of its administrator."""

    def __init__(self, served: Registry, server: Postgres, database: str, admin: str) -> None:
        self.registry = served
        self.server = server
        self.database = database
        self.admin = admin

    def token(self, name: str, *grants: Mapping[str, Any]) -> dict[str, str]:
        """Return the headers of a new token."""
        return bearer(new_token(self.registry, self.admin, name, *grants)["token"])

    def execute(self, statement: str) -> None:
        """Do something to the database, as its owner."""
        self.server.execute(statement, url=self.database)

    def page(self, **filters: Any) -> dict[str, Any]:
        """Return a page of the audit."""
        answer = self.registry.client.get("/v1/audit", params=filters, headers=bearer(self.admin))
        assert answer.status_code == 200, answer.text
        page: dict[str, Any] = answer.json()
        return page

    def entries(self, **filters: Any) -> list[dict[str, Any]]:
        """Return entries, the newest first."""
        listed: list[dict[str, Any]] = self.page(**filters)["entries"]
        return listed

    def entry(self, **filters: Any) -> dict[str, Any]:
        """Return the newest entry that the filters match, once there is one."""
        eventually(lambda: bool(self.entries(**filters)), within=5)
        return self.entries(**filters)[0]

    def await_reason(self, reason: str, within: float = 5) -> None:
        """Wait until the newest entry has this reason."""
        eventually(lambda: self.entry()["reason"] == reason, within=within, said=lambda: str(self.entry()))


@pytest.fixture(scope="module")
def audited(server: Postgres, workplace: Path) -> Iterator[Audited]:
    """A registry with access on."""
    database = server.migrated_database()
    with registry(database, workplace, auth="on") as served:
        admin = first_token(database)
        eventually(lambda: served.client.get("/v1/tokens", headers=bearer(admin)).status_code == 200, within=10)
        yield Audited(served, server, database, admin)


def test_writes_have_a_row_each_and_heartbeats_none(audited: Audited) -> None:
    """Registration, override, drain, deregistration and pause are noted; a renewal and a change of health are not."""
    shop, operator = audited.token("shop-1", SHOP), audited.token("operator-1", OPERATOR)
    client, url = audited.registry.client, "/v1/services/shop/endpoints/10.0.1.1:80"
    body = {"instance_id": "i-1", "incarnation": 1}
    for health in ("HEALTHY", "HEALTHY", "UNHEALTHY"):
        answer = client.put(url, json=body | {"health": health}, headers=shop | {"x-request-id": f"r-{health}"})
        assert answer.status_code == 200, answer.text
    named = operator | {"x-actor": "ann"}
    assert client.put(f"{url}/override", json={"weight": 3, "reason": "trial"}, headers=named).status_code == 200
    pause = {"service": "shop", "reason": "upgrade", "expires_in": 60}
    assert client.put("/v1/expiry/pause", json=pause, headers=named).status_code == 200
    assert client.delete("/v1/expiry/pause?service=shop", headers=named).status_code == 204
    assert client.post(f"{url}/drain?instance_id=i-1", headers=shop).status_code == 200
    assert client.delete(f"{url}?instance_id=i-1", headers=shop).status_code == 204
    eventually(lambda: len(audited.entries(service="shop")) >= 6, within=5)
    noted = audited.entries(service="shop")
    actions = [(entry["principal"], entry["action"], entry["endpoint"]) for entry in reversed(noted)]
    assert actions == [
        ("token:shop-1", "registered", "10.0.1.1:80"),
        ("token:operator-1 as ann", "overridden", "10.0.1.1:80"),
        ("token:operator-1 as ann", "paused", None),
        ("token:operator-1 as ann", "resumed", None),
        ("token:shop-1", "drained", "10.0.1.1:80"),
        ("token:shop-1", "deregistered", "10.0.1.1:80"),
    ]
    first = noted[-1]
    assert (first["request_id"], first["peer"], first["count"]) == ("r-HEALTHY", "127.0.0.1", 1)
    tokens = client.get("/v1/tokens", headers=bearer(audited.admin)).json()["tokens"]
    assert first["credential"] in {token["id"] for token in tokens}


def test_the_same_refusal_is_one_row_with_a_count(audited: Audited) -> None:
    """Twenty refused writes are one row of that minute, with their number."""
    shop = audited.token("shop-2", SHOP)
    for _ in range(20):
        answer = audited.registry.client.delete("/v1/services/other?reason=x", headers=shop)
        assert answer.status_code == 403
    mine = {"service": "other", "principal": "token:shop-2"}
    eventually(lambda: audited.entry(**mine)["count"] == 20, within=10)
    (refused,) = audited.entries(**mine)
    assert (refused["decision"], refused["verb"], refused["action"]) == ("refused", "operate", None)
    assert "no grant of token:shop-2" in refused["reason"]


def test_what_was_allowed_and_could_not_be_done_is_noted_as_failed(audited: Audited) -> None:
    """An operator who overrides what does not exist is seen to have tried."""
    operator = audited.token("operator-3", OPERATOR)
    url = "/v1/services/absent/endpoints/10.0.1.3:80/override"
    assert audited.registry.client.put(url, json={"weight": 3, "reason": "x"}, headers=operator).status_code == 404
    entry = audited.entry(principal="operator-3")
    assert (entry["decision"], entry["action"]) == ("failed", "overridden")


def test_changes_of_credentials_are_noted_without_their_text(audited: Audited) -> None:
    """The first token of the command line, a new one, its rotation and its revocation; and no text of a token."""
    made = new_token(audited.registry, audited.admin, "rotated-4", SHOP)
    headers = bearer(audited.admin)
    successor = audited.registry.client.post(f"/v1/tokens/{made['id']}/rotate", json={}, headers=headers).json()
    assert audited.registry.client.delete(f"/v1/tokens/{successor['id']}", headers=headers).status_code == 204
    eventually(lambda: audited.entry(verb="admin")["action"] == "token_revoked", within=5)
    entries = audited.entries(verb="admin", decision="allowed", limit=1000)
    assert [(entry["action"], entry["reason"]) for entry in entries[:3]] == [
        ("token_revoked", successor["id"]),
        ("token_rotated", f"{made['id']} by {successor['id']}"),
        ("token_created", "token:rotated-4"),
    ]
    assert (entries[-1]["action"], entries[-1]["peer"]) == ("token_created", "local")
    assert "registry token create" in entries[-1]["principal"]
    written = audited.registry.client.get("/v1/audit?limit=1000", headers=headers).text
    for text in (audited.admin, made["token"], successor["token"]):
        assert secret_of(text) not in written


def test_pages_follow_each_other_and_filters_are_checked(audited: Audited) -> None:
    """Small pages have together what a large one has; what is no place or no verb is refused."""
    for number in range(5):
        audited.token(f"page-{number}", SHOP)
    audited.await_reason("token:page-4")
    until = audited.entry()["at"] + 0.001
    whole = audited.page(until=until, limit=1000)
    assert whole["next"] is None
    ids, after = [], None
    while True:
        page = audited.page(until=until, limit=2, **({} if after is None else {"after": after}))
        ids += [entry["id"] for entry in page["entries"]]
        after = page["next"]
        if after is None:
            break
    assert ids == [entry["id"] for entry in whole["entries"]]
    assert audited.entries(since=until) == []
    for bad in ("after=x", "after=99999999999999999999-1", "verb=fly", "decision=maybe", "principal=%00", "since=nan"):
        answer = audited.registry.client.get(f"/v1/audit?{bad}", headers=bearer(audited.admin))
        assert answer.status_code == 422, bad


def test_only_administrators_read_it(audited: Audited) -> None:
    """The audit names everybody: it needs `admin`, and without a credential it is 401."""
    operator = audited.token("operator-6", OPERATOR)
    assert audited.registry.client.get("/v1/audit", headers=operator).status_code == 403
    assert audited.registry.client.get("/v1/audit").status_code == 401


def test_a_row_that_postgresql_refuses_takes_no_other_with_it(audited: Audited) -> None:
    """A constraint of the database's owner refuses one row: the others of the batch are stored, and one is lost."""
    audited.execute("ALTER TABLE audit ADD CONSTRAINT no_seven CHECK (reason <> 'token:refused-7')")
    try:
        for name in ("before-7", "refused-7", "after-7"):
            audited.token(name, SHOP)
        audited.await_reason("token:after-7")
        reasons = [entry["reason"] for entry in audited.entries(verb="admin", limit=3)]
    finally:
        audited.execute("ALTER TABLE audit DROP CONSTRAINT no_seven")
    assert "token:before-7" in reasons
    assert "token:refused-7" not in reasons
    metrics = audited.registry.client.get("/metrics", headers=bearer(audited.admin)).text
    assert "registry_audit_lost_total 1.0" in metrics


def test_what_happens_while_the_table_is_away_is_stored_afterwards(audited: Audited) -> None:
    """Requests go on while the audit cannot be written, and its entries come later."""
    audited.execute("ALTER TABLE audit RENAME TO audit_away")
    try:
        audited.token("meanwhile-8", SHOP)
        eventually(lambda: "audit" in audited.registry.log.read_text(), within=5)
    finally:
        audited.execute("ALTER TABLE audit_away RENAME TO audit")
    audited.await_reason("token:meanwhile-8", within=10)


def test_the_page_shows_it_to_administrators_alone(audited: Audited) -> None:
    """The console has a page of the audit; the way to it is greyed for those who may not read it."""
    audited.token("paged-9", SHOP)
    client, admin = audited.registry.client, bearer(audited.admin)
    eventually(lambda: "token:paged-9" in client.get("/ui/audit", headers=admin).text, within=5)
    assert "token:paged-9" not in client.get("/ui/audit?principal=nobody", headers=admin).text
    operator = audited.token("operator-9", OPERATOR | {"verbs": ["read", "observe"]})
    assert client.get("/ui/audit", headers=operator).status_code == 403
    assert 'href="/ui/audit"' in client.get("/ui/registry", headers=admin).text
    greyed = client.get("/ui/registry", headers=operator).text
    assert 'href="/ui/audit"' not in greyed
    assert "no grant of token:operator-9 allows the verb admin" in greyed


def test_a_change_of_owner_has_a_row_that_names_both(audited: Audited) -> None:
    """A renewal, a change of health and a take-over between two identities are in the audit; others are not."""
    url = "/v1/services/shop/endpoints/127.0.0.1:8"
    headers = {name: audited.token(name, SHOP) for name in ("owner-a", "owner-b", "owner-c")}
    for name, fields in (
        ("owner-a", {}),
        ("owner-b", {}),
        ("owner-c", {"health": "UNHEALTHY"}),
        ("owner-a", {"instance_id": "i-2"}),
    ):
        body = {"instance_id": "i-1", "incarnation": 1} | fields
        answer = audited.registry.client.put(url, json=body, headers=headers[name])
        assert answer.status_code == 200, answer.text
    reasons = [
        "owner token:owner-a to token:owner-b: owner",
        "owner token:owner-b to token:owner-c: HEALTHY to UNHEALTHY: no detail given",
        "owner token:owner-c to token:owner-a: instance i-2 registered the address",
    ]

    def rows() -> list[str]:
        entries = audited.entries(service="shop", decision="allowed", limit=20)
        return [entry["reason"] for entry in reversed(entries) if entry["reason"].startswith("owner token:owner")]

    eventually(lambda: rows() == reasons, within=5, said=lambda: str(rows()))


def test_a_refused_heartbeat_counts_once(audited: Audited) -> None:
    """A heartbeat that says nothing new is looked at twice, as a renewal and as a registration, and counted once."""
    owner = audited.token("counted", SHOP)
    peer = audited.token("counted-peer", SHOP | {"addresses": ["10.99.0.0/16"]})
    url, body = "/v1/services/shop/endpoints/10.0.9.9:80", {"instance_id": "i-1", "incarnation": 1}
    client = audited.registry.client
    assert client.put(url, json=body, headers=owner).status_code == 200

    def refused() -> float:
        text = client.get("/metrics", headers=bearer(audited.admin)).text
        lines = [line for line in text.splitlines() if line.startswith("registry_access_refusals_total{")]
        return sum(float(line.split()[-1]) for line in lines if '"register"' in line and '"refused"' in line)

    before = refused()
    assert client.put(url, json=body, headers=peer).status_code == 403
    assert refused() - before == 1
