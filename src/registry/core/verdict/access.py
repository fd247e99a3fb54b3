"""Rules about access: whether it is closed, what keeps it open, and whether tokens are about to end."""

from msgspec.structs import replace

from registry.core.status import AccessState, TokenState, WouldRefuseState
from registry.core.verdict.facts import Facts
from registry.core.verdict.finding import Conclusion, Rule, conclude, skip
from wire.duration import ago
from wire.finding import FindingStatus, counted

_DAY = 86_400.0
"""Seconds for which a lost entry is reported."""
_UNNAMED = "this principal may not observe all services"
"""The reason to skip a rule about credentials, which are named to those who may observe all services."""


def _sufficient(facts: Facts) -> Conclusion:
    """Check whether the facts are those of all services: what may not be read is not checked."""
    if facts.everything:
        return conclude("", [])
    names = ", ".join(facts.readable) or "none"
    text = f"this principal may read {names}, and no other service is in the findings"
    return conclude("only some services could be checked", [text], status=FindingStatus.WARNING)


def _closed(facts: Facts) -> Conclusion:
    access = facts.state.access
    opened = [f"{listen} is open: everybody who reaches it may do everything" for listen in access.open_listeners]
    headline = "access is off, and other machines are served"
    troubles = opened if access.mode == "off" else []
    fact = f"access is {access.mode}"
    if access.mode == "on" and access.noted_verbs:
        fact += f"; only noted: {', '.join(access.noted_verbs)}"
    return conclude(headline, troubles, status=FindingStatus.WARNING, fact=fact)


def _would_refuse(facts: Facts) -> Conclusion:
    access = facts.state.access
    if not access.named:
        return skip(_UNNAMED)
    if access.mode == "off":
        return skip("access is off, and nothing is decided")
    if access.noted_verbs and access.would_refuse is None:
        return skip("PostgreSQL, which counts refusals, is away or too slow")
    return conclude(
        "requests of the last day would be refused if access were on",
        [_noted(requests) for requests in access.would_refuse or ()],
        status=FindingStatus.WARNING,
        fact="" if access.noted_verbs else "access is on",
    )


def _noted(requests: WouldRefuseState) -> str:
    others = requests.peers - 1
    peers = f"{requests.peer} and {counted(others, 'other', 'others')}" if others else requests.peer
    times = "once" if requests.count == 1 else f"{requests.count:,} times"
    return f"{requests.principal} from {peers}: {requests.verb} {times}, last {ago(requests.last_ago)} ago"


def _lasting(facts: Facts) -> Conclusion:
    access = facts.state.access
    if not access.named:
        return skip(_UNNAMED)
    ending = [_ending(token, facts.state.at) for token in access.ending]
    headline = counted(len(ending), "token ends soon, or has ended in use", "tokens end soon, or have ended in use")
    return conclude(headline, ending, status=FindingStatus.WARNING)


def _ending(token: TokenState, now: float) -> str:
    left = token.expires_at - now
    used = "never used" if token.used_at is None else f"last used {ago(now - token.used_at)} ago"
    ends = f"ends in {ago(left)}" if left > 0 else f"ended {ago(-left)} ago"
    return f"{token.name} ({token.id}) {ends}, {used}: registryctl token rotate {token.id}"


def _narrow(facts: Facts) -> Conclusion:
    access = facts.state.access
    if not access.named:
        return skip(_UNNAMED)
    headline = "the verb admin is given to a network, or for more than 30 days"
    return conclude(headline, _wide(access), status=FindingStatus.WARNING)


def _wide(access: AccessState) -> list[str]:
    tokens = [
        f"token {token.name} ({token.id}) was made for {ago(token.expires_at - token.created_at)}"
        for token in access.long_lived
    ]
    return [*tokens, *(f"identity {name} gives admin to a whole network" for name in access.open_to_networks)]


def _readable(facts: Facts) -> Conclusion:
    """Check whether every row is a token or an identity, also those that a person or a newer version wrote."""
    access = facts.state.access
    headline = counted(access.unreadable_count, "token or identity cannot", "tokens and identities cannot")
    unnamed = access.unreadable_count - len(access.unreadable)
    lines = list(access.unreadable)
    if unnamed and not lines:
        lines, unnamed = ["they are not named here; the log of the registry names each"], 0
    conclusion = conclude(f"{headline} be read", lines, status=FindingStatus.WARNING)
    return replace(conclusion, more=conclusion.more + unnamed)


def _encrypted(facts: Facts) -> Conclusion:
    access = facts.state.access
    plain = [
        f"{listen} takes tokens over plain HTTP; whoever is on the way reads them" for listen in access.plain_listeners
    ]
    troubles = [] if access.mode == "off" else plain
    return conclude("tokens are sent over plain HTTP", troubles, status=FindingStatus.WARNING)


def _audit(facts: Facts) -> Conclusion:
    """Check whether what happened within a day can be read in the audit."""
    audit = facts.state.audit
    lost = []
    if audit.lost_ago is not None and audit.lost_ago < _DAY:
        last = f"the last one {ago(audit.lost_ago)} ago"
        lost.append(f"{audit.lost} lost since the start, {last}; the log has the reason")
    if audit.waiting > audit.max_waiting / 2:
        lost.append(f"{audit.waiting:,} wait to be stored, and {audit.max_waiting:,} may")
    headline = "entries of the audit were lost, or are about to be"
    return conclude(headline, lost, status=FindingStatus.WARNING)


RULES = (
    Rule("check-allowed", "everything that is checked may be read", _sufficient, page="/ui/login"),
    Rule("access-closed", "access is not off, or only this machine is served", _closed, "process"),
    Rule("access-refuses-nobody", "no request of the last day would be refused", _would_refuse),
    Rule("tokens-lasting", "no token ends soon", _lasting),
    Rule("admin-narrow", "the verb admin is given to few, and not for long", _narrow),
    Rule("access-readable", "every token and identity can be read", _readable),
    Rule("tokens-encrypted", "no token is sent over plain HTTP", _encrypted, "process"),
    Rule("audit-complete", "no entry of the audit was lost within a day", _audit, "process"),
)
