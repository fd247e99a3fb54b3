"""The files of the server's certificate: what is said of bad ones, and what a change of them does."""

import os
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from harness.probing import Authority

from registry.background.server_tls import ServerTls
from registry.errors import BadSettingsError
from registry.settings import Settings

DAY = 86_400.0


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A throw-away authority in the test's directory."""
    return Authority(tmp_path)


def settings(cert: Path, **others: Path | str) -> Settings:
    """Return settings that name these files."""
    return Settings(tls_cert_file=cert, **others)  # type: ignore[arg-type]


def made(given: Settings) -> ServerTls:
    """Return the TLS of the HTTP listener."""
    tls = ServerTls.of_http(given)
    assert tls is not None
    return tls


def served(tls: ServerTls, ca: Path) -> bytes | None:
    """Return the certificate that a client gets, by a handshake in memory."""
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.create_default_context(cafile=ca).wrap_bio(theirs, ours, server_hostname="127.0.0.1")
    server = tls.context.wrap_bio(ours, theirs, server_side=True)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return client.getpeercert(binary_form=True)


def problem_of(tls: ServerTls) -> str | None:
    """Return why the files are not in use."""
    return tls.state.problem


def own(pem: Path) -> bytes:
    """Return the certificate of a file that has a key before it."""
    text = pem.read_text()
    return ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN CERTIFICATE") :])


def _encrypted(authority: Authority, folder: Path) -> Settings:
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"word"),
    )
    (folder / "locked.key").write_bytes(key)
    return settings(authority.issue("127.0.0.1"), tls_key_file=folder / "locked.key")


def _written(folder: Path, content: str) -> Path:
    path = folder / "written.pem"
    path.write_text(content)
    return path


BAD: dict[str, tuple[Callable[[Authority, Path], Settings], str]] = {
    "missing": (
        lambda _, folder: settings(folder / "none.pem"),
        "REGISTRY_TLS_CERT_FILE={folder}/none.pem: it cannot be read: No such file or directory",
    ),
    "directory": (
        lambda _, folder: settings(folder),
        "REGISTRY_TLS_CERT_FILE={folder}: it cannot be read: Is a directory",
    ),
    "empty": (
        lambda _, folder: settings(_written(folder, "")),
        "REGISTRY_TLS_CERT_FILE={folder}/written.pem: it holds no certificate in PEM",
    ),
    "no key": (
        lambda authority, folder: settings(authority.ca),
        "REGISTRY_TLS_CERT_FILE={folder}/ca.pem: it holds no private key in PEM (BEGIN PRIVATE KEY); name the file of",
    ),
    "key missing": (
        lambda authority, folder: settings(authority.ca, tls_key_file=folder / "none.key"),
        "REGISTRY_TLS_KEY_FILE={folder}/none.key: it cannot be read: No such file or directory",
    ),
    "key of another": (
        lambda authority, folder: settings(authority.issue("127.0.0.1"), tls_key_file=authority.issue("other")),
        "REGISTRY_TLS_KEY_FILE={folder}/other.pem: its private key does not belong to the first certificate of",
    ),
    "passphrase": (
        _encrypted,
        "REGISTRY_TLS_KEY_FILE={folder}/locked.key: its private key has a passphrase",
    ),
    "client authorities missing": (
        lambda authority, folder: settings(authority.issue("127.0.0.1"), tls_client_ca_file=folder / "none.pem"),
        "REGISTRY_TLS_CLIENT_CA_FILE={folder}/none.pem: it cannot be read: No such file or directory",
    ),
    "client authorities empty": (
        lambda authority, folder: settings(authority.issue("127.0.0.1"), tls_client_ca_file=_written(folder, "")),
        "REGISTRY_TLS_CLIENT_CA_FILE={folder}/written.pem: it holds no certificate in PEM that can be used",
    ),
    "client certificate as authority": (
        lambda authority, folder: settings(authority.issue("127.0.0.1"), tls_client_ca_file=authority.issue("leaf")),
        "REGISTRY_TLS_CLIENT_CA_FILE={folder}/leaf.pem: it holds no certificate of an authority (CA:TRUE)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_named_at_the_start(case: str, authority: Authority, tmp_path: Path) -> None:
    """With its variable, its path, what is wrong, and nothing of what is in it."""
    make, message = BAD[case]
    given = make(authority, tmp_path)
    with pytest.raises(BadSettingsError) as refused:
        made(given)
    assert str(refused.value).startswith(message.format(folder=tmp_path))
    assert "BEGIN PRIVATE KEY-----\n" not in str(refused.value)


def test_an_expired_certificate_starts_with_an_error_in_the_log(
    authority: Authority, capsys: pytest.CaptureFixture[str]
) -> None:
    """Clients decide; the log says what they will not like."""
    made(settings(authority.issue("127.0.0.1", valid_for=-60)))
    said = capsys.readouterr().out
    assert "tls_certificate_invalid" in said
    assert "has expired at" in said


def test_a_new_pair_is_served_by_a_new_context(authority: Authority) -> None:
    """The context of the connections before it stays as it was."""
    pair = authority.issue("127.0.0.1")
    tls = made(settings(pair))
    first = tls.context
    tls.reload(time.time())
    assert tls.context is first
    authority.issue("127.0.0.1")
    tls.reload(time.time())
    assert tls.context is not first
    assert served(tls, authority.ca) == own(pair)


def test_a_bad_pair_leaves_the_one_before_it(authority: Authority, capsys: pytest.CaptureFixture[str]) -> None:
    """It is logged once, shown as long as it lasts, and ends with a good one or with the old one again."""
    pair = authority.issue("127.0.0.1")
    good, der = pair.read_bytes(), own(pair)
    tls = made(settings(pair))
    for _ in range(3):
        pair.write_text("half of")
        tls.reload(time.time())
    assert capsys.readouterr().out.count("tls_files_refused") == 1
    assert tls.state.problem == f"REGISTRY_TLS_CERT_FILE={pair}: it holds no certificate in PEM (BEGIN CERTIFICATE)"
    assert served(tls, authority.ca) == der
    pair.unlink()
    tls.reload(time.time())
    assert "No such file" in str(problem_of(tls))
    pair.write_bytes(good)
    tls.reload(time.time())
    assert problem_of(tls) is None
    assert served(tls, authority.ca) == der


def test_a_certificate_without_its_key_waits_for_it(authority: Authority, tmp_path: Path) -> None:
    """Two files are never replaced at once, so the pair is tried again until both are new."""
    pair, key = authority.issue("127.0.0.1"), tmp_path / "tls.key"
    key.write_bytes(pair.read_bytes())
    tls = made(settings(pair, tls_key_file=key))
    before = own(pair)
    authority.issue("127.0.0.1")
    tls.reload(time.time())
    assert "does not belong to" in str(problem_of(tls))
    assert served(tls, authority.ca) == before
    key.write_bytes(pair.read_bytes())
    tls.reload(time.time())
    assert problem_of(tls) is None
    assert served(tls, authority.ca) == own(pair) != before


def test_a_valid_certificate_is_not_replaced_by_an_expired_one(authority: Authority) -> None:
    """But an expired one is, by whatever comes."""
    pair = authority.issue("127.0.0.1")
    tls = made(settings(pair))
    authority.issue("127.0.0.1", valid_for=-60)
    tls.reload(time.time())
    assert "has expired at" in str(problem_of(tls))
    tls.reload(time.time() + 2 * DAY)
    assert problem_of(tls) is None
    assert tls.state.not_after < time.time()


def test_new_client_authorities_are_taken(authority: Authority, tmp_path: Path) -> None:
    """Their file is followed like the pair."""
    ca = tmp_path / "clients.pem"
    ca.write_bytes(authority.ca.read_bytes())
    tls = made(settings(authority.issue("127.0.0.1"), tls_client_ca_file=ca))
    other = Authority(tmp_path / "other")
    ca.write_bytes(authority.ca.read_bytes() + other.ca.read_bytes())
    tls.reload(time.time())
    assert len(tls.context.get_ca_certs()) == 2
    assert tls.context.verify_mode is ssl.CERT_OPTIONAL


def test_a_replaced_symlink_is_a_change(authority: Authority, tmp_path: Path) -> None:
    """As Kubernetes and certbot rotate; times may even go back."""
    old, new = authority.issue("127.0.0.1", file="old.pem"), authority.issue("127.0.0.1", file="new.pem")
    os.utime(new, (1, 1))
    link = tmp_path / "live.pem"
    link.symlink_to(old)
    tls = made(settings(link))
    link.unlink()
    link.symlink_to(new)
    tls.reload(time.time())
    assert served(tls, authority.ca) == own(new)
