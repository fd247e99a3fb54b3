"""`registrar doctor`, as a process: what it says of what is wrong, and how to mend it."""

import asyncio
import os
from pathlib import Path

import pytest
from harness.fake_app import FakeApp
from harness.fake_registry import FakeRegistry
from harness.probing import Authority
from integration.registrar.processes import SOURCES, environment, run_verb

from registrar.diagnostic import Severity
from registrar.registry_client.registry_probe import probe_registry
from registrar.registry_client.tls import RegistryTls

READY = '{"ready":true,"parts":[]}'
"""What a registry answers to /readyz."""


def answer(status: int, *headers: str, body: str = "") -> bytes:
    """Return a whole HTTP answer."""
    head = [f"HTTP/1.1 {status} Said", f"content-length: {len(body)}", "connection: close", *headers]
    return "\r\n".join([*head, "", body]).encode()


async def test_all_is_well(registry: FakeRegistry, app: FakeApp) -> None:
    """With an app that answers and a registry that is ready the exit status is 0, and nothing was registered."""
    async with FakeApp(answer(200, body=READY)) as ready:
        environ = environment(registry, app, REGISTRAR_REGISTRY_URL=f"http://127.0.0.1:{ready.port}")
        status, out, err = await run_verb(environ, "doctor")
    assert (status, err) == (0, ""), out
    assert f"127.0.0.1:{app.port}, which is advertised" in out
    assert "http: passed: 200 OK" in out
    assert "answers, and is ready" in out
    assert out.rstrip().endswith("no problem found")
    assert registry.batches == []


async def test_a_laptop_without_any_of_it(unused_tcp_port: int) -> None:
    """Nothing configured: it says what is missing, how to mend it, and which address would be found."""
    # The one setting, because at its default another test's registrar may answer.
    admin = {"REGISTRAR_ADMIN_LISTEN": f"127.0.0.1:{unused_tcp_port}"}
    status, out, err = await run_verb({"PATH": os.environ["PATH"], "PYTHONPATH": SOURCES, **admin}, "doctor")
    assert (status, err) == (1, "")
    for said in (
        "REGISTRAR_REGISTRY_URL: not set",
        "fix: export REGISTRAR_REGISTRY_URL=http://",
        "fix: export REGISTRAR_SERVICE=shop REGISTRAR_ENDPOINT=:8080",
        "Address of :8080",
        "ecs-metadata: not asked",
        "instance id ",
        f"no registrar answers at 127.0.0.1:{unused_tcp_port}",
        "2 problems found; each FAIL has its fix below it",
    ):
        assert said in out


async def test_a_dead_app_and_a_dead_registry(registry: FakeRegistry, app: FakeApp, unused_tcp_port: int) -> None:
    """Each failure has its reason and a fix; one does not hide the other."""
    environ = environment(
        registry,
        app,
        REGISTRAR_ENDPOINT=f"127.0.0.1:{unused_tcp_port}",
        REGISTRAR_REGISTRY_URL=f"http://127.0.0.1:{unused_tcp_port},http://no-such-host.invalid",
    )
    status, out, _ = await run_verb(environ, "doctor")
    assert status == 1
    assert "http: failed: Connection refused" in out
    assert "no answer: ConnectError" in out
    assert "no-such-host.invalid has no address" in out
    assert out.count("fix: ") >= 3


async def test_a_wrong_path_and_a_wrong_scheme_are_not_taken_for_what_is_away(
    registry: FakeRegistry, app: FakeApp
) -> None:
    """An app that answers 404 runs, a registry that speaks no TLS is reached, and an absent Envoy is named."""
    app.answer = answer(404)

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as plain:
        url = f"https://127.0.0.1:{plain.sockets[0].getsockname()[1]}"
        environ = environment(registry, app, REGISTRAR_REGISTRY_URL=url, REGISTRAR_ENVOY_ADMIN="http://127.0.0.1:1")
        _, out, _ = await run_verb(environ, "doctor")
    assert "fix: the app answers, but not as the check wants: correct REGISTRAR_CHECK_HTTP_PATH" in out
    assert "fix: what listens there speaks no TLS: write http:// in REGISTRAR_REGISTRY_URL" in out
    assert "fix: start Envoy, or set REGISTRAR_ENVOY_ADMIN" in out
    assert "start the" not in out, out


async def test_a_running_registrar_that_is_not_ready_is_a_warning(registry: FakeRegistry, app: FakeApp) -> None:
    """It may be fenced, which only itself knows; its own words are shown."""
    words = b"the registry has not accepted every registration yet\n"
    async with FakeApp(
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: %d\r\n\r\n" % len(words) + words
    ) as running:
        environ = environment(registry, app, REGISTRAR_ADMIN_LISTEN=f"127.0.0.1:{running.port}")
        _, out, _ = await run_verb(environ, "doctor")
    text = (
        f"warn   a registrar answers at 127.0.0.1:{running.port} and is not ready: the registry has not accepted every"
    )
    assert text in out, out


async def test_what_takes_nothing_out_of_rotation_is_no_failure(app: FakeApp, tmp_path: Path) -> None:
    """A check that only degrades is a warning, and a push check has nobody to ask here."""
    file = tmp_path / "services.yaml"
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCES, "REGISTRAR_CONFIG": str(file)}
    said = []
    async with FakeApp(answer(200, body=READY)) as ready:
        environ["REGISTRAR_REGISTRY_URL"] = f"http://127.0.0.1:{ready.port}"
        for on_fail in ("degraded", "unhealthy"):
            checks = f"{{type: push}}, {{type: exec, command: [/no/such], on_fail: {on_fail}}}"
            file.write_text(f"services: [{{service: shop, endpoint: '127.0.0.1:{app.port}', checks: [{checks}]}}]")
            status, out, _ = await run_verb(environ, "doctor")
            said.append((status, out))
    (warned, warning), (failed, failure) = said
    assert (warned, failed) == (0, 1), said
    assert "note   push: not examined" in warning
    assert "warn   exec: failed: /no/such" in warning
    assert "FAIL   exec: failed: /no/such" in failure
    assert "listen on the address" not in failure


async def test_an_address_that_is_refused(registry: FakeRegistry, app: FakeApp) -> None:
    """Loopback by way of an interface is refused, with the settings that help; the rest is examined all the same."""
    status, out, _ = await run_verb(environment(registry, app, REGISTRAR_ENDPOINT="iface:lo:80"), "doctor")
    assert status == 1
    assert "is loopback" in out
    assert "fix: name an address with REGISTRAR_ENDPOINT" in out
    assert "Registry http://127.0.0.1" in out


async def test_a_broken_setting_does_not_end_the_examination(registry: FakeRegistry, app: FakeApp) -> None:
    """The fault is named, and the registry is visited."""
    status, out, _ = await run_verb(environment(registry, app, REGISTRAR_WEIGHT="heavy"), "doctor")
    assert status == 1
    assert "REGISTRAR_WEIGHT: " in out
    assert f"Registry {registry.url}" in out


async def test_another_program_is_no_registry_of_before(registry: FakeRegistry, app: FakeApp) -> None:
    """What listens at the registry's address is said to be no registry once, and its access is not guessed at."""
    for raw in (answer(404, body="<html>"), answer(200, body="<html>"), answer(401)):
        async with FakeApp(raw) as other:
            environ = environment(registry, app, REGISTRAR_REGISTRY_URL=f"http://127.0.0.1:{other.port}")
            status, out, err = await run_verb(environ, "doctor")
        assert (status, err) == (1, ""), out
        assert out.count("this is no registry") == 1
        assert "not examined: no registry answers there" in out
        assert "older version" not in out


async def test_the_files_of_tls(registry: FakeRegistry, app: FakeApp, authority: Authority) -> None:
    """They are tried, the registrar's certificate has an end, and a file that cannot be used is a failure."""
    files = {
        "REGISTRAR_REGISTRY_URL": "https://127.0.0.1:1",
        "REGISTRAR_REGISTRY_CA_FILE": str(authority.ca),
        "REGISTRAR_REGISTRY_CERT_FILE": str(authority.issue("spiffe://example.org/shop", file="doctor.pem")),
    }
    _, out, _ = await run_verb(environment(registry, app, **files), "doctor")
    assert f"REGISTRAR_REGISTRY_CA_FILE={authority.ca}" in out
    assert "ok     the registrar's certificate is valid until 20" in out
    authority.issue("spiffe://example.org/shop", file="doctor.pem", valid_for=-60)
    _, out, _ = await run_verb(environment(registry, app, **files), "doctor")
    assert "FAIL   the registrar's certificate has expired at 20" in out
    missing = files | {"REGISTRAR_REGISTRY_CA_FILE": "/no/such.pem"}
    status, out, _ = await run_verb(environment(registry, app, **missing), "doctor")
    assert status == 1
    assert "FAIL   REGISTRAR_REGISTRY_CA_FILE=/no/such.pem: it cannot be read: No such file or directory" in out
    plain = missing | {"REGISTRAR_REGISTRY_URL": registry.url}
    _, out, _ = await run_verb(environment(registry, app, **plain), "doctor")
    assert "note   REGISTRAR_REGISTRY_CA_FILE=/no/such.pem, REGISTRAR_REGISTRY_CERT_FILE=" in out
    assert "have no effect over http" in out


async def test_a_token_over_plain_http_is_a_warning(registry: FakeRegistry, app: FakeApp) -> None:
    """Unless it stays on this machine."""
    away = environment(
        registry, app, REGISTRAR_REGISTRY_URL=f"http://no.invalid,{registry.url}", REGISTRAR_TOKEN="s3cret"
    )
    _, out, _ = await run_verb(away, "doctor")
    assert out.count("warn   the token is sent unencrypted") == 1
    assert "s3cret" not in out


@pytest.mark.parametrize(
    ("raw", "severity", "text"),
    [
        (answer(200, body=READY), Severity.OK, "is ready"),
        (answer(200), Severity.FAIL, "this is no registry"),
        (answer(200, body="<html>"), Severity.FAIL, "this is no registry"),
        (answer(200, body='{"status":"ok"}'), Severity.FAIL, "this is no registry"),
        (answer(503, body='{"ready": false, "parts": []}'), Severity.WARN, "not ready"),
        (answer(503, body="<html>"), Severity.WARN, "503 without what a registry says"),
        (answer(200, body="[" * 20_000), Severity.FAIL, "this is no registry"),
        (answer(404), Severity.FAIL, "this is no registry"),
        (b"\x16\x03\x01\x00", Severity.FAIL, "no answer"),
    ],
)
async def test_what_a_registry_may_answer(app: FakeApp, raw: bytes, severity: Severity, text: str) -> None:
    """Ready, not ready yet, and something else altogether are different things."""
    app.answer = raw
    diagnostics = await probe_registry(f"http://127.0.0.1:{app.port}", RegistryTls())
    assert [diagnostic.severity for diagnostic in diagnostics if text in diagnostic.text] == [severity]


@pytest.mark.parametrize(
    ("header", "severity", "text"),
    [
        ("x: y", Severity.NOTE, "not compared"),
        ("date: soon", Severity.NOTE, "not compared"),
        ("date: Fri, 20 Nov 2009 08:00:00 GMT", Severity.WARN, "ahead of the registry's"),
        ("date: Fri, 20 Nov 2099 08:00:00 GMT", Severity.WARN, "behind the registry's"),
    ],
)
async def test_clocks_are_compared(app: FakeApp, header: str, severity: Severity, text: str) -> None:
    """By the Date header, if there is one."""
    app.answer = answer(200, header)
    diagnostic = (await probe_registry(f"http://127.0.0.1:{app.port}", RegistryTls()))[-1]
    assert (diagnostic.severity, text in diagnostic.text) == (severity, True)
