"""Checks whether access is closed, what keeps it open, and whether tokens are about to end."""

from collections.abc import Iterable, Iterator, Sequence

from registryctl.doctor.evidence import Document, Evidence
from registryctl.doctor.finding import Finding, FindingStatus, conclude, counted, skipped
from wire.duration import ago

_DAY = 86_400.0
"""Seconds for which a lost entry is reported."""
_CHECKS = (
    "access-closed",
    "access-refuses-nobody",
    "tokens-lasting",
    "admin-narrow",
    "access-readable",
    "tokens-encrypted",
)
"""The checks that need a registry that reports its access."""


def evaluate(evidence: Evidence) -> Iterator[Finding]:
    """Yield the findings of the category."""
    yield _sufficient(evidence)
    yield from _access(evidence)
    yield _audit(evidence)


def _access(evidence: Evidence) -> Iterator[Finding]:
    reports = [(prefix, state["at"], state["access"]) for prefix, state in evidence.states if "access" in state]
    if not reports:
        yield from (skipped(check, "no registry reports its access") for check in _CHECKS)
        return
    yield _closed(reports)
    if not all(access.get("named", True) for _, _, access in reports):
        checks = ("access-refuses-nobody", "tokens-lasting", "admin-narrow")
        yield from (skipped(check, "this command may not observe all services") for check in checks)
    else:
        yield _would_refuse(reports)
        yield from _named(reports)
    yield _readable([access for _, _, access in reports])
    exposed = [f"{url}: this command sends its token there over plain HTTP" for url in evidence.exposed]
    exposed += [
        f"{prefix}{listen} takes tokens over plain HTTP; whoever is on the way reads them"
        for prefix, _, access in reports
        if access["mode"] != "off"
        for listen in access["plain_listeners"]
    ]
    yield conclude("tokens-encrypted", "tokens are sent over plain HTTP", exposed, status=FindingStatus.WARNING)


def _named(reports: Sequence[tuple[str, float, Document]]) -> Iterator[Finding]:
    """Check the tokens and identities, which are named to those who may observe all services."""
    # Every process knows the same tokens and identities, so one report is enough.
    _, now, access = reports[0]
    ending = [_ending(token, now) for token in access["ending"]]
    headline = counted(len(ending), "token ends soon, or has ended in use", "tokens end soon, or have ended in use")
    yield conclude("tokens-lasting", headline, ending, status=FindingStatus.WARNING)
    yield conclude(
        "admin-narrow",
        "the verb admin is given to a network, or for more than 30 days",
        _wide(access),
        status=FindingStatus.WARNING,
    )


def _readable(reports: Iterable[Document]) -> Finding:
    """Check whether every row is a token or an identity, also those that a person or a newer version wrote."""
    # Processes of several versions may read different rows.
    most = max(reports, key=lambda access: access.get("unreadable_count", 0))
    count = most.get("unreadable_count", 0)
    unreadable = list(most.get("unreadable", ()))
    if count > len(unreadable):
        unreadable.append(f"{count - len(unreadable)} that are not named here; the log of the registry names each")
    headline = counted(count, "token or identity", "tokens and identities")
    return conclude("access-readable", f"{headline} cannot be read", unreadable, status=FindingStatus.WARNING)


def _audit(evidence: Evidence) -> Finding:
    """Check whether what happened within a day can be read in the audit."""
    audits = [(prefix, state["audit"]) for prefix, state in evidence.states if "audit" in state]
    if not audits:
        return skipped("audit-complete", "no registry reports on its audit")
    lost = [
        f"{prefix}{audit['lost']} lost since the start, the last one "
        f"{ago(audit['lost_ago'])} ago; the log has the reason"
        for prefix, audit in audits
        if audit["lost_ago"] is not None and audit["lost_ago"] < _DAY
    ]
    lost += [
        f"{prefix}{audit['waiting']:,} wait to be stored, and {audit['max_waiting']:,} may"
        for prefix, audit in audits
        if audit["waiting"] > audit["max_waiting"] / 2
    ]
    headline = "entries of the audit were lost, or are about to be"
    return conclude("audit-complete", headline, lost, status=FindingStatus.WARNING)


def _sufficient(evidence: Evidence) -> Finding:
    """Check whether the answers were given at all: what may not be read is not checked."""
    several = len(evidence.registries) > 1
    refused = dict.fromkeys(
        f"{f'{registry.url}: ' if several else ''}{refusal}"
        for registry in evidence.answering
        for refusal, _ in registry.refused
    )
    advice = dict.fromkeys(fix for registry in evidence.answering for _, fix in registry.refused if fix)
    refused |= advice
    if not refused and evidence.readable is not None:
        return conclude(
            "check-allowed",
            "only some services could be checked",
            [f"this command may read {', '.join(evidence.readable)}, and no other service is in the findings below"],
            status=FindingStatus.WARNING,
        )
    return conclude("check-allowed", "not everything could be checked: this command may not read it", list(refused))


def _closed(reports: Iterable[tuple[str, float, Document]]) -> Finding:
    modes = sorted({access["mode"] for _, _, access in reports})
    opened = [
        f"{prefix}{listen} is open: everybody who reaches it may do everything"
        for prefix, _, access in reports
        if access["mode"] == "off"
        for listen in access["open_listeners"]
    ]
    fact = f"access is {', '.join(modes)}"
    return conclude(
        "access-closed", "access is off, and other machines are served", opened, status=FindingStatus.WARNING, fact=fact
    )


def _would_refuse(reports: Iterable[tuple[str, float, Document]]) -> Finding:
    deciding = [access for _, _, access in reports if access["mode"] != "off"]
    if not deciding:
        return skipped("access-refuses-nobody", "access is off, and nothing is decided")
    noted = [access for access in deciding if access["noted_verbs"]]
    counted_by = [access["would_refuse"] for access in noted if access["would_refuse"] is not None]
    if noted and not counted_by:
        return skipped("access-refuses-nobody", "PostgreSQL, which counts refusals, is away or too slow")
    # All processes have one audit.
    most: list[Document] = max(counted_by, key=len, default=[])
    return conclude(
        "access-refuses-nobody",
        "requests of the last day would be refused if access were on",
        [_noted(requests) for requests in most],
        status=FindingStatus.WARNING,
        fact="" if noted else "access is on",
    )


def _noted(requests: Document) -> str:
    others = requests["peers"] - 1
    peers = f"{requests['peer']} and {counted(others, 'other', 'others')}" if others else requests["peer"]
    times = "once" if requests["count"] == 1 else f"{requests['count']:,} times"
    last = f"last {ago(requests['last_ago'])} ago"
    return f"{requests['principal']} from {peers}: {requests['verb']} {times}, {last}"


def _ending(token: Document, now: float) -> str:
    left = token["expires_at"] - now
    used = "never used" if token["used_at"] is None else f"last used {ago(now - token['used_at'])} ago"
    ends = f"ends in {ago(left)}" if left > 0 else f"ended {ago(-left)} ago"
    return f"{token['name']} ({token['id']}) {ends}, {used}: registryctl token rotate {token['id']}"


def _wide(access: Document) -> list[str]:
    tokens = [
        f"token {token['name']} ({token['id']}) was made for {ago(token['expires_at'] - token['created_at'])}"
        for token in access["long_lived"]
    ]
    return [*tokens, *(f"identity {name} gives admin to a whole network" for name in access["open_to_networks"])]
