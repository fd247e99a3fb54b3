"""The overrides in force, from memory: those of listed endpoints, and those that wait for their endpoint's return."""

from collections.abc import Iterator

from msgspec import Struct

from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.cache.snapshot_cache import SnapshotCache
from registry.core.endpoint import Endpoint, Override
from wire.address import format_endpoint


class OverrideInForce(Struct, frozen=True):
    """An operator's override; ``endpoint`` is None while the endpoint is not listed."""

    service: str
    name: str
    override: Override
    endpoint: Endpoint | None

    @property
    def place(self) -> tuple[str, str]:
        """Its place in lists: by service, then by address and port as text."""
        return (self.service, self.name)


class OverridePage(Struct, frozen=True):
    """A part of the overrides in force, and whether more follow."""

    overrides: list[OverrideInForce]
    more: bool


class OverrideListing:
    """Lists what operators have overridden.

    Args:
        policy: decides who may read.
        cache: where the endpoints with their overrides are.
    """

    def __init__(self, policy: Policy, cache: SnapshotCache) -> None:
        self._policy = policy
        self._cache = cache

    def all(self, principal: Principal, service: str | None = None) -> list[OverrideInForce]:
        """Return the overrides of all services that the principal may read, or of one of them, in their order."""
        self._policy.allow(principal, Verb.READ, service or "")
        names = [service] if service is not None else self._policy.readable(principal, self._cache.services())
        readable = frozenset(names)
        listed = [_of(endpoint) for name in readable for endpoint in self._cache.get(name).overridden]
        return sorted(
            [*(of for of in listed if of is not None), *self._unlisted(readable)], key=lambda item: item.place
        )

    def page(
        self, principal: Principal, service: str | None, *, after: tuple[str, str] | None, limit: int
    ) -> OverridePage:
        """Return up to ``limit`` overrides behind the place of one."""
        behind = [item for item in self.all(principal, service) if after is None or item.place > after]
        return OverridePage(behind[:limit], len(behind) > limit)

    def _unlisted(self, services: frozenset[str]) -> Iterator[OverrideInForce]:
        for key, override in self._cache.unlisted_overrides.items():
            # The reading of these is some seconds old; an endpoint that was listed since has the override by itself.
            if key[0] in services and self._cache.find(key) is None:
                yield OverrideInForce(key[0], format_endpoint(*key[1:]), override, None)


def _of(endpoint: Endpoint) -> OverrideInForce | None:
    if endpoint.override is None:
        return None
    return OverrideInForce(endpoint.service, endpoint.name, endpoint.override, endpoint)
