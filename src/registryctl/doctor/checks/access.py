"""Checks whether this command may read what it checks, and sends its token to nobody else."""

from collections.abc import Iterator

from registryctl.doctor.evidence import Evidence
from registryctl.doctor.finding import conclude, skipped
from wire.finding import Finding, FindingStatus


def evaluate(evidence: Evidence) -> Iterator[Finding]:
    """Yield the findings of the category; what the registry says of the same is merged with them."""
    if not evidence.answering:
        yield skipped("check-allowed", "no registry answers")
    elif any(registry.refused for registry in evidence.answering):
        yield _refused(evidence)
    exposed = [f"{url}: this command sends its token there over plain HTTP" for url in evidence.exposed]
    if exposed:
        yield conclude("tokens-encrypted", "tokens are sent over plain HTTP", exposed, status=FindingStatus.WARNING)


def _refused(evidence: Evidence) -> Finding:
    """Return what was refused: what may not be read is not checked."""
    several = len(evidence.registries) > 1
    refused = dict.fromkeys(
        f"{f'{registry.url}: ' if several else ''}{refusal}"
        for registry in evidence.answering
        for refusal, _ in registry.refused
    )
    refused |= dict.fromkeys(fix for registry in evidence.answering for _, fix in registry.refused if fix)
    return conclude("check-allowed", "not everything could be checked: this command may not read it", list(refused))
