"""All endpoints of a service as its page shows them, made once while they stay the same.

An open page is rendered every two seconds: 5,000 endpoints would be sorted and counted each time.
"""

from collections import Counter, OrderedDict
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, TypeVar

from fastapi import Depends, Request
from msgspec import Struct

from registry.core.endpoint import Endpoint, metadata_texts
from registry.core.silence import is_silent
from registry.core.snapshot import Snapshot
from registry.http.dependencies import part_of

Value = TypeVar("Value")
LocalityName = tuple[str, str]
"""Region and zone."""

_MAX_SERVICES = 8
"""Services that are kept, each with a snapshot of its endpoints: few pages are open at a time."""
_MAX_CHOICES = 100
"""Values that a filter offers."""
_MAX_CHOICE = 80
"""Characters of a value of metadata that a filter offers."""


class LocalityCounts(Struct, frozen=True):
    """The endpoints of a service in one locality, in numbers."""

    all: int
    routable: int
    silent: int


class Usual(Struct, frozen=True):
    """The revision and the weight that most endpoints of a service have; a row says what differs."""

    revision: str
    weight: int | None


class Choices(Struct, frozen=True):
    """The values that filters offer; at most ``_MAX_CHOICES`` of each, any other can be written."""

    zones: Sequence[str]
    revisions: Sequence[str]
    instances: Sequence[str]
    metadata: Sequence[str]


class Contents(Struct, frozen=True):
    """All endpoints of a service in the order of its page, and what is counted of them."""

    endpoints: Sequence[Endpoint]
    usual: Usual
    choices: Choices
    localities: Mapping[LocalityName, LocalityCounts]


class ServiceContents:
    """Keeps what was made of the snapshots of the services that were shown last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tuple[Snapshot, Contents]] = OrderedDict()
        """By service, the one that was shown last at the end; the snapshot may be a former one. Written by of()."""

    def of(self, snapshot: Snapshot) -> Contents:
        """Return what the page of a service shows of all its endpoints."""
        kept = self._kept.pop(snapshot.service, None)
        if kept is None or kept[0] is not snapshot:
            kept = snapshot, _contents_of(snapshot)
        self._kept[snapshot.service] = kept
        if len(self._kept) > _MAX_SERVICES:
            self._kept.popitem(last=False)
        return kept[1]


def locality_of(endpoint: Endpoint) -> LocalityName:
    """Return the region and the zone of an endpoint."""
    return endpoint.registration.region, endpoint.registration.zone


def _contents_of(snapshot: Snapshot) -> Contents:
    everyone = sorted(snapshot.ordered(), key=_place)
    return Contents(everyone, _usual(everyone), _choices(everyone), _localities(everyone))


def _place(endpoint: Endpoint) -> tuple[str, str, bool]:
    """Return by what endpoints are sorted: by locality, and silent ones first, since they may be dead."""
    return (*locality_of(endpoint), not is_silent(endpoint))


def _localities(everyone: Sequence[Endpoint]) -> dict[LocalityName, LocalityCounts]:
    counts = [
        Counter(map(locality_of, endpoints))
        for endpoints in (
            everyone,
            (endpoint for endpoint in everyone if endpoint.routable),
            (endpoint for endpoint in everyone if is_silent(endpoint)),
        )
    ]
    return {locality: LocalityCounts(*(each[locality] for each in counts)) for locality in counts[0]}


def _usual(everyone: Sequence[Endpoint]) -> Usual:
    return Usual(
        _most_frequent([endpoint.registration.revision for endpoint in everyone]) or "",
        _most_frequent([endpoint.weight for endpoint in everyone]),
    )


def _most_frequent(values: Sequence[Value]) -> Value | None:
    """Return the most frequent value, the first one of those that are equally frequent."""
    return max(Counter(values).items(), key=lambda item: item[1], default=(None, 0))[0]


def _choices(everyone: Sequence[Endpoint]) -> Choices:
    registrations = [endpoint.registration for endpoint in everyone]
    return Choices(
        zones=_some({registration.zone for registration in registrations}),
        revisions=_some({registration.revision for registration in registrations}),
        instances=_some({registration.instance_id for registration in registrations[:_MAX_CHOICES]}),
        metadata=_some(
            {
                f"{key}={text}"
                for registration in registrations[:_MAX_CHOICES]
                for key, text in metadata_texts(registration.metadata).items()
                if len(text) <= _MAX_CHOICE
            }
        ),
    )


def _some(values: Collection[str]) -> list[str]:
    return sorted(value for value in values if value)[:_MAX_CHOICES]


async def _service_contents(request: Request) -> ServiceContents:
    return part_of(request, ServiceContents)


ServiceContentsPart = Annotated[ServiceContents, Depends(_service_contents)]
"""The argument of the page of a service."""
