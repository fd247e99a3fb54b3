"""Checks whether the registry answers, is ready, and is of this command's version."""

from collections.abc import Iterator

from registryctl.doctor.evidence import Document, Evidence
from registryctl.doctor.finding import Finding, FindingStatus, conclude, counted, skipped
from wire.duration import ago
from wire.x509 import show_time

EXPIRES_SOON = 7 * 86_400.0
"""Seconds before the end of a certificate from which on it is reported."""


def evaluate(evidence: Evidence) -> Iterator[Finding]:
    """Yield the findings of the category."""
    answering = evidence.answering
    dead = [f"{registry.url}: {registry.error}" for registry in evidence.registries if registry.error]
    addresses = len(evidence.registries)
    yield conclude(
        "registry-reachable",
        "the registry gave no answer" if addresses == 1 else f"{len(dead)} of {addresses} addresses gave no answer",
        dead,
        fact=", ".join(registry.url for registry in answering),
    )
    if not answering:
        yield skipped("registry-ready", "no registry answers")
        yield skipped("registry-version", "no registry answers")
        yield skipped("tls-certificate", "no registry answers")
        return
    unready = [f"{registry.url}: {_unready(registry.ready)}" for registry in answering if not _ready(registry.ready)]
    headline = counted(len(unready), "process is not ready for discovery", "processes are not ready for discovery")
    yield conclude("registry-ready", headline, unready)
    if all(registry.version is None for registry in answering):
        yield skipped("registry-version", "no registry tells its version")
        yield _certificate(evidence)
        return
    different = [
        f"{registry.url} runs {registry.version['version']}, registryctl is {evidence.version}"
        for registry in answering
        if registry.version is not None and registry.version["version"] != evidence.version
    ]
    yield conclude(
        "registry-version",
        "registry and registryctl are of different versions",
        different,
        status=FindingStatus.WARNING,
        fact=evidence.version,
    )
    yield _certificate(evidence)


def _certificate(evidence: Evidence) -> Finding:
    served = [(prefix, state["at"], state["tls"]) for prefix, state in evidence.states if state.get("tls")]
    if not served:
        return skipped("tls-certificate", "no registry serves TLS")
    expired = [_expiry(prefix, at, tls) for prefix, at, tls in served if tls["not_after"] < at]
    expiring = [_expiry(prefix, at, tls) for prefix, at, tls in served if at <= tls["not_after"] < at + EXPIRES_SOON]
    refused = [f"{prefix}{tls['problem']}; the files before are in use" for prefix, _, tls in served if tls["problem"]]
    if expired:
        headline = "the certificate that is served has expired"
    elif refused:
        headline = "the new files of the certificate cannot be used"
    else:
        headline = "the certificate that is served expires soon"
    prefix, at, tls = min(served, key=lambda each: float(each[2]["not_after"] - each[1]))
    return conclude(
        "tls-certificate",
        headline,
        [*expired, *refused, *expiring],
        status=FindingStatus.FAILURE if expired else FindingStatus.WARNING,
        fact=_expiry(prefix, at, tls),
    )


def _expiry(prefix: str, at: float, tls: Document) -> str:
    left = tls["not_after"] - at
    when = f"expired {ago(-left)} ago" if left < 0 else f"expires in {ago(left)}"
    return f"{prefix}{tls['file']} {when}, at {show_time(tls['not_after'])}"


def _ready(readiness: Document | None) -> bool:
    return readiness is not None and readiness["ready"] is True


def _unready(readiness: Document | None) -> str:
    parts = readiness.get("parts") if readiness is not None else None
    reasons = (
        [f"{part['name']}: {part['detail']}" for part in parts or () if not part["ok"]]
        if isinstance(parts, list)
        else []
    )
    return f"not ready; {', '.join(reasons)}" if reasons else "not ready; it stops, or has not read the state yet"
