"""What docs/databases.md says of roles, of SQL for a DBA, and of an upgrade by dump, tried as it stands there."""

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from harness.cluster import Cluster, cluster, embedded_programs
from harness.dump import at_database, dump, restore
from harness.process import eventually, script
from harness.registry import registry

pytestmark = pytest.mark.databases

_PAGE = Path(__file__).parents[2] / "docs" / "databases.md"


@pytest.fixture(scope="module")
def target() -> Iterator[Cluster]:
    """A PostgreSQL of the version that is tried."""
    with cluster() as started:
        yield started


def psql(url: str, text: str) -> None:
    """Run SQL as psql does, as a DBA would."""
    command = [str(embedded_programs() / "psql"), "--no-psqlrc", "--set=ON_ERROR_STOP=1", url]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def as_role(url: str, role: str) -> str:
    """Return the URL for another role."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}"))


def migrate(url: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run `registry migrate`."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
    command = [*script("registry"), "migrate", *options]
    done = subprocess.run(
        command, env=env | {"REGISTRY_DATABASE_URL": url}, capture_output=True, text=True, timeout=120, check=False
    )
    assert "Traceback" not in done.stderr
    return done


def block(heading: str) -> str:
    """Return the SQL below a heading of the page."""
    below = _PAGE.read_text().partition(f"# {heading}\n")[2]
    found = re.search(r"^```sql\n(.*?)^```$", below, re.MULTILINE | re.DOTALL)
    assert found is not None, heading
    return found[1]


def test_an_owner_migrates_and_another_role_serves(target: Cluster, tmp_path: Path, service: str) -> None:
    """With the page's own statements; the role that serves may change no table, and --check says what it lacks."""
    psql(target.url, block("Two roles"))
    url = at_database(target.url, "headcount")
    owner, runtime = as_role(url, "headcount_owner"), as_role(url, "headcount")
    before = migrate(runtime, "--check")
    assert (before.returncode, "registry migrate" in before.stdout) == (1, True), before
    assert migrate(owner).returncode == 0
    assert migrate(runtime, "--check").returncode == 0
    with registry(runtime, tmp_path, fresh=True) as serving:
        assert serving.register(service, "10.0.0.1:80").status_code == 200
        eventually(lambda: serving.statuses(service) == {"10.0.0.1:80": "HEALTHY"}, within=20)
        eventually(lambda: "registry_sweep_leader 1.0" in serving.client.get("/metrics").text, within=20)
        assert "insufficient" not in serving.log.read_text()
    target.execute("REVOKE DELETE ON events, leases FROM headcount", url=url)
    lacking = migrate(runtime, "--check")
    assert lacking.returncode == 1
    assert "headcount lacks DELETE on events, leases; run: GRANT " in lacking.stdout
    psql(as_role(url, "headcount_owner"), lacking.stdout.partition("run: ")[2] + ";")
    assert migrate(runtime, "--check").returncode == 0
    # A later migration by the owner: what it makes is the role's to use, by the default privileges.
    target.execute("UPDATE alembic_version SET version_num = '0016'", url=url)
    refused = migrate(runtime)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert "`registry migrate` as the role that owns" in refused.stderr


def test_a_dba_runs_the_sql_by_psql(target: Cluster) -> None:
    """From nothing, and from an earlier revision; --check is content afterwards, and a second run has nothing to do."""
    url = at_database(target.url, "by_hand")
    target.execute("CREATE DATABASE by_hand")
    text = migrate(url, "--sql").stdout
    assert target.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", url=url)[0][0] == 0
    early, late = text.split("-- Running upgrade 0015 -> 0016")
    psql(url, f"{early}COMMIT;")
    assert migrate(url, "--check").returncode == 1
    rest = migrate(url, "--sql").stdout
    assert late.strip() in rest
    psql(url, rest)
    assert migrate(url, "--check").returncode == 0
    assert migrate(url, "--sql").stdout.startswith("-- The schema is ")
    assert migrate(url).stderr == ""


def test_a_dump_of_this_version_goes_into_the_newest(target: Cluster, tmp_path: Path, service: str) -> None:
    """A major upgrade by dump: state, history and overrides are there, under a new id."""
    url = at_database(target.url, "outgoing")
    target.execute("CREATE DATABASE outgoing")
    with registry(url, tmp_path) as serving:
        assert serving.register(service, "10.0.0.1:80", ttl=600).status_code == 200
        override = {"weight": 7, "reason": "tried"}
        path = f"/v1/services/{service}/endpoints/10.0.0.1:80/override"
        assert serving.client.put(path, json=override).status_code == 200
    programs = embedded_programs()
    dump(url, tmp_path / "dump", programs=programs)
    with cluster(programs=programs) as newest:
        newest.execute("CREATE DATABASE incoming")
        copy = at_database(newest.url, "incoming")
        restore(tmp_path / "dump", copy, programs=programs)
        with registry(copy, tmp_path, lease_ttl="1s") as serving:
            (endpoint,) = serving.endpoints(service)
            assert endpoint["weight"] == 7
            assert "database_restored" in serving.log.read_text()
            events = serving.client.get("/v1/events", params={"service": service}).json()["events"]
            assert {event["kind"] for event in events} >= {"registered", "overridden"}


def test_a_standby_is_called_one(target: Cluster) -> None:
    """Behind a wrong host, or after a fail-over: nothing can be migrated there."""
    with target.standby(target.directory.with_name("standby")) as copy:
        copy.execute("SELECT 1")
        eventually(lambda: copy.execute("SELECT pg_is_in_recovery() AS yes")[0]["yes"], within=20)
        done = migrate(copy.url)
        assert done.returncode == 2
        assert "it is a standby, or set to read only" in done.stderr
        assert len(done.stderr.splitlines()) == 1
