"""Files of TLS in PEM, loaded with errors that name the setting, the file and the reason.

OpenSSL's own errors do not say which of several files they are about.
"""

import ssl
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from wire.x509 import Validity, common_validity

_MAX_FILE = 4 * 1024 * 1024
"""Bytes of a file that is read; a bundle of all public authorities has 250 kB."""

Signature = tuple[tuple[int, int, int] | None, ...]
"""Inode, size and time of change of each file; None for a file that cannot be looked at."""


class TlsFileError(OSError):
    """A file cannot be used; the text has the setting, the path and the reason."""


class TlsFile(Struct, frozen=True):
    """A file, and the setting that names it.

    Attributes:
        setting: the variable that has the path.
        path: where the file is.
    """

    setting: str
    path: Path

    def __str__(self) -> str:
        return f"{self.setting}={self.path}"


def signature_of(files: Iterable[TlsFile]) -> Signature:
    """Return what differs when one of the files has changed."""
    return tuple(_signature(file.path) for file in files)


def load_pair(context: ssl.SSLContext, cert: TlsFile, key: TlsFile | None) -> Validity:
    """Load a certificate and its key, and return when the certificate and its intermediates are valid.

    Args:
        context: loads them; it is of no use after an error.
        cert: the certificate, with its intermediates behind it.
        key: its key; None where it is in the certificate's file.

    Raises:
        TlsFileError: they cannot be used.
    """
    try:
        validity = common_validity(_read(cert))
    except ValueError as error:
        raise TlsFileError(f"{cert}: it {error}") from None
    _check_key(cert, key)
    try:
        context.load_cert_chain(cert.path, None if key is None else key.path)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsFileError(
                f"{key or cert}: its private key does not belong to the first certificate of {cert.path}"
            ) from None
        raise TlsFileError(f"{cert} and its key cannot be used: {_reason(error)}") from None
    except OSError as error:
        raise TlsFileError(f"{cert} and its key cannot be read: {error.strerror or error}") from None
    return validity


def load_authorities(context: ssl.SSLContext, file: TlsFile) -> None:
    """Load the authorities that the context believes.

    Raises:
        TlsFileError: the file has none.
    """
    try:
        context.load_verify_locations(cadata=_read(file))
    except (ssl.SSLError, ValueError) as error:
        reason = _reason(error) if isinstance(error, ssl.SSLError) else str(error)
        raise TlsFileError(f"{file}: it holds no certificate in PEM that can be used: {reason}") from None
    if not context.get_ca_certs():
        raise TlsFileError(f"{file}: it holds no certificate of an authority (CA:TRUE)")


def _check_key(cert: TlsFile, key: TlsFile | None) -> None:
    text = _read(key or cert)
    if "PRIVATE KEY-----" not in text:
        setting = cert.setting.replace("CERT_FILE", "KEY_FILE")
        hint = f"; name the file of the key in {setting}" if key is None else ""
        raise TlsFileError(f"{key or cert}: it holds no private key in PEM (BEGIN PRIVATE KEY){hint}")
    if "BEGIN ENCRYPTED PRIVATE KEY" in text or "Proc-Type: 4,ENCRYPTED" in text:
        # OpenSSL would ask for it on the terminal.
        raise TlsFileError(f"{key or cert}: its private key has a passphrase; remove it: openssl pkey -in … -out …")


def _read(file: TlsFile) -> str:
    try:
        with file.path.open("rb") as stream:
            content = stream.read(_MAX_FILE + 1)
    except OSError as error:
        raise TlsFileError(f"{file}: it cannot be read: {error.strerror or error}") from None
    if len(content) > _MAX_FILE:
        raise TlsFileError(f"{file}: it is larger than {_MAX_FILE} bytes")
    # PEM is ASCII; what else the file holds are comments.
    return content.decode("ascii", errors="replace")


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _reason(error: ssl.SSLError) -> str:
    return error.reason.replace("_", " ").lower() if error.reason else str(error)
