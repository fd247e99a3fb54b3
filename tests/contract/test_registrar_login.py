"""The registrar's login against real registries with access control, and moto's STS, which checks the signatures."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from harness.access import bearer, first_token
from harness.aws_sts import Moto
from harness.link import FakeKeys
from harness.postgres import Postgres
from harness.process import eventually, script
from harness.registrar import Registrar, registrar
from harness.registry import Registry, registry

TASK = "0123456789abcdef"
ROLE = "shop-task"
AUDIENCE = "headcount-contract"
GRANT = {"verbs": ["register"], "services": ["login-*"], "addresses": ["peer"], "instance": "session"}


class Installation:
    """Two registries with access on, an identity for a role, and the keys of one of its tasks."""

    def __init__(self, first: Registry, second: Registry, moto: Moto, server: Postgres, database: str) -> None:
        self.registries = (first, second)
        self.admin = bearer(first_token(database))
        self._moto = moto
        self._server = server
        self._database = database
        eventually(lambda: all(self.may_list(process) for process in self.registries), within=10)
        self.set_identity()

    @property
    def urls(self) -> str:
        """The registries as a registrar is given them."""
        return ",".join(process.url for process in self.registries)

    def may_list(self, process: Registry) -> bool:
        """Return whether a registry knows the administrator's token."""
        return process.client.get("/v1/identities", headers=self.admin).status_code == 200

    def set_identity(self) -> None:
        """Give the role its grants, at both registries."""
        body = {"source": "aws", "match": f"111122223333:{ROLE}", "kind": "registrar", "grants": [GRANT]}
        answer = self.registries[0].client.put("/v1/identities/shop", json=body, headers=self.admin)
        assert answer.status_code == 200, answer.text
        eventually(lambda: self._knows_identity(True), within=10)

    def remove_identity(self) -> None:
        """Take the grants away, at both registries."""
        self.registries[0].client.delete("/v1/identities/shop", headers=self.admin).raise_for_status()
        eventually(lambda: self._knows_identity(False), within=10)

    def end_sessions(self) -> None:
        """Revoke every session, as an operator who found one in a log would."""
        rows = self._server.execute("SELECT id FROM credentials WHERE identity <> ''", url=self._database)
        for row in rows:
            self.registries[0].client.delete(f"/v1/tokens/{row['id']}", headers=self.admin).raise_for_status()

    def endpoint(self, service: str) -> dict[str, Any] | None:
        """Return the only endpoint of a service, or None."""
        answer = self.registries[1].client.get(f"/v1/services/{service}/endpoints", headers=self.admin).json()
        listed: list[dict[str, Any]] = answer.get("endpoints", [])
        return listed[0] if listed else None

    def logins(self) -> int:
        """Return how many logins both registries accepted."""
        total = 0
        for process in self.registries:
            text = process.client.get("/metrics", headers=self.admin).text
            lines = [line for line in text.splitlines() if line.startswith("registry_logins_total{")]
            total += sum(int(float(line.rpartition(" ")[2])) for line in lines if 'outcome="accepted"' in line)
        return total

    def task(self) -> dict[str, str]:
        """Return the document with the keys of a new session of the role."""
        keys = self._moto.keys(ROLE, TASK)
        return {"AccessKeyId": keys.access_key_id, "SecretAccessKey": keys.secret, "Token": keys.token}

    def _knows_identity(self, wanted: bool) -> bool:
        documents = [
            process.client.get("/v1/identities", headers=self.admin).json()["identities"] for process in self.registries
        ]
        return all(bool(listed) is wanted for listed in documents)


@pytest.fixture(scope="module")
def installation(server: Postgres, workplace: Path) -> Iterator[Installation]:
    """Two registries, and an identity that matches the role."""
    database = server.migrated_database()
    with Moto.running() as moto:
        aws = {"aws_regions": "eu-west-1", "aws_audience": AUDIENCE, "aws_sts_endpoint": moto.url}
        with (
            registry(database, workplace, auth="on", **aws) as first,
            registry(database, workplace, auth="on", **aws) as second,
        ):
            yield Installation(first, second, moto, server, database)


@pytest.fixture
def agent(installation: Installation) -> Iterator[FakeKeys]:
    """The agent of a task, with the keys of its role."""
    with FakeKeys() as fake:
        fake.keys = installation.task()
        yield fake


def settings(installation: Installation, agent: FakeKeys, tmp_path: Path, service: str) -> dict[str, str]:
    """Return the settings of a registrar for one of the registries as its app, without their prefix."""
    return {
        "registry_url": installation.urls,
        "service": service,
        "endpoint": f"127.0.0.1:{installation.registries[1].port}",
        "login": "aws",
        "login_audience": AUDIENCE,
        "instance_id": TASK,
        "check_http_path": "/livez",
        "envoy_token_file": str(tmp_path / "token"),
        "admin_listen": f"unix:{tmp_path}/admin.sock",
        "on_sigterm": "drain",
        "drain_wait": "300ms",
    }


def running(installation: Installation, agent: FakeKeys, tmp_path: Path, service: str) -> Any:
    """Run a registrar that logs in."""
    chosen = settings(installation, agent, tmp_path, service)
    places = (chosen.pop(name) for name in ("registry_url", "service", "endpoint"))
    return registrar(tmp_path, *places, env=agent.variables | {"AWS_REGION": "eu-west-1"}, **chosen)


def events(process: Registrar, name: str) -> list[dict[str, Any]]:
    """Return the events of a name in its log."""
    lines = [json.loads(line) for line in process.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == name]


def healthy(installation: Installation, service: str) -> bool:
    """Return whether the service's endpoint is registered and HEALTHY."""
    listed = installation.endpoint(service)
    return listed is not None and listed["status"] == "HEALTHY"


def test_revoked_sessions_cost_one_login_each_and_no_drain(
    installation: Installation, agent: FakeKeys, tmp_path: Path
) -> None:
    """A registrar registers with its session; a revoked one is replaced once, also in the middle of a stop."""
    before = installation.logins()
    with running(installation, agent, tmp_path, "login-a") as process:
        eventually(lambda: healthy(installation, "login-a"), within=15, said=process.log.read_text)
        eventually((tmp_path / "token").exists, within=5)
        assert installation.logins() == before + 1
        first = (tmp_path / "token").read_text()
        installation.end_sessions()
        eventually(lambda: len(events(process, "logged_in")) == 2, within=15, said=process.log.read_text)
        eventually(lambda: (tmp_path / "token").read_text() != first, within=5)
        installation.end_sessions()
        process.send(signal.SIGTERM)
        assert process.process.wait(20) == 0
        assert events(process, "endpoint_deregistered")
        assert installation.logins() <= before + 3
        left = installation.endpoint("login-a")
        assert left is None or left["leaving_at"] is not None
        assert "hcs_" not in process.log.read_text()


def test_a_role_without_an_identity_is_told_so_until_it_has_one(
    installation: Installation, agent: FakeKeys, tmp_path: Path
) -> None:
    """Its sessions end with it; log and status have the registry's words; a grant mends it without a restart."""
    with running(installation, agent, tmp_path, "login-b") as process:
        eventually(lambda: healthy(installation, "login-b"), within=15, said=process.log.read_text)
        installation.remove_identity()
        try:
            eventually(lambda: bool(events(process, "login_refused")), within=20, said=process.log.read_text)
            (refused,) = events(process, "login_refused")
            assert "no identity matches the AWS role" in refused["reason"]
            status = verb(installation, agent, tmp_path, "login-b", "status")
            assert "refused: 403" in status.stdout
        finally:
            installation.set_identity()
        eventually(lambda: healthy(installation, "login-b"), within=60, said=process.log.read_text)


def test_doctor_says_what_a_login_would_allow(installation: Installation, agent: FakeKeys, tmp_path: Path) -> None:
    """At both registries: a service of the grant may be registered and another may not; no session is left."""
    done = verb(installation, agent, tmp_path, "login-c", "doctor")
    assert (done.returncode, done.stdout.count("may register login-c at")) == (0, 2), done.stdout
    assert f"logs in as aws:111122223333:{ROLE}/{TASK}" in done.stdout
    denied = verb(installation, agent, tmp_path, "other", "doctor")
    assert (denied.returncode, denied.stdout.count("may not register other at")) == (1, 2), denied.stdout
    agent.keys["SecretAccessKey"] = "forged"
    forged = verb(installation, agent, tmp_path, "login-c", "doctor")
    assert "the login is refused: 401" in forged.stdout
    assert not any(secret in done.stdout + denied.stdout + forged.stdout for secret in ("hcs_", agent.keys["Token"]))


def verb(
    installation: Installation, agent: FakeKeys, tmp_path: Path, service: str, name: str
) -> subprocess.CompletedProcess[str]:
    """Run a verb of the registrar to its end."""
    chosen = settings(installation, agent, tmp_path, service)
    env = {name: text for name, text in os.environ.items() if not name.startswith("REGISTRAR_")}
    env |= {f"REGISTRAR_{name.upper()}": text for name, text in chosen.items()}
    env |= agent.variables | {"AWS_REGION": "eu-west-1"}
    return subprocess.run(
        [*script("registrar"), name], env=env, capture_output=True, text=True, timeout=60, check=False
    )
