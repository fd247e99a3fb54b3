"""Two registries on one PostgreSQL are replaced one after the other by this version, under heartbeats and polls.

The version before is that of `UPGRADE_FROM`, a commit or tag; without it, the newest tag, and before there is one, the
last commit in front of mesh configuration: four migrations lie between that and this.
"""

import contextlib
import io
import itertools
import os
import shutil
import subprocess
import tarfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
from harness.packages import build_wheel
from harness.process import eventually, free_port, running
from harness.registry import Registry

pytestmark = pytest.mark.packages
ROOT = Path(__file__).parents[2]
_FIRST = "e9fc9229"
_ENDPOINTS = [f"10.9.0.{number}:80" for number in range(1, 61)]
_PHASE = 25.0
"""Seconds under load between two steps: longer than a lease, so an endpoint that a step forgets lapses in the next."""
_INTERVAL = 5.0
"""Seconds between two heartbeats of an endpoint, as the registry grants them for a lease of 20 s."""
_ATTEMPT_TIMEOUT = 2.0
"""Seconds for one request before the other registry is asked."""


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], check=False, capture_output=True, timeout=60)
    if done.returncode:
        pytest.skip(
            f"git {' '.join(arguments)}: {done.stderr.decode().strip()}; set UPGRADE_FROM to a commit that is here"
        )
    return done.stdout


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the version before, from its own lock."""
    if shutil.which("uv") is None:
        pytest.skip("no uv here, which makes the environments: pip install uv")
    tags = _git("tag", "--list", "v*", "--sort=-version:refname").decode().split()
    revision = os.environ.get("UPGRADE_FROM") or (tags or [_FIRST])[0]
    source = tmp_path_factory.mktemp("former")
    with tarfile.open(fileobj=io.BytesIO(_git("archive", revision))) as archive:
        archive.extractall(source, filter="data")
    return _environment(tmp_path_factory.mktemp("former-environment"), source, source / "requirements.lock")


@pytest.fixture(scope="module")
def present(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with this version, from the lock of its image and package."""
    lock = ROOT / "deploy" / "images" / "registry.lock"
    return _environment(tmp_path_factory.mktemp("present-environment"), ROOT, lock)


def _environment(home: Path, source: Path, lock: Path) -> Path:
    wheel = build_wheel(home, source)
    install = ["uv", "pip", "install", "--quiet", "--python", str(home / "venv"), "--no-deps", "--compile-bytecode"]
    for command in (
        ["uv", "venv", "--quiet", "--python", "python3", str(home / "venv")],
        [*install, "--require-hashes", "--requirement", str(lock)],
        [*install, str(wheel)],
    ):
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
    return home / "venv" / "bin"


class Load:
    """Heartbeats and polls against both registries, as registrars and Envoys send them: the next one when one is away.

    Attributes:
        renewed: how many heartbeats were acknowledged, for each endpoint; written by the heartbeat threads.
        longest_gap: the seconds between two acknowledged heartbeats of an endpoint, at most.
        fewest: the smallest number of endpoints that a poll was answered with.
        polls: how many polls were answered, with endpoints or, after a hold, with none that are new (304).
        faults: what an answer was that nobody may get, such as a refusal or a poll without endpoints.
        retried: how many requests met a registry that was away, and were sent to the other one.
    """

    def __init__(self, urls: list[str]) -> None:
        self.renewed: Counter[str] = Counter()
        self.longest_gap = 0.0
        self._acknowledged: dict[str, float] = {}
        self.fewest = len(_ENDPOINTS)
        self.polls = 0
        self.faults: list[str] = []
        self.retried = 0
        self._urls = urls
        self._over = threading.Event()
        shares = [_ENDPOINTS[start::6] for start in range(6)]
        self._threads = [threading.Thread(target=self._renew, args=(share,), daemon=True) for share in shares]
        self._threads += [threading.Thread(target=self._poll, args=(number,), daemon=True) for number in range(4)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def _renew(self, endpoints: list[str]) -> None:
        """Send the heartbeats of a few registrars."""
        with httpx.Client(timeout=_ATTEMPT_TIMEOUT, trust_env=False) as client:
            while not self._over.wait(_INTERVAL):
                for endpoint in endpoints:
                    body = {"instance_id": f"i-{endpoint}", "incarnation": 1}
                    answer = self._ask(client, len(endpoint), "PUT", f"/v1/services/shop/endpoints/{endpoint}", body)
                    if answer is not None and answer.status_code == 200:
                        self.renewed[endpoint] += 1
                        now = time.monotonic()
                        self.longest_gap = max(self.longest_gap, now - self._acknowledged.get(endpoint, now))
                        self._acknowledged[endpoint] = now
                    elif answer is not None:
                        self.faults.append(f"heartbeat {answer.status_code}: {answer.text[:200]}")

    def _poll(self, number: int) -> None:
        """Poll as an Envoy does that holds its polls."""
        version = None
        body: dict[str, Any] = {"node": {"id": f"envoy-{number}", "cluster": "web"}, "resource_names": ["shop"]}
        headers = {"x-envoy-expected-rq-timeout-ms": "2000"}
        with httpx.Client(timeout=2 * _ATTEMPT_TIMEOUT, trust_env=False, headers=headers) as client:
            while not self._over.wait(0.1):
                asked = body | ({"version_info": version} if version else {})
                answer = self._ask(client, number, "POST", "/v3/discovery:endpoints", asked)
                if answer is None:
                    continue
                if answer.status_code == 304:
                    self.polls += 1
                    continue
                if answer.status_code != 200:
                    self.faults.append(f"poll {answer.status_code}: {answer.text[:200]}")
                    continue
                document = answer.json()
                version = document["version_info"]
                self.polls += 1
                members = [one for part in document["resources"][0]["endpoints"] for one in part["lb_endpoints"]]
                healthy = [member for member in members if member.get("health_status") == "HEALTHY"]
                self.fewest = min(self.fewest, len(healthy))

    def _ask(self, client: httpx.Client, first: int, method: str, path: str, body: Any) -> httpx.Response | None:
        """Ask one registry, and the other one where the first is away or not ready."""
        order = itertools.islice(itertools.cycle(self._urls), first % 2, first % 2 + 20)
        for url in order:
            with contextlib.suppress(httpx.TransportError):
                answer = client.request(method, url + path, json=body)
                if answer.status_code != 503:
                    return answer
            self.retried += 1
            if self._over.wait(0.1):
                return None
        self.faults.append(f"{method} {path}: neither registry answered twenty requests")
        return None


@contextlib.contextmanager
def _serving(database: str, folder: Path, port: int, environment: Path, **settings: str) -> Iterator[Registry]:
    """Run the registry of an environment; `harness.registry` sets variables that an older one does not know."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
    env |= {"REGISTRY_DATABASE_URL": database, "REGISTRY_LISTEN": f"127.0.0.1:{port}"}
    env |= {"REGISTRY_DATA_DIR": str(folder / f"data-{port}"), **settings}
    log = folder / f"{environment.parent.parent.name}-{port}.log"
    with running([str(environment / "registry"), "serve"], env=env, log=log) as process:
        started = Registry(f"http://127.0.0.1:{port}", process, log)
        with contextlib.closing(started.client):
            eventually(started.ready, within=60, said=lambda: log.read_text()[-2000:])
            yield started


def test_a_rolling_upgrade_loses_nothing(empty_database: str, tmp_path: Path, former: Path, present: Path) -> None:
    """No endpoint lapses or leaves an answer, and no heartbeat or poll is refused, while the versions are mixed."""
    ports = [free_port(), free_port()]
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        before = first.enter_context(_serving(empty_database, tmp_path, ports[0], former))
        second.enter_context(_serving(empty_database, tmp_path, ports[1], former))
        old_schema = before.client.get("/version").json()["schema"]
        for endpoint in _ENDPOINTS:
            assert before.register("shop", endpoint).status_code == 200
        eventually(lambda: len(before.statuses("shop")) == len(_ENDPOINTS))
        with Load([f"http://127.0.0.1:{port}" for port in ports]) as load:
            time.sleep(_PHASE)
            first.close()
            after = first.enter_context(_serving(empty_database, tmp_path, ports[0], present, REGISTRY_PROBES="off"))
            assert after.client.get("/version").json()["schema"] != old_schema
            mixed = sum(load.renewed.values())
            time.sleep(_PHASE)
            second.close()
            last = second.enter_context(_serving(empty_database, tmp_path, ports[1], present, REGISTRY_PROBES="off"))
            upgraded = sum(load.renewed.values())
            time.sleep(_PHASE)
        print(  # noqa: T201  # the figures of a proof
            f"{sum(load.renewed.values())} heartbeats acknowledged, {upgraded - mixed} of them while the versions were "
            f"mixed; {load.polls} polls answered, each with {load.fewest} endpoints at least; {load.retried} requests "
            f"sent again to the other registry; {load.longest_gap:.1f} s between two heartbeats at most"
        )
        events = last.client.get("/v1/events", params={"service": "shop", "limit": 1000}).json()["events"]
        assert [event for event in events if event["kind"] != "registered"] == []
        assert load.faults == []
        assert load.fewest == len(_ENDPOINTS)
        assert min(load.renewed[endpoint] for endpoint in _ENDPOINTS) > _PHASE / _INTERVAL
        assert upgraded > mixed
        assert load.polls > 0
        assert len(events) == len(_ENDPOINTS)
        assert set(last.statuses("shop").values()) == {"HEALTHY"}
