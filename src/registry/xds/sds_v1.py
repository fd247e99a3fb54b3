"""A snapshot in the format of Envoy's v1 service discovery, as cookpad/sds and lyft/discovery answered it."""

import datetime as dt
from collections.abc import Callable
from typing import Any

import msgspec

from registry.cache.snapshot_cache import SnapshotCache
from registry.core.endpoint import Endpoint
from registry.core.lease import Lease
from wire.reserved_metadata import without_reserved_keys

_MAX_WEIGHT = 100
"""The largest load balancing weight that Envoy's v1 schema allows."""


class HostsV1:
    """The v1 responses: one document for the clients of both registries, which ignore each other's keys.

    Args:
        cache: where the endpoints are.
        environment: the ``env`` of each answer.
    """

    def __init__(self, cache: SnapshotCache, environment: str) -> None:
        self._cache = cache
        self._environment = environment
        self._encoded: dict[str, tuple[int, int, bytes]] = {}
        """The change, the reading of the leases and the response by service. Written by of_service()."""

    def of_service(self, service: str) -> bytes:
        """Return the hosts of a service; none for an unknown service, and never an error."""
        snapshot = self._cache.get(service)
        if not snapshot.version:
            return self._body("service", service, [])
        # Check-in times come with each reading of the leases, everything else with a change.
        state = (snapshot.change, self._cache.lease_reading)
        kept = self._encoded.get(service)
        if kept is None or kept[:2] != state:
            body = self._body("service", service, snapshot.ordered())
            kept = self._encoded[service] = (*state, body)
        return kept[2]

    def of_repository(self, repository: str, covers: Callable[[str], bool]) -> bytes:
        """Return the hosts whose registration names a source repository.

        Args:
            repository: its name.
            covers: tells whether the hosts of a service are among them.
        """
        members = [
            endpoint
            for name, snapshot in self._cache.services().items()
            if covers(name)
            for endpoint in snapshot.ordered()
            if endpoint.registration.repository == repository
        ]
        return self._body("service_repo_name", repository, members)

    def _body(self, kind: str, name: str, endpoints: list[Endpoint]) -> bytes:
        # v1 has no health field, so an endpoint that may not receive traffic is not listed.
        hosts = [self._host(endpoint) for endpoint in endpoints if endpoint.routable]
        return msgspec.json.encode({kind: name, "env": self._environment, "hosts": hosts})

    def _host(self, endpoint: Endpoint) -> dict[str, Any]:
        registration = endpoint.registration
        ttl = registration.ttl or 0.0
        lease = self._cache.leases.get(endpoint.id)
        if lease is None:
            lease = Lease(endpoint.id, endpoint.changed_at, endpoint.changed_at + ttl)
        return {
            "service": endpoint.service,
            "ip_address": endpoint.address,
            "service_repo_name": registration.repository,
            "port": endpoint.port,
            "revision": registration.revision,
            "last_check_in": _check_in(lease.renewed_at),
            "expire_time": int(lease.expires_at),
            "tags": _tags(endpoint),
        }


def _tags(endpoint: Endpoint) -> dict[str, Any]:
    registration = endpoint.registration
    tags = without_reserved_keys(registration.metadata) | {
        "az": registration.zone,
        "region": registration.region,
        "instance_id": registration.instance_id,
        "canary": endpoint.canary,
    }
    # Envoy's v1 schema rejects a whole answer with a weight above 100, so none may come from free metadata either.
    tags.pop("load_balancing_weight", None)
    if endpoint.weight is not None:
        tags["load_balancing_weight"] = min(endpoint.weight, _MAX_WEIGHT)
    return tags


def _check_in(seconds: float) -> str:
    return dt.datetime.fromtimestamp(int(seconds), dt.UTC).isoformat(" ")
