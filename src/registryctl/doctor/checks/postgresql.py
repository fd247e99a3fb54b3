"""Checks whether PostgreSQL answers the registry, accepts writes and has its schema."""

from collections.abc import Iterator

from registryctl.doctor.evidence import Document, Evidence
from registryctl.doctor.finding import Finding, FindingStatus, conclude, skipped
from wire.duration import ago

RECENT = 3600.0
"""Seconds for which it is reported that events were deleted too early."""


def evaluate(evidence: Evidence) -> Iterator[Finding]:
    """Yield the findings of the category."""
    yield from _database(evidence)
    yield _history(evidence)


def _database(evidence: Evidence) -> Iterator[Finding]:
    if not evidence.states:
        for check in ("postgresql-answers", "postgresql-writable", "postgresql-schema"):
            yield skipped(check, "no registry reports its state")
        return
    databases = [(prefix, state["database"]) for prefix, state in evidence.states]
    answering = [(prefix, database) for prefix, database in databases if database["answers"]]
    away = [
        f"{prefix}{database['detail']}; reads go on from memory, writes are refused"
        for prefix, database in databases
        if not database["answers"]
    ]
    yield conclude(
        "postgresql-answers",
        "PostgreSQL does not answer the registry",
        away,
        fact=", ".join(
            sorted({f"{database['server']} in {1000 * database['took']:.0f} ms" for _, database in answering})
        ),
    )
    if not answering:
        yield skipped("postgresql-writable", "PostgreSQL is away")
        yield skipped("postgresql-schema", "PostgreSQL is away")
        return
    refusing = [f"{prefix}{database['detail']}" for prefix, database in answering if not database["writable"]]
    yield conclude("postgresql-writable", "PostgreSQL refuses writes", refusing)
    yield _schema(answering)


def _schema(answering: list[tuple[str, Document]]) -> Finding:
    older = [(prefix, database) for prefix, database in answering if database["schema"] < database["schema_expected"]]
    newer = [(prefix, database) for prefix, database in answering if database["schema"] > database["schema_expected"]]
    return conclude(
        "postgresql-schema",
        f"PostgreSQL's schema is {'older' if older else 'newer'} than the registry expects",
        [
            f"{prefix}the schema is {database['schema']}, the registry expects {database['schema_expected']}"
            for prefix, database in older or newer
        ],
        status=FindingStatus.FAILURE if older else FindingStatus.WARNING,
        fact=", ".join(sorted({database["schema"] for _, database in answering})),
    )


def _history(evidence: Evidence) -> Finding:
    """Check whether a process that sweeps, or swept within the hour, deleted events before their retention was over."""
    sweepers = [state["sweeper"] for _, state in evidence.states]
    cuts = [sweeper["history_cut_ago"] for sweeper in sweepers if sweeper.get("history_cut_ago") is not None]
    if not cuts and not any(sweeper["leads"] for sweeper in sweepers):
        return skipped("history-kept", "none of the registries that were asked sweeps, and only that one knows")
    recent = [
        f"the oldest events were deleted before REGISTRY_EVENT_RETENTION was over, {ago(seconds)} ago, "
        "because there were more than REGISTRY_MAX_EVENTS"
        for seconds in cuts
        if seconds < RECENT
    ]
    headline = "events were deleted before their retention was over"
    return conclude("history-kept", headline, recent, status=FindingStatus.WARNING)
