"""TLS of the http check: authorities, server names, client certificates, and what a mismatch says."""

import asyncio
import ssl
from pathlib import Path

import pytest
from harness.fake_app import FakeApp
from harness.probing import Authority, probe

from registrar.checks.check import CheckTarget
from registrar.checks.http import HttpOptions
from registrar.checks.result import Outcome
from registrar.checks.tls import TlsOptions


async def test_tls_with_a_private_authority(authority: Authority) -> None:
    """The certificate's address is verified against the configured authority."""
    async with FakeApp(context=authority.server("127.0.0.1")) as app:
        result = await probe(HttpOptions(path="/", tls=TlsOptions(ca_file=str(authority.ca))), app.port)
        assert (result.outcome, result.detail) == (Outcome.PASSED, "200 OK")


async def test_tls_names_the_server(authority: Authority) -> None:
    """server_name is what the certificate has to carry, and what Host says."""
    async with FakeApp(context=authority.server("shop.internal")) as app:
        tls = TlsOptions(ca_file=str(authority.ca), server_name="shop.internal")
        assert (await probe(HttpOptions(path="/", tls=tls), app.port)).outcome is Outcome.PASSED
        assert "\r\nhost: shop.internal\r\n" in app.requests[0]
        other = await probe(HttpOptions(path="/", tls=TlsOptions(ca_file=str(authority.ca))), app.port)
    assert other.outcome is Outcome.FAILED
    assert "certificate" in other.detail


async def test_an_unknown_authority_fails_unless_nothing_is_verified(authority: Authority) -> None:
    """A self-signed app needs verify: false, and the detail says what is wrong without it."""
    async with FakeApp(context=authority.server("127.0.0.1")) as app:
        refused = await probe(HttpOptions(path="/", tls=TlsOptions()), app.port)
        taken = await probe(HttpOptions(path="/", tls=TlsOptions(verify=False)), app.port)
    assert (refused.outcome, "CERTIFICATE_VERIFY_FAILED" in refused.detail) == (Outcome.FAILED, True)
    assert taken.outcome is Outcome.PASSED


async def test_an_app_may_ask_for_a_certificate(authority: Authority) -> None:
    """cert_file is shown to it; without one the check fails."""
    context = authority.server("127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.ca)
    client = str(authority.issue("registrar"))
    async with FakeApp(context=context) as app:
        shown = TlsOptions(ca_file=str(authority.ca), cert_file=client)
        assert (await probe(HttpOptions(path="/", tls=shown), app.port)).outcome is Outcome.PASSED
        silent = TlsOptions(ca_file=str(authority.ca))
        assert (await probe(HttpOptions(path="/", tls=silent), app.port)).outcome is Outcome.FAILED


async def test_a_missing_file_fails_with_its_name_and_is_read_once_it_is_there(
    authority: Authority, tmp_path: Path
) -> None:
    """Certificates that are rotated, or come late, need no restart of the registrar."""
    file = tmp_path / "ca.pem"
    options = HttpOptions(path="/", tls=TlsOptions(ca_file=str(file)))
    async with FakeApp(context=authority.server("127.0.0.1")) as app:
        check = options.check(CheckTarget("127.0.0.1", app.port))
        with pytest.raises(FileNotFoundError):
            await check.probe()
        missing = await probe(options, app.port)
        file.write_bytes(authority.ca.read_bytes())
        assert (await check.probe()).outcome is Outcome.PASSED
    assert (missing.outcome, missing.detail) == (Outcome.FAILED, f"{file}: No such file or directory")


async def test_plain_http_on_a_tls_port_and_the_other_way_round(authority: Authority) -> None:
    """Both are failures that say what to set."""
    async with FakeApp(context=authority.server("127.0.0.1")) as encrypted:
        plain = await probe(HttpOptions(path="/"), encrypted.port)

    async def complain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer as servers answer what they take for a malformed request."""
        await reader.read(65536)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(complain, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        reverse = await probe(HttpOptions(path="/", tls=TlsOptions(verify=False)), port)
    assert {plain.outcome, reverse.outcome} == {Outcome.FAILED}
    assert plain.detail == "the server hung up without an answer; set tls if it speaks TLS"
    assert reverse.detail == "the server speaks no TLS: leave tls out, or ask the port that speaks TLS"


async def test_a_unix_socket_may_speak_tls(tmp_path: Path, authority: Authority) -> None:
    """Its name is localhost, unless the options name another."""
    path = str(tmp_path / "app.sock")
    async with FakeApp(unix=path, context=authority.server("localhost")):
        tls = TlsOptions(ca_file=str(authority.ca))
        assert (await probe(HttpOptions(path="/", unix=path, tls=tls))).outcome is Outcome.PASSED


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_server_that_wants_a_client_certificate_is_named(authority: Authority, version: ssl.TLSVersion) -> None:
    """It refuses after the handshake in TLS 1.3, and within it before; the fix is the same."""
    context = authority.server("127.0.0.1")
    context.minimum_version = context.maximum_version = version
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.ca)
    async with FakeApp(context=context) as app:
        result = await probe(HttpOptions(path="/", tls=TlsOptions(ca_file=str(authority.ca))), app.port)
    assert result.outcome is Outcome.FAILED
    assert "as one does that wants a client certificate (tls.cert_file)" in result.detail
