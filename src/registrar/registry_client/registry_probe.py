"""One visit to a registry: its name, whether it answers, whether it is ready, and what its clock says."""

import email.utils
import ssl
import time
from urllib.parse import urlsplit

import httpx

from registrar.diagnostic import Diagnostic, Severity
from registrar.registry_client.client import NO_ANSWER
from registrar.registry_client.dns import resolve

_PATIENCE = 3.0
# The header has whole seconds, and the answer was on its way for a while.
_SAME_TIME = 5.0


async def probe_registry(url: str) -> list[Diagnostic]:
    """Return what was found at one registry."""
    host = urlsplit(url).hostname or ""
    try:
        addresses = await resolve(host)
    except OSError as error:
        mend = (
            f"correct the name in REGISTRAR_REGISTRY_URL, or the resolver in /etc/resolv.conf that does not know {host}"
        )
        return [Diagnostic(Severity.FAIL, f"{host} has no address: {error.strerror or error}", mend)]
    found = [Diagnostic(Severity.OK, f"{host} is {', '.join(addresses)}")]
    try:
        # As the registrar's own client: no proxy of the environment in between.
        verify = ssl.create_default_context() if url.startswith("https:") else False
        async with httpx.AsyncClient(verify=verify, trust_env=False, timeout=_PATIENCE) as client:
            answer = await client.get(f"{url}/readyz")
    except NO_ANSWER as error:
        mend = (
            "start the registry, or let this machine through to it: its listener (REGISTRY_LISTEN is loopback unless "
            "you say otherwise), security groups and firewalls on the way"
        )
        return [*found, Diagnostic(Severity.FAIL, f"no answer: {type(error).__name__} {error}".strip(), mend)]
    return [*found, _ready(answer), _clock(answer)]


def _ready(answer: httpx.Response) -> Diagnostic:
    if answer.status_code == 200:
        return Diagnostic(Severity.OK, "answers, and is ready")
    if answer.status_code == 503:
        mend = "heartbeats are repeated until it is; its own log says what it waits for, mostly PostgreSQL"
        return Diagnostic(Severity.WARN, f"answers, but is not ready: {answer.text[:200].strip()}", mend)
    mend = "REGISTRAR_REGISTRY_URL has to be the base URL of a registry, without a path of its API"
    return Diagnostic(Severity.FAIL, f"/readyz answers {answer.status_code}, so this is no registry", mend)


def _clock(answer: httpx.Response) -> Diagnostic:
    try:
        told = email.utils.parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except ValueError:
        return Diagnostic(Severity.NOTE, "does not tell the time, so the clocks were not compared")
    difference = time.time() - told
    if abs(difference) <= _SAME_TIME:
        return Diagnostic(Severity.OK, "the clocks agree")
    which = "ahead of" if difference > 0 else "behind"
    return Diagnostic(
        Severity.WARN,
        f"this machine's clock is {abs(difference):.0f}s {which} the registry's",
        "let chrony or systemd-timesyncd set it. Leases do not depend on it, but the first heartbeat after a start "
        "may be refused once, and the times in logs mislead",
    )
