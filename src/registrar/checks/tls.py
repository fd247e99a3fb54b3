"""TLS options and contexts of the http and grpc checks."""

import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

_File = Annotated[str, Meta(pattern=r"^[^\x00]*$(?!\n)")]


class TlsOptions(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """TLS options of a check; ``tls: {}`` verifies the app's certificate with the system's authorities."""

    verify: Annotated[
        bool,
        Meta(
            description="Verify the app's certificate and name. Turn it off for self-signed ones: a check on this "
            "machine protects nothing by it."
        ),
    ] = True
    server_name: Annotated[
        str,
        Meta(description="Name to ask for and to verify (SNI). Unset: the address, or localhost on a unix socket."),
    ] = ""
    ca_file: Annotated[_File, Meta(description="Authorities in PEM, in place of the system's.")] = ""
    cert_file: Annotated[_File, Meta(description="Certificate in PEM to show to an app that asks for one.")] = ""
    key_file: Annotated[_File, Meta(description="Its key in PEM. Unset: it is in cert_file.")] = ""

    def __post_init__(self) -> None:
        if self.key_file and not self.cert_file:
            raise ValueError("key_file needs a cert_file")
        if self.ca_file and not self.verify:
            raise ValueError("ca_file verifies nothing with verify: false")


class Tls:
    """A TLS context that is made when it is first used, and again after its files changed.

    Certificates are rotated. A file that is missing at the start fails this check with its name, and not the process.
    """

    def __init__(self, options: TlsOptions, protocols: Sequence[str]) -> None:
        self.server_name = options.server_name
        self._options = options
        self._protocols = protocols
        # The context and the modification times of its files when it was made.
        self._made: tuple[ssl.SSLContext, list[int]] | None = None

    @property
    def context(self) -> ssl.SSLContext:
        """The context for a connection.

        Raises:
            OSError: a file is missing or holds no certificate.
        """
        options = self._options
        files = [file for file in (options.ca_file, options.cert_file, options.key_file) if file]
        modified = [Path(file).stat().st_mtime_ns for file in files]
        if self._made is None or self._made[1] != modified:
            self._made = (_context(options, self._protocols), modified)
        return self._made[0]


def _context(options: TlsOptions, protocols: Sequence[str]) -> ssl.SSLContext:
    if options.verify:
        context = ssl.create_default_context(cafile=options.ca_file or None)
    else:
        # Loading authorities that are not used would cost megabytes.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if options.cert_file:
        context.load_cert_chain(options.cert_file, options.key_file or None)
    context.set_alpn_protocols(list(protocols))
    return context
