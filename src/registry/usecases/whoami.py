"""The answers to "who am I here?" and "may I, and why not?"."""

from msgspec import Struct

from registry.auth.access_table import AccessTable
from registry.auth.decision import Refusal, Request
from registry.auth.policy import Mode, Policy
from registry.auth.principal import Principal
from registry.auth.subject import Subject
from registry.auth.verbs import Verb
from registry.cache.snapshot_cache import SnapshotCache
from registry.errors import NotFoundError
from wire.address import parse_endpoint


class Authorization(Struct, frozen=True):
    """The answer to a question about a permission.

    Attributes:
        principal: the name of the subject that was asked about.
        refusal: why it would be refused; None: it would be allowed.
        enforced: whether the refusal would be enforced now.
    """

    principal: str
    refusal: Refusal | None
    enforced: bool


class Whoami:
    """Tells principals what is proven of them and what they may do; it decides nothing itself.

    Args:
        policy: decides.
        table: the credentials and identities that others can be asked about.
        cache: the endpoints, of which each has an owner.
    """

    def __init__(self, policy: Policy, table: AccessTable, cache: SnapshotCache) -> None:
        self._cache = cache
        self._policy = policy
        self._table = table
        self._clock = cache.clock

    @property
    def mode(self) -> Mode:
        """Whether refusals are enforced."""
        return self._policy.mode

    @property
    def noted_verbs(self) -> list[Verb]:
        """The verbs whose refusals are only noted; none while access is off."""
        return sorted(self._policy.noted_verbs)

    def authorize(self, principal: Principal, request: Request, named: str = "") -> Authorization:
        """Return whether a principal may do something.

        Args:
            principal: who asks.
            request: what is asked about.
            named: another subject to ask about, ``token:<name>`` or ``identity:<name>``; empty: the principal itself.

        Raises:
            NotAllowedError: the principal asks about another one and may not manage credentials.
            NotFoundError: no living credential or identity has this name.
        """
        if named:
            self._policy.allow(principal, Verb.ADMIN)
            principal = Principal(principal.address, subject=self._named(named))
        refusal, enforced = self._policy.explain(principal, request)
        if refusal is None:
            refusal = self._owner_refusal(principal, request)
            enforced = refusal is not None and self._policy.enforces(request.verb)
        return Authorization(principal.subject.name or principal.address, refusal, enforced)

    def _owner_refusal(self, principal: Principal, request: Request) -> Refusal | None:
        """Return why the owner of a listed endpoint keeps others from registering it, or another one at its address.

        The question is about its own instance unless it names another one. A principal that may register the endpoint
        learns no more than by a registration, which takes the address from all services alike.
        """
        if request.verb is not Verb.REGISTER or not request.service or not request.endpoint:
            return None
        for endpoint in self._cache.at(*parse_endpoint(request.endpoint)):
            instance_id = request.instance_id or endpoint.registration.instance_id
            refusal = self._policy.owner_refusal(principal, endpoint.held, request.service, instance_id)
            if refusal is not None:
                return refusal
        return None

    def refusal(self, principal: Principal, verb: Verb, service: str = "") -> str:
        """Return why something would be refused to a principal now; empty when it would not be."""
        refusal, enforced = self._policy.explain(principal, Request(verb, service))
        return refusal.reason if refusal is not None and enforced else ""

    def refusal_everywhere(self, principal: Principal, verb: Verb) -> str:
        """Return why something would be refused to a principal for every service; empty: not for all."""
        reach = self._policy.reach(principal, verb)
        return "" if reach.everything or reach.names or reach.prefixes else self.refusal(principal, verb)

    def _named(self, named: str) -> Subject:
        kind, _, name = named.partition(":")
        now = self._clock.now()
        identity = self._table.identities().get(name) if kind == "identity" else None
        if identity is not None:
            return Subject(named, identity.kind, identity.grants, owner=identity.owner)
        if kind == "token":
            for token in self._table.tokens().values():
                if token.name == name and token.revoked_at is None and token.expires_at > now:
                    return Subject(named, token.kind, token.grants, owner=token.owner, credential=token.id)
        raise NotFoundError(
            f"no living credential is called {named[:100]}; write token:<name> or identity:<name>, "
            "`registryctl token list` and `registryctl identity list` have the names"
        )
