"""One decision behind every door, and secrets that are nowhere."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.access import bearer, first_token, new_token, secret_of
from harness.dropin import TAGS
from harness.operator import registryctl
from harness.postgres import Postgres
from harness.process import eventually
from harness.registry import Registry, registry

PEER = {"verbs": ["register", "discover"], "services": ["shop", "web-*"], "addresses": ["127.0.0.1", "10.0.1.0/24"]}


class Closed:
    """A registry with access on, its database, and the tokens of an administrator and of a registrar."""

    def __init__(self, served: Registry, server: Postgres, database: str, admin: str) -> None:
        self.registry = served
        self.server = server
        self.database = database
        self.admin = admin
        self.made = new_token(served, admin, "registrar", PEER)
        self.headers = bearer(self.made["token"])

    def single(self, service: str, endpoint: str) -> int:
        """Return the status of a registration of its own."""
        url = f"/v1/services/{service}/endpoints/{endpoint}"
        body = {"instance_id": "i-1", "incarnation": 1}
        return self.registry.client.put(url, json=body, headers=self.headers).status_code

    def batch(self, *endpoints: tuple[str, str]) -> list[int]:
        """Return the statuses of registrations in one batch."""
        beats = [
            {"service": service, "endpoint": endpoint, "registration": {"instance_id": "i-1", "incarnation": 1}}
            for service, endpoint in endpoints
        ]
        answer = self.registry.client.post("/v1/heartbeats", json={"heartbeats": beats}, headers=self.headers)
        assert answer.status_code == 200, answer.text
        return [(each.get("problem") or {"status": 200})["status"] for each in answer.json()["results"]]

    def drop_in(self, service: str, endpoint: str) -> list[int]:
        """Return the statuses of registrations in the ways of cookpad/sds and lyft/discovery."""
        address, _, port = endpoint.rpartition(":")
        url, headers = f"/v1/registration/{service}", self.headers
        host = {"ip": address, "revision": "r1"}
        document = host | {"port": int(port), "tags": TAGS | {"instance_id": "i-1"}}
        form = host | {"port": port, "service_repo_name": "repo-1", "tags": json.dumps(document["tags"])}
        by_json = self.registry.client.post(url, content=json.dumps(document), headers=headers)
        return [by_json.status_code, self.registry.client.post(url, data=form, headers=headers).status_code]


@pytest.fixture(scope="module")
def closed(server: Postgres, workplace: Path) -> Iterator[Closed]:
    """A registry with access on."""
    database = server.migrated_database()
    with registry(database, workplace, auth="on") as served:
        admin = first_token(database)
        eventually(lambda: served.client.get("/v1/tokens", headers=bearer(admin)).status_code == 200, within=10)
        yield Closed(served, server, database, admin)


def test_every_door_decides_alike(closed: Closed) -> None:
    """Alone, in a batch of its own, in one batch with all others, and by the drop-in contract; new and renewed."""
    asked = [
        (service, f"{address}:{port}")
        for port, service in enumerate(("shop", "shop-2", "web-1", "web", "other"), start=7000)
        for address in ("127.0.0.1", "10.0.1.7", "10.0.2.7", "10.0.9.9")
    ]
    expected = [
        200 if service in ("shop", "web-1") and endpoint.startswith(("127.", "10.0.1.")) else 403
        for service, endpoint in asked
    ]
    # Loopback is no address of endpoints here, for one who may register there.
    allowed = {200: (200, 422), 403: (403,)}
    for _ in range(2):
        alone = [closed.single(*endpoint) for endpoint in asked]
        assert all(status in allowed[wanted] for status, wanted in zip(alone, expected, strict=True)), alone
        assert [closed.batch(endpoint)[0] for endpoint in asked] == alone
        assert closed.batch(*asked) == alone
    for endpoint, wanted in zip(asked, expected, strict=True):
        assert [status == 403 for status in closed.drop_in(*endpoint)] == [wanted == 403] * 2, endpoint


def test_a_planted_secret_is_nowhere(closed: Closed, tmp_path: Path) -> None:
    """Good, bad and misplaced tokens are in no answer, page, row, log or file of the registry."""
    client, admin = closed.registry.client, bearer(closed.admin)
    wrong = "hct_aaaaaaaaaaaaaaaa_" + "planted-SECRET_" + "x" * 28
    sent = [
        bearer(closed.admin),
        closed.headers,
        bearer(wrong),
        {"authorization": f"Basic {wrong}"},
        {"authorization": wrong},
        {"cookie": f"token={wrong}; __Host-session={wrong}"},
        {"x-actor": wrong[:100], **admin},
        {"x-request-id": wrong[:100], **closed.headers},
    ]
    urls = [
        "/v1/services",
        "/v1/whoami",
        "/v1/tokens",
        "/v1/identities",
        "/v1/audit?limit=1000",
        "/v1/events",
        "/v1/state",
        "/metrics",
        "/ui/registry",
        "/ui/services",
        "/ui/audit",
        "/ui/login",
        f"/v1/services/{wrong}",
        "/nothing",
    ]
    secrets = [secret_of(text) for text in (closed.admin, closed.made["token"])] + ["planted-SECRET"]
    answers: list[Any] = []
    for headers in sent:
        for url in urls:
            answer = client.get(url, headers=headers)
            own = {value for name, value in answer.headers.items() if name == "x-request-id"}
            if wrong not in url and not own & set(headers.values()):
                answers.append((url, answer.text, str(answer.headers)))
        client.put("/v1/services/other/endpoints/10.0.0.1:80", json={}, headers=headers)
        client.post("/v1/login/renew", headers=headers)
        client.delete("/v1/expiry/pause?service=shop", headers=headers)
    answers += [(url, client.get(url, headers=admin).text, "") for url in urls if wrong not in url]
    assert [url for url, *texts in answers if any(secret in text for secret in secrets for text in texts)] == []
    eventually(lambda: len(client.get("/v1/audit?limit=1000", headers=admin).json()["entries"]) > 10, within=5)
    rows = closed.server.execute("SELECT audit::text FROM audit", url=closed.database)
    rows += closed.server.execute("SELECT credentials::text FROM credentials", url=closed.database)
    assert len(rows) > 10
    assert [row for row in map(str, rows) if any(secret in row for secret in secrets)] == []
    directory = closed.registry.log.parent
    kept = [path for path in directory.rglob("*") if path.is_file() and path.suffix in (".msgpack", ".log")]
    assert closed.registry.log in kept
    mine = [path for path in kept if path.suffix == ".msgpack" or path == closed.registry.log]
    found = [path for path in mine for secret in secrets if secret.encode() in path.read_bytes()]
    assert found == []
    archive = tmp_path / "bundle.tar.gz"
    made = registryctl(closed.registry.url, "bundle", str(archive), REGISTRYCTL_TOKEN=closed.admin)
    assert made.status == 0, made.out + made.err
    with tarfile.open(archive) as bundle:
        files = [(member.name, bundle.extractfile(member)) for member in bundle.getmembers()]
        contents = [(name, file.read()) for name, file in files if file is not None]
    assert len(contents) > 5
    assert [name for name, content in contents for secret in secrets if secret.encode() in content] == []
    assert b"planted-SECRET" not in closed.registry.log.read_bytes()
