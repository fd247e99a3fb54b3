"""Shares of traffic within a service: percentages of groups of its endpoints, as weights of these endpoints.

An Envoy that balances by weights follows a share without any change of its routes. Weights are computed when a snapshot
is made, from what is routable then: constants would drift, since a group of three endpoints with the weight that was
right for one has three times its share.
"""

import re
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from registry.core.endpoint import Endpoint, has_metadata
from registry.core.endpoint_table import EndpointTable
from registry.errors import InvalidError
from wire.model import PRINTABLE_PATTERN

WHOLE = 1_000_000
"""The sum of the weights of a service under shares; a share of 0.01 % of it is still 100."""
_FINE_WHOLE = 1_000_000_000
"""The sum where an endpoint would weigh less than `_FINE_WEIGHT`: a group of thousands would miss a small share by
rounding, and 10,000 endpoints had 1 % in place of 0.5. Envoy takes sums below 2**32."""
_FINE_WEIGHT = 100
MAX_GROUPS = 16
"""Groups of a service that have a share of their own."""
_ENDPOINTS_A_TURN = 100
"""Endpoints that are looked at before other work of the process may have its turn: about 0.2 ms."""
_FULL = 100.0
_TOLERANCE = 1e-9
"""The difference to 100 at which percentages still count as 100: 33.3, 33.3 and 33.4 are not exact in binary."""

_DECIMALS = 9
"""Digits of the rest's percentage; with fewer, a rest above the tolerance would be none, and drained."""
_PRINTABLE = re.compile(PRINTABLE_PATTERN)

Count = Callable[[Endpoint, int], None]
"""Counts an endpoint by its status; -1 takes it back."""


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


class ShareCensus:
    """The endpoints of the groups of a service by their own weights, and the weights that follow from them.

    It is carried on from one snapshot to the next, so that a change of one endpoint needs no look at the others.

    Args:
        groups: the shares; lists by group have the rest as their last item.
    """

    __slots__ = ("_bases", "_group_of", "_percents", "_sizes", "groups")

    def __init__(self, groups: Sequence[Share]) -> None:
        self.groups = tuple(groups)
        self._group_of = grouping(groups)
        self._percents = _percents(groups)
        self._sizes = [0] * len(self._percents)
        """The endpoints of each group."""
        self._bases: list[dict[int, int]] = [{} for _ in self._percents]
        """By group, how many routable endpoints have each own weight."""

    def copy(self, groups: Sequence[Share]) -> "ShareCensus":
        """Return a census of the same endpoints and selectors, with these percentages, that can be changed apart."""
        copied = ShareCensus(groups)
        copied._sizes = self._sizes.copy()
        copied._bases = [bases.copy() for bases in self._bases]
        return copied

    def has_selectors_of(self, groups: Sequence[Share]) -> bool:
        """Whether endpoints are in the same groups under these shares."""
        return [share.selector for share in self.groups] == [share.selector for share in groups]

    def add(self, endpoint: Endpoint, number: int = 1) -> None:
        """Count an endpoint; -1 takes it back."""
        group, base = self._group_of(endpoint), _base(endpoint)
        self._sizes[group] += number
        if base:
            bases = self._bases[group]
            bases[base] = bases.get(base, 0) + number
            if not bases[base]:
                del bases[base]

    @property
    def served(self) -> list[Group]:
        """The groups as they are served, with the rest as the last one."""
        selectors = [*(share.selector for share in self.groups), ""]
        return [
            Group(selector, percent, round(_FULL * part, 4), size, sum(bases.values()))
            for selector, percent, part, size, bases in zip(
                selectors, self._percents, self._effective(), self._sizes, self._bases, strict=True
            )
        ]

    @property
    def routable_weights(self) -> list[dict[int, int]]:
        """By group, how many of its routable endpoints the shares give each weight; none where the share is 0."""
        counted: list[dict[int, int]] = []
        for percent, unit, bases in zip(self._percents, self.weights().units, self._bases, strict=True):
            of_group: dict[int, int] = {}
            for base, number in bases.items() if percent else ():
                weight = round(unit * base) or 1
                of_group[weight] = of_group.get(weight, 0) + number
            counted.append(of_group)
        return counted

    def weights(self) -> "ShareWeights":
        """Return the weights that the shares give."""
        parts = [
            (part / sum(base * count for base, count in bases.items()), min(bases)) if bases else (0.0, 1)
            for part, bases in zip(self._effective(), self._bases, strict=True)
        ]
        is_coarse = any(0 < WHOLE * part * least < _FINE_WEIGHT for part, least in parts)
        whole = _FINE_WHOLE if is_coarse else WHOLE
        units = [whole * part for part, _ in parts]
        return ShareWeights(self._group_of, self._percents, units, self._bases)

    def _effective(self) -> list[float]:
        """Return the parts of 1 that the groups get; one that has nothing routable leaves its part to the others."""
        taking = [percent if bases else 0.0 for percent, bases in zip(self._percents, self._bases, strict=True)]
        total = sum(taking)
        return [part / total if total else 0.0 for part in taking]


class ShareWeights:
    """The weights that shares give to endpoints.

    A group with share s gives each of its routable endpoints ``round(WHOLE * s * w / sum of w)``, and at least 1, where
    w is the weight of the override or registration, or 1; with a greater sum where that would be a small number.
    Endpoints that are not routable weigh 1: in a panic, Envoy sends to them as well, and they have no part of the
    share. In a group without a share all weigh 0.

    Args:
        group_of: tells the group of an endpoint.
        percents: the percentages that the groups were given.
        units: by group, the weight of an endpoint whose own weight is 1.
        bases: by group, the own weights that its routable endpoints have.
    """

    __slots__ = ("_bases", "_group_of", "_percents", "units")

    def __init__(
        self,
        group_of: Callable[[Endpoint], int],
        percents: Sequence[float],
        units: Sequence[float],
        bases: Sequence[Mapping[int, int]],
    ) -> None:
        self._group_of = group_of
        self._percents = percents
        self.units = units
        self._bases = bases

    def apply(self, endpoint: Endpoint) -> Endpoint:
        """Return an endpoint with its weight: the same object where that stays."""
        group = self._group_of(endpoint)
        weight = round(self.units[group] * _base(endpoint)) or 1 if self._percents[group] else 0
        return endpoint if endpoint.share_weight == weight else replace(endpoint, share_weight=weight)

    def differs(self, before: "ShareWeights") -> bool:
        """Whether endpoints that have not changed themselves get another weight than before, under the same shares."""
        return any(
            (round(unit * base) or 1) != (round(former * base) or 1)
            for unit, former, bases in zip(self.units, before.units, self._bases, strict=True)
            for base in bases
        )


def share_table(
    table: EndpointTable,
    groups: Sequence[Share],
    count: Count,
    before: ShareCensus | None = None,
    gone: Iterable[Endpoint] = (),
    come: Collection[Endpoint] = (),
) -> Generator[None, None, ShareCensus | None]:
    """Give the endpoints of a table the weights of shares, in turns with other work.

    Args:
        table: the endpoints, which are replaced where their weights are others.
        groups: the shares; none: endpoints have their own weights.
        count: called for each replaced endpoint whose status may be another one.
        before: the census before the change, of the same selectors; None: all endpoints are looked at.
        gone: the endpoints as they were before the change.
        come: the endpoints that the change has put into the table.

    Returns:
        The census after the change; None without shares.
    """
    if not groups:
        yield from _each_in_turns(table, lambda endpoint: _with_weight(endpoint, None), count)
        return None
    if before is None:
        census = ShareCensus(groups)
        for number, endpoint in enumerate(table.each(), start=1):
            census.add(endpoint)
            if number % _ENDPOINTS_A_TURN == 0:
                yield
        yield from _each_in_turns(table, census.weights().apply, count)
        return census
    census = before.copy(groups)
    for endpoint in gone:
        census.add(endpoint, -1)
    for endpoint in come:
        census.add(endpoint)
    weights = census.weights()
    if before.groups != census.groups or weights.differs(before.weights()):
        yield from _each_in_turns(table, weights.apply, count)
        return census
    for endpoint in come:
        if table.get(endpoint.key[1:]) is endpoint:
            _replace(table, endpoint, weights.apply(endpoint), count)
    return census


def _each_in_turns(
    table: EndpointTable, apply: Callable[[Endpoint], Endpoint], count: Count
) -> Generator[None, None, None]:
    for number, endpoint in enumerate(list(table.each()), start=1):
        _replace(table, endpoint, apply(endpoint), count)
        if number % _ENDPOINTS_A_TURN == 0:
            yield


def _replace(table: EndpointTable, before: Endpoint, after: Endpoint, count: Count) -> None:
    if after is before:
        return
    table.put(after)
    # Of all weights only 0 is another status.
    if (before.share_weight == 0) != (after.share_weight == 0):
        count(before, -1)
        count(after, 1)


def _base(endpoint: Endpoint) -> int:
    """Return the own weight of an endpoint; 0 of one that is not routable by itself."""
    return (endpoint.own_weight or 1) if endpoint.routable_by_itself else 0


def census_of(endpoints: Iterable[Endpoint], groups: Sequence[Share]) -> ShareCensus:
    """Return the census of endpoints under shares, all of them looked at."""
    census = ShareCensus(groups)
    for endpoint in endpoints:
        census.add(endpoint)
    return census


def groups_in(endpoints: Iterable[Endpoint], groups: Sequence[Share]) -> list[Group]:
    """Return the groups of a service as they are served, with the rest as the last one."""
    return census_of(endpoints, groups).served


def rest_percent(groups: Sequence[Share]) -> float:
    """Return the percentage that the shares of groups leave to the rest."""
    return _percents(groups)[-1]


def share_of(endpoint: Endpoint, shares: Shares) -> GroupShare:
    """Return the share of the group that an endpoint is in."""
    groups = shares.groups
    number = grouping(groups)(endpoint)
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


def released_groups(shares: Shares | None, groups: Sequence[Group], wanted: Sequence[Share]) -> list[str]:
    """Return in words which groups get requests again because other shares take the place of their share of 0.

    Args:
        shares: the shares so far, with their author.
        groups: the groups of those, as they are served.
        wanted: the shares that replace them; empty: each endpoint has its own weight.
    """
    if shares is None:
        return []
    named = {share.selector for share in wanted}
    if wanted and not rest_percent(wanted):
        named.add("")
    author = shares.actor + (f": {shares.reason}" if shares.reason else "")
    return [
        f"{group.selector or 'the rest'} had a share of 0 % until now ({author}), and gets requests again; "
        f"{f'name {group.selector}=0 too' if group.selector else 'name shares of 100 % in all'} to keep it out"
        for group in groups
        if not group.percent and group.routable and group.selector not in named
    ]


def _with_weight(endpoint: Endpoint, weight: int | None) -> Endpoint:
    return endpoint if endpoint.share_weight == weight else replace(endpoint, share_weight=weight)


def _percents(groups: Sequence[Share]) -> list[float]:
    """Return the percentages of the groups, with that of the rest as the last one."""
    left = _FULL - sum(share.percent for share in groups)
    return [*(share.percent for share in groups), round(left, _DECIMALS) if left > _TOLERANCE else 0.0]


def grouping(groups: Sequence[Share]) -> Callable[[Endpoint], int]:
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
