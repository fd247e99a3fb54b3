"""Checks whether every address answers, is ready, and is of this command's version."""

from collections.abc import Iterator

from registryctl.doctor.evidence import Evidence
from registryctl.doctor.finding import conclude, skipped
from wire.finding import Finding, FindingStatus, counted


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
        yield skipped("registry-version", "no registry answers")
        yield skipped("registry-ready", "no registry answers")
        return
    yield _version(evidence)
    undecided = [registry for registry in answering if registry.verdict is None]
    unready = [f"{registry.url}: not ready" for registry in undecided if not registry.ready]
    if undecided:
        headline = counted(len(unready), "process is not ready for discovery", "processes are not ready for discovery")
        yield conclude("registry-ready", headline, unready)


def _version(evidence: Evidence) -> Finding:
    outdated = [
        f"{registry.url} runs {registry.outdated}, which serves no /v1/verdict: update it, or check it with a "
        "registryctl of its version"
        for registry in evidence.answering
        if registry.outdated
    ]
    if outdated:
        headline = counted(
            len(outdated),
            "address is of a version that this command cannot check",
            "addresses are of a version that this command cannot check",
        )
        return conclude("registry-version", headline, outdated)
    if not evidence.verdicts:
        return skipped("registry-version", "no registry tells its version")
    different = [
        f"{registry.url} runs {verdict.version}, registryctl is {evidence.version}"
        for _, registry, verdict in evidence.verdicts
        if verdict.version != evidence.version
    ]
    return conclude(
        "registry-version",
        "registry and registryctl are of different versions",
        different,
        status=FindingStatus.WARNING,
        fact=evidence.version,
    )
