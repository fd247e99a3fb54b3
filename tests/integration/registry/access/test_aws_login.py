"""Logins by AWS roles: real registry processes on one PostgreSQL, and moto's STS, which checks the signatures."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness.access import bearer, first_token
from harness.aws_login import Workload, document
from harness.aws_sts import Moto
from harness.cluster import cluster
from harness.link import FakeKeys
from harness.operator import registryctl
from harness.postgres import Postgres
from harness.process import eventually, free_port
from harness.registrar import registrar as running_registrar
from harness.registry import Registry, registry
from sqlalchemy import text

from registry.store.database import Database
from registry.store.logins import prune_logins
from registry.store.migration import migrate

TASK = "0123456789abcdef"
ROLE = "shop-task"
GRANT = {"verbs": ["register", "discover"], "services": ["shop-*"], "addresses": ["127.0.0.1"], "instance": "session"}


def admin_of(database: str, *processes: Registry) -> str:
    """Return the token of an administrator that all processes know."""
    token = first_token(database)
    eventually(lambda: all(whoami(process, token)["problem"] is None for process in processes), within=10)
    return token


class Stage:
    """Two registry processes with access on, one moto, and identities."""

    def __init__(self, first: Registry, second: Registry, moto: Moto, server: Postgres, database: str) -> None:
        self.first = first
        self.second = second
        self.moto = moto
        self.server = server
        self.database = database
        self.admin = admin_of(database, first, second)

    def identity(self, name: str, match: str, **fields: Any) -> None:
        """Set an identity, and wait until both processes have it."""
        document = {"source": "aws", "match": match, "grants": [GRANT]} | fields
        answer = self.first.client.put(f"/v1/identities/{name}", json=document, headers=bearer(self.admin))
        assert answer.status_code == 200, answer.text
        eventually(lambda: name in self.names(self.second), within=10)

    def names(self, process: Registry) -> list[str]:
        """Return the names of the identities that a process knows."""
        listed = process.client.get("/v1/identities", headers=bearer(self.admin)).json()["identities"]
        return [identity["name"] for identity in listed]

    def execute(self, statement: str) -> None:
        """Run a statement in the registries' database."""
        self.server.execute(statement, url=self.database)

    def workload(self, role: str = ROLE, session: str = TASK) -> Workload:
        """Return a workload with the keys of a role's session."""
        return Workload(self.moto.keys(role, session), instance=session, audience="headcount-test")


def log_in(process: Registry, login: Workload | bytes) -> httpx.Response:
    """Send a login, signed now unless it is signed already."""
    return process.client.post("/v1/login/aws", content=login if isinstance(login, bytes) else login.login(time.time()))


def renew(process: Registry, token: str) -> httpx.Response:
    """Ask for new sessions."""
    return process.client.post("/v1/login/renew", headers=bearer(token))


def whoami(process: Registry, token: str) -> dict[str, Any]:
    """Return what a process says of a token."""
    described: dict[str, Any] = process.client.get("/v1/whoami", headers=bearer(token)).json()
    return described


def register(process: Registry, token: str, service: str, port: int, instance: str = TASK) -> int:
    """Register an endpoint; return the status."""
    put = f"/v1/services/{service}/endpoints/127.0.0.1:{port}"
    body = {"instance_id": instance, "incarnation": 1}
    return process.client.put(put, json=body, headers=bearer(token)).status_code


def poll(process: Registry, token: str, service: str) -> httpx.Response:
    """Ask as an Envoy does."""
    body = {"node": {"id": "envoy", "cluster": "tests"}, "resource_names": [service]}
    return process.client.post("/v3/discovery:endpoints", json=body, headers=bearer(token))


def sessions(process: Registry, workload: Workload) -> tuple[str, str]:
    """Return the tokens of a registrar and of its Envoy."""
    answer = log_in(process, workload)
    assert answer.status_code == 200, answer.text
    return answer.json()["registrar"]["token"], answer.json()["envoy"]["token"]


def logged(process: Registry, event: str) -> list[dict[str, Any]]:
    """Return the lines of a log with an event."""
    lines = [json.loads(line) for line in process.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["event"] == event]


def outcomes(process: Registry, stage: Stage) -> dict[str, float]:
    """Return the logins that a process counted."""
    text = process.client.get("/metrics", headers=bearer(stage.admin)).text
    lines = [line for line in text.splitlines() if line.startswith("registry_logins_total{")]
    return {line.partition('outcome="')[2].partition('"')[0]: float(line.rpartition(" ")[2]) for line in lines}


def eventually_listed(stage: Stage, service: str, said: Callable[[], str]) -> dict[str, Any]:
    """Return the endpoint of a service that is listed within some seconds."""
    path = f"/v1/services/{service}/endpoints"

    def listed() -> list[dict[str, Any]]:
        answer = stage.first.client.get(path, headers=bearer(stage.admin)).json()
        endpoints: list[dict[str, Any]] = answer.get("endpoints", [])
        return endpoints

    eventually(lambda: bool(listed()), within=15, said=said)
    return listed()[0]


def audited(stage: Stage, action: str) -> list[dict[str, str]]:
    """Return the rows of the audit on an action."""
    statement = "SELECT principal, peer, decision, reason, request_id, credential FROM audit WHERE action = $1"
    return [dict(row) for row in stage.server.execute(statement, action, url=stage.database)]


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    """A moto server that checks signatures."""
    with Moto.running() as server:
        yield server


@contextlib.contextmanager
def serving(database: str, workplace: Path, moto: Moto, **settings: Any) -> Iterator[Registry]:
    """Run a registry with access on and AWS login."""
    aws = {"aws_regions": "eu-west-1", "aws_audience": "headcount-test", "aws_sts_endpoint": moto.url}
    with registry(database, workplace, auth="on", **aws | settings) as process:
        yield process


@pytest.fixture(scope="module")
def stage(server: Postgres, workplace: Path, moto: Moto) -> Iterator[Stage]:
    """Two registries, and an identity that matches the role of the tests."""
    database = server.migrated_database()
    with serving(database, workplace, moto) as first, serving(database, workplace, moto) as second:
        made = Stage(first, second, moto, server, database)
        made.identity("shop", f"111122223333:{ROLE}")
        yield made


def test_a_role_gets_two_sessions(stage: Stage) -> None:
    """The registrar's registers at both processes; the Envoy's discovers and does no more."""
    answer = log_in(stage.first, stage.workload())
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    login = answer.json()
    assert login["principal"] == f"aws:111122223333:{ROLE}/{TASK}"
    assert 3_500 < login["registrar"]["expires_at"] - time.time() < 3_700
    registrar, envoy = login["registrar"]["token"], login["envoy"]["token"]
    for number, process in enumerate((stage.first, stage.second)):
        assert register(process, registrar, "shop-a", 8000 + number) == 200
        assert register(process, envoy, "shop-a", 8000 + number) == 403
        assert f'"port_value":{8000 + number}' in poll(process, envoy, "shop-a").text.replace(" ", "")
        assert process.client.get("/v1/services", headers=bearer(envoy)).status_code == 403
        assert register(process, registrar, "other", 8000) == 403
    described = whoami(stage.second, registrar)
    assert (described["principal"], described["owner"]) == (f"{login['principal']} from 127.0.0.1", "identity:shop")


def test_a_registrar_logs_in_with_the_role_of_its_task(stage: Stage, workplace: Path, tmp_path: Path) -> None:
    """From the agent's keys to a registered endpoint, whose owner is the identity, and a token that discovers."""
    keys = stage.moto.keys(ROLE, "fedcba9876543210")
    envoy_token = tmp_path / "token"
    with FakeKeys() as agent:
        agent.keys = {"AccessKeyId": keys.access_key_id, "SecretAccessKey": keys.secret, "Token": keys.token}
        with running_registrar(
            workplace,
            stage.second.url,
            "shop-c",
            f"127.0.0.1:{stage.first.port}",
            env=agent.variables | {"AWS_REGION": "eu-west-1"},
            login="aws",
            login_audience="headcount-test",
            instance_id="fedcba9876543210",
            check_http_path="/livez",
            envoy_token_file=str(envoy_token),
        ) as process:
            found = eventually_listed(stage, "shop-c", said=process.log.read_text)
            assert (found["instance_id"], found["health"]) == ("fedcba9876543210", "HEALTHY")
            eventually(envoy_token.exists, within=5)
            assert f'"port_value":{stage.first.port}' in poll(stage.first, envoy_token.read_text(), "shop-c").text
            assert register(stage.first, envoy_token.read_text(), "shop-c", 8000) == 403
            events = stage.first.client.get("/v1/events?service=shop-c", headers=bearer(stage.admin)).json()["events"]
            assert events[0]["actor"] == f"aws:111122223333:{ROLE}/fedcba9876543210 from 127.0.0.1"


def test_the_identity_of_a_role_binds_its_tasks_unless_it_says_otherwise(stage: Stage) -> None:
    """A grant without addresses and instance is for the peer's address and the session's name alone."""
    stage.identity("defaults", "111122223333:default-task", grants=[{"verbs": ["register"], "services": ["shop-d"]}])
    registrar, _ = sessions(stage.first, stage.workload("default-task"))
    assert register(stage.first, registrar, "shop-d", 9000) == 200
    assert register(stage.first, registrar, "shop-d", 9001, "fedcba9876543210") == 403
    put = stage.first.client.put(
        "/v1/services/shop-d/endpoints/10.0.0.5:9000",
        json={"instance_id": TASK, "incarnation": 1},
        headers=bearer(registrar),
    )
    assert (put.status_code, "may register at peer alone" in put.text) == (403, True)
    (grant,) = whoami(stage.first, registrar)["grants"]
    assert (grant["addresses"], grant["instance"]) == (["peer"], "session")


def test_a_session_registers_its_own_instance_alone(stage: Stage) -> None:
    """A stolen session of one task says nothing in the name of another."""
    registrar, _ = sessions(stage.first, stage.workload())
    instances = (TASK, f"{TASK}/app", f"app:{TASK}", "fedcba9876543210", f"{TASK}0", f"x{TASK}", TASK[:-1])
    statuses = [register(stage.first, registrar, "shop-b", 8000 + port, name) for port, name in enumerate(instances)]
    assert statuses == [200, 200, 200, 403, 403, 403, 403]


def test_a_login_is_good_once_in_all_processes(stage: Stage) -> None:
    """Who records a login cannot use it, at this process, at another, or at the same moment."""
    login = stage.workload().login(time.time())
    assert log_in(stage.first, login).status_code == 200
    for process in (stage.first, stage.second):
        answer = log_in(process, login)
        assert (answer.status_code, answer.json()["title"]) == (401, "Unauthenticated")
        assert "used before" in answer.json()["detail"]
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_login_that_is_sent_to_all_processes_at_once_is_good_once(stage: Stage) -> None:
    """Each process asks STS, which accepts; PostgreSQL decides which of them was first."""
    login = stage.workload().login(time.time())
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda process: log_in(process, login).status_code, [stage.first, stage.second] * 4))
    assert sorted(answers) == [200, *[401] * 7]


def test_only_the_named_role_may_log_in(stage: Stage) -> None:
    """Another role, another account, and a role of the same name that was created again."""
    other = log_in(stage.first, stage.workload("intruder"))
    assert other.status_code == 403
    assert "no identity matches the AWS role 111122223333:intruder" in other.json()["detail"]
    keys = stage.moto.keys(ROLE, TASK, account="999988887777")
    assert log_in(stage.first, Workload(keys, TASK, "headcount-test")).status_code == 403
    stage.identity("bound", "111122223333:bound-task", unique_id="AROAQWERTYUIOPASDFGHJ")
    again = log_in(stage.first, stage.workload("bound-task"))
    assert again.status_code == 403
    assert "deleted and created again" in again.json()["detail"]


def test_a_login_for_the_instance_of_another_is_refused(stage: Stage) -> None:
    """The name of the session has to be a whole component of the instance."""
    workload = stage.workload()
    for instance in ("fedcba9876543210", f"x{TASK}", f"{TASK}0", TASK[:-1]):
        answer = log_in(stage.first, replace(workload, instance=instance))
        assert (answer.status_code, "whole component" in answer.text) == (403, True)


def test_what_sts_refuses_is_refused(stage: Stage) -> None:
    """A forged signature, and a login that was changed; the answer has AWS's code and no secret."""
    workload = stage.workload()
    forged = replace(workload, keys=replace(workload.keys, secret="guessed"))
    changed = document(workload.headers(time.time()) | {"x-registry-nonce": "0" * 32})
    for login in (forged, changed):
        answer = log_in(stage.first, login)
        assert answer.status_code == 401
        assert "AWS STS refused the login with 403 SignatureDoesNotMatch" in answer.json()["detail"]
    assert workload.keys.token not in stage.first.log.read_text()


def test_what_the_rules_refuse_never_reaches_sts(stage: Stage) -> None:
    """Documents that are none, other audiences, old signatures."""
    workload = stage.workload()
    for login, reason in (
        (b"{}", "one key"),
        (b"x" * 10_000, "allowed are 8,192"),
        (replace(workload, audience="headcount-production").login(time.time()), "REGISTRY_AWS_AUDIENCE"),
        (workload.login(time.time() - 400), "Sign a new one"),
        (replace(workload, region="us-east-1").login(time.time()), "REGISTRY_AWS_REGIONS"),
    ):
        answer = log_in(stage.second, login)
        assert (answer.status_code, reason in answer.json()["detail"]) == (401, True), answer.text
    assert {line["reason"] for line in logged(stage.second, "login_refused")} >= {
        "this login was used before, and each is good once; sign a new one"
    }


def test_a_session_is_renewed_and_its_envoy_is_not(stage: Stage) -> None:
    """New sessions come beside the former ones, which stay good: an answer may be lost on its way."""
    registrar, envoy = sessions(stage.first, stage.workload())
    answer = renew(stage.second, registrar)
    assert answer.status_code == 200, answer.text
    new = answer.json()["registrar"]["token"]
    assert len({registrar, envoy, new, answer.json()["envoy"]["token"]}) == 4
    for token in (registrar, new):
        assert whoami(stage.first, token)["principal"].startswith("aws:111122223333:shop-task/")
    refused = renew(stage.first, envoy)
    assert (refused.status_code, "of an Envoy" in refused.text) == (401, True)
    assert renew(stage.first, stage.admin).status_code == 401
    assert stage.first.client.post("/v1/login/renew").status_code == 401


def test_twelve_hours_after_a_login_another_one_is_due(stage: Stage) -> None:
    """A renewal does not begin them anew."""
    registrar, _ = sessions(stage.first, stage.workload())
    renewed = renew(stage.first, registrar).json()["registrar"]["token"]
    session = renewed.split("_")[1]
    stage.execute(f"UPDATE credentials SET login_at = login_at - interval '11:59' WHERE id = '{session}'")
    assert renew(stage.first, renewed).status_code == 200
    stage.execute(f"UPDATE credentials SET login_at = login_at - interval '2 min' WHERE id = '{session}'")
    answer = renew(stage.first, renewed)
    assert (answer.status_code, "log in again" in answer.text) == (401, True)


def test_a_logout_ends_all_sessions_of_a_login_everywhere(stage: Stage) -> None:
    """Within five seconds; another login of the same task is not affected, and an Envoy ends its own alone."""
    registrar, envoy = sessions(stage.first, stage.workload())
    other, other_envoy = sessions(stage.first, stage.workload())
    renewed = renew(stage.second, registrar).json()["registrar"]["token"]
    ended = [registrar, envoy, renewed, other_envoy]
    assert all(not whoami(stage.second, token)["problem"] for token in (*ended, other))
    for token in (registrar, other_envoy):
        assert stage.first.client.post("/v1/logout", headers=bearer(token)).status_code == 204
    assert all(whoami(stage.first, token)["problem"] for token in ended)
    eventually(lambda: all(whoami(stage.second, token)["problem"] for token in ended), within=5)
    assert not whoami(stage.second, other)["problem"]
    assert stage.first.client.post("/v1/logout", headers=bearer(registrar)).status_code == 401
    assert stage.first.client.post("/v1/logout", headers=bearer(stage.admin)).status_code == 401
    eventually(
        lambda: {row["reason"] for row in audited(stage, "logout")} >= {"sessions ended: 4", "sessions ended: 1"}
    )


def test_a_logout_of_registryctl_ends_its_session(stage: Stage, tmp_path: Path) -> None:
    """The token is forgotten, and good for nobody else either."""
    registrar, _ = sessions(stage.first, stage.workload())
    home = {"XDG_CONFIG_HOME": str(tmp_path)}
    assert registryctl(stage.first.url, "login", piped=registrar, **home).status == 0
    assert "its own instances" in registryctl(stage.first.url, "whoami", **home).out
    done = registryctl(stage.first.url, "logout", **home)
    assert (done.status, done.out) == (0, f"the token of {stage.first.url} is forgotten, and its session has ended\n")
    assert whoami(stage.first, registrar)["problem"] is not None
    assert registryctl(stage.first.url, "whoami", **home).status == 1


def test_an_identity_that_means_another_role_renews_nothing(stage: Stage) -> None:
    """An operator who changes the role of an identity ends the old role's sessions at their end."""
    stage.identity("moved", "111122223333:before-task")
    registrar, _ = sessions(stage.first, stage.workload("before-task"))
    stage.identity("moved", "111122223333:after-task")
    answer = renew(stage.first, registrar)
    assert (answer.status_code, "means another role" in answer.text) == (401, True)
    stage.identity("moved", "111122223333:before-task", unique_id="AROAQWERTYUIOPASDFGHJ")
    assert renew(stage.first, registrar).status_code == 401
    stage.identity("moved", "111122223333:before-task")
    assert renew(stage.first, registrar).status_code == 200


def test_logins_are_counted_and_logged_without_secrets(stage: Stage) -> None:
    """The outcome of each, the principal, the peer and the reason; no token, signature or key."""
    workload = stage.workload()
    login = workload.login(time.time())
    answer = log_in(stage.first, login).json()
    log_in(stage.first, login)
    counts = outcomes(stage.first, stage)
    assert counts["accepted"] >= 1
    assert counts["refused"] >= 1
    assert logged(stage.first, "login_accepted")[-1]["principal"] == answer["principal"]
    assert logged(stage.first, "login_refused")[-1]["peer"] == "127.0.0.1"
    session_id = answer["registrar"]["token"].split("_")[1]
    expected = {(answer["principal"], "allowed", session_id), ("anonymous", "refused", "")}
    eventually(
        lambda: {(row["principal"], row["decision"], row["credential"]) for row in audited(stage, "login")} >= expected
    )
    rows = audited(stage, "login")
    assert all(row["peer"] == "127.0.0.1" for row in rows)
    text = stage.first.log.read_text()
    signature = json.loads(login)["headers"]["authorization"][-64:]
    for secret in (answer["registrar"]["token"], answer["envoy"]["token"], workload.keys.token, signature):
        assert secret not in text + json.dumps(rows)


async def test_signatures_are_forgotten_when_they_are_too_old(database: str) -> None:
    """The table of used signatures is as large as six minutes of logins."""
    await migrate(database, 10.0)
    store = Database(database, connections=8, timeout=5.0)
    try:
        async with store.transaction() as connection:
            for seconds in (0, 350, 370, 4_000):
                seen = text(f"INSERT INTO logins_seen VALUES ('{seconds}', clock_timestamp() - interval '{seconds} s')")
                await connection.execute(seen)
        await prune_logins(store)
        async with store.session() as connection:
            rows = await connection.execute(text("SELECT signature FROM logins_seen ORDER BY seen_at DESC"))
            assert [bytes(row.signature) for row in rows] == [b"0", b"350"]
    finally:
        await store.close()


def test_sessions_are_renewed_while_sts_is_away(stage: Stage, workplace: Path) -> None:
    """A login gets 503 with Retry-After, and is not used up; renewals and registrations go on."""
    nobody = f"http://127.0.0.1:{free_port()}"
    with serving(stage.database, workplace, stage.moto, aws_sts_endpoint=nobody) as cut_off:
        workload = stage.workload()
        registrar, _ = sessions(stage.first, workload)
        login = workload.login(time.time())
        answer = log_in(cut_off, login)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "AWS STS cannot be reached" in answer.json()["detail"]
        renewed = renew(cut_off, registrar)
        assert renewed.status_code == 200
        assert register(cut_off, renewed.json()["registrar"]["token"], "shop-a", 8000) == 200
        assert log_in(stage.first, login).status_code == 200
        assert outcomes(cut_off, stage) == {"unavailable": 1, "renewed": 1}
        assert logged(cut_off, "login_unavailable")[0]["cause"].startswith("ConnectError")


def test_sessions_go_on_while_postgresql_is_away(workplace: Path, moto: Moto) -> None:
    """Logins and renewals get 503, nothing else changes; afterwards the same session is renewed."""
    with cluster() as server, serving(server.url, workplace, moto, database_timeout="1s") as process:
        admin = admin_of(server.url, process)
        body = {"source": "aws", "match": f"111122223333:{ROLE}", "grants": [GRANT]}
        assert process.client.put("/v1/identities/shop", json=body, headers=bearer(admin)).status_code == 200
        workload = Workload(moto.keys(ROLE, TASK), TASK, "headcount-test")
        registrar, envoy = sessions(process, workload)
        register(process, registrar, "shop-a", 8000)
        server.kill()
        assert log_in(process, workload).status_code == 503
        assert renew(process, registrar).status_code == 503
        assert whoami(process, registrar)["problem"] is None
        assert "127.0.0.1" in poll(process, envoy, "shop-a").text
        server.start()
        eventually(lambda: renew(process, registrar).status_code == 200, within=20)


def test_without_a_region_there_is_no_aws_login(shared_registry: Registry) -> None:
    """The answer says which settings would allow it."""
    answer = log_in(shared_registry, Workload())
    assert (answer.status_code, "REGISTRY_AWS_REGIONS" in answer.json()["detail"]) == (404, True)
