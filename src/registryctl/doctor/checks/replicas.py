"""Checks whether several addresses are one registry, and serve the same."""

from collections.abc import Iterator

from registryctl.doctor.evidence import Document, Evidence, RegistryEvidence
from registryctl.doctor.finding import Finding, FindingStatus, conclude, counted, skipped

_VERBS = {"accept": "accept connections", "renew": "renew leases", "change": "store changes"}


def evaluate(evidence: Evidence) -> Iterator[Finding]:
    """Yield the findings of the category."""
    yield _working(evidence)
    several = [
        registry for registry in evidence.answering if registry.state is not None and registry.services is not None
    ]
    followers = next((state["replicas"] for _, state in evidence.states if state["replicas"]), None)
    processes = f"processes that follow PostgreSQL: {len(followers)}" if followers else ""
    if len(several) < 2:
        reason = f"repeat --url to compare several addresses{f' ({processes})' if processes else ''}"
        yield skipped("replicas-one-database", reason)
        yield skipped("replicas-agree", reason)
        return
    databases = {registry.url: registry.state["database_id"] for registry in several if registry.state is not None}
    apart = len(set(databases.values())) > 1
    yield conclude(
        "replicas-one-database",
        "the addresses do not name the same database",
        [f"{url}: database {database or 'not known yet'}" for url, database in databases.items() if apart],
        fact=f"{len(several)} were asked{f'; {processes}' if processes else ''}",
    )
    if apart:
        yield skipped("replicas-agree", "the addresses do not name the same database")
        return
    lags = list(_lags(several))
    services = {name for name, _ in lags}
    headline = counted(
        len(services), "service is served at different versions", "services are served at different versions"
    )
    yield conclude("replicas-agree", headline, [text for _, text in lags])


def _working(evidence: Evidence) -> Finding:
    """Check what the processes report of themselves; each process is named once, whichever address reports it."""
    reports = [state["processes"] for _, state in evidence.states if "processes" in state]
    if not reports:
        return skipped("replicas-working", "no registry reports what its processes cannot do")
    failures = {
        (process["name"], failure["ability"]): failure
        for processes in reports
        for process in processes
        for failure in process["failures"]
    }
    names = {name for name, _ in failures}
    overdue = any(failure["overdue"] for failure in failures.values())
    return conclude(
        "replicas-working",
        counted(len(names), "process cannot do all of its work", "processes cannot do all of their work"),
        [_failing(name, failure) for (name, _), failure in sorted(failures.items())],
        status=FindingStatus.FAILURE if overdue else FindingStatus.WARNING,
        fact=f"{max(map(len, reports))} report",
    )


def _failing(name: str, failure: Document) -> str:
    extent = "" if failure["total"] else " each time"
    consequence = "; what it cuts off from the registry expires" if failure["overdue"] else "; leases are credited"
    text = f"{name} cannot {_VERBS[failure['ability']]}{extent}, for {failure['seconds']:.0f} s"
    return f"{text}: {failure['reason']}{consequence}"


def _lags(registries: list[RegistryEvidence]) -> Iterator[tuple[str, str]]:
    """Yield each service that an address still serves at an older version a while later, with the text of it."""
    newest: dict[str, int] = {}
    for registry in registries:
        for name, version in registry.versions().items():
            newest[name] = max(version, newest.get(name, 0))
    for registry in registries:
        versions = registry.versions() if registry.later is None else registry.later
        for name, version in sorted(newest.items()):
            if versions.get(name, 0) < version:
                yield name, f"{registry.url} serves {name} at version {versions.get(name, 0)}, another one at {version}"
