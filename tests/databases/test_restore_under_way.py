"""Yesterday's dump is restored while registries, registrars and an Envoy live: nobody alive is lost."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from harness.cluster import Cluster, cluster, embedded_versions
from harness.dump import at_database, dump, replace_database
from harness.envoy import Envoy, envoy
from harness.fleet import fleet
from harness.process import eventually
from harness.registrar import Registrar, registrar
from harness.registry import Registry, registry

pytestmark = pytest.mark.databases

_LEASE = 4.0
_OWNER = ("pgserver", "pgserver")
"""The user of the clusters where the tests run as root."""
_OPTIONS = {"lease_ttl": f"{_LEASE:g}s", "removal_delay": "2s", "database_timeout": "5s"}


@pytest.fixture
def server() -> Iterator[Cluster]:
    """A PostgreSQL of the test's own: what names its database may be taken away."""
    with cluster() as started:
        yield started


def has(gateway: Envoy, service: str, *endpoints: str) -> bool:
    """Tell whether Envoy has these endpoints as healthy, and perhaps others."""
    return {endpoint for endpoint, status in gateway.hosts(service).items() if status == "HEALTHY"} >= {*endpoints}


def moved_on(process: Registry, service: str, before: str) -> bool:
    """Tell whether a registry serves a service under another database."""
    answer = process.poll(service)
    # While a process reads the other database it answers 503, and an Envoy keeps what it has.
    return answer.status_code == 200 and answer.json()["version_info"].partition(":")[0] != before.partition(":")[0]


def test_a_dump_of_yesterday_under_living_registrars(server: Cluster, workplace: Path, service: str) -> None:
    """Endpoints that came since the backup stay in Envoy throughout; those that went since leave it again.

    The version that Envoy holds would be given out again, for other content.
    """
    server.execute("CREATE DATABASE live")
    url = at_database(server.url, "live")
    with ExitStack() as stack:
        first, second = (stack.enter_context(registry(url, workplace, **_OPTIONS)) for _ in range(2))
        old, *new = stack.enter_context(fleet(workplace, 4))
        doors = f"{first.url},{second.url}"
        gone: Registrar = stack.enter_context(registrar(workplace, doors, service, old))
        gateway = stack.enter_context(envoy(workplace, [first.port, second.port], [service]))
        eventually(partial(has, gateway, service, old), within=30)
        dump(url, workplace / "yesterday")
        for endpoint in new:
            stack.enter_context(registrar(workplace, doors, service, endpoint))
        eventually(partial(has, gateway, service, *new), within=30)
        gone.kill()
        eventually(lambda: old not in gateway.hosts(service), within=60)
        held = first.poll(service).json()["version_info"]
        replace_database(server, url, workplace / "yesterday")
        ended = time.monotonic() + 120
        while not all(moved_on(process, service, held) for process in (first, second)):
            assert time.monotonic() < ended, first.log.read_text()[-2000:]
            assert has(gateway, service, *new)
        for _ in range(20):
            assert has(gateway, service, *new)
            time.sleep(0.1)
        # The expiry guard takes one of four at a time.
        eventually(lambda: gateway.hosts(service) == dict.fromkeys(new, "HEALTHY"), within=60)
        for process in (first, second):
            assert process.poll(service, version=held).status_code == 200
            assert process.statuses(service) == dict.fromkeys(new, "HEALTHY")
        assert gateway.counter(service, "update_rejected") == 0
        # Streams of events go on: the newest is of after the restore.
        events = first.client.get("/v1/events", params={"service": service}).json()["events"]
        assert events[0]["at"] > events[-1]["at"]
        assert {event["endpoint"] for event in events} == {old, *new}


def run(directory: Path, program: Path, *arguments: str) -> None:
    """Run a program as the user of the clusters."""
    user: dict[str, Any] = {}
    if os.geteuid() == 0:
        user = {"user": _OWNER[0], "group": _OWNER[1], "extra_groups": []}
    done = subprocess.run(
        [program, *arguments], cwd=directory, capture_output=True, text=True, timeout=300, check=False, **user
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def test_pg_upgrade_keeps_everything(workplace: Path, service: str) -> None:
    """From one embedded PostgreSQL to the newest: the registry takes it for restored, and serves what was there."""
    older, *_, newest = embedded_versions().values()
    if os.environ.get("HEADCOUNT_POSTGRESQL") not in (None, str(newest)):
        pytest.skip("it is the same for every version that is tried; the one of the newest does it")
    with cluster(programs=older) as before, cluster(programs=newest) as after:
        before.execute("CREATE DATABASE live")
        with registry(at_database(before.url, "live"), workplace, **_OPTIONS) as process:
            assert process.register(service, "10.0.0.1:80", ttl=600).status_code == 200
            version = process.poll(service).json()["version_info"]
        before.stop()
        after.stop()
        at = after.directory.with_name("upgrade")
        at.mkdir()
        if os.geteuid() == 0:
            shutil.chown(at, *_OWNER)
        # From 18 on a new cluster has checksums, and the two have to agree.
        run(at, older / "pg_checksums", "--enable", f"--pgdata={before.directory}")
        directories = (f"--old-datadir={before.directory}", f"--new-datadir={after.directory}", f"--socketdir={at}")
        binaries = (f"--old-bindir={older}", f"--new-bindir={newest}")
        run(at, newest / "pg_upgrade", *binaries, *directories, "--username=postgres")
        after.start()
        with registry(at_database(after.url, "live"), workplace, **_OPTIONS) as process:
            assert process.statuses(service) == {"10.0.0.1:80": "HEALTHY"}
            assert moved_on(process, service, version)
