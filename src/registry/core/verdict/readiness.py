"""Rules about the process that answers: whether it is ready, and the certificate that it serves."""

from registry.core.status import TlsState
from registry.core.verdict.facts import Facts
from registry.core.verdict.finding import Conclusion, Rule, conclude, skip
from wire.duration import ago
from wire.finding import FindingStatus
from wire.x509 import show_time

EXPIRES_SOON = 7 * 86_400.0
"""Seconds before the end of a certificate from which on it is reported."""


def _ready(facts: Facts) -> Conclusion:
    state = facts.state
    if state.snapshot.ready and not state.process.closing:
        return conclude("", [])
    reasons = [f"{part.name}: {part.detail}" for part in state.parts if not part.ok]
    if state.process.closing:
        reasons = ["it was asked to stop"]
    return conclude("a process is not ready for discovery", [f"not ready; {', '.join(reasons)}"])


def _certificate(facts: Facts) -> Conclusion:
    tls, at = facts.state.tls, facts.state.at
    if tls is None:
        return skip("no registry serves TLS")
    if tls.not_after < at:
        return conclude("the certificate that is served has expired", [_expiry(tls, at)])
    if tls.problem:
        refused = f"{tls.problem}; the files before are in use"
        return conclude("the new files of the certificate cannot be used", [refused], status=FindingStatus.WARNING)
    expiring = [_expiry(tls, at)] if tls.not_after < at + EXPIRES_SOON else []
    return conclude(
        "the certificate that is served expires soon", expiring, status=FindingStatus.WARNING, fact=_expiry(tls, at)
    )


def _expiry(tls: TlsState, at: float) -> str:
    left = tls.not_after - at
    when = f"expired {ago(-left)} ago" if left < 0 else f"expires in {ago(left)}"
    return f"{tls.file} {when}, at {show_time(tls.not_after)}"


RULES = (
    Rule("registry-ready", "every process that answers is ready for discovery", _ready, "process"),
    Rule("tls-certificate", "the certificate is valid, and its files can be used", _certificate, "process"),
)
