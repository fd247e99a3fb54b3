"""Rules about clocks: leases go by PostgreSQL's alone, and what people read goes by all of them."""

from registry.core.verdict.facts import AWAY, Facts
from registry.core.verdict.finding import Conclusion, Rule, conclude, skip
from wire.finding import FindingStatus

MAX_DIFFERENCE = 2.0
"""Seconds by which two clocks may differ."""


def _postgresql(facts: Facts) -> Conclusion:
    database = facts.state.database
    if not database.answers or database.clock_ahead is None or database.took is None:
        return skip(AWAY)
    ahead = database.clock_ahead
    wrong = []
    if abs(ahead) - database.took / 2 > MAX_DIFFERENCE:
        direction = "ahead of" if ahead > 0 else "behind"
        wrong.append(f"PostgreSQL is {abs(ahead):.1f} s {direction} the registry")
    headline = "PostgreSQL's clock differs from the registry's"
    return conclude(headline, wrong, status=FindingStatus.WARNING)


RULES = (Rule("clock-postgresql", "PostgreSQL's clock agrees with the registry's", _postgresql, "process"),)
