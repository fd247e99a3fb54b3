"""Requests for lists, and how the fast protocol reads them from their addresses.

The routes read the same requests, and describe their parameters for OpenAPI. An address with anything but the
parameters of its list, each once and within its bounds, is left to them.
"""

import re
from functools import lru_cache
from urllib.parse import parse_qsl

from msgspec import Struct

from registry.core.silence import STATUSES_FOR_PEOPLE
from registry.http.parameters import (
    MAX_CURSOR,
    MAX_FILTER,
    MAX_METADATA_FILTER,
    MAX_PAGE,
    PAGE,
)
from registry.usecases.catalog import EndpointFilter

_MAX_URLS = 4096
"""Addresses of requests that are remembered as read."""
_MAX_URL = 2048
"""Bytes of an address that is read here, and remembered."""
_URL = re.compile(
    rb"/v1/(?:services(?:/(?P<service>[A-Za-z0-9][A-Za-z0-9._:@~-]{0,254})(?P<endpoints>/endpoints)?)?"
    rb"|(?P<targets>prometheus/targets))(?:\?(?P<query>[A-Za-z0-9._:@~/=&%+,-]*))?"
)
_SIZE = re.compile(r"[1-9][0-9]{0,3}")
_BOOLEANS = {"true": True, "false": False}
_FILTERS = ("region", "zone", "revision", "instance_id")


class ServicesRequest(Struct, frozen=True):
    """A request for a page of services, the one after the page that gave the cursor.

    Attributes:
        prefix: the beginning of their names.
        cursor: None, or empty: the first page.
        limit: how many at most.
    """

    prefix: str = ""
    cursor: str | None = None
    limit: int = PAGE

    route = "/v1/services"

    @property
    def reads(self) -> tuple[str, ...]:
        """The services that it names for the policy; an empty name stands for a list."""
        return ("",)


class ServiceRequest(Struct, frozen=True):
    """A request for a service."""

    service: str

    route = "/v1/services/{service}"

    @property
    def reads(self) -> tuple[str, ...]:
        """The services that it names for the policy."""
        return (self.service,)


class EndpointsRequest(Struct, frozen=True):
    """A request for a page of endpoints, the one after the page that gave the cursor.

    Attributes:
        service: their service.
        wanted: which of its endpoints.
        cursor: None: the first page.
        limit: how many at most.
    """

    service: str
    wanted: EndpointFilter = EndpointFilter()
    cursor: str | None = None
    limit: int = PAGE

    route = "/v1/services/{service}/endpoints"

    @property
    def reads(self) -> tuple[str, ...]:
        """The services that it names for the policy."""
        return (self.service,)


class TargetsRequest(Struct, frozen=True):
    """A request for targets of Prometheus.

    Attributes:
        services: the names of their services; None stands for all.
        port: the name of the metadata that says at which port an endpoint is scraped; None: where it serves.
    """

    services: tuple[str, ...] | None = None
    port: str | None = None

    route = "/v1/prometheus/targets"

    @property
    def reads(self) -> tuple[str, ...]:
        """The services that it names for the policy; an empty name stands for a list."""
        return self.services or ("",)


ListRequest = ServicesRequest | ServiceRequest | EndpointsRequest | TargetsRequest

_Query = dict[str, list[str]]


def read_list_request(url: bytes) -> ListRequest | None:
    """Return the request that an address makes; None for one that a route has to judge, or of no list."""
    return _read(url) if len(url) <= _MAX_URL else None


@lru_cache(maxsize=_MAX_URLS)
def _read(url: bytes) -> ListRequest | None:
    match = _URL.fullmatch(url)
    if match is None:
        return None
    query: _Query = {}
    for name, value in parse_qsl((match["query"] or b"").decode(), keep_blank_values=True):
        query.setdefault(name, []).append(value)
    try:
        if match["targets"]:
            request: ListRequest = _targets(query)
        elif match["service"] is None:
            request = _services(query)
        elif match["endpoints"]:
            request = _endpoints(match["service"].decode(), query)
        else:
            request = ServiceRequest(match["service"].decode())
    except (KeyError, ValueError):
        return None
    # A key that is left is no parameter of the list.
    return None if query else request


def _services(query: _Query) -> ServicesRequest:
    prefix = _text(query, "prefix", MAX_FILTER) or ""
    return ServicesRequest(prefix, _text(query, "cursor", MAX_CURSOR), _limit(query))


def _endpoints(service: str, query: _Query) -> EndpointsRequest:
    statuses = tuple(query.pop("status", ()))
    if not set(statuses) <= set(STATUSES_FOR_PEOPLE):
        raise ValueError(statuses)
    region, zone, revision, instance_id = (_text(query, name, MAX_FILTER) for name in _FILTERS)
    canary = _text(query, "canary", MAX_FILTER)
    metadata = _text(query, "metadata", MAX_METADATA_FILTER)
    wanted = EndpointFilter(
        statuses, region, zone, revision, instance_id, None if canary is None else _BOOLEANS[canary], metadata
    )
    return EndpointsRequest(service, wanted, _text(query, "cursor", MAX_CURSOR), _limit(query))


def _targets(query: _Query) -> TargetsRequest:
    services = query.pop("service", None)
    return TargetsRequest(None if services is None else tuple(services), _text(query, "port", MAX_FILTER))


def _limit(query: _Query) -> int:
    text = _text(query, "limit", len(str(MAX_PAGE)))
    if text is None:
        return PAGE
    if not _SIZE.fullmatch(text) or int(text) > MAX_PAGE:
        raise ValueError(text)
    return int(text)


def _text(query: _Query, name: str, longest: int) -> str | None:
    """Take a parameter from a query, which has it once and no longer than that; None: it has it not."""
    values = query.pop(name, [])
    if len(values) > 1 or any(len(value) > longest for value in values):
        raise ValueError(name)
    return values[0] if values else None
