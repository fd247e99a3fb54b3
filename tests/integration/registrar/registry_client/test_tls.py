"""TLS to the registry: its authorities, the registrar's own certificate, and files that change."""

import asyncio
import ssl
from pathlib import Path
from typing import Any, Self

import pytest
from harness.probing import Authority

from registrar.config.settings import Settings
from registrar.errors import ConfigurationError
from registrar.lifecycle.serve import _registry_tls
from registrar.registry_client.http_client import ConnectError, HttpClient, Origin
from registrar.registry_client.registries import RegistryUrls
from registrar.registry_client.tls import RegistryTls
from wire.http1 import Request

GET = Request("GET", "/", {"host": "registry"})


class Server:
    """Answers every request, and notes the names of each connection's client."""

    def __init__(self, pair: Path, client_ca: Path | None = None) -> None:
        self.clients: list[str] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        # The client learns then at once that it was refused, and not with its first read.
        self._context.maximum_version = ssl.TLSVersion.TLSv1_2
        self._context.load_cert_chain(pair)
        if client_ca is not None:
            self._context.verify_mode = ssl.CERT_REQUIRED
            self._context.load_verify_locations(client_ca)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.origin = Origin("127.0.0.1", self._server.sockets[0].getsockname()[1], "127.0.0.1")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer: dict[str, Any] = writer.get_extra_info("peercert") or {}
        self.clients.append(",".join(name for _, name in peer.get("subjectAltName", ())))
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()


async def test_the_authorities_of_the_settings_are_believed(tmp_path: Path) -> None:
    """And no other one, also where the system's would do."""
    authority, other = Authority(tmp_path / "one"), Authority(tmp_path / "two")
    async with Server(authority.issue("127.0.0.1")) as server:
        async with HttpClient(RegistryTls(str(authority.ca)), 2.0) as http:
            assert (await http.request(server.origin, GET)).body == b"ok"
        async with HttpClient(RegistryTls(str(other.ca)), 2.0) as http:
            with pytest.raises(ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await http.request(server.origin, GET)


async def test_a_change_of_authorities_is_followed_by_the_next_request(tmp_path: Path) -> None:
    """From one to both to the other: no request fails while the registry changes its certificate in between."""
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new")
    ca = tmp_path / "ca.pem"
    ca.write_bytes(old.ca.read_bytes())
    async with (
        Server(old.issue("127.0.0.1")) as before,
        Server(new.issue("127.0.0.1")) as after,
        HttpClient(RegistryTls(str(ca)), 2.0) as http,
    ):
        await http.request(before.origin, GET)
        await http.request(before.origin, GET)
        assert len(before.clients) == 1
        ca.write_bytes(old.ca.read_bytes() + new.ca.read_bytes())
        await http.request(before.origin, GET)
        await http.request(after.origin, GET)
        # The connection of before the change is not used any more.
        assert len(before.clients) == 2
        ca.write_bytes(new.ca.read_bytes())
        await http.request(after.origin, GET)
        with pytest.raises(ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await http.request(before.origin, GET)


async def test_a_rotated_certificate_is_shown_by_the_next_request(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half a file, or none, leaves the certificate before it in use, and is logged once."""
    authority = Authority(tmp_path)
    pair = authority.issue("spiffe://example.org/one", file="client.pem")
    async with (
        Server(authority.issue("127.0.0.1"), authority.ca) as server,
        HttpClient(RegistryTls(str(authority.ca), str(pair)), 2.0) as http,
    ):
        await http.request(server.origin, GET)
        good = pair.read_bytes()
        pair.write_bytes(good[:100])
        await http.request(server.origin, GET)
        await http.request(server.origin, GET)
        assert server.clients == ["spiffe://example.org/one"]
        pair.unlink()
        await http.request(server.origin, GET)
        authority.issue("spiffe://example.org/two", file="client.pem")
        await http.request(server.origin, GET)
        assert server.clients == ["spiffe://example.org/one", "spiffe://example.org/two"]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("registry_ca_file", None, "REGISTRAR_REGISTRY_CA_FILE={path}: it cannot be read: No such file or directory"),
        ("registry_ca_file", "", "REGISTRAR_REGISTRY_CA_FILE={path}: it holds no certificate in PEM that can be used"),
        ("registry_cert_file", "", "REGISTRAR_REGISTRY_CERT_FILE={path}: it holds no certificate in PEM"),
        ("registry_key_file", "", "REGISTRAR_REGISTRY_KEY_FILE={path}: it holds no private key in PEM"),
    ],
)
def test_a_bad_file_is_named_at_the_start(name: str, text: str | None, reason: str, tmp_path: Path) -> None:
    """With its variable; it does not matter where all registries are asked in plain HTTP, as before a move."""
    authority = Authority(tmp_path)
    path = tmp_path / "file.pem"
    if text is not None:
        path.write_text(text)
    files: dict[str, Any] = {name: str(path)}
    if name == "registry_key_file":
        files["registry_cert_file"] = str(authority.issue("shop"))
    with pytest.raises(ConfigurationError) as refused:
        _registry_tls(Settings(registry_url=RegistryUrls("https://registry"), **files))
    assert str(refused.value).startswith(reason.format(path=path))
    _registry_tls(Settings(registry_url=RegistryUrls("http://registry"), **files))


def test_a_key_needs_a_certificate() -> None:
    """Else it would have no effect."""
    with pytest.raises(ValueError, match="registry_key_file needs a registry_cert_file"):
        Settings(registry_key_file="/x")
