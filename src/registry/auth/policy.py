"""Permissions: the one place where a decision is enforced, or only noted, as the settings say.

Every use case asks it before it does anything, and both HTTP fronts ask it before a poll, a renewal and a registration.
No front decides by itself, and no rule about permissions stands anywhere else.
"""

import ipaddress
from collections.abc import Callable, Collection, Iterable
from typing import Literal

from registry.auth.decision import Held, Refusal, Request, allows_held, decide
from registry.auth.grants import EVERYTHING, Reach
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.errors import NotAllowedError, NotOwnerError, RegistryError, UnauthenticatedError, UnavailableError

Mode = Literal["off", "audit", "on"]
"""``off``: everything is allowed but ``admin``; ``audit``: as off, and what ``on`` would refuse is noted; ``on``."""

_ADMIN = Verb.ADMIN
"""Bound once: to look up a member of an enum takes as long as the rest of a decision while access is off."""

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
        if self._off:
            if verb is not _ADMIN:
                return
        elif service and not endpoint and principal.subject.reaches(verb, service):
            # As nearly every poll; decide() would say so too, in four times as long.
            return
        refusal = self.refusal(principal, verb, service, endpoint, instance_id)
        if refusal is not None:
            self.refuse(principal, refusal)

    def refusal(
        self, principal: Principal, verb: Verb, service: str = "", endpoint: str = "", instance_id: str | None = None
    ) -> Refusal | None:
        """Return why ``allow`` would refuse, without noting it; None when it would not, or access is off."""
        if self._off and verb is not _ADMIN:
            return None
        return decide(principal.subject, principal.address, Request(verb, service, endpoint, instance_id))

    def fingerprint(self, principal: Principal, verb: Verb) -> bytes:
        """Return what decisions about a verb depend on but the request, so that they can be remembered with it.

        While it is the same for an equal request, so is the decision.
        """
        return b"" if self._off and verb is not _ADMIN else principal.fingerprint

    def enforces(self, verb: Verb) -> bool:
        """Return whether refusals of a verb are raised, and not only noted."""
        return verb not in self._noted

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

    def check_owner(self, principal: Principal, held: Held, service: str, instance_id: str | None) -> None:
        """Return when a principal may change an endpoint that is registered, and raise otherwise.

        One whose lease expired or that is leaving may be taken, and so may those at the principal's own address:
        addresses are given to other tasks and hosts without notice. One without an owner was registered before there
        were credentials; the request has to name its instance, whose registrar makes it its own by the next heartbeat.
        Of an endpoint of the principal's own identity the grants have to allow the instance, because the request may
        name none.

        Args:
            principal: who asks to register, drain or deregister.
            held: the endpoint as it is stored.
            service: the service that the request is for; another one than the endpoint's when it takes the address.
            instance_id: the instance that the request names; None: it names none.

        Raises:
            NotOwnerError: the endpoint belongs to another identity, or to another instance than it may change.
        """
        refusal = None if self._off else self.owner_refusal(principal, held, service, instance_id)
        if refusal is not None:
            self.refuse(principal, refusal)

    def owner_refusal(self, principal: Principal, held: Held, service: str, instance_id: str | None) -> Refusal | None:
        """Return why ``check_owner`` would refuse where access is not off, without noting it; None: it would not."""
        subject = principal.subject
        if not held.alive or _is_own_address(principal, held, service):
            return None
        if not held.owner:
            if not subject.owner or held.instance_id == instance_id:
                return None
            reason = (
                f"{held.endpoint} was registered before access was introduced, by another instance; it may be taken "
                "when its lease has expired"
            )
        elif held.owner != subject.owner:
            reason = f"{held.endpoint} belongs to another identity than {subject.name or 'a sender without one'}"
        elif not allows_held(subject, principal.address, held):
            reason = f"{held.endpoint} belongs to another instance than those that {subject.name} may change"
        else:
            return None
        return Refusal(Request(Verb.REGISTER, held.service, held.endpoint), "owned", reason)

    def explain(self, principal: Principal, request: Request) -> tuple[Refusal | None, bool]:
        """Return why a request would be refused, or None, and whether that would be enforced now."""
        refusal = decide(principal.subject, principal.address, request)
        return refusal, refusal is not None and request.verb not in self._noted

    def refuse(self, principal: Principal, refusal: Refusal) -> None:
        """Note a refusal, and raise it where it is enforced.

        Raises:
            RegistryError: as ``allow``.
        """
        enforced = refusal.request.verb not in self._noted
        self._observe(principal, refusal, enforced)
        if enforced:
            raise _error_of(refusal)


def _is_own_address(principal: Principal, held: Held, service: str) -> bool:
    """Return whether an endpoint is at the principal's own address, which it may then take.

    Loopback is the address of every program of a machine, so it proves nothing to the owner of another service.
    """
    if held.address != principal.address:
        return False
    return held.service == service or not ipaddress.ip_address(held.address).is_loopback


def _error_of(refusal: Refusal) -> RegistryError:
    if refusal.cause == "unauthenticated":
        return UnauthenticatedError(refusal.reason)
    if refusal.cause == "undetermined":
        return UnavailableError(refusal.reason)
    if refusal.cause == "owned":
        return NotOwnerError(refusal.reason)
    return NotAllowedError(refusal.reason)
