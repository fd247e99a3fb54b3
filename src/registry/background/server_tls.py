"""The TLS context of the server, made from files, and made again after they changed.

New files are loaded into a new context. A context in use is never changed: a key that does not belong to its
certificate would break every later handshake. So a pair that cannot be used leaves the one before it in use.
"""

import asyncio
import ssl
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import structlog

from registry.core.status import TlsState
from registry.errors import BadSettingsError
from registry.metrics import TLS_DAYS_LEFT, TLS_FILES_REFUSED
from registry.settings import Settings
from wire.tls_files import TlsFile, TlsFileError, load_authorities, load_pair, signature_of
from wire.x509 import Validity, show_time

log = structlog.get_logger()

RELOAD_INTERVAL = 1.0
"""Seconds between two looks at the files."""
_DAY = 86_400.0


class TlsFiles(NamedTuple):
    """The files of a listener, with the settings that name them.

    Attributes:
        cert: the certificate.
        key: its private key; None: it is in the certificate's file.
        client_ca: the authorities of clients; None: clients have no certificate.
    """

    cert: TlsFile
    key: TlsFile | None
    client_ca: TlsFile | None

    @classmethod
    def of_http(cls, settings: Settings) -> "TlsFiles | None":
        """Return those of the HTTP listener; None if it serves no TLS."""
        cert = _file("REGISTRY_TLS_CERT_FILE", settings.tls_cert_file)
        if cert is None or settings.listen is None:
            return None
        key = _file("REGISTRY_TLS_KEY_FILE", settings.tls_key_file)
        return cls(cert, key, _file("REGISTRY_TLS_CLIENT_CA_FILE", settings.tls_client_ca_file))

    @classmethod
    def of_streams(cls, settings: Settings) -> "TlsFiles | None":
        """Return those of the gRPC listener, by default the same; None if it serves no TLS."""
        if not settings.xds_tls_on:
            return None
        cert = _file("REGISTRY_XDS_TLS_CERT_FILE", settings.xds_tls_cert_file)
        key = _file("REGISTRY_XDS_TLS_KEY_FILE", settings.xds_tls_key_file)
        if cert is None:
            cert = _file("REGISTRY_TLS_CERT_FILE", settings.tls_cert_file)
            key = _file("REGISTRY_TLS_KEY_FILE", settings.tls_key_file)
        assert cert is not None  # noqa: S101  # as xds_tls_on says
        own_ca = _file("REGISTRY_XDS_TLS_CLIENT_CA_FILE", settings.xds_tls_client_ca_file)
        return cls(cert, key, own_ca or _file("REGISTRY_TLS_CLIENT_CA_FILE", settings.tls_client_ca_file))


class ServerTls:
    """The TLS context of the connections that are accepted now.

    Args:
        files: of the listener.
        min_version: the lowest version of TLS.
        protocols: what clients are offered to speak (ALPN).
        name: of the certificate, in metrics.

    Raises:
        BadSettingsError: the files cannot be used.
    """

    context: ssl.SSLContext
    """For new connections. Replaced by reload(), never changed."""

    def __init__(
        self,
        files: TlsFiles,
        min_version: Literal["1.2", "1.3"] = "1.2",
        protocols: Sequence[str] = ("http/1.1",),
        name: str = "server",
    ) -> None:
        self._cert, self._key, self._client_ca = files
        self._files = [file for file in files if file is not None]
        self._min_version = ssl.TLSVersion.TLSv1_2 if min_version == "1.2" else ssl.TLSVersion.TLSv1_3
        self._protocols = list(protocols)
        self._name = name
        self._problem: str | None = None
        """Why the files as they are now are not in use; None if they are. Written by reload()."""
        self._loaded = signature_of(self._files)
        """The files' identities and times when the context was made. Written by reload()."""
        try:
            self.context, self._validity = self._load()
        except TlsFileError as error:
            raise BadSettingsError(str(error)) from None
        complaint = self._validity.complaint(time.time())
        if complaint is not None:
            # Not refused: clients decide, and a registry that does not start helps none of them.
            log.error("tls_certificate_invalid", file=str(self._cert.path), reason=complaint)
        self._set_metrics(time.time())

    @classmethod
    def of_http(cls, settings: Settings) -> "ServerTls | None":
        """Return the TLS of the HTTP listener; None without one."""
        files = TlsFiles.of_http(settings)
        return None if files is None else cls(files, settings.tls_min_version)

    @classmethod
    def of_streams(cls, settings: Settings) -> "ServerTls | None":
        """Return the TLS of the gRPC listener; None without one."""
        files = TlsFiles.of_streams(settings)
        return None if files is None else cls(files, settings.tls_min_version, ("h2",), "xds")

    @property
    def state(self) -> TlsState:
        """The certificate in use, and why newer files are not."""
        return TlsState(str(self._cert.path), self._validity.not_after, self._problem)

    def listener_context(self) -> ssl.SSLContext:
        """Return a context that replaces itself by the newest one in each handshake.

        It is for a listener that takes one context for all of its connections, and works for clients without SNI too.

        Raises:
            BadSettingsError: the files cannot be used any more.
        """
        try:
            context, _ = self._load()
        except TlsFileError as error:
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
        signature = signature_of(self._files)
        if signature != self._loaded:
            try:
                context, validity = self._load()
                self._check_validity(validity, now)
            except TlsFileError as error:
                self._refuse(str(error))
            else:
                # Files that changed while they were read are read again by the next call.
                self._loaded, self._problem = signature, None
                self.context, self._validity = context, validity
                log.info("tls_files_loaded", file=str(self._cert.path), not_after=show_time(validity.not_after))
        elif self._problem is not None:
            self._problem = None
            log.info("tls_files_restored", file=str(self._cert.path))
        self._set_metrics(now)

    def _refuse(self, problem: str) -> None:
        if problem != self._problem:
            log.error("tls_files_refused", reason=problem, instead="the files before them stay in use")
        self._problem = problem

    def _check_validity(self, validity: Validity, now: float) -> None:
        """Refuse a certificate that is not valid now in place of one that is."""
        complaint = validity.complaint(now)
        if complaint is not None and self._validity.contains(now):
            raise TlsFileError(f"{self._cert}: it {complaint}")

    def _set_metrics(self, now: float) -> None:
        TLS_DAYS_LEFT.labels(self._name).set(round((self._validity.not_after - now) / _DAY, 3))
        TLS_FILES_REFUSED.labels(self._name).set(int(self._problem is not None))

    def _load(self) -> tuple[ssl.SSLContext, Validity]:
        """Return a new context, and the validity of its certificate.

        Raises:
            TlsFileError: a file is missing, or cannot be used.
        """
        # Not ssl.create_default_context: it would write the keys of all sessions to SSLKEYLOGFILE.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = self._min_version
        context.set_alpn_protocols(self._protocols)
        validity = load_pair(context, self._cert, self._key)
        if self._client_ca is not None:
            context.verify_mode = ssl.CERT_OPTIONAL
            load_authorities(context, self._client_ca)
        return context, validity


def _file(setting: str, path: Path | None) -> TlsFile | None:
    return None if path is None else TlsFile(setting, path)
