"""Permissions: the one place where a decision is enforced, or only noted, as the settings say.

Every use case asks it before it does anything, and both HTTP fronts ask it before a poll, a renewal and a registration.
No front decides by itself, and no rule about permissions stands anywhere else.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Literal

from registry.auth.decision import Refusal, Request, decide
from registry.auth.grants import EVERYTHING, Reach
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.errors import NotAllowedError, NotOwnerError, RegistryError, UnauthenticatedError, UnavailableError

Mode = Literal["off", "audit", "on"]
"""``off``: everything is allowed but ``admin``; ``audit``: as off, and what ``on`` would refuse is noted; ``on``."""

Observer = Callable[[Principal, Refusal, bool], None]
"""Gets each refusal: the principal, the refusal, and whether it is enforced."""


def _ignore(_principal: Principal, _refusal: Refusal, _enforced: bool) -> None:  # as Observer
    """Observe nothing."""


class Policy:
    """Decides what principals may do.

    Args:
        mode: whether refusals are enforced.
        audit_verbs: verbs whose refusals are only noted while the mode is ``on``.
        observe: gets each refusal, enforced or not.
    """

    __slots__ = ("_noted", "_observe", "_off", "mode")

    def __init__(self, mode: Mode = "off", audit_verbs: Collection[Verb] = (), observe: Observer = _ignore) -> None:
        self.mode = mode
        self._off = mode == "off"
        self._observe = observe
        self._noted = frozenset(audit_verbs) if mode == "on" else frozenset(set(Verb) - {Verb.ADMIN})
        """Verbs whose refusals are not enforced. Credentials are never managed without one, whatever the mode is: what
        a stranger makes while access is off would be good when it is on."""

    @property
    def noted_verbs(self) -> frozenset[Verb]:
        """The verbs that are decided, and whose refusals are only noted; none while access is off."""
        return frozenset() if self._off else self._noted

    def allow(
        self, principal: Principal, verb: Verb, service: str = "", endpoint: str = "", instance_id: str | None = None
    ) -> None:
        """Return when a principal may do something, and raise otherwise.

        Args:
            principal: who asks.
            verb: what is asked for.
            service: the service or the resource name that is concerned; empty when no single one is.
            endpoint: the endpoint that is concerned, as ``address:port``; empty when no single one is.
            instance_id: the instance that registers; None when none is concerned.

        Raises:
            UnauthenticatedError: there is no credential, or it is not accepted.
            NotAllowedError: the principal may not do this.
            UnavailableError: this process cannot know yet.
        """
        if self._off and verb is not Verb.ADMIN:
            return
        refusal = decide(principal.subject, principal.address, Request(verb, service, endpoint, instance_id))
        if refusal is not None:
            self._refuse(principal, refusal)

    def can(self, principal: Principal, verb: Verb, service: str = "") -> bool:
        """Return whether a principal may do something, as lists and pages ask: nothing is noted or raised."""
        if verb in self._noted:
            return True
        return decide(principal.subject, principal.address, Request(verb, service)) is None

    def readable(self, principal: Principal, services: Iterable[str]) -> Iterable[str]:
        """Return those of some services that a principal may read, as lists need them."""
        reach = self.reach(principal, Verb.READ)
        return services if reach.everything else [service for service in services if reach.covers(service)]

    def reach(self, principal: Principal, verb: Verb) -> Reach:
        """Return the services for which a principal may do something; of a list it sees those and no others."""
        return EVERYTHING if verb in self._noted else principal.subject.reach(verb)

    def check_owner(  # the facts of one endpoint
        self, principal: Principal, service: str, endpoint: str, *, owner: str, address: str, lapsed: bool
    ) -> None:
        """Return when a principal may change the endpoint of an owner, and raise otherwise.

        An endpoint without an owner, one whose lease expired or that is leaving, and one at the principal's own address
        may be taken: addresses are given to other tasks and hosts without notice.

        Args:
            principal: who asks to register, drain or deregister it.
            service: the service that the endpoint is listed for.
            endpoint: the endpoint, as ``address:port``.
            owner: the identity that registered it; empty: none is known.
            address: the endpoint's address.
            lapsed: whether its lease expired, also where it is kept served all the same, or it is leaving.

        Raises:
            NotOwnerError: the endpoint belongs to another identity.
        """
        if self._off or not owner or owner == principal.subject.owner or lapsed or address == principal.address:
            return
        reason = f"{endpoint} belongs to another identity than {principal.subject.name or 'a sender without one'}"
        self._refuse(principal, Refusal(Request(Verb.REGISTER, service, endpoint), "owned", reason))

    def explain(self, principal: Principal, request: Request) -> tuple[Refusal | None, bool]:
        """Return why a request would be refused, or None, and whether that would be enforced now."""
        refusal = decide(principal.subject, principal.address, request)
        return refusal, refusal is not None and request.verb not in self._noted

    def _refuse(self, principal: Principal, refusal: Refusal) -> None:
        enforced = refusal.request.verb not in self._noted
        self._observe(principal, refusal, enforced)
        if enforced:
            raise _error_of(refusal)


def _error_of(refusal: Refusal) -> RegistryError:
    if refusal.cause == "unauthenticated":
        return UnauthenticatedError(refusal.reason)
    if refusal.cause == "undetermined":
        return UnavailableError(refusal.reason)
    if refusal.cause == "owned":
        return NotOwnerError(refusal.reason)
    return NotAllowedError(refusal.reason)
