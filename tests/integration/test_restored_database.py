"""A dump that is restored is another database: no version of before stands for anything of after."""

import asyncio
import json
import subprocess
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from harness.dump import dump, replace_database, restore
from harness.postgres import Postgres
from harness.preloaded import run_registry
from harness.process import eventually
from harness.registry import Registry, registry

from registry.core.history import EventFilter
from registry.errors import UnavailableError
from registry.store import history
from registry.store.database import Database
from registry.store.restored import DatabaseIdentity, read_identity

_LEASE = 2.0


def identity(url: str) -> DatabaseIdentity:
    """Return the identity of a database as a registry reads it."""

    async def read() -> DatabaseIdentity:
        database = Database(url, connections=1, timeout=10)
        try:
            return await read_identity(database)
        finally:
            await database.close()

    return asyncio.run(read())


def settled(url: str) -> list[int]:
    """Return the versions of the events that a stream shows, in its order."""

    async def read() -> list[int]:
        database = Database(url, connections=1, timeout=10)
        try:
            wanted = EventFilter(newest_first=False, settled=True, limit=100)
            return [event.version for event in await history.find_events(database, wanted)]
        finally:
            await database.close()

    return asyncio.run(read())


_ADD_EVENT = (
    "INSERT INTO events (at, service, instance_id, kind, reason, actor, status, version{0})"
    " VALUES (now(), 'shop', '', 'paused', '', '', '', $1{1})"
)


def test_a_restored_dump_gets_an_id_of_its_own_once(server: Postgres, database: str, tmp_path: Path) -> None:
    """Whoever looks first gives it; the original, and the copy when it is looked at again, stay as they are."""
    before = identity(database)
    assert before.restored_ago is None
    # As an old server that has seen many more transactions than the new one.
    server.execute(_ADD_EVENT.format(", transaction", ", 4000000000"), 1, url=database)
    server.execute("UPDATE registry_state SET timeline = 7", url=database)
    dump(database, tmp_path / "dump")
    copy = server.create_database()
    restore(tmp_path / "dump", copy)
    after = identity(copy)
    assert after.id != before.id
    assert after.restored_ago is not None
    assert identity(copy).id == after.id
    assert identity(database) == before
    server.execute(_ADD_EVENT.format("", ""), 2, url=copy)
    # An open transaction of anybody on the server keeps a stream from the newest.
    eventually(lambda: settled(copy) == [1, 2], within=20)
    ((timeline,),) = server.execute("SELECT timeline - headcount_timeline() FROM registry_state", url=copy)
    assert timeline == 0


def test_a_cluster_that_says_its_identifier_no_more_makes_no_copy(server: Postgres, database: str) -> None:
    """A right that was revoked, or granted, is no restore; another cluster is."""
    before = identity(database)
    for prefix, copied in (("", False), ("1", True)):
        server.execute(
            "UPDATE registry_state SET location = $1 || substr(location, strpos(location, '.'))", prefix, url=database
        )
        assert (identity(database).id != before.id) == copied
    after = identity(database).id
    name = urlsplit(database).path[1:]
    server.execute(f"ALTER DATABASE {name} SET search_path = public, pg_catalog")
    fails = "CREATE OR REPLACE FUNCTION public.pg_control_system(OUT system_identifier bigint) LANGUAGE plpgsql AS "
    server.execute(f"{fails} $$BEGIN RAISE insufficient_privilege; END$$", url=database)
    ((place,),) = server.execute("SELECT headcount_location()", url=database)
    assert place.startswith(".")
    assert identity(database).id == after
    # A file that cannot be read for once says nothing about the place.
    server.execute(f"{fails} $$BEGIN RAISE io_error; END$$", url=database)
    with pytest.raises(UnavailableError):
        identity(database)
    ((kept,),) = server.execute("SELECT database_id FROM registry_state", url=database)
    assert kept == after


def restored(database: str) -> "subprocess.CompletedProcess[str]":
    """Run `registry restored`."""
    env = {"REGISTRY_DATABASE_URL": database, "PATH": "/usr/bin:/bin"}
    return run_registry("restored", env=env)


def test_a_server_that_was_set_back_gets_another_id_by_a_command(server: Postgres, database: str) -> None:
    """A disk from a snapshot is where the original was, so that nothing but a person knows."""
    before = identity(database)
    done = restored(database)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    after = identity(database)
    assert after.id != before.id
    assert f'"now": "{after.id}"' in done.stderr
    assert after.restored_ago is not None


def addresses(response: httpx.Response) -> set[str]:
    """Return the endpoints of a response to a poll for one service."""
    return {
        member["endpoint"]["address"]["socket_address"]["address"]
        for resource in response.json()["resources"]
        for locality in resource["endpoints"]
        for member in locality["lb_endpoints"]
    }


def logged(process: Registry, event: str) -> bool:
    """Tell whether a registry has logged an event."""
    return event in process.log.read_text()


def answer_to(process: Registry, service: str, version: str) -> httpx.Response:
    """Return what a registry answers to a subscriber that holds a version, when that is something."""
    eventually(lambda: process.poll(service, version=version).status_code == 200, within=20)
    return process.poll(service, version=version)


def hold(process: Registry) -> float:
    """Return the seconds for which a registry said that it holds a restored database."""
    lines = (json.loads(line) for line in process.log.read_text().splitlines() if "restored_database_held" in line)
    return max(float(line["seconds"]) for line in lines)


def test_a_running_registry_notices_the_command(database: str, service: str, tmp_path: Path) -> None:
    """Its connection to PostgreSQL stays, so that nothing but the comparison finds the new id."""
    with registry(database, tmp_path, lease_ttl="1s", sweep_interval="200ms", resync_interval="200ms") as process:
        assert process.register(service, "10.0.0.1:80").status_code == 200
        assert process.poll(service).json()["version_info"].startswith(f"{identity(database).id}:")
        assert restored(database).returncode == 0
        after = identity(database).id
        eventually(lambda: process.poll(service).json().get("version_info", "").startswith(f"{after}:"), within=20)
        assert logged(process, "database_replaced")


def test_living_registries_follow_a_restored_dump(
    server: Postgres, database: str, service: str, tmp_path: Path
) -> None:
    """The version of before comes again with other content, and an Envoy that holds it gets that content.

    Until living endpoints had the time to return, it keeps what it has.
    """
    options = {
        "lease_ttl": f"{_LEASE:g}s",
        "sweep_interval": "500ms",
        "removal_delay": "60s",
        "database_timeout": "5s",
    }

    def beat(door: Registry, *hosts: str) -> None:
        for host in hosts:
            assert door.register(service, f"{host}:80", ttl=8 * _LEASE).status_code == 200

    with registry(database, tmp_path, **options) as first, registry(database, tmp_path, **options) as second:
        beat(first, "10.0.0.1")
        eventually(lambda: second.poll(service).json()["resources"], within=20)
        dump(database, tmp_path / "dump")
        beat(first, "10.0.0.2", "10.0.0.3")
        held = first.poll(service)
        version = held.json()["version_info"]
        eventually(lambda: second.poll(service, version=version).status_code == 304, within=20)
        replace_database(server, database, tmp_path / "dump")
        # The database has the endpoint of the backup alone; of those that came since one returns, and one is new.
        for each in (first, second):
            eventually(partial(logged, each, "restored_database_held"), within=20)
            assert addresses(each.poll(service)) == {"10.0.0.1", "10.0.0.2", "10.0.0.3"}
            assert each.ready()
        # Longer than by the default lease: heartbeats of the longest come at a quarter of it.
        assert max(hold(first), hold(second)) > 1.5 * _LEASE
        beat(second, "10.0.0.1", "10.0.0.2", "10.0.0.4")
        for each in (first, second):
            answer = answer_to(each, service, version)
            assert answer.json()["version_info"].partition(":")[0] != version.partition(":")[0]
            assert addresses(answer) == {"10.0.0.1", "10.0.0.2", "10.0.0.4"}
        assert sum("database_restored" in each.log.read_text() for each in (first, second)) == 1
