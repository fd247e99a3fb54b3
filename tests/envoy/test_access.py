"""A real Envoy with the recommended bootstrap at a registry with access on, by its own statistics."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from harness.access import bearer, first_token, new_token
from harness.envoy import Envoy, TokenDirectory, recommended_envoy
from harness.operator import registryctl
from harness.postgres import Postgres
from harness.process import eventually, script
from harness.registry import Registry, registry

from meshconfig.recommended_bootstrap import registries
from wire.envoy_token import TOKEN_FILE

pytestmark = pytest.mark.envoy


class Closed:
    """A registry with access on.

    Args:
        served: the process and its client.
        admin: the token of its administrator.
    """

    def __init__(self, served: Registry, admin: str) -> None:
        self.registry = served
        self.admin = admin
        self.client = served.client
        self._writer = new_token(served, admin, "writer", {"verbs": ["register"], "services": ["*"]})["token"]

    def envoy_token(self, *services: str) -> dict[str, str]:
        """Return a new token of an Envoy that may discover these services."""
        grant = {"verbs": ["discover"], "services": list(services)}
        return new_token(self.registry, self.admin, f"envoy-{time.monotonic_ns()}", grant, kind="envoy")

    def register(self, service: str, endpoint: str) -> None:
        """Register an endpoint."""
        body = {"instance_id": f"i-{endpoint}", "incarnation": 1, "ttl": 600}
        url = f"/v1/services/{service}/endpoints/{endpoint}"
        assert self.client.put(url, json=body, headers=bearer(self._writer)).status_code == 200

    def rotate(self, token: dict[str, str], overlap: float) -> dict[str, str]:
        """Return the successor of a token."""
        url = f"/v1/tokens/{token['id']}/rotate"
        answer = self.client.post(url, json={"overlap": overlap}, headers=bearer(self.admin))
        assert answer.status_code == 201, answer.text
        successor: dict[str, str] = answer.json()
        return successor

    def revoke(self, token: dict[str, str]) -> None:
        """Revoke a token."""
        assert self.client.delete(f"/v1/tokens/{token['id']}", headers=bearer(self.admin)).status_code == 204

    def subscriber_states(self, service: str) -> dict[str, str]:
        """Return the states of the subscribers of a service, each with the beginning of its reason."""
        answer = self.client.get(f"/v1/subscribers?service={service}", headers=bearer(self.admin))
        return {each["state"]: each["reason"].partition(":")[0] for each in answer.json()["subscribers"]}

    def check(self, envoy: Envoy) -> str:
        """Return what `registryctl check` says of an Envoy's polls."""
        admin = f"http://127.0.0.1:{envoy.admin}"
        words = ("check", "-o", "json", "--envoy", admin)
        report = registryctl(self.registry.url, *words, REGISTRYCTL_TOKEN=self.admin).json
        checks = {check["id"]: check for category in report["categories"] for check in category["checks"]}
        return " ".join(checks["envoy-polls-succeed"]["said"])

    def is_refused(self, token: dict[str, str], service: str) -> bool:
        """Return whether a poll with the token is refused."""
        body = {"node": {"id": "test"}, "resource_names": [service], "version_info": "other:1"}
        answer = self.client.post("/v3/discovery:endpoints", json=body, headers=bearer(token["token"]))
        return answer.status_code == 401


@pytest.fixture(scope="module")
def closed(server: Postgres, workplace: Path) -> Iterator[Closed]:
    """A registry with access on."""
    database = server.migrated_database()
    with registry(database, workplace, auth="on") as served:
        admin = first_token(database)
        eventually(lambda: served.client.get("/v1/tokens", headers=bearer(admin)).status_code == 200, within=10)
        yield Closed(served, admin)


@pytest.fixture
def token_directory(tmp_path: Path) -> TokenDirectory:
    """A directory with the SDS document, and without a token."""
    return TokenDirectory(tmp_path / "envoy-token")


@contextlib.contextmanager
def polling(closed: Closed, directory: TokenDirectory, service: str) -> Iterator[Envoy]:
    """Run an Envoy that polls the registry with the token of the directory."""
    client = registries(f"127.0.0.1:{closed.registry.port}", token_directory=str(directory.path))
    with recommended_envoy(directory.path.parent, client, service) as envoy:
        yield envoy


def holds(envoy: Envoy, service: str, *endpoints: str) -> bool:
    """Return whether Envoy holds these endpoints and no others."""
    return sorted(envoy.hosts(service)) == sorted(endpoints)


def is_held(envoy: Envoy, service: str, attempts: int) -> bool:
    """Return whether a poll after so many attempts is under way."""
    later = envoy.counter(service, "update_attempt") > attempts
    return later and envoy.total("cluster.registry.upstream_rq_active") == 1


def test_a_token_comes_is_rotated_revoked_and_replaced_and_no_host_is_lost(
    closed: Closed, token_directory: TokenDirectory, service: str
) -> None:
    """Envoy starts without one, fails no poll by a rotation, and keeps its hosts while it is refused."""
    closed.register(service, "10.0.0.1:80")
    first = closed.envoy_token(service)
    with polling(closed, token_directory, service) as envoy:
        assert envoy.hosts(service) == {}
        token_directory.write(first["token"])
        # A refused poll is held for two seconds at most.
        eventually(partial(holds, envoy, service, "10.0.0.1:80"), within=5)

        failures = envoy.counter(service, "update_failure")
        second = closed.rotate(first, overlap=1.0)
        token_directory.write(second["token"])
        eventually(partial(closed.is_refused, first, service), within=6)
        closed.register(service, "10.0.0.2:80")
        eventually(partial(holds, envoy, service, "10.0.0.1:80", "10.0.0.2:80"), within=5)
        assert envoy.counter(service, "update_failure") == failures

        attempts = envoy.counter(service, "update_attempt")
        eventually(partial(is_held, envoy, service, attempts), within=5)
        closed.revoke(second)
        eventually(partial(closed.is_refused, second, service), within=5)
        # Also a poll that was held when the token was revoked brings nothing new.
        closed.register(service, "10.0.0.3:80")
        eventually(lambda: envoy.counter(service, "update_failure") >= failures + 2, within=10)
        assert holds(envoy, service, "10.0.0.1:80", "10.0.0.2:80")
        assert closed.subscriber_states(service) == {"stuck": "its polls are refused (401)"}

        token_directory.write(closed.envoy_token(service)["token"])
        eventually(partial(holds, envoy, service, *(f"10.0.0.{number}:80" for number in (1, 2, 3))), within=5)
        assert envoy.counter(service, "membership_change") == 3
        assert envoy.counter(service, "update_rejected") == 0


def test_an_envoy_that_may_not_see_a_name_starts_at_once_and_is_held(
    closed: Closed, token_directory: TokenDirectory, service: str
) -> None:
    """It is LIVE by its first poll, without hosts; later polls are refused once a second; a grant is noticed soon."""
    closed.register(service, "10.0.0.1:80")
    token_directory.write(closed.envoy_token("another-service")["token"])
    begun = time.monotonic()
    with polling(closed, token_directory, service) as envoy:
        assert time.monotonic() - begun < 4.0  # initial_fetch_timeout is 5 s
        assert envoy.counter(service, "update_empty") == 1
        failures = envoy.counter(service, "update_failure")
        time.sleep(3.3)
        refused = envoy.counter(service, "update_failure") - failures
        assert 1 <= refused <= 3
        assert envoy.hosts(service) == {}
        assert closed.subscriber_states(service) == {"stuck": "its polls are refused (403)"}
        assert "refuses them (403): the grants of its token" in closed.check(envoy)
        token_directory.write(closed.envoy_token(service)["token"])
        eventually(partial(holds, envoy, service, "10.0.0.1:80"), within=5)
        assert list(closed.subscriber_states(service)) == ["current"]


def test_the_step_before_envoy_lets_it_start_with_its_hosts(closed: Closed, tmp_path: Path, service: str) -> None:
    """`registrar login` writes SDS document and token into an empty directory; Envoy is LIVE by its first poll."""
    closed.register(service, "10.0.0.1:80")
    (tmp_path / "source").write_text(closed.envoy_token(service)["token"])
    directory = tmp_path / "envoy-token"
    directory.mkdir()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRAR_")}
    variables = {
        "REGISTRAR_REGISTRY_URL": closed.registry.url,
        "REGISTRAR_SERVICE": "web",
        "REGISTRAR_ENDPOINT": "127.0.0.1:8000",
        "REGISTRAR_INSTANCE_ID": "task-1",
        "REGISTRAR_ENVOY_TOKEN_SOURCE": str(tmp_path / "source"),
        "REGISTRAR_ENVOY_TOKEN_FILE": str(directory / TOKEN_FILE),
    }
    subprocess.run([*script("registrar"), "login"], env=inherited | variables, check=True, timeout=30)
    client = registries(f"127.0.0.1:{closed.registry.port}", token_directory=str(directory))
    with recommended_envoy(tmp_path, client, service) as envoy:
        assert holds(envoy, service, "10.0.0.1:80")
        assert envoy.counter(service, "update_failure") == 0
