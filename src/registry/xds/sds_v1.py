"""A snapshot in the format of Envoy's v1 service discovery, as cookpad/sds and lyft/discovery answered it."""

import datetime as dt
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import msgspec

from registry.cache.snapshot_cache import SnapshotCache
from registry.core.endpoint import Endpoint
from registry.core.lease import Lease
from registry.core.v1_weights import MAX_V1_WEIGHT, v1_weights
from wire.reserved_metadata import without_reserved_keys

_MAX_REPOSITORIES = 256
"""Repositories whose responses are kept. A client may ask for any name."""


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
        self._repositories: dict[str, bytes] = {}
        """The responses by repository, all of one state. Written by of_any_repository()."""
        self._repositories_state = (-1, -1)
        """The change of any service and the reading of the leases that those responses are of."""

    def of_service(self, service: str) -> bytes:
        """Return the hosts of a service; none for an unknown service.

        Raises:
            UnavailableError: this process cannot read the service.
        """
        snapshot = self._cache.get(service)
        if not snapshot.version:
            self._cache.check_sure(service)
            self._encoded.pop(service, None)
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

        Raises:
            UnavailableError: this process cannot read a service that may have such hosts.
        """
        for name in filter(covers, self._cache.unsure):
            self._cache.check_sure(name)
        members = [
            endpoint
            for name, snapshot in self._cache.services().items()
            if covers(name)
            for endpoint in snapshot.ordered()
            if endpoint.registration.repository == repository
        ]
        return self._body("service_repo_name", repository, members)

    def of_any_repository(self, repository: str) -> bytes:
        """Return what ``of_repository`` returns for hosts of every service, encoded once as long as nothing changes."""
        state = (self._cache.advances, self._cache.lease_reading)
        if self._repositories_state != state:
            self._repositories_state = state
            self._repositories.clear()
        body = self._repositories.get(repository)
        if body is None:
            body = self.of_repository(repository, lambda _service: True)
            if len(self._repositories) < _MAX_REPOSITORIES:
                self._repositories[repository] = body
        return body

    def _body(self, kind: str, name: str, endpoints: list[Endpoint]) -> bytes:
        # v1 has no health field, so an endpoint that may not receive traffic is not listed.
        routable = [endpoint for endpoint in endpoints if endpoint.routable]
        shared = self._weights_of_shares(routable)
        hosts = [
            self._host(endpoint, shared.get(endpoint.id))
            for endpoint in routable
            if endpoint.share_weight is None or endpoint.id in shared
        ]
        return msgspec.json.encode({kind: name, "env": self._environment, "hosts": hosts})

    def _weights_of_shares(self, routable: list[Endpoint]) -> dict[int, int]:
        """Return the weights of endpoints under shares, by their ids; an answer does without some of them.

        A repository's hosts are seen without the others of their services, so they divide the shares among themselves.
        """
        under_shares: dict[str, list[Endpoint]] = defaultdict(list)
        for endpoint in routable:
            if endpoint.share_weight is not None:
                under_shares[endpoint.service].append(endpoint)
        weights: dict[int, int] = {}
        for service, endpoints in under_shares.items():
            shares = self._cache.get(service).shares
            weights |= v1_weights(endpoints, shares.groups if shares else ())
        return weights

    def _host(self, endpoint: Endpoint, shared: int | None) -> dict[str, Any]:
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
            "tags": _tags(endpoint, shared),
        }


def _tags(endpoint: Endpoint, shared: int | None) -> dict[str, Any]:
    registration = endpoint.registration
    tags = without_reserved_keys(registration.metadata) | {
        "az": registration.zone,
        "region": registration.region,
        "instance_id": registration.instance_id,
        "canary": endpoint.canary,
    }
    # Envoy's v1 schema rejects a whole answer with a weight above 100, so none may come from free metadata either.
    tags.pop("load_balancing_weight", None)
    weight = endpoint.weight if shared is None else shared
    if weight is not None:
        tags["load_balancing_weight"] = min(weight, MAX_V1_WEIGHT)
    return tags


def _check_in(seconds: float) -> str:
    return dt.datetime.fromtimestamp(int(seconds), dt.UTC).isoformat(" ")
