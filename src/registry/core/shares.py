"""Shares of traffic within a service: percentages of groups of its endpoints, as weights of these endpoints.

An Envoy that balances by weights follows a share without any change of its routes. Weights are computed when a snapshot
is made, from what is routable then: constants would drift, since a group of three endpoints with the weight that was
right for one has three times its share.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from registry.core.endpoint import Endpoint, has_metadata
from registry.errors import InvalidError
from wire.model import PRINTABLE_PATTERN

WHOLE = 1_000_000
"""The sum of the weights of a service under shares; a share of 0.01 % of it is still 100."""
MAX_GROUPS = 16
"""Groups of a service that have a share of their own."""
_FULL = 100.0
_TOLERANCE = 1e-9
"""The difference to 100 at which percentages still count as 100: 33.3, 33.3 and 33.4 are not exact in binary."""

_DECIMALS = 9
"""Digits of the rest's percentage; with fewer, a rest above the tolerance would be none, and drained."""
_PRINTABLE = re.compile(PRINTABLE_PATTERN)


class Share(Struct, frozen=True, forbid_unknown_fields=True):
    """The share of one group.

    Attributes:
        selector: the group, as ``key=value``: the endpoints whose revision, canary, zone, region, instance_id or
            metadata has this value.
        percent: its share of the requests, from 0 to 100. Endpoints of a group with 0 are published as DRAINING.
    """

    selector: str
    percent: float


class ShiftMark(Struct, frozen=True):
    """The shift that sets the shares of a service, as all processes know it (``registry.core.shift``).

    Attributes:
        selector: the group that gets more and more.
        state: running or paused.
    """

    selector: str
    state: str


class Shares(Struct, frozen=True):
    """The shares of a service, with their author.

    An endpoint is in the first group that fits it. Endpoints that are in none are the rest, which gets what is left.

    Attributes:
        groups: the shares.
        actor: the operator who set them.
        reason: why.
        set_at: when, by the database's clock.
        shift: the shift that sets them; None: a person does.
    """

    groups: tuple[Share, ...]
    actor: str
    reason: str
    set_at: float
    shift: ShiftMark | None = None


class GroupShare(Struct, frozen=True):
    """The share of the group of an endpoint.

    Attributes:
        share: the group and its share; the rest has an empty selector.
        actor: the operator who set it.
        reason: why.
    """

    share: Share
    actor: str
    reason: str

    @property
    def in_words(self) -> str:
        """The share as a clause for people."""
        group = (
            f"its group {self.share.selector}" if self.share.selector else "the rest of the service, which it is in,"
        )
        return (
            f"{group} gets {self.share.percent:g} % of the requests ({self.actor}: {self.reason or 'no reason given'})"
        )


class Group(Struct, frozen=True):
    """A group of a service's endpoints as it is served.

    Attributes:
        selector: the group; empty for the rest.
        percent: the share that it was given; of the rest what is left.
        effective: the share that it gets. A group without routable endpoints leaves its share to the others.
        endpoints: the number of its endpoints.
        routable: the number of those that may receive traffic, apart from the share.
    """

    selector: str
    percent: float
    effective: float
    endpoints: int
    routable: int


def check_shares(groups: Sequence[Share]) -> None:
    """Refuse shares that mean nothing.

    Raises:
        InvalidError: names the share and says what is allowed.
    """
    if not 1 <= len(groups) <= MAX_GROUPS:
        raise InvalidError(f"{len(groups)} shares were given; a service has 1 to {MAX_GROUPS}", "$.shares")
    seen: set[str] = set()
    for number, share in enumerate(groups):
        pointer = f"$.shares[{number}]"
        if not _PRINTABLE.fullmatch(share.selector):
            raise InvalidError(f"{share.selector!r} has a control character; a selector has none", pointer)
        key, equals, value = share.selector.partition("=")
        if not (key and equals and value):
            raise InvalidError(f"{share.selector!r} is no key=value, like revision=abc or canary=true", pointer)
        if key == "canary" and value not in _BOOLEANS:
            raise InvalidError(f"{share.selector!r} fits no endpoint: canary is true or false", pointer)
        if not 0 <= share.percent <= _FULL:
            raise InvalidError(f"{share.percent:g} percent for {share.selector} is not from 0 to 100", pointer)
        if share.selector in seen:
            raise InvalidError(f"{share.selector} has two shares; give it one", pointer)
        seen.add(share.selector)
    total = sum(share.percent for share in groups)
    if total > _FULL + _TOLERANCE:
        raise InvalidError(f"the shares add up to {total:g} percent; at most 100 can be given", "$.shares")


def apply_shares(
    endpoints: Mapping[tuple[str, int], Endpoint], groups: Sequence[Share]
) -> dict[tuple[str, int], Endpoint]:
    """Return the endpoints with the weights that their groups' shares give them; without groups, with none.

    A group with share s gives each of its routable endpoints ``round(WHOLE * s * w / sum of w)``, and at least 1, where
    w is the weight of the override or registration, or 1. Endpoints that are not routable weigh 1: in a panic, Envoy
    sends to them as well, and they have no part of the share. An endpoint whose weight stays is the same object.
    """
    if not groups:
        return {at: _with_weight(endpoint, None) for at, endpoint in endpoints.items()}
    census = _Census(endpoints.values(), groups)
    units = [WHOLE * part / base if base else 0.0 for part, base in zip(census.effective, census.bases, strict=True)]
    shared = {}
    for (at, endpoint), group, base in zip(endpoints.items(), census.members, census.member_bases, strict=True):
        weight = 0
        if census.percents[group]:
            weight = round(units[group] * base) or 1
        shared[at] = endpoint if endpoint.share_weight == weight else replace(endpoint, share_weight=weight)
    return shared


class _Census:
    """The groups of endpoints, and what is routable in each; lists by group have the rest as their last item.

    Attributes:
        members: the group of each endpoint, in their order.
        member_bases: the own weight of each endpoint, and 0 of one that is not routable by itself.
        bases: the sum of these weights by group.
        percents: the percentages that the groups were given.
        effective: the parts of 1 that they get; one that has nothing routable leaves its part to the others.
    """

    def __init__(self, endpoints: Iterable[Endpoint], groups: Sequence[Share]) -> None:
        group_of = _grouping(groups)
        self.members = []
        self.member_bases = []
        self.bases = [0] * (len(groups) + 1)
        for endpoint in endpoints:
            group = group_of(endpoint)
            base = (endpoint.own_weight or 1) if endpoint.routable_by_itself else 0
            self.members.append(group)
            self.member_bases.append(base)
            self.bases[group] += base
        self.percents = _percents(groups)
        taking = [percent if base else 0.0 for percent, base in zip(self.percents, self.bases, strict=True)]
        total = sum(taking)
        self.effective = [part / total if total else 0.0 for part in taking]


def groups_in(endpoints: Collection[Endpoint], groups: Sequence[Share]) -> list[Group]:
    """Return the groups of a service as they are served, with the rest as the last one."""
    census = _Census(endpoints, groups)
    counts = Counter(census.members)
    routable = Counter(group for group, base in zip(census.members, census.member_bases, strict=True) if base)
    selectors = [*(share.selector for share in groups), ""]
    return [
        Group(selector, percent, round(_FULL * part, 4), counts[number], routable[number])
        for number, (selector, percent, part) in enumerate(
            zip(selectors, census.percents, census.effective, strict=True)
        )
    ]


def rest_percent(groups: Sequence[Share]) -> float:
    """Return the percentage that the shares of groups leave to the rest."""
    return _percents(groups)[-1]


def share_of(endpoint: Endpoint, shares: Shares) -> GroupShare:
    """Return the share of the group that an endpoint is in."""
    groups = shares.groups
    number = _grouping(groups)(endpoint)
    share = groups[number] if number < len(groups) else Share("", rest_percent(groups))
    return GroupShare(share, shares.actor, shares.reason)


def shares_in_words(groups: Sequence[Share]) -> str:
    """Return shares as one line for people."""
    named = [f"{share.selector} gets {share.percent:g} %" for share in groups]
    return ", ".join([*named, f"the rest {rest_percent(groups):g} %"])


def misleading_shares(groups: Sequence[Group]) -> list[str]:
    """Return in words which shares do not do what they say, with the reason; empty: all do.

    Args:
        groups: the groups of a service as they are served.
    """
    if any(group.effective for group in groups):
        return [
            f"{group.selector or 'the rest'} has no routable endpoint, so the others get its {group.percent:g} %"
            for group in groups
            if group.percent and not group.routable
        ]
    drained = sum(group.routable for group in groups)
    if not drained:
        return []
    endpoints = "endpoint is" if drained == 1 else "endpoints are"
    return [f"no group with a share has a routable one, and {drained} routable {endpoints} drained by a share of 0"]


def _with_weight(endpoint: Endpoint, weight: int | None) -> Endpoint:
    return endpoint if endpoint.share_weight == weight else replace(endpoint, share_weight=weight)


def _percents(groups: Sequence[Share]) -> list[float]:
    """Return the percentages of the groups, with that of the rest as the last one."""
    left = _FULL - sum(share.percent for share in groups)
    return [*(share.percent for share in groups), round(left, _DECIMALS) if left > _TOLERANCE else 0.0]


def _grouping(groups: Sequence[Share]) -> Callable[[Endpoint], int]:
    """Return what tells the group of an endpoint, as its number; that of the rest is the last one."""
    parts = [share.selector.partition("=") for share in groups]
    keys = {key for key, _, _ in parts}
    if len(keys) == 1 and keys <= _REGISTERED.keys():
        # Most shares are of revisions, and a service may have ten thousand endpoints.
        read, numbers = _REGISTERED[keys.pop()], {value: number for number, (_, _, value) in enumerate(parts)}
        return lambda endpoint: numbers.get(read(endpoint.registration), len(parts))
    fitting = [fits_selector(share.selector) for share in groups]
    return lambda endpoint: next((number for number, fits in enumerate(fitting) if fits(endpoint)), len(fitting))


def fits_selector(selector: str) -> Callable[[Endpoint], bool]:
    """Return what tells whether an endpoint is in the group of a selector."""
    key, _, value = selector.partition("=")
    if key == "canary":
        wanted = _BOOLEANS.get(value)
        return lambda endpoint: endpoint.canary is wanted
    if key in _REGISTERED:
        read = _REGISTERED[key]
        return lambda endpoint: bool(read(endpoint.registration) == value)
    return lambda endpoint: has_metadata(endpoint.registration.metadata, selector)


_BOOLEANS = {"true": True, "false": False}
_REGISTERED: Mapping[str, Callable[[Any], str]] = {
    name: attrgetter(name) for name in ("revision", "zone", "region", "instance_id")
}
