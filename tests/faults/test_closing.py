"""A loaded system goes from open to closed, a registry at a time, as docs/security.md says, and nobody notices."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness.access import bearer, first_token, new_token
from harness.envoy import Envoy, TokenDirectory, recommended_envoy
from harness.fleet import fleet
from harness.process import end, eventually, free_port
from harness.registrar import Registrar, registrar
from harness.registry import Registry, registry
from harness.watch import load

from meshconfig.recommended_bootstrap import registries

pytestmark = pytest.mark.proof

UNKNOWN = "hct_aaaaaaaaaaaaaaaa_" + "A" * 43
"""The token of registrars before they have one: no registry knows it."""
OLD = "127.0.0.2"
"""The address of the clients that know no credentials."""


class DropIn:
    """A client of the registries that ours replaces: it registers and reads, without a credential, as fast as it can.

    As behind a load balancer, a request goes to the next registry where the connection is refused.
    """

    def __init__(self, ports: list[int]) -> None:
        self.sent = 0
        self.failures: list[str] = []
        self._clients = [
            httpx.Client(base_url=f"http://127.0.0.1:{port}", transport=httpx.HTTPTransport(local_address=OLD))
            for port in ports
        ]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="drop-in", daemon=True)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Send requests for the length of the block."""
        self._thread.start()
        try:
            yield
        finally:
            self._over.set()
            self._thread.join(10)
            for client in self._clients:
                client.close()

    def _run(self) -> None:
        tags = {"az": "a", "region": "r", "instance_id": "i-old", "canary": False}
        body = json.dumps({"ip": "10.0.7.1", "port": 80, "revision": "r1", "tags": tags})
        while not self._over.wait(0.02):
            self._send("POST", content=body)
            self._send("GET")

    def _send(self, method: str, **fields: Any) -> None:
        self.sent += 1
        reasons = []
        for client in self._clients:
            try:
                answer = client.request(method, "/v1/registration/old", **fields)
            except httpx.TransportError as error:
                # A registry that stops closes connections; the load balancer sends the request to the other one.
                reasons.append(repr(error))
                continue
            if answer.is_success:
                return
            reasons.append(f"{answer.status_code} {answer.text}")
        self.failures.append(f"{method}: {reasons}")


class System:
    """Two registries, three apps with registrars that have token files, an Envoy, and a client without credentials."""

    def __init__(self, stack: ExitStack, database: str, workplace: Path, directory: Path, service: str) -> None:
        self.service = service
        self.database = database
        self.ports = [free_port(), free_port()]
        self.registries: list[Registry] = []
        self.registrars: list[Registrar] = []
        self.token_files = [directory / f"token-{number}" for number in range(3)]
        self._stack = stack
        self._workplace = workplace
        self._directory = directory

    def start(self) -> Envoy:
        """Start everything, open, and return the Envoy."""
        self.registries = [self._start(port, "off") for port in self.ports]
        urls = ",".join(f"http://127.0.0.1:{port}" for port in self.ports)
        endpoints = self._stack.enter_context(fleet(self._workplace, 3))
        for endpoint, path in zip(endpoints, self.token_files, strict=True):
            path.write_text(UNKNOWN)
            started = registrar(
                self._workplace,
                urls,
                self.service,
                endpoint,
                token_file=str(path),
                on_sigterm="drain",
                stop_timeout="10s",
            )
            self.registrars.append(self._stack.enter_context(started))
        tokens = TokenDirectory(self._directory / "envoy-token")
        client = registries(*(f"127.0.0.1:{port}" for port in self.ports), token_directory=str(tokens.path))
        self.envoy_token = tokens
        envoy = self._stack.enter_context(recommended_envoy(self._directory, client, self.service))
        eventually(lambda: list(envoy.hosts(self.service).values()) == ["HEALTHY"] * 3, within=20)
        return envoy

    def restart(self, mode: str) -> None:
        """Restart the registries one after the other in this mode; each is ready before the next one is stopped."""
        for number, port in enumerate(self.ports):
            end(self.registries[number].process)
            self.registries[number] = self._start(port, mode)

    def _start(self, port: int, mode: str) -> Registry:
        data = str(self._directory / f"data-{port}")
        options = {"lease_ttl": "6s", "removal_delay": "2s", "data_dir": data, "listen": f"127.0.0.1:{port}"}
        return self._stack.enter_context(registry(self.database, self._workplace, auth=mode, **options))

    def refusals(self, decision: str, admin: str) -> float:
        """Return how many requests were refused, or would be, at both registries since their start."""
        lines = [
            line
            for served in self.registries
            for line in served.client.get("/metrics", headers=bearer(admin)).text.splitlines()
            if line.startswith("registry_access_refusals_total") and f'"{decision}"' in line
        ]
        return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_a_loaded_system_is_closed_without_a_failed_request(
    database: str, server: Any, workplace: Path, tmp_path: Path, service: str
) -> None:
    """off, audit, on: tokens for registrars and Envoys, a network for old clients; then rotation and revocation."""
    with ExitStack() as stack:
        system = System(stack, database, workplace, tmp_path, service)
        envoy = system.start()
        changes = envoy.counter(service, "membership_change")
        old = DropIn(system.ports)
        with load(envoy.listener) as traffic, old.running():
            admin = first_token(database)
            system.restart("audit")
            # What `on` would refuse is counted: everybody comes without a credential that is good for it.
            eventually(lambda: system.refusals("would_refuse", admin) > 0, within=10)
            first = system.registries[0]
            grant = {"verbs": ["register"], "services": [service]}
            made = [new_token(first, admin, path.name, grant) for path in system.token_files]
            for path, token in zip(system.token_files, made, strict=True):
                replace_token(path, token["token"])
            envoys = new_token(first, admin, "envoy", {"verbs": ["discover"], "services": [service]})
            system.envoy_token.write(envoys["token"])
            identity = {
                "source": "network",
                "match": f"{OLD}/32",
                "grants": [{"verbs": ["register", "discover"], "services": ["old"], "addresses": ["10.0.0.0/8"]}],
            }
            put = first.client.put("/v1/identities/old-clients", json=identity, headers=bearer(admin))
            assert put.status_code == 200, put.text
            expected = [f"token:{path.name}" for path in system.token_files]
            eventually(lambda: owners(server, database, service) == expected, within=20)
            eventually(lambda: owners(server, database, "old") == ["identity:old-clients"], within=20)
            calm(system, admin)
            system.restart("on")
            time.sleep(3)
            rotate(system, admin, made[0])
            time.sleep(4)
        assert traffic.failed == 0, traffic.failures()[:5]
        assert traffic.sent > 1_000
        assert old.failures == []
        assert old.sent > 500
        assert system.refusals("refused", admin) == 0
        assert envoy.counter(service, "membership_change") == changes
        assert envoy.counter(service, "update_rejected") == 0
        for decision, status in (("", 401), (made[1]["token"], 403)):
            headers = bearer(decision) if decision else {}
            assert system.registries[0].client.get("/v1/services", headers=headers).status_code == status
        leave(system, envoy, admin, made)


def replace_token(path: Path, text: str) -> None:
    """Write a token as people are told to: aside, and then renamed."""
    aside = path.with_suffix(".new")
    aside.write_text(text)
    aside.rename(path)


def owners(server: Any, database: str, service: str) -> list[str]:
    """Return the owners of the endpoints of a service."""
    rows = server.execute(
        "SELECT owner FROM endpoints WHERE service = $1 AND removed_at IS NULL", service, url=database
    )
    return sorted(row["owner"] for row in rows)


def calm(system: System, admin: str) -> None:
    """Wait until nothing would be refused for some seconds, as an operator waits for a day."""

    def still() -> bool:
        before = system.refusals("would_refuse", admin)
        time.sleep(4)
        return system.refusals("would_refuse", admin) == before

    eventually(still, within=30)


def rotate(system: System, admin: str, token: dict[str, Any]) -> None:
    """Rotate the token of a registrar, whose old one ends soon after; it goes on with the new one."""
    url = f"/v1/tokens/{token['id']}/rotate"
    answer = system.registries[0].client.post(url, json={"overlap": 4}, headers=bearer(admin))
    assert answer.status_code == 201, answer.text
    replace_token(system.token_files[0], answer.json()["token"])
    token |= answer.json()


def leave(system: System, envoy: Envoy, admin: str, made: list[dict[str, Any]]) -> None:
    """Drain with a token that was rotated, and with one that was revoked: that one leaves when its lease ends."""
    hosts = partial(envoy.hosts, system.service)
    first, second, _ = system.registrars
    first.process.terminate()
    eventually(lambda: len(hosts()) == 2, within=15)
    assert first.process.wait(30) == 0
    revoked = system.registries[0].client.delete(f"/v1/tokens/{made[1]['id']}", headers=bearer(admin))
    assert revoked.status_code == 204
    second.process.terminate()
    second.process.wait(60)
    assert "was revoked" in second.log.read_text()
    eventually(lambda: len(hosts()) == 1, within=30)
