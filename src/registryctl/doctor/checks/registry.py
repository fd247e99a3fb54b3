"""Checks whether the registry answers, is ready, and is of this command's version."""

from collections.abc import Iterator

from registryctl.doctor.evidence import Document, Evidence
from registryctl.doctor.finding import Finding, FindingStatus, conclude, counted, skipped


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
        return
    unready = [f"{registry.url}: {_unready(registry.ready)}" for registry in answering if not _ready(registry.ready)]
    headline = counted(len(unready), "process is not ready for discovery", "processes are not ready for discovery")
    yield conclude("registry-ready", headline, unready)
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
