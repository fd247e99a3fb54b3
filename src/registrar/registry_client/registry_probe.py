"""One request to a registry: its addresses, whether it answers, whether it is ready, and what its clock says."""

import asyncio
import email.utils
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

from registrar.diagnostic import Diagnostic, Severity
from registrar.registry_client.dns import resolve
from registrar.registry_client.http_client import NO_RESPONSE, ConnectError, HttpClient, describe
from registrar.registry_client.registries import RegistryAddress
from registrar.registry_client.tls import RegistryTls
from wire.http1 import Request, Response

_TIMEOUT = 3.0
"""Seconds for the response, all addresses together."""
_CLOCK_TOLERANCE = 5.0
"""Seconds that clocks may seem to differ: the header has whole ones, and the response was on its way for a while."""

_MEND = (
    "start the registry, or let this machine through to it: its listener (REGISTRY_LISTEN is loopback unless you say "
    "otherwise), security groups and firewalls on the way"
)
_NO_TLS = (
    "what listens there speaks no TLS: write http:// in REGISTRAR_REGISTRY_URL, or let the registry serve TLS "
    "(REGISTRY_TLS_CERT_FILE)"
)
_TLS_MENDS = {
    "WRONG_VERSION_NUMBER": _NO_TLS,
    "HTTP_REQUEST": _NO_TLS,
    "RECORD_LAYER_FAILURE": _NO_TLS,
    "PACKET_LENGTH_TOO_LONG": _NO_TLS,
    "CERTIFICATE_VERIFY_FAILED": "let REGISTRAR_REGISTRY_CA_FILE name the authority that signed the registry's "
    "certificate, and REGISTRAR_REGISTRY_URL a name that the certificate has",
}
"""What to do about an error of TLS, by the word of OpenSSL for it."""


class _Readiness(msgspec.Struct):
    """The part of the answer to ``/readyz`` that each version of the registry has."""

    ready: bool


async def probe_registry(url: str, tls: RegistryTls) -> list[Diagnostic]:
    """Return diagnostics of one registry."""
    host = urlsplit(url).hostname or ""
    try:
        addresses = await resolve(host)
    except OSError as error:
        mend = (
            f"correct the name in REGISTRAR_REGISTRY_URL, or the resolver in /etc/resolv.conf that does not know {host}"
        )
        return [Diagnostic(Severity.FAIL, f"{host} has no address: {error.strerror or error}", mend)]
    name = Diagnostic(Severity.OK, f"{host} is {', '.join(addresses)}")
    try:
        response = await ask([RegistryAddress(url, address) for address in addresses], tls, "GET", "/readyz")
    except NO_RESPONSE as error:
        late = isinstance(error, TimeoutError)
        reason = f"no answer within {_TIMEOUT:g}s" if late else f"no answer: {describe(error)}"
        return [name, Diagnostic(Severity.FAIL, reason, _mend(reason))]
    return [name, _ready(response), _clock(response)]


def _mend(reason: str) -> str:
    """Return what to do about a registry that gives no answer, by the words of OpenSSL in the reason."""
    return next((mend for words, mend in _TLS_MENDS.items() if words in reason), _MEND)


async def ask(
    registries: Sequence[RegistryAddress],
    tls: RegistryTls,
    method: str,
    path: str,
    *,
    content: bytes = b"",
    bearer: str = "",
) -> Response:
    """Ask the first address that can be connected to, as the registrar's own client does: without a proxy.

    Raises:
        OSError: no response came, or not in time (TimeoutError).
        ValueError: what came is no HTTP response.
    """
    error: Exception = ConnectError("its name has no address")
    # An address that swallows packets must leave time for the others.
    async with asyncio.timeout(_TIMEOUT), HttpClient(tls, _TIMEOUT / len(registries)) as client:
        for registry in registries:
            headers = {"host": registry.host, "user-agent": "headcount-registrar", "connection": "close"}
            headers |= {"authorization": f"Bearer {bearer}"} if bearer else {}
            headers |= {"content-type": "application/json"} if content else {}
            headers |= {"content-length": "0"} if method == "POST" and not content else {}
            try:
                request = Request(method, registry.target(path), headers, content)
                return await client.request(registry.origin, request)
            except ConnectError as failure:
                error = failure
    raise error


def is_registry(response: Response) -> bool:
    """Return whether an answer to ``/readyz`` is one of a registry, and not of another program at its address."""
    try:
        msgspec.json.decode(response.body, type=_Readiness)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _ready(response: Response) -> Diagnostic:
    if response.status == 200 and is_registry(response):
        return Diagnostic(Severity.OK, "answers, and is ready")
    if response.status == 503 and not is_registry(response):
        mend = "if it is a load balancer, no registry behind it is ready: ask one of them at its own address"
        return Diagnostic(Severity.WARN, "/readyz answers 503 without what a registry says", mend)
    if response.status == 503:
        mend = "heartbeats are repeated until it is; its own log says what it waits for, mostly PostgreSQL"
        return Diagnostic(Severity.WARN, f"answers, but is not ready: {response.text[:200].strip()}", mend)
    mend = "REGISTRAR_REGISTRY_URL has to be the base URL of a registry, without a path of its API"
    how = "without what a registry says" if response.status == 200 else f"{response.status}"
    return Diagnostic(Severity.FAIL, f"/readyz answers {how}, so this is no registry", mend)


def _clock(response: Response) -> Diagnostic:
    try:
        registry_time = email.utils.parsedate_to_datetime(response.headers.get("date", "")).timestamp()
    except ValueError:
        return Diagnostic(Severity.NOTE, "does not tell the time, so the clocks were not compared")
    difference = time.time() - registry_time
    if abs(difference) <= _CLOCK_TOLERANCE:
        return Diagnostic(Severity.OK, "the clocks agree")
    which = "ahead of" if difference > 0 else "behind"
    return Diagnostic(
        Severity.WARN,
        f"this machine's clock is {abs(difference):.0f}s {which} the registry's",
        "let chrony or systemd-timesyncd set it. Leases do not depend on it, but the first heartbeat after a start "
        "may be refused once, and the times in logs mislead",
    )
