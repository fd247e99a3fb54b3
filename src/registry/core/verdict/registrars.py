"""Rules about registrars: whether they renew their leases in time, and whether one has fallen silent."""

from registry.core.silence import silence_in_words
from registry.core.status import TallyState
from registry.core.verdict.facts import NOT_READY, Facts, Lapse, SilentEndpoint
from registry.core.verdict.finding import Conclusion, Rule, about_endpoint, about_service, conclude, skip
from wire.duration import ago
from wire.finding import FindingStatus, Line, counted

MAX_SUSPECT_TIME = 30.0
"""Seconds for which an endpoint may be kept without a lease before that is a failure."""


def _punctual(facts: Facts) -> Conclusion:
    leases = facts.state.leases
    if leases is None:
        return skip("leases are in PostgreSQL, which is away")
    # The whole numbers are those of all services.
    late = leases.late if facts.everything else sum(tally.late for tally in leases.services)
    held = leases.held if facts.everything else facts.endpoints
    most = 2 * late > held > 1
    troubles: list[Line | str] = [_tally(tally) for tally in leases.services]
    if most:
        troubles.insert(0, "most registrars are late: it is the network or the registry, rather than they")
    return conclude(
        f"{late:,} of {counted(held, 'lease', 'leases')} {'is' if late == 1 else 'are'} renewed late",
        troubles,
        status=FindingStatus.FAILURE if most else FindingStatus.WARNING,
        fact=f"leases: {held}",
    )


def _tally(tally: TallyState) -> Line:
    over = f", {tally.expired} expired" if tally.expired else ""
    text = f"{tally.service}: {tally.late} of {tally.leases} late{over}: more than half of the lease is over"
    return about_service(tally.service, text)


def _no_suspects(facts: Facts) -> Conclusion:
    """Check for endpoints that nobody hears of and that get traffic; one that is kept for long is a failure."""
    if not facts.ready:
        return skip(NOT_READY)
    suspects = sorted(facts.suspects, key=lambda suspect: suspect.silence.since)
    allowed = facts.allowed_suspects
    if len(suspects) <= allowed:
        return conclude("", [], fact=f"{len(suspects)}, and {allowed} are allowed" if suspects else "")
    long = suspects[0].silence.held_for(facts.now) > MAX_SUSPECT_TIME
    services = {suspect.service for suspect in suspects}
    of = next(iter(services)) if len(services) == 1 else f"{len(services):,} services"
    return conclude(
        counted(
            len(suspects),
            f"endpoint of {of} is silent and still gets traffic",
            f"endpoints of {of} are silent and still get traffic",
        ),
        [_suspect(suspect, facts.now) for suspect in suspects],
        status=FindingStatus.FAILURE if long else FindingStatus.WARNING,
    )


def _suspect(suspect: SilentEndpoint, now: float) -> Line:
    text = f"{suspect.service} {suspect.endpoint}: {silence_in_words(suspect.silence, now)}"
    return about_endpoint(suspect.service, suspect.endpoint, text)


def _heard(facts: Facts) -> Conclusion:
    if not facts.ready:
        return skip(NOT_READY)
    silent = [_lapse(lapse) for lapse in facts.lapses]
    headline = counted(len(silent), "registrar is silent", "registrars are silent")
    return conclude(headline, silent, status=FindingStatus.WARNING)


def _lapse(lapse: Lapse) -> Line:
    where = f"{lapse.service} {lapse.endpoint} of instance {lapse.instance_id}"
    since = f"its lease lapsed {ago(lapse.seconds)} ago" + ("" if lapse.listed else " and it was removed")
    text = f"{where}: {since}; its registrar or machine has stopped, or cannot reach the registry"
    return about_endpoint(lapse.service, lapse.endpoint, text)


RULES = (
    Rule("heartbeats-punctual", "registrars renew their leases in time", _punctual),
    Rule("endpoints-not-silent", "no endpoint that gets traffic is silent", _no_suspects),
    Rule("registrars-heard", "no registrar has fallen silent", _heard, page="/ui/events?kind=lapsed"),
)
