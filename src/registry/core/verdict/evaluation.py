"""Evaluation of all rules; one that raises an exception is a finding of its own."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from registry.core.verdict.facts import Facts
from registry.core.verdict.finding import Conclusion, Rule
from wire.finding import Finding, FindingStatus, Line


def evaluate(
    categories: Mapping[str, Sequence[Rule]], facts: Facts, failed: Callable[[str], None] = lambda _rule: None
) -> list[Finding]:
    """Return the finding of each rule.

    Args:
        categories: the rules.
        facts: what is known.
        failed: gets the id of a rule that raised an exception, while that is handled.
    """
    return [_finding(category, rule, facts, failed) for category, rules in categories.items() for rule in rules]


def _finding(category: str, rule: Rule, facts: Facts, failed: Callable[[str], None]) -> Finding:
    try:
        conclusion = rule.conclude(facts)
    except Exception as error:  # noqa: BLE001  # whatever it is, the other findings are worth more than a status of 500
        failed(rule.id)
        line = Line(f"the rule raised {type(error).__name__}; the registry's log has it, at `rule_failed`")
        conclusion = Conclusion(FindingStatus.FAILURE, f"{rule.id} could not be evaluated", (line,))
    return Finding(
        id=rule.id,
        category=category,
        scope=rule.scope,
        status=conclusion.status,
        headline=conclusion.headline or rule.holds,
        holds=rule.holds,
        lines=conclusion.lines,
        more=conclusion.more,
        link=rule.page,
    )


def count(findings: Iterable[Finding]) -> dict[str, int]:
    """Return how many findings have each status."""
    counts = {status.value: 0 for status in FindingStatus}
    for finding in findings:
        counts[finding.status.value] += 1
    return counts
