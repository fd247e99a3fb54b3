"""The TLS context of the server, made from files, and made again after they changed.

New files are loaded into a new context. A context in use is never changed: a key that does not belong to its
certificate would break every later handshake. So a pair that cannot be used leaves the one before it in use.
"""

import asyncio
import ssl
import time
from pathlib import Path

import structlog

from registry.core.status import TlsState
from registry.errors import BadSettingsError
from registry.metrics import TLS_DAYS_LEFT, TLS_FILES_REFUSED
from registry.settings import Settings
from wire.x509 import Validity, common_validity, show_time

log = structlog.get_logger()

RELOAD_INTERVAL = 1.0
"""Seconds between two looks at the files."""
_DAY = 86_400.0
_MAX_FILE = 4 * 1024 * 1024
"""Bytes of a file that is read; a bundle of all public authorities has 250 kB."""

_Signature = tuple[tuple[int, int, int] | None, ...]


class _UnusableError(Exception):
    """The files cannot be used; the text says which one and why."""


class ServerTls:
    """The TLS context of the connections that are accepted now.

    Args:
        settings: name the files.

    Raises:
        BadSettingsError: the files cannot be used.
    """

    context: ssl.SSLContext
    """For new connections. Replaced by reload(), never changed."""

    def __init__(self, settings: Settings) -> None:
        assert settings.tls_cert_file is not None  # noqa: S101  # the caller looks
        self._cert = settings.tls_cert_file
        self._key = settings.tls_key_file
        self._client_ca = settings.tls_client_ca_file
        self._min_version = ssl.TLSVersion.TLSv1_2 if settings.tls_min_version == "1.2" else ssl.TLSVersion.TLSv1_3
        self._problem: str | None = None
        """Why the files as they are now are not in use; None if they are. Written by reload()."""
        self._loaded = self._signature()
        """The files' identities and times when the context was made. Written by reload()."""
        try:
            self.context, self._validity = self._load()
        except _UnusableError as error:
            raise BadSettingsError(str(error)) from None
        complaint = self._validity.complaint(time.time())
        if complaint is not None:
            # Not refused: clients decide, and a registry that does not start helps none of them.
            log.error("tls_certificate_invalid", file=str(self._cert), reason=complaint)
        self._set_metrics(time.time())

    @property
    def state(self) -> TlsState:
        """The certificate in use, and why newer files are not."""
        return TlsState(str(self._cert), self._validity.not_after, self._problem)

    def listener_context(self) -> ssl.SSLContext:
        """Return a context that replaces itself by the newest one in each handshake.

        It is for a listener that takes one context for all of its connections, and works for clients without SNI too.

        Raises:
            BadSettingsError: the files cannot be used any more.
        """
        try:
            context, _ = self._load()
        except _UnusableError as error:
            raise BadSettingsError(str(error)) from None
        context.sni_callback = self._use_newest
        return context

    def _use_newest(self, tls: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        tls.context = self.context

    async def follow(self) -> None:
        """Make a new context if the files have changed; a slow disk keeps nobody waiting."""
        await asyncio.to_thread(self.reload, time.time())

    def reload(self, now: float) -> None:
        """Make a new context if the files have changed since the last one was made.

        While files cannot be used they are tried at each call, because certificate and key are written one after the
        other.
        """
        signature = self._signature()
        if signature != self._loaded:
            try:
                context, validity = self._load()
                self._check_validity(validity, now)
            except _UnusableError as error:
                self._refuse(str(error))
            else:
                # Files that changed while they were read are read again by the next call.
                self._loaded, self._problem = signature, None
                self.context, self._validity = context, validity
                log.info("tls_files_loaded", file=str(self._cert), not_after=show_time(validity.not_after))
        elif self._problem is not None:
            self._problem = None
            log.info("tls_files_restored", file=str(self._cert))
        self._set_metrics(now)

    def _refuse(self, problem: str) -> None:
        if problem != self._problem:
            log.error("tls_files_refused", reason=problem, instead="the files before them stay in use")
        self._problem = problem

    def _check_validity(self, validity: Validity, now: float) -> None:
        """Refuse a certificate that is not valid now in place of one that is."""
        complaint = validity.complaint(now)
        if complaint is not None and self._validity.contains(now):
            raise _UnusableError(f"REGISTRY_TLS_CERT_FILE={self._cert}: it {complaint}")

    def _set_metrics(self, now: float) -> None:
        TLS_DAYS_LEFT.labels("server").set(round((self._validity.not_after - now) / _DAY, 3))
        TLS_FILES_REFUSED.labels("server").set(int(self._problem is not None))

    def _signature(self) -> _Signature:
        return tuple(_signature(path) for path in (self._cert, self._key, self._client_ca) if path is not None)

    def _load(self) -> tuple[ssl.SSLContext, Validity]:
        """Return a new context, and the validity of its certificate.

        Raises:
            _UnusableError: a file is missing, or cannot be used.
        """
        # Not ssl.create_default_context: it would write the keys of all sessions to SSLKEYLOGFILE.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self._min_version
        context.set_alpn_protocols(["http/1.1"])
        validity = self._load_pair(context)
        if self._client_ca is not None:
            _load_client_ca(context, self._client_ca)
        return context, validity

    def _load_pair(self, context: ssl.SSLContext) -> Validity:
        cert = f"REGISTRY_TLS_CERT_FILE={self._cert}"
        try:
            validity = common_validity(_read("REGISTRY_TLS_CERT_FILE", self._cert))
        except ValueError as error:
            raise _UnusableError(f"{cert}: it {error}") from None
        key_variable = "REGISTRY_TLS_CERT_FILE" if self._key is None else "REGISTRY_TLS_KEY_FILE"
        key = f"{key_variable}={self._key or self._cert}"
        text = _read(key_variable, self._key or self._cert)
        if "PRIVATE KEY-----" not in text:
            hint = "; name the file of the key in REGISTRY_TLS_KEY_FILE" if self._key is None else ""
            raise _UnusableError(f"{key}: it holds no private key in PEM (BEGIN PRIVATE KEY){hint}")
        if "BEGIN ENCRYPTED PRIVATE KEY" in text or "Proc-Type: 4,ENCRYPTED" in text:
            raise _UnusableError(f"{key}: its private key has a passphrase; remove it: openssl pkey -in … -out …")
        try:
            context.load_cert_chain(self._cert, self._key)
        except ssl.SSLError as error:
            if error.reason == "KEY_VALUES_MISMATCH":
                raise _UnusableError(
                    f"{key}: its private key does not belong to the first certificate of {self._cert}"
                ) from None
            raise _UnusableError(f"{cert} and its key cannot be used: {_reason(error)}") from None
        except OSError as error:
            raise _UnusableError(f"{cert} and its key cannot be read: {error.strerror or error}") from None
        return validity


def _load_client_ca(context: ssl.SSLContext, path: Path) -> None:
    variable = "REGISTRY_TLS_CLIENT_CA_FILE"
    text = _read(variable, path)
    context.verify_mode = ssl.CERT_OPTIONAL
    try:
        context.load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError) as error:
        reason = _reason(error) if isinstance(error, ssl.SSLError) else str(error)
        raise _UnusableError(f"{variable}={path}: it holds no certificate in PEM that can be used: {reason}") from None
    if not context.get_ca_certs():
        raise _UnusableError(f"{variable}={path}: it holds no certificate of an authority (CA:TRUE)")


def _read(variable: str, path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise _UnusableError(f"{variable}={path}: it cannot be read: {error.strerror or error}") from None
    if len(content) > _MAX_FILE:
        raise _UnusableError(f"{variable}={path}: it is larger than {_MAX_FILE} bytes")
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
