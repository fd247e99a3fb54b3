"""What the tests of all types of checks need: a probe as the schedule makes it, and a throw-away authority."""

import datetime as dt
import ipaddress
import secrets
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from registrar.checks.check import CheckTarget, Options
from registrar.checks.result import Result
from registrar.checks.schedule import probe_once

_DAY = dt.timedelta(days=1)


async def probe(options: Options, port: int = 1, target: CheckTarget | None = None) -> Result:
    """Return what one probe of a new check finds."""
    return await probe_once(options.check(target or CheckTarget("127.0.0.1", port, "shop")), options)


class Authority:
    """Signs certificates that nobody else trusts.

    Attributes:
        ca: its own certificate's file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        # OpenSSL takes the first authority of the issuer's name, so each has one of its own.
        self._name = x509.Name(
            [x509.NameAttribute(NameOID.COMMON_NAME, f"throw-away authority {secrets.token_hex(4)}")]
        )
        folder.mkdir(exist_ok=True)
        own = self._certificate(self._name, self._key.public_key(), x509.BasicConstraints(ca=True, path_length=0))
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(own.public_bytes(serialization.Encoding.PEM))

    def issue(self, *names: str, valid_for: float = _DAY.total_seconds(), file: str = "") -> Path:
        """Return a file with a key and its certificate for DNS names, IP addresses or URIs.

        The file is replaced as a whole if it exists; without a name it has the first of the certificate's.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "throw-away")])
        alternatives = x509.SubjectAlternativeName([_alternative(name) for name in names])
        mine = self._certificate(subject, key.public_key(), alternatives, dt.timedelta(seconds=valid_for))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        path = self._folder / (file or f"{names[0]}.pem")
        new = path.with_suffix(".new")
        new.write_bytes(private + mine.public_bytes(serialization.Encoding.PEM))
        return new.replace(path)

    def server(self, name: str, *protocols: str) -> ssl.SSLContext:
        """Return the context of a server of that name."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.issue(name))
        context.set_alpn_protocols(list(protocols) or ["http/1.1"])
        return context

    def _certificate(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        extension: x509.ExtensionType,
        valid_for: dt.timedelta = _DAY,
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - _DAY)
            .not_valid_after(now + valid_for)
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
            .sign(self._key, hashes.SHA256())
        )


def _alternative(name: str) -> x509.GeneralName:
    if "://" in name:
        return x509.UniformResourceIdentifier(name)
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
