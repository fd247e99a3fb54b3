"""`registry serve` with TLS: both listeners, rotation, and clients that never finish their handshake."""

import asyncio
import contextlib
import json
import os
import re
import socket
import ssl
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from harness.access import bearer, first_token
from harness.app import turned
from harness.operator import registryctl
from harness.probing import Authority
from harness.process import eventually, free_port, script
from harness.registrar import registrar
from harness.registry import Registry, registry
from harness.storm import storm

ROOT = Path(__file__).parents[2]
REQUEST = b"GET /livez HTTP/1.1\r\nhost: test\r\n\r\n"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A throw-away authority in the test's directory."""
    return Authority(tmp_path)


@contextlib.contextmanager
def tls_registry(database: str, authority: Authority, **settings: Any) -> Iterator[tuple[Registry, httpx.Client]]:
    """Run a registry with TLS, and give a client of its plain listener."""
    pair, plain = authority.issue("127.0.0.1"), f"127.0.0.1:{free_port()}"
    settings |= {"tls_cert_file": pair, "plain_listen": plain, "tls": ssl.create_default_context(cafile=authority.ca)}
    with (
        registry(database, pair.parent, **settings) as found,
        httpx.Client(base_url=f"http://{plain}", trust_env=False, timeout=10) as client,
    ):
        yield found, client


def serial(found: Registry, authority: Authority) -> str:
    """Return the serial number of the certificate that a new connection gets."""
    context = ssl.create_default_context(cafile=authority.ca)
    # Without a name to ask for: many clients send none.
    context.check_hostname = False
    with (
        socket.create_connection(("127.0.0.1", found.port), 5) as plain,
        context.wrap_socket(plain) as line,
    ):
        peer = line.getpeercert()
        assert peer is not None
        return str(peer["serialNumber"])


@pytest.mark.parametrize(("workers", "door"), [(1, "fast"), (2, "fast"), (1, "plain")])
def test_both_listeners_answer_alike(
    database: str, authority: Authority, service: str, workers: int, door: str
) -> None:
    """A heartbeat over TLS is seen by a poll in plain HTTP, and the other way round; whatever answers polls."""
    with tls_registry(database, authority, workers=workers, door=door) as (found, plain):
        assert found.register(service, "10.0.0.1:80").status_code == 200
        body = {"node": {"id": "test", "cluster": "tests"}, "resource_names": [service]}
        assert "10.0.0.1" in found.poll(service).text
        eventually(
            lambda: found.poll(service).content == plain.post("/v3/discovery:endpoints", json=body).content, within=5
        )
        assert plain.get("/readyz").text == found.client.get("/readyz").text
        # TLS in plain HTTP and plain HTTP to TLS are refused, and hurt nobody.
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{found.port}/livez", trust_env=False)
        with pytest.raises(httpx.TransportError):
            httpx.get(str(plain.base_url).replace("http:", "https:"), trust_env=False)
        assert found.ready()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_new_pair_is_served_soon(database: str, authority: Authority, workers: int) -> None:
    """By every worker, to clients without SNI too; a bad pair changes nothing, and connections stay."""
    with tls_registry(database, authority, workers=workers) as (found, plain):
        pair = authority.ca.parent / "127.0.0.1.pem"
        first = serial(found, authority)
        authority.issue("127.0.0.1")
        # Each worker says so: eight connections may all meet the same one.
        eventually(lambda: found.log.read_text().count('"tls_files_loaded"') == workers, within=15)
        second = serial(found, authority)
        assert second != first
        good = pair.read_bytes()
        pair.write_bytes(good[: len(good) // 2])
        eventually(
            lambda: 'registry_tls_files_refused{certificate="server"} 1.0' in plain.get("/metrics").text, within=15
        )
        assert {serial(found, authority) for _ in range(8)} == {second}
        # Over the connection of the beginning, which nobody closed.
        assert found.client.get("/livez").status_code == 200
        eventually(lambda: found.log.read_text().count('"tls_files_refused"') == workers, within=5)
        pair.write_bytes(good)
        eventually(
            lambda: 'registry_tls_files_refused{certificate="server"} 0.0' in plain.get("/metrics").text, within=15
        )
        days = [
            float(line.split()[1])
            for line in plain.get("/metrics").text.splitlines()
            if line.startswith("registry_tls_days_until_expiry{")
        ]
        assert days == [pytest.approx(1.0, abs=0.01)]


@pytest.mark.parametrize("door", ["fast", "plain"])
def test_a_certificate_is_an_identity(database: str, authority: Authority, service: str, door: str) -> None:
    """Its name has the grants of its identity, in heartbeats and polls alike; a client without one has none."""
    spiffe, clients = f"spiffe://example.org/{service}", {"tls_client_ca_file": authority.ca, "auth": "on"}
    with tls_registry(database, authority, door=door, **clients) as (found, plain):
        token = bearer(first_token(database))
        grant = {"verbs": ["register", "discover"], "services": [service]}
        body = {"source": "spiffe", "match": spiffe, "kind": "registrar", "grants": [grant]}
        eventually(
            lambda: plain.put(f"/v1/identities/{service}", json=body, headers=token).status_code == 200, within=5
        )
        context = ssl.create_default_context(cafile=authority.ca)
        context.load_cert_chain(authority.issue(spiffe, "shop.internal", file="client.pem"))
        with httpx.Client(base_url=found.url, verify=context, trust_env=False) as client:
            eventually(lambda: client.get("/v1/whoami").json()["principal"] == f"{spiffe} from 127.0.0.1", within=5)
            beat = {"instance_id": "i-1", "incarnation": 1}
            answers = [
                client.put(f"/v1/services/{name}/endpoints/10.0.0.1:80", json=beat).status_code
                for name in (service, service, "another")
            ]
            assert answers == [200, 200, 403]
            poll = {"node": {"id": "test", "cluster": "tests"}, "resource_names": [service]}
            assert "10.0.0.1" in client.post("/v3/discovery:endpoints", json=poll).text
        assert found.client.get("/v1/whoami").json()["kind"] == "anonymous"
        assert found.register(service, "10.0.0.2:80").status_code == 401


def test_a_session_of_an_authority_that_is_gone_is_not_resumed(database: str, authority: Authority) -> None:
    """A client whose authority was taken out of the file cannot come back by the session that it had."""
    gone, clients = Authority(authority.ca.parent / "gone"), authority.ca.parent / "clients.pem"
    clients.write_bytes(gone.ca.read_bytes() + authority.ca.read_bytes())
    context = ssl.create_default_context(cafile=authority.ca)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(gone.issue("spiffe://example.org/shop", file="client.pem"))

    def connect(session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool]:
        with (
            socket.create_connection(("127.0.0.1", found.port), 5) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as line,
        ):
            return line.session, bool(line.session_reused)

    def refused() -> bool:
        try:
            connect(session)
        except (ssl.SSLError, ConnectionError):
            return True
        return False

    with tls_registry(database, authority, tls_client_ca_file=clients) as (found, _):
        session, _ = connect(None)
        assert connect(session)[1]
        clients.write_bytes(authority.ca.read_bytes())
        eventually(refused, within=8)


def test_bad_files_are_an_error_at_the_start(database: str, authority: Authority) -> None:
    """Exit status 2 and one line of it, with several workers as with one."""
    other = authority.issue("other")
    env = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
    env |= {"REGISTRY_DATABASE_URL": database, "REGISTRY_LISTEN": f"127.0.0.1:{free_port()}"}
    env |= {"REGISTRY_TLS_CERT_FILE": str(authority.issue("127.0.0.1")), "REGISTRY_TLS_KEY_FILE": str(other)}
    for workers in ("1", "2"):
        done = subprocess.run(
            [*script("registry"), "serve"],
            env=env | {"REGISTRY_WORKERS": workers},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 2, done.stderr
        # In front of it the log says that access is off.
        *logged, said = done.stderr.splitlines()
        assert said.startswith(f"registry: REGISTRY_TLS_KEY_FILE={other}: its private key does not belong to")
        assert all("access_off" in line for line in logged)


def test_handshakes_that_never_finish_hold_up_nobody(database: str, authority: Authority) -> None:
    """Beside 1,500 clients that say nothing, or something else, 100 others connect as fast as they do alone."""
    with tls_registry(database, authority) as (found, plain):
        context = ssl.create_default_context(cafile=authority.ca)
        asyncio.run(storm(found.port, 20, REQUEST, tls=context))
        with contextlib.ExitStack() as stack:
            for number in range(1_500):
                silent = stack.enter_context(socket.create_connection(("127.0.0.1", found.port), 5))
                if number % 3 == 1:
                    # The beginning of a ClientHello, which never goes on.
                    silent.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
                elif number % 3 == 2:
                    silent.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    silent.sendall(os.urandom(64))
            begun = time.monotonic()
            outcomes = asyncio.run(storm(found.port, 100, REQUEST, spread=1.0, tls=context))
            took = time.monotonic() - begun
            assert outcomes == {"answered": 100}
            assert plain.get("/livez").elapsed.total_seconds() < 1
        assert took < 5
        failed = [line for line in plain.get("/metrics").text.splitlines() if line.startswith("registry_connections_f")]
        assert float(failed[-1].split()[-1]) >= 500


def test_a_registrar_renews_through_a_change_of_authorities(database: str, tmp_path: Path, service: str) -> None:
    """Its authorities, its own certificate and the registry's are all replaced, and its lease never ends."""
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    pair, ca = tmp_path / "server.pem", tmp_path / "ca.pem"
    client, client_ca = tmp_path / "client.pem", tmp_path / "clients.pem"
    pair.write_bytes(old.issue("127.0.0.1").read_bytes())
    client.write_bytes(old.issue("spiffe://example.org/shop", file="client.pem").read_bytes())
    both = old.ca.read_bytes() + new.ca.read_bytes()
    ca.write_bytes(old.ca.read_bytes())
    client_ca.write_bytes(old.ca.read_bytes())
    plain, tls = f"127.0.0.1:{free_port()}", ssl.create_default_context(cafile=old.ca)
    files: dict[str, Any] = {"registry_ca_file": str(ca), "registry_cert_file": str(client), "admin_listen": "off"}
    with (
        registry(
            database,
            tmp_path,
            tls=tls,
            tls_cert_file=pair,
            tls_client_ca_file=client_ca,
            plain_listen=plain,
            lease_ttl="2s",
            connection_age="1s",
            endpoint_networks="127.0.0.0/8",
        ) as found,
        httpx.Client(base_url=f"http://{plain}", trust_env=False, timeout=10) as asking,
        turned() as app,
        registrar(tmp_path, found.url, service, app.endpoint, **files) as beating,
    ):
        path = f"/v1/services/{service}/endpoints/{app.endpoint}"
        eventually(lambda: asking.get(path).status_code == 200, within=15, said=beating.log.read_text)
        for file, content in (
            (ca, both),
            (client_ca, both),
            (client, new.issue("spiffe://example.org/shop", file="client.pem").read_bytes()),
            (pair, new.issue("127.0.0.1").read_bytes()),
            (ca, new.ca.read_bytes()),
            (client_ca, new.ca.read_bytes()),
        ):
            file.write_bytes(content)
            time.sleep(1.3)
            assert asking.get(path).json()["status"] == "HEALTHY"
        assert not beating.said("registry_away")
        assert asking.get("/v1/events", params={"service": service, "kind": "lapsed"}).json()["events"] == []


def test_the_operator_names_authorities_and_a_certificate(database: str, authority: Authority) -> None:
    """`registryctl` believes those of its settings alone, and says which file is wrong."""
    with tls_registry(database, authority) as (found, _):
        refused = registryctl(found.url, "services")
        assert refused.status != 0
        assert "CERTIFICATE_VERIFY_FAILED" in refused.err
        mine = str(authority.issue("spiffe://example.org/ann", file="ann.pem"))
        trusting = {"REGISTRYCTL_CA_FILE": str(authority.ca), "REGISTRYCTL_CERT_FILE": mine}
        assert registryctl(found.url, "services", **trusting).status == 0
        categories = registryctl(found.url, "check", "-o", "json", **trusting).json["categories"]
        findings = {finding["id"]: finding for category in categories for finding in category["checks"]}
        certificate = findings["tls-certificate"]
        assert certificate["result"] == "warning"
        assert "expires in 23h" in certificate["said"][0]
        missing = registryctl(found.url, "services", REGISTRYCTL_CA_FILE="/no/such.pem")
        assert (missing.status, missing.err.count("\n")) == (2, 1)
        assert "REGISTRYCTL_CA_FILE=/no/such.pem: it cannot be read: No such file" in missing.err
        keyless = registryctl(found.url, "services", REGISTRYCTL_KEY_FILE=mine)
        assert "REGISTRYCTL_KEY_FILE needs REGISTRYCTL_CERT_FILE" in keyless.err


@pytest.mark.slow
def test_a_worker_that_dies_beside_a_bad_pair_comes_back_with_a_good_one(database: str, authority: Authority) -> None:
    """The others go on with the pair that they have, and the log says why one is missing."""
    with tls_registry(database, authority, workers=2) as (found, plain):
        pair = authority.ca.parent / "127.0.0.1.pem"
        before, good = serial(found, authority), pair.read_bytes()
        workers = eventually_two(found)
        pair.write_text("half of")
        workers[0].kill()
        eventually(lambda: '"worker_not_started"' in found.log.read_text(), within=20)
        assert serial(found, authority) == before
        assert plain.get("/livez").status_code == 200
        pair.write_bytes(good)
        eventually_two(found)
        assert "it holds no certificate in PEM" in found.log.read_text()


def eventually_two(found: Registry) -> list[psutil.Process]:
    """Wait for two workers that serve, and return them."""

    def serves(child: psutil.Process) -> bool:
        # A worker that cannot start ends while it is looked at.
        with contextlib.suppress(psutil.NoSuchProcess):
            return any(connection.status == psutil.CONN_LISTEN for connection in child.net_connections("tcp"))
        return False

    def serving() -> list[psutil.Process]:
        return [child for child in psutil.Process(found.process.pid).children(recursive=True) if serves(child)]

    eventually(lambda: len(serving()) == 2, within=20)
    return serving()


def health_check() -> list[str]:
    """Return the command of the registry image's health check, run by this Python."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", "")
    (command,) = re.findall(r"^HEALTHCHECK .*? CMD (\[\"python\".*\])$", text, re.MULTILINE)
    _, *words = json.loads(command)
    return [sys.executable, *words]


@pytest.mark.parametrize("listeners", ["plain", "TLS", "both"])
def test_the_image_finds_its_registry_healthy(database: str, authority: Authority, listeners: str) -> None:
    """Whatever it listens on; a process that is gone is not healthy."""
    port, env = free_port(), dict(os.environ)
    settings: dict[str, Any] = {"listen": f"127.0.0.1:{port}"}
    if listeners != "plain":
        settings["tls_cert_file"] = authority.issue("127.0.0.1")
    if listeners == "both":
        settings["plain_listen"] = f"127.0.0.1:{free_port()}"
    env |= {f"REGISTRY_{name.upper()}": str(value) for name, value in settings.items()}
    tls = None if listeners == "plain" else ssl.create_default_context(cafile=authority.ca)
    with registry(database, authority.ca.parent, tls=tls, **settings):
        subprocess.run(health_check(), env=env, check=True, timeout=20)
    assert subprocess.run(health_check(), env=env, capture_output=True, check=False, timeout=20).returncode == 1


UNFIT = """
import uvicorn

started = uvicorn.Server.startup


async def startup(self, sockets=None):
    if not sockets:
        raise ValueError("this uvicorn listens itself")
    await started(self, sockets)


uvicorn.Server.startup = startup

if __name__ == "__main__":
    from registry.cli import main

    main()
"""


def test_libuv_serves_both_listeners_and_the_newest_pair(database: str, authority: Authority) -> None:
    """Where the acceptor does not fit the installed uvicorn, its one context still follows the files."""
    program = authority.ca.parent / "unfit.py"
    program.write_text(UNFIT)
    with tls_registry(database, authority, program=[sys.executable, str(program)]) as (found, plain):
        assert "acceptor_unfit" in found.log.read_text()
        assert plain.get("/livez").status_code == 200
        first = serial(found, authority)
        authority.issue("127.0.0.1")
        eventually(lambda: serial(found, authority) != first, within=8)
        assert found.ready()
