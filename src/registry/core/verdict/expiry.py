"""Rules about expiry: some process sweeps, every service is swept, and nothing holds expiry up."""

from msgspec.structs import replace

from registry.core.expiry_guard import EVERYWHERE, Pause
from registry.core.status import SweepRefusalState
from registry.core.verdict.facts import PARTIAL, Facts
from registry.core.verdict.finding import Conclusion, Rule, conclude, service_page, skip
from wire.duration import ago
from wire.finding import FindingStatus, Line, counted

_WARNING = FindingStatus.WARNING
_FIRST_PROBES = 60.0
"""Seconds after the start of a process for which nothing is said of the endpoints that it could not connect to."""
_EFFECTS = {
    "expiry": "its silent endpoints stay served",
    "removal": "endpoints that are gone stay listed",
    "missing_lease": "endpoints without a lease stay served",
    "override_end": "an override stays in force past its end",
}


def _leads(facts: Facts) -> Conclusion:
    if not facts.state.database.answers:
        return skip("PostgreSQL is away, which holds the lead")
    leader = facts.state.sweeper.leader
    return conclude(
        "no process sweeps for expired leases",
        [] if leader is not None else ["no process holds the lead: expired leases stay served"],
        fact="" if leader is None else f"by way of {leader.address or 'a Unix socket'}",
    )


def _happen(facts: Facts) -> Conclusion:
    sweeper = facts.state.sweeper
    if sweeper.overdue is None:
        return skip("PostgreSQL is away, which knows when")
    if sweeper.swept_ago is None:
        last, fact = "no process has swept yet", "none yet since the start"
    else:
        last, fact = f"the last sweep was {ago(sweeper.swept_ago)} ago", f"the last one {sweeper.swept_ago:.1f} s ago"
    troubles = [f"{last}: expired leases stay served"] if sweeper.overdue else []
    return conclude("sweeps are overdue", troubles, fact=fact)


def _complete(facts: Facts) -> Conclusion:
    """Check which services this process could not change; where another one sweeps, only that one knows."""
    refusals = facts.state.sweeper.refused
    if refusals is None:
        return skip("another process sweeps, and only that one knows")
    services = {refusal.service for refusal in refusals}
    headline = counted(len(services), "service is passed over by sweeps", "services are passed over by sweeps")
    return conclude(headline, [_refusal(refusal) for refusal in refusals])


def _refusal(refusal: SweepRefusalState) -> Line:
    where = f" {refusal.endpoint}" if refusal.endpoint else ""
    effect = _EFFECTS[refusal.action]
    text = f"{refusal.service}{where} is passed over for {ago(refusal.seconds)}, {effect}: {refusal.reason}"
    if refusal.service == EVERYWHERE:
        return Line(text)
    return Line(text, refusal.service, refusal.endpoint or None, service_page(refusal.service))


def _leased(facts: Facts) -> Conclusion:
    """Check whether endpoints lost their lease: without one, nothing would ever expire them."""
    if facts.state.leases is None:
        return skip("PostgreSQL is away, which holds the leases")
    if not facts.everything:
        return skip(PARTIAL)
    missing, replaced = facts.state.leases.missing, facts.state.sweeper.leases_replaced
    troubles = []
    if missing:
        troubles.append(f"{missing} endpoints are served and have no lease: the sweeper gives each a whole one")
    if replaced:
        troubles.append(f"{replaced} endpoints had no lease and got one since the registries started")
    headline = (
        counted(missing, "endpoint is served without a lease", "endpoints are served without a lease")
        if missing
        else counted(replaced, "endpoint had lost its lease", "endpoints had lost their leases")
    )
    return conclude(headline, troubles, status=_WARNING)


def _ecs(facts: Facts) -> Conclusion:
    """Check whether ECS answers which tasks of silent endpoints have stopped; the process that sweeps asks."""
    asked = facts.state.ecs_tasks
    if asked is None:
        return conclude("", [], fact="REGISTRY_ECS_TASKS is off")
    failing = [
        f"cluster {each.cluster} in {each.region} could not be asked for {ago(each.ago)}: {each.reason}"
        for each in asked.failing
    ]
    count = asked.failing_count
    headline = counted(count, "ECS cluster of silent endpoints", "ECS clusters of silent endpoints")
    lines = failing or (["they are not named here: this principal may not observe all services"] if count else [])
    conclusion = conclude(f"{headline} cannot be asked", lines, status=FindingStatus.WARNING)
    return replace(conclusion, more=conclusion.more + max(0, count - len(lines)))


def _not_paused(facts: Facts) -> Conclusion:
    if facts.pauses is None:
        return skip("pauses are in PostgreSQL, which is away")
    pauses = [_pause(pause, facts.now) for pause in facts.pauses]
    return conclude("expiry is paused", pauses, status=_WARNING)


def _pause(pause: Pause, now: float) -> Line:
    everywhere = pause.scope == EVERYWHERE
    where = "everywhere" if everywhere else f"in {pause.scope}"
    text = f"expiry is paused {where} for another {ago(pause.until - now)}, by {pause.actor}: {pause.reason}"
    return Line(text, None if everywhere else pause.scope, link="/ui/registry")


def _probes_work(facts: Facts) -> Conclusion:
    """Check whether the process that answers can tell the dead from the silent, where it is to."""
    probes = facts.state.probes
    if probes is None:
        return conclude("", [], fact="REGISTRY_PROBES is off")
    troubles = []
    if probes.failure:
        troubles.append(f"results of probes are not stored or not read, and are no evidence: {probes.failure}")
    if probes.muted_seconds > 0:
        troubles.append(
            f"an endpoint that renews could not be connected to, so its probes say nothing for "
            f"{ago(probes.muted_seconds)}"
        )
    running = facts.state.at - facts.state.process.started_at
    if facts.everything and probes.tried > 2 * probes.reached and running > _FIRST_PROBES:
        troubles.append(
            f"it could connect to {probes.reached} of {probes.tried} endpoints that renew: is there a firewall between "
            "the registry and them?"
        )
    fact = f"{probes.reached} of {probes.tried} endpoints reached" if facts.everything else ""
    return conclude("probes cannot tell dead endpoints from silent ones", troubles, status=_WARNING, fact=fact)


RULES = (
    Rule("sweeper-leads", "one process sweeps for expired leases", _leads),
    Rule("sweeps-happen", "sweeps come in time", _happen),
    Rule("sweeps-complete", "sweeps change every service that is due", _complete),
    Rule("leases-present", "every endpoint that is served has a lease", _leased),
    Rule("ecs-answers", "no question to ECS fails", _ecs),
    Rule("expiry-not-paused", "expiry is not paused", _not_paused),
    Rule("probes-work", "probes tell dead endpoints from silent ones", _probes_work, scope="process"),
)
