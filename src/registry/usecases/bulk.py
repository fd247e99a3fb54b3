"""Changes by an operator of several endpoints of a service, each decided and made for itself."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from msgspec import UNSET, Struct, UnsetType

from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.client_deadline import in_time_for_client
from registry.core.endpoint import Key, endpoint_key
from registry.core.override_change import OverrideChange
from registry.errors import RefusedError, RegistryError, UnavailableError
from registry.usecases.operator_deregistration import OperatorDeregistration
from registry.usecases.registration import Registrations
from wire.address import parse_endpoint

BulkAction = Literal["drain", "undrain", "weight", "deregister"]
MAX_BULK = 200
"""Endpoints of one change of several."""


class BulkChange(Struct, frozen=True):
    """The change that is to be made of each endpoint.

    Attributes:
        action: what to do.
        reason: why, for the history.
        weight: with ``weight``: the new weight; None takes the operator's weight back.
        expires_in: with ``drain`` and ``weight``: seconds until the override ends; None: never; unset: it stays.
        force: with ``deregister``: also when the guard's limit is exceeded.
    """

    action: BulkAction
    reason: str
    weight: int | None = None
    expires_in: float | UnsetType | None = UNSET
    force: bool = False


class BulkResult(Struct, frozen=True):
    """The result of one endpoint: its published status after the change, or why it was refused.

    ``status`` is empty for an endpoint that was deregistered.
    """

    endpoint: str
    status: str
    error: RegistryError | None


class BulkChanges:
    """Changes several endpoints for an operator.

    Args:
        policy: decides who may change endpoints.
        registrations: stores overrides.
        operator_deregistration: deregisters, within the guard's limit.
    """

    def __init__(
        self, policy: Policy, registrations: Registrations, operator_deregistration: OperatorDeregistration
    ) -> None:
        self._policy = policy
        self._registrations = registrations
        self._operator_deregistration = operator_deregistration

    async def change(
        self, principal: Principal, service: str, endpoints: Sequence[str], wanted: BulkChange
    ) -> list[BulkResult]:
        """Make a change of each endpoint, whatever becomes of the others, and return the results in their order.

        Args:
            principal: the operator.
            service: the service of all of them.
            endpoints: as ``address:port``, at most ``MAX_BULK``; one that is named twice is changed once.
            wanted: the change.

        Raises:
            NotAllowedError: the principal may operate nothing of the service.
            UnavailableError: nothing could be stored.
        """
        self._policy.allow(principal, Verb.OPERATE, service)
        names = _without_duplicates(endpoints)
        if wanted.action == "deregister":
            results = await self._deregister_each(principal, service, names, wanted)
        else:
            change = _override_change(wanted)
            # Each is a task of its own, which knows nothing of the client's deadline.
            async with in_time_for_client(stores=True):
                results = await asyncio.gather(*(self._override(principal, service, name, change) for name in names))
        away = [result.error for result in results if isinstance(result.error, UnavailableError)]
        if away and len(away) == len(results):
            raise away[0]
        return list(results)

    async def _override(self, principal: Principal, service: str, name: str, change: OverrideChange) -> BulkResult:
        async def act(key: Key) -> str:
            by = change.by(principal.name)
            stored = await self._registrations.override(principal, key, by, change.given_reason)
            return stored.endpoint.status.value

        return await _result(service, name, act)

    async def _deregister_each(
        self, principal: Principal, service: str, names: Sequence[str], wanted: BulkChange
    ) -> list[BulkResult]:
        """Deregister one after the other, so that each counts for the guard's limit of the next.

        Once PostgreSQL no longer answers, the others are not tried: each of them would wait for it as long again.
        """
        results: list[BulkResult] = []
        away: UnavailableError | None = None
        for name in names:
            result = (
                await self._deregister(principal, service, name, wanted) if away is None else BulkResult(name, "", away)
            )
            if isinstance(result.error, UnavailableError) and not isinstance(result.error, RefusedError):
                away = result.error
            results.append(result)
        return results

    async def _deregister(self, principal: Principal, service: str, name: str, wanted: BulkChange) -> BulkResult:
        async def act(key: Key) -> str:
            await self._operator_deregistration.endpoint(principal, key, wanted.reason, force=wanted.force)
            return ""

        return await _result(service, name, act)


def _without_duplicates(endpoints: Sequence[str]) -> list[str]:
    """Return the endpoints as the request first names each: an IPv6 address may be written in several ways."""
    first: dict[object, str] = {}
    for name in endpoints:
        try:
            first.setdefault(parse_endpoint(name), name)
        except ValueError:
            # Refused by itself, with the reason.
            first.setdefault(name, name)
    return list(first.values())


async def _result(service: str, name: str, act: Callable[[Key], Awaitable[str]]) -> BulkResult:
    try:
        return BulkResult(name, await act(endpoint_key(service, name, "$.endpoints")), None)
    except RegistryError as error:
        return BulkResult(name, "", error)


def _override_change(wanted: BulkChange) -> OverrideChange:
    if wanted.action == "undrain":
        return OverrideChange(drain=False, reason=wanted.reason)
    if wanted.action == "drain":
        return OverrideChange(drain=True, reason=wanted.reason, expires_in=wanted.expires_in)
    expires_in = UNSET if wanted.weight is None else wanted.expires_in
    return OverrideChange(weight=wanted.weight, reason=wanted.reason, expires_in=expires_in)
