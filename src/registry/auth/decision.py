"""The decision: whether a subject may do something. It is pure, and every front and every item asks it alone.

It follows the order of NIST's attribute based access control (SP 800-162): the subject, the action, the object. There
are no denying grants, so more grants never allow less.
"""

from typing import Literal

from msgspec import Struct

from registry.auth.subject import Subject
from registry.auth.verbs import Verb
from wire.address import split_endpoint

Cause = Literal["unauthenticated", "forbidden", "undetermined", "owned"]
"""Why something is refused: no valid credential, no grant, no way to know yet, or another owner."""

_EVERYWHERE = frozenset({Verb.OPERATE, Verb.REGISTER, Verb.CONFIGURE, Verb.ADMIN})
"""Verbs that change something, and so need a grant for all services when they name none.

That is ``admin`` always: with a grant of it for one service somebody could make himself a token for all.
"""


class Request(Struct, frozen=True):
    """Something that a principal asks to do.

    Attributes:
        verb: what it asks for.
        service: the service that is concerned; empty when no single one is.
        endpoint: the endpoint that is concerned, as ``address:port``; empty when no single one is.
        instance_id: the instance that registers; None when none is concerned.
    """

    verb: Verb
    service: str = ""
    endpoint: str = ""
    instance_id: str | None = None


class Refusal(Struct, frozen=True):
    """A decision against a principal; its reason never says whether a service or an endpoint exists."""

    request: Request
    cause: Cause
    reason: str


class Held(Struct, frozen=True):
    """An endpoint as it is stored, before a request changes it or takes its address.

    Attributes:
        service: the service that it is listed for.
        endpoint: the endpoint, as ``address:port``.
        address: its address.
        instance_id: the instance that registered it.
        owner: the identity that registered it; empty: it was registered before there were credentials.
        alive: whether its lease is good and it is not leaving.
    """

    service: str
    endpoint: str
    address: str
    instance_id: str
    owner: str
    alive: bool


def decide(subject: Subject, peer: str, request: Request) -> Refusal | None:
    """Return why a subject may not do something; None when it may.

    Args:
        subject: who asks.
        peer: the address that the request comes from.
        request: what it asks for.
    """
    if subject.unknown:
        return Refusal(request, "undetermined", subject.problem)
    if subject.problem:
        return Refusal(request, "unauthenticated", subject.problem)
    if _covers(subject, request):
        if request.verb is not Verb.REGISTER or not request.endpoint:
            return None
        return _decide_registration(subject, peer, request)
    if not subject.name:
        return Refusal(request, "unauthenticated", f"{_asked(request)} needs a credential, and none was sent")
    return Refusal(request, "forbidden", f"no grant of {subject.name} allows {_asked(request)}")


def allows_held(subject: Subject, peer: str, held: Held) -> bool:
    """Return whether the grants to register allow an endpoint's own instance, whichever the request names.

    Grants may have been narrowed since. If none is for the endpoint's service, one for any service has to allow it.
    """
    grants = subject.grants_for(Verb.REGISTER, held.service)
    return any(
        grant.allows_address(held.address, peer) and grant.allows_instance(held.instance_id, subject.session_name)
        for grant in grants or (grant for grant in subject.grants if Verb.REGISTER in grant.verbs)
    )


def _covers(subject: Subject, request: Request) -> bool:
    reach = subject.reach(request.verb)
    if request.service:
        return reach.covers(request.service)
    if request.verb in _EVERYWHERE:
        return reach.everything
    # Lists are filtered by the services that may be read.
    return reach.everything or bool(reach.names or reach.prefixes)


def _decide_registration(subject: Subject, peer: str, request: Request) -> Refusal | None:
    """Return why no grant allows the address and the instance of a registration; None when one allows both."""
    grants = subject.grants_for(request.verb, request.service)
    if not all(grant.bound for grant in grants):
        return None
    try:
        address, _ = split_endpoint(request.endpoint)
    except ValueError as error:
        return Refusal(request, "forbidden", f"{subject.name} may register at an address alone: {error}")
    at_address = [grant for grant in grants if grant.allows_address(address, peer)]
    if any(grant.allows_instance(request.instance_id, subject.session_name) for grant in at_address):
        return None
    if at_address:
        reason = (
            f"{subject.name} may register instances of its own session alone, which is "
            f"{subject.session_name or 'none'}; the instance is {request.instance_id!r}"
        )
    else:
        allowed = sorted({each for grant in grants for each in grant.addresses})
        reason = (
            f"{subject.name} may register at {', '.join(allowed)} alone, and asks for {address}; "
            f"the request comes from {peer}"
        )
    return Refusal(request, "forbidden", reason)


def _asked(request: Request) -> str:
    if not request.service:
        return f"the verb {request.verb}{' for all services' if request.verb in _EVERYWHERE else ''}"
    return f"the verb {request.verb} for the service {request.service}"
