"""Whether PostgreSQL answers the registry, takes writes and has its schema."""

from collections.abc import Iterator

from registryctl.doctor.evidence import Document, Look
from registryctl.doctor.finding import Finding, Mark, judged, skipped
from registryctl.times import ago

_RECENT = 3600.0
"""Seconds for which it is said that events were deleted too early."""


def judge(look: Look) -> Iterator[Finding]:
    """Yield the findings of the category."""
    yield from _database(look)
    yield _history(look)


def _database(look: Look) -> Iterator[Finding]:
    if not look.states:
        for check in ("postgresql-answers", "postgresql-writable", "postgresql-schema"):
            yield skipped(check, "no registry tells its state")
        return
    databases = [(where, state["database"]) for where, state in look.states]
    answering = [(where, one) for where, one in databases if one["answers"]]
    yield judged(
        "postgresql-answers",
        (
            f"{where}{one['detail']}; reads go on from memory, writes are refused"
            for where, one in databases
            if not one["answers"]
        ),
        ", ".join(sorted({f"{one['server']} in {1000 * one['took']:.0f} ms" for _, one in answering})),
    )
    if not answering:
        yield skipped("postgresql-writable", "PostgreSQL is away")
        yield skipped("postgresql-schema", "PostgreSQL is away")
        return
    yield judged("postgresql-writable", (f"{where}{one['detail']}" for where, one in answering if not one["writable"]))
    behind = [(where, one) for where, one in answering if one["schema"] < one["schema_expected"]]
    newer = [(where, one) for where, one in answering if one["schema"] > one["schema_expected"]]
    yield judged(
        "postgresql-schema",
        (f"{where}{_schema(one)}" for where, one in behind or newer),
        ", ".join(sorted({one["schema"] for _, one in answering})),
        Mark.FAILURE if behind else Mark.WARNING,
    )


def _history(look: Look) -> Finding:
    """Judge whether the process that sweeps, or swept within the hour, had to delete what was still to be kept."""
    sweepers = [state["sweeper"] for _, state in look.states]
    cut = [one["history_cut_ago"] for one in sweepers if one.get("history_cut_ago") is not None]
    if not cut and not any(one["leads"] for one in sweepers):
        return skipped("history-kept", "none of the registries that were asked sweeps, and only that one knows")
    recent = [
        f"the oldest events were deleted before REGISTRY_EVENT_RETENTION was over, {ago(one)} ago, "
        "because there were more than REGISTRY_MAX_EVENTS"
        for one in cut
        if one < _RECENT
    ]
    return judged("history-kept", recent, "", Mark.WARNING)


def _schema(one: Document) -> str:
    return f"the schema is {one['schema']}, the registry expects {one['schema_expected']}"
