"""The rule about requests between services: callers whose requests to a callee fail.

It is a warning. The registry works, and a deploy or a monitor that goes by the exit status of `registryctl check` could
not mend it by what it does to a registry. The alerts of deploy/prometheus are what wakes somebody.
"""

from urllib.parse import urlencode

from registry.core.traffic_failures import FailingPair
from registry.core.verdict.facts import AWAY, Facts
from registry.core.verdict.finding import MAX_LINES, Conclusion, Rule, conclude, skip
from wire.finding import FindingStatus, Line, counted

REQUESTS_SUCCEED = "requests-succeed"
"""The id of the rule."""


def _succeeding(facts: Facts) -> Conclusion:
    traffic = facts.traffic
    if traffic is None:
        return skip("the traffic between services could not be added up in time")
    if not traffic.failing and not traffic.complete:
        # This process knows the Envoys that report to it, and others may report failures to another one.
        return skip(AWAY)
    headline = counted(len(traffic.failing), "pair of caller and callee fails", "pairs of caller and callee fail")
    return conclude(
        headline,
        # While a callee that all share fails, there are thousands, and no poll is answered meanwhile.
        [_line(pair) for pair in traffic.failing[:MAX_LINES]],
        status=FindingStatus.WARNING,
        fact="" if traffic.reported else "no Envoy reports traffic",
        more=max(0, len(traffic.failing) - MAX_LINES),
    )


def _line(pair: FailingPair) -> Line:
    reasons = pair.reasons
    counts = (
        (reasons.answered_with_an_error(pair.failures), "answered with an error"),
        (reasons.overflows, "turned away by a breaker"),
        (reasons.none_healthy, "without a healthy endpoint"),
        (reasons.connect_failures, "connections that failed"),
        (reasons.timeouts, "timed out"),
    )
    why = ", ".join(f"{count:,} {words}" for count, words in sorted(counts, reverse=True) if count)
    share = f"{pair.part:.1%}".replace("%", " %")
    text = f"{pair.caller} to {pair.callee}: {share} of {pair.requests:,} requests failed in the last minute: {why}"
    query = urlencode({"q": f"{pair.caller} {pair.callee}"})
    return Line(text, pair.caller, link=f"/ui/traffic?{query}")


RULES = (Rule(REQUESTS_SUCCEED, "the requests of callers to callees succeed", _succeeding, page="/ui/traffic"),)
