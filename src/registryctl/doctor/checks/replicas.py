"""Whether several addresses are one registry, and say the same."""

from collections.abc import Iterator

from registryctl.doctor.evidence import Document, Look, RegistryLook
from registryctl.doctor.finding import Finding, Mark, judged, skipped


def judge(look: Look) -> Iterator[Finding]:
    """Yield the findings of the category."""
    yield _working(look)
    several = [one for one in look.answering if one.state is not None and one.services is not None]
    followers = next((state["replicas"] for _, state in look.states if state["replicas"]), None)
    known = f"processes that follow PostgreSQL: {len(followers)}" if followers else ""
    if len(several) < 2:
        reason = f"repeat --url to compare several addresses{f' ({known})' if known else ''}"
        yield skipped("replicas-one-database", reason)
        yield skipped("replicas-agree", reason)
        return
    databases = {one.url: one.state["database_id"] for one in several if one.state is not None}
    apart = len(set(databases.values())) > 1
    yield judged(
        "replicas-one-database",
        (f"{url}: database {told or 'not known yet'}" for url, told in databases.items() if apart),
        f"{len(several)} were asked{f'; {known}' if known else ''}",
    )
    if apart:
        yield skipped("replicas-agree", "they are not one registry")
        return
    yield judged("replicas-agree", _behind(several))


_VERBS = {"accept": "accept connections", "renew": "renew leases", "change": "store changes"}


def _working(look: Look) -> Finding:
    """Judge what the processes report of themselves; each is named once, whoever tells of it."""
    told = [state["processes"] for _, state in look.states if "processes" in state]
    if not told:
        return skipped("replicas-working", "no registry tells what its processes cannot do")
    failing = {
        (process["name"], failure["ability"]): failure
        for processes in told
        for process in processes
        for failure in process["failures"]
    }
    overdue = any(failure["overdue"] for failure in failing.values())
    return judged(
        "replicas-working",
        (_failing(name, failure) for (name, _), failure in sorted(failing.items())),
        f"{max(map(len, told))} report",
        Mark.FAILURE if overdue else Mark.WARNING,
    )


def _failing(name: str, failure: Document) -> str:
    extent = "" if failure["total"] else " each time"
    consequence = "; what it cuts off from the registry expires" if failure["overdue"] else "; leases are credited"
    said = f"{name} cannot {_VERBS[failure['ability']]}{extent}, for {failure['seconds']:.0f} s"
    return f"{said}: {failure['reason']}{consequence}"


def _behind(several: list[RegistryLook]) -> Iterator[str]:
    """Say who, a while later, still does not know what another one knew before."""
    newest: dict[str, int] = {}
    for one in several:
        for name, version in one.versions().items():
            newest[name] = max(version, newest.get(name, 0))
    for one in several:
        now = one.versions() if one.later is None else one.later
        for name, version in sorted(newest.items()):
            if now.get(name, 0) < version:
                yield f"{one.url} serves {name} at version {now.get(name, 0)}, another one at {version}"
