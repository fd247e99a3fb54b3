"""Checks whether several addresses are one registry, and serve the same."""

from collections.abc import Iterator, Sequence

from registryctl.doctor.evidence import Evidence, RegistryEvidence
from registryctl.doctor.finding import conclude, skipped
from wire.finding import Finding, counted


def evaluate(evidence: Evidence) -> Iterator[Finding]:
    """Yield the findings of the category."""
    several = [(registry, verdict) for _, registry, verdict in evidence.verdicts if registry.services is not None]
    if len(several) < 2:
        reason = "repeat --url to compare several addresses"
        yield skipped("replicas-one-database", reason)
        yield skipped("replicas-agree", reason)
        return
    databases = {registry.url: verdict.database_id for registry, verdict in several}
    apart = len(set(databases.values())) > 1
    yield conclude(
        "replicas-one-database",
        "the addresses do not name the same database",
        [f"{url}: database {database or 'not known yet'}" for url, database in databases.items() if apart],
        fact=f"{len(several)} were asked",
    )
    if apart:
        yield skipped("replicas-agree", "the addresses do not name the same database")
        return
    lags = list(_lags([registry for registry, _ in several]))
    services = {name for name, _ in lags}
    headline = counted(
        len(services), "service is served at different versions", "services are served at different versions"
    )
    yield conclude("replicas-agree", headline, [text for _, text in lags])


def _lags(registries: Sequence[RegistryEvidence]) -> Iterator[tuple[str, str]]:
    """Yield each service that an address still serves at an older version a while later, with the text of it."""
    newest: dict[str, int] = {}
    for registry in registries:
        for name, version in registry.versions().items():
            newest[name] = max(version, newest.get(name, 0))
    for registry in registries:
        versions = registry.versions() if registry.later is None else registry.later
        for name, version in sorted(newest.items()):
            if name in registry.unreadable:
                yield name, f"{registry.url} cannot read {name} and answers 503 for it, another one is at {version}"
            elif versions.get(name, 0) < version:
                yield name, f"{registry.url} serves {name} at version {versions.get(name, 0)}, another one at {version}"
