"""TLS to the registry: its authorities, the registrar's own certificate, and what happens when their files change."""

import ssl
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from registrar.event_log import EventLogger
from wire.tls_files import Signature, TlsFile, TlsFileError, load_authorities, load_pair, signature_of
from wire.x509 import Validity

log = EventLogger(__name__)


class _Loaded(Struct, frozen=True):
    context: ssl.SSLContext
    # Of the registrar's own certificate; None without one.
    validity: Validity | None
    # Of the files when they were loaded.
    signature: Signature


class RegistryTls:
    """The TLS context of connections to the registry, made when it is first needed and after its files changed.

    Files that cannot be used leave the context before them in use: certificates are replaced one file after the other.

    Args:
        ca_file: authorities that may sign the registry's certificate; empty: those of the system, or of SSL_CERT_FILE.
        cert_file: the registrar's own certificate; empty for none.
        key_file: its key; empty where it is in the certificate's file.
    """

    def __init__(self, ca_file: str = "", cert_file: str = "", key_file: str = "") -> None:
        self._ca = _file("REGISTRAR_REGISTRY_CA_FILE", ca_file)
        self._cert = _file("REGISTRAR_REGISTRY_CERT_FILE", cert_file)
        self._key = _file("REGISTRAR_REGISTRY_KEY_FILE", key_file)
        # The context of now; None until it is first needed.
        self._loaded: _Loaded | None = None
        # Why the files as they are now are not in use; None if they are.
        self._problem: str | None = None

    @property
    def context(self) -> ssl.SSLContext:
        """The context for a request of now; another one than before after the files changed.

        Raises:
            TlsFileError: a file cannot be used, and there is no context yet.
        """
        return self._newest().context

    @property
    def validity(self) -> Validity | None:
        """The time in which the registrar's own certificate is valid; None without one. Raises as ``context`` does."""
        return self._newest().validity

    @property
    def files(self) -> Sequence[TlsFile]:
        """The files that the settings name."""
        return [file for file in (self._ca, self._cert, self._key) if file is not None]

    def _newest(self) -> _Loaded:
        signature = signature_of(self.files)
        if self._loaded is None:
            self._loaded = self._load(signature)
        elif signature != self._loaded.signature:
            try:
                self._loaded = self._load(signature)
            except TlsFileError as error:
                self._refuse(str(error))
            else:
                self._problem = None
                log.info("tls_files_loaded", files=[str(file) for file in self.files])
        return self._loaded

    def _refuse(self, problem: str) -> None:
        if problem != self._problem:
            log.warning("tls_files_refused", reason=problem, meanwhile="the files before them stay in use")
        self._problem = problem

    def _load(self, signature: Signature) -> _Loaded:
        if self._ca is None:
            context = ssl.create_default_context()
        else:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            load_authorities(context, self._ca)
        context.set_alpn_protocols(["http/1.1"])
        validity = None if self._cert is None else load_pair(context, self._cert, self._key)
        return _Loaded(context, validity, signature)


def _file(setting: str, path: str) -> TlsFile | None:
    return TlsFile(setting, Path(path)) if path else None
