"""What an operator can mend in PostgreSQL is told in one sentence with its fix, and never as a trace."""

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from harness.cluster import Cluster, cluster
from harness.mesh_rollout import Stage, dependency
from harness.postgres import Postgres
from harness.preloaded import run_registry
from harness.process import eventually, free_port, running
from harness.registry import Registry, forked_registry, registry

from registry.errors import UnavailableError
from registry.store.database import Database

_POLLS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("clusters", ()),
    ("listeners", ()),
    ("routes", ("default",)),
    ("endpoints", ("user",)),
    ("endpoints", ("user-next",)),
)
"""What an Envoy polls for: the kinds of resources, and the names that it asks for."""


@pytest.fixture
def database(empty_database: str) -> str:
    """A database that a registry migrates, if it may."""
    return empty_database


def environment(url: str, directory: Path) -> dict[str, str]:
    """Return the environment of a registry."""
    told = {
        "REGISTRY_DATABASE_URL": url,
        "REGISTRY_LISTEN": f"127.0.0.1:{free_port()}",
        "REGISTRY_DATA_DIR": str(directory / "data"),
        "REGISTRY_DATABASE_TIMEOUT": "5s",
    }
    return {**{name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}, **told}


def run(verb: str, url: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Run a verb of `registry` until it ends."""
    return run_registry(verb, env=environment(url, directory))


def migrate(url: str, directory: Path) -> tuple[int, str]:
    """Run `registry migrate`; return its status and what it said."""
    done = run("migrate", url, directory)
    return done.returncode, done.stdout + done.stderr


def unready(url: str, directory: Path, wanted: str) -> str:
    """Run `registry serve` until readiness tells of PostgreSQL in the words that are wanted; return its log."""
    env = environment(url, directory)
    log = directory / "serve.log"
    with forked_registry(env, log) as process:
        found = Registry(f"http://{env['REGISTRY_LISTEN']}", process, log)
        with contextlib.closing(found.client):

            def told() -> bool:
                with contextlib.suppress(OSError, Exception):
                    parts = found.client.get("/readyz?verbose").json()["parts"]
                    return any(part["name"] == "postgresql" and wanted in part["detail"] for part in parts)
                return False

            eventually(told, within=60, said=log.read_text)
            assert found.client.get("/readyz").status_code == 503
    return log.read_text()


def as_role(server: Postgres, database: str, *, password: str = "") -> tuple[str, str]:
    """Return the URL of a new role that owns nothing, and its name."""
    parts = urlsplit(database)
    role = f"{parts.path.removeprefix('/')}_role"
    server.execute(f"CREATE ROLE {role} LOGIN")
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{role}:{password}@{host}")), role


def test_a_role_without_rights_is_told_what_to_grant(server: Postgres, database: str, tmp_path: Path) -> None:
    """PostgreSQL 15 and later give nobody the right to create in the schema public."""
    url, role = as_role(server, database)
    grant = f"GRANT USAGE, CREATE ON SCHEMA public TO {role}"
    status, said = migrate(url, tmp_path)
    assert (status, "Traceback" in said, grant in said) == (2, False, True), said
    assert len(said.splitlines()) == 1, said
    log = unready(url, tmp_path, "insufficient privilege")
    assert "Traceback" not in log
    assert grant in log
    server.execute(grant, url=database)
    status, said = migrate(url, tmp_path)
    assert status == 0, said


def test_a_missing_database_and_schema_are_told(server: Postgres, database: str, tmp_path: Path) -> None:
    """With the statement that makes them."""
    parts = urlsplit(database)
    status, said = migrate(urlunsplit(parts._replace(path=f"{parts.path}_gone")), tmp_path)
    assert (status, "Traceback" in said, "CREATE DATABASE" in said) == (2, False, True), said
    elsewhere = urlunsplit(parts._replace(query=f"{parts.query}&options=-csearch_path%3Dheadcount".lstrip("&")))
    status, said = migrate(elsewhere, tmp_path)
    assert (status, "Traceback" in said, "CREATE SCHEMA" in said) == (2, False, True), said
    server.execute("CREATE SCHEMA headcount", url=database)
    assert migrate(elsewhere, tmp_path)[0] == 0


@pytest.mark.parametrize(("encoding", "status"), [("LATIN1", 2), ("SQL_ASCII", 0)])
def test_an_encoding_that_cannot_hold_everything_ends_the_start(
    server: Postgres, tmp_path: Path, encoding: str, status: int
) -> None:
    """Otherwise the first snowman in metadata fails; SQL_ASCII takes all bytes."""
    name = f"encoded_{encoding.lower()}_{os.getpid()}"
    server.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    url = urlunsplit(urlsplit(server.url)._replace(path=f"/{name}"))
    found, said = migrate(url, tmp_path)
    assert (found, "Traceback" in said) == (status, False), said
    if status:
        assert f"the database's encoding is {encoding}" in said
        done = run("serve", url, tmp_path)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False)
        assert f"the database's encoding is {encoding}" in done.stderr
        return
    with registry(url, tmp_path) as registered:
        assert registered.register("shop", "10.0.0.1:80", metadata={"x": "☃"}).status_code == 200


@pytest.fixture(scope="module")
def guarded() -> Iterator[Cluster]:
    """A PostgreSQL that wants passwords, and lets one role in by TLS alone."""
    with cluster(max_connections="20") as found:
        for role in ("hcu", "tls", "few", "nologin"):
            found.execute(f"CREATE ROLE {role} {'NOLOGIN' if role == 'nologin' else 'LOGIN'} PASSWORD 'right'")
        found.execute("ALTER ROLE few CONNECTION LIMIT 0")
        rules = (
            "hostssl all tls all scram-sha-256",
            "host all few,nologin all trust",
            "host all nobody all trust",
            "host all hcu all scram-sha-256",
            "host all postgres all trust",
        )
        (found.directory / "pg_hba.conf").write_text("\n".join(rules) + "\n")
        found.execute("SELECT pg_reload_conf()")
        yield found


@pytest.mark.parametrize(
    ("login", "told", "fix"),
    [
        ("hcu:wrong", "refuses the registry's password", "correct the password in REGISTRY_DATABASE_URL"),
        ("tls:right", "does not let the registry's role in", "sslmode=require"),
        ("nobody:", "does not let the registry's role in", "CREATE ROLE nobody LOGIN"),
        ("few:", "takes no more connections", "raise max_connections"),
    ],
)
def test_each_way_to_be_refused_is_told_as_itself(
    guarded: Cluster, tmp_path: Path, login: str, told: str, fix: str
) -> None:
    """Not as a PostgreSQL that is away: by the start, the log, readiness and `registry migrate`."""
    url = f"postgresql://{login}@127.0.0.1:{guarded.port}/postgres"
    status, said = migrate(url, tmp_path)
    assert (status, "Traceback" in said) == (2, False), said
    assert told in said
    assert fix in said
    log = unready(url, tmp_path, told)
    assert "Traceback" not in log
    assert "is away" not in log
    assert fix in log


def test_a_password_that_was_rotated_needs_no_restart(guarded: Cluster, tmp_path: Path, service: str) -> None:
    """The file with the URL is read for each new connection, and the log has neither of the passwords."""
    guarded.execute("CREATE ROLE rotated LOGIN PASSWORD 'hunter2'")
    guarded.execute("CREATE DATABASE rotated OWNER rotated")
    with (guarded.directory / "pg_hba.conf").open("a") as rules:
        rules.write("host all rotated all scram-sha-256\n")
    guarded.execute("SELECT pg_reload_conf()")
    file = tmp_path / "url"
    file.write_text(f"postgresql://rotated:hunter2@127.0.0.1:{guarded.port}/rotated\n")
    env = environment("", tmp_path) | {"REGISTRY_DATABASE_URL_FILE": str(file)}
    del env["REGISTRY_DATABASE_URL"]
    log = tmp_path / "serve.log"
    with forked_registry(env, log) as process:
        found = Registry(f"http://{env['REGISTRY_LISTEN']}", process, log)
        with contextlib.closing(found.client):
            eventually(found.ready, within=60, said=log.read_text)
            guarded.execute("ALTER ROLE rotated PASSWORD 'hunter3'")
            guarded.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'rotated'")
            eventually(lambda: "refuses the registry's password" in log.read_text(), within=20)
            assert found.register(service, "10.0.0.1:80").status_code == 503
            file.write_text(f"postgresql://rotated:hunter3@127.0.0.1:{guarded.port}/rotated\n")
            eventually(lambda: found.register(service, "10.0.0.1:80").status_code == 200, within=20)
            eventually(lambda: found.statuses(service) == {"10.0.0.1:80": "HEALTHY"}, within=20)
    assert "hunter" not in log.read_text()


async def test_the_password_may_be_in_a_variable_of_its_own(guarded: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """PGPASSWORD is libpq's; a secret of ECS holds the password alone, and no URL has to be composed."""
    database = Database(f"postgresql://hcu@127.0.0.1:{guarded.port}/postgres", connections=2, timeout=10)
    monkeypatch.setenv("PGPASSWORD", "wrong")
    with pytest.raises(UnavailableError, match="refuses the registry's password"):
        await database.check()
    monkeypatch.setenv("PGPASSWORD", "right")
    await database.check()


@contextlib.contextmanager
def pgbouncer(target: Cluster, directory: Path, mode: str) -> Iterator[str]:
    """Run PgBouncer as packaged, on a free port; return a URL by way of it."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        pytest.skip("pgbouncer is not installed here (Debian, Ubuntu: apt install pgbouncer)")
    port = free_port()
    made = directory / mode
    made.mkdir()
    (made / "users.txt").write_text('"postgres" ""\n')
    (made / "pgbouncer.ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={target.port}\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = trust\n"
        f"auth_file = {made / 'users.txt'}\npool_mode = {mode}\n"
    )
    command = [program, str(made / "pgbouncer.ini")]
    if os.geteuid() == 0:
        # As root it refuses to run; it has nothing to read but what is made here.
        for path in (directory, made, *made.iterdir()):
            path.chmod(0o755 if path.is_dir() else 0o644)
        command = [program, "-u", "nobody", str(made / "pgbouncer.ini")]
    log = made / "pgbouncer.log"
    with running(command, log=log) as process:
        url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        eventually(
            lambda: answers(target, url) or process.poll() is not None, within=10, said=lambda: log.read_text()[-500:]
        )
        assert process.poll() is None, tail(log)
        yield url


def tail(log: Path) -> str:
    """Return the end of a log."""
    return log.read_text()[-500:]


def answers(target: Cluster, url: str) -> bool:
    """Tell whether PostgreSQL answers by way of a URL."""
    with contextlib.suppress(Exception):
        target.execute("SELECT 1", url=url)
        return True
    return False


@pytest.fixture
def aside() -> Iterator[Path]:
    """A directory that PgBouncer's user may enter."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="headcount-pgbouncer-") as found:
        yield Path(found)


def test_pgbouncer_as_installed_serves_sessions(guarded: Cluster, aside: Path, tmp_path: Path, service: str) -> None:
    """No parameter has to be named in ignore_startup_parameters."""
    with pgbouncer(guarded, aside, "session") as url, registry(url, tmp_path) as found:
        assert found.register(service, "10.0.0.1:80", ttl=600).status_code == 200
        assert found.register(service, "10.0.0.1:80", ttl=600).status_code == 200
        assert found.statuses(service) == {"10.0.0.1:80": "HEALTHY"}
        eventually(lambda: "registry_sweep_leader 1.0" in found.client.get("/metrics").text, within=10)
        assert "is away" not in found.log.read_text()


@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_pooler_by_transaction_ends_the_start(guarded: Cluster, aside: Path, tmp_path: Path, mode: str) -> None:
    """It would serve, and lose heartbeats now and then."""
    with pgbouncer(guarded, aside, mode) as url:
        done = run("serve", url, tmp_path)
        assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
        assert "pool_mode = session" in done.stderr


def ask(process: Registry, kind: str, names: tuple[str, ...] = (), version: str = "") -> tuple[str, bytes]:
    """Poll as the Envoy of web that has this version; return the version that it has then, and the bytes."""
    body = {"version_info": version, "node": {"id": "i-web", "cluster": "web"}, "resource_names": names}
    # A poll for what has not changed is held no longer than its sender waits.
    headers = {"x-envoy-expected-rq-timeout-ms": "200"}
    answer = process.client.post(f"/v3/discovery:{kind}", json=body, headers=headers)
    assert answer.status_code in {200, 304}, answer.text
    return (answer.json()["version_info"] if answer.content else version), answer.content


def test_a_roll_out_waits_for_a_postgresql_that_stands_still(guarded: Cluster, tmp_path: Path) -> None:
    """In the middle of a phase polls get the same bytes, the roll-out says why it waits, and ends after that."""
    database = guarded.create_database()
    stage = Stage(database, ["web"])
    versions = dict.fromkeys(_POLLS, "")

    def follow() -> bool:
        for (kind, names), version in versions.items():
            versions[kind, names], _ = ask(found, kind, names, version)
        return bool(found.client.get("/v1/mesh/rollout").json().get("rollouts") == [])

    def served() -> list[bytes]:
        return [ask(found, kind, names)[1] for kind, names in _POLLS]

    with registry(database, tmp_path, database_timeout="1s") as found:
        found.register("user", "10.0.0.1:80")
        found.register("user-next", "10.0.0.2:80")
        stage.apply(dependency("user"))
        eventually(lambda: follow() and b'"user"' in ask(found, "clusters")[1], within=30)
        stage.apply(dependency("user-next", cluster="next"))
        # The clusters of both are served in the first step, and the Envoy does not show that it has them.
        eventually(lambda: b'"next"' in ask(found, "clusters")[1], within=20)
        assert stage.under_way()
        before = served()
        with guarded.frozen():
            # Two time-outs of a statement, which the roll-out and the change feed meet.
            ends = time.monotonic() + 3
            while time.monotonic() < ends:
                assert served() == before
                time.sleep(0.1)
            eventually(lambda: found.client.get("/v1/mesh/rollout").status_code == 503, within=20)
            assert "PostgreSQL" in found.client.get("/v1/mesh/rollout").json()["detail"]
            assert served() == before
        eventually(lambda: found.client.get("/v1/mesh/rollout").status_code == 200, within=30)
        assert stage.under_way(), "the roll-out went on without the Envoy that it waited for"
        # A poll with an older version than the one served before refuses that; one without a version begins anew.
        versions.update(dict.fromkeys(_POLLS, ""))
        eventually(follow, within=50, every=0.2, said=lambda: found.client.get("/v1/mesh/rollout").text)
        last = ask(found, "clusters")[1]
        assert (b'"next"' in last, b'"user"' in last) == (True, False)
