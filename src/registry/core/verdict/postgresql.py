"""Rules about PostgreSQL: whether it answers the registry, accepts writes, and has the schema and the history."""

from registry.core.verdict.facts import AWAY, Facts
from registry.core.verdict.finding import Conclusion, Rule, conclude, skip
from wire.duration import ago
from wire.finding import FindingStatus

RECENT = 3600.0
"""Seconds for which it is reported that events were deleted too early."""


def _answers(facts: Facts) -> Conclusion:
    database = facts.state.database
    took = "" if database.took is None else f"{database.server} in {1000 * database.took:.0f} ms"
    away = f"{database.detail}; reads go on from memory, writes are refused"
    return conclude("PostgreSQL does not answer the registry", [] if database.answers else [away], fact=took)


def _writable(facts: Facts) -> Conclusion:
    database = facts.state.database
    if not database.answers:
        return skip(AWAY)
    return conclude("PostgreSQL refuses writes", [] if database.writable else [database.detail])


def _schema(facts: Facts) -> Conclusion:
    database = facts.state.database
    if not database.answers or database.schema is None:
        return skip(AWAY)
    schema, expected = database.schema, database.schema_expected
    older = schema < expected
    return conclude(
        f"PostgreSQL's schema is {'older' if older else 'newer'} than the registry expects",
        [] if schema == expected else [f"the schema is {schema}, the registry expects {expected}"],
        status=FindingStatus.FAILURE if older else FindingStatus.WARNING,
        fact=schema,
    )


def _history(facts: Facts) -> Conclusion:
    """Check whether this process sweeps, and deleted events before their retention was over."""
    sweeper = facts.state.sweeper
    if sweeper.history_cut_ago is None and not sweeper.leads:
        return skip("another process sweeps, and only that one knows")
    recent = []
    if sweeper.history_cut_ago is not None and sweeper.history_cut_ago < RECENT:
        recent.append(
            "the oldest events were deleted before REGISTRY_EVENT_RETENTION was over, "
            f"{ago(sweeper.history_cut_ago)} ago, because there were more than REGISTRY_MAX_EVENTS"
        )
    headline = "events were deleted before their retention was over"
    return conclude(headline, recent, status=FindingStatus.WARNING)


RULES = (
    Rule("postgresql-answers", "PostgreSQL answers the registry", _answers, "process"),
    Rule("postgresql-writable", "PostgreSQL accepts writes", _writable, "process"),
    Rule("postgresql-schema", "PostgreSQL has the schema that the registry expects", _schema, "process"),
    Rule("history-kept", "no event was deleted before its retention was over", _history),
)
