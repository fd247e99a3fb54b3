"""What `registrar doctor` says of the Envoy beside."""

import pytest
from harness.fake_app import FakeApp

from registrar.diagnostic import Severity
from registrar.doctor.envoy import examine_envoy
from registrar.envoy_admin.address import EnvoyAdminAddress

_INFO = b'{"version": "x/1.40.0/Clean/RELEASE/BoringSSL", "state": "LIVE", "hot_restart_version": "disabled"}'


@pytest.mark.parametrize(
    ("body", "severity", "words"),
    [
        (_INFO, Severity.OK, "an Envoy answers at"),
        (b"hello", Severity.WARN, "is no Envoy's admin interface"),
        (None, Severity.WARN, "no Envoy answers: Envoy's admin interface at http://127.0.0.1:"),
    ],
)
async def test_an_envoy_another_program_and_nobody(body: bytes | None, severity: Severity, words: str) -> None:
    """Each has its words; where none answers the fix names the setting."""
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body or b"")
    async with FakeApp(head + (body or b"")) as app:
        port = app.port
        if body is not None:
            section = await examine_envoy(EnvoyAdminAddress.parse(f"http://127.0.0.1:{port}"))
    if body is None:
        section = await examine_envoy(EnvoyAdminAddress.parse(f"http://127.0.0.1:{port}"))
    (said,) = section.diagnostics
    assert (said.severity, words in said.text) == (severity, True), said
    assert ("REGISTRAR_ENVOY_ADMIN" in said.fix) is (severity is Severity.WARN)
