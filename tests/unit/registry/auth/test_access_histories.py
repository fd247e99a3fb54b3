"""Histories of grants, revocations, clocks, outages and restarts: nobody ever does what no grant that was read allows.

The model is what PostgreSQL has, what this process has read of it, and when; it knows nothing of subjects and caches.
"""

from itertools import product
from typing import Any

from harness.examples import examples
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec.structs import replace

from registry.auth.access_table import GRACE, RETURN_GRACE, AccessTable
from registry.auth.credential import Credential, Identity
from registry.auth.decision import Request
from registry.auth.grants import Grant
from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.tokens import SESSION, TOKEN, new_token
from registry.auth.verbs import Verb
from registry.core.clock import Clock
from registry.errors import NotAllowedError, UnauthenticatedError, UnavailableError
from registry.usecases.authentication import Sender

START = 1_800_000_000.0
VERBS = [Verb.DISCOVER, Verb.REGISTER, Verb.ADMIN]
ADDRESSES = ["10.0.0.1", "10.1.0.1"]
ASKED = [
    Request(Verb.DISCOVER, "ab"),
    Request(Verb.REGISTER, "ab", "10.0.0.1:80"),
    Request(Verb.REGISTER, "b", "10.1.0.1:80"),
    Request(Verb.ADMIN),
]
"""What everybody asks for after each step."""
MAX_CREDENTIALS = 4
"""More of them would make it rare that two steps concern the same one."""

grants = st.lists(
    st.builds(
        Grant,
        st.lists(st.sampled_from(VERBS), min_size=1, max_size=2).map(tuple),
        st.lists(st.sampled_from(["a", "a*", "b", "*"]), min_size=1, max_size=2).map(tuple),
        st.sampled_from([(), ("peer",), ("10.0.0.0/16",)]),
    ),
    max_size=2,
).map(tuple)
ttls = st.sampled_from([60.0, 3600.0, 86_400.0])


class FixedClock(Clock):
    """PostgreSQL's clock, as the history sets it."""

    def __init__(self) -> None:
        super().__init__()
        self.time = START

    def now(self) -> float:
        """Return the time of the history."""
        return self.time


class Stored:
    """The rows of PostgreSQL, or a copy of them as a process has read them."""

    def __init__(self) -> None:
        self.tokens: dict[str, Credential] = {}
        self.identities: dict[str, Identity] = {}
        self.revoked: set[str] = set()

    def copy(self) -> "Stored":
        """Return the rows as they are now."""
        copied = Stored()
        copied.tokens, copied.identities = dict(self.tokens), dict(self.identities)
        copied.revoked = set(self.revoked)
        return copied


class Histories(RuleBasedStateMachine):
    """One process, its connections, and a PostgreSQL that others change and that comes and goes."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = FixedClock()
        self.stored, self.read = Stored(), Stored()
        self.sessions: dict[str, Credential] = {}
        self.known: set[str] = set()
        self.headers: dict[str, bytes] = {}
        self.away = False
        # Of the last outage: when PostgreSQL was last read before it, and when it was back.
        self.outage: tuple[float, float] | None = None
        self.read_at = START
        self.table = AccessTable()
        self.connections: dict[tuple[str, str], Sender] = {}
        # What was decided so far, by the fingerprint of a principal and the request; heartbeats are decided by it.
        self.decided: dict[tuple[bytes, Request], bool] = {}

    @initialize()
    def start(self) -> None:
        """Read an empty PostgreSQL."""
        self._read()

    # --- what others do to PostgreSQL

    @rule(grants=grants, ttl=ttls, bound=st.booleans())
    @precondition(lambda self: len(self.headers) < MAX_CREDENTIALS)
    def create_token(self, grants: tuple[Grant, ...], ttl: float, bound: bool) -> None:
        """Make a token, perhaps for one network."""
        new = new_token(TOKEN)
        networks = ("10.0.0.0/16",) if bound else ()
        ends = self.clock.time + ttl
        self.stored.tokens[new.id] = Credential(new.id, new.digest, new.id, "machine", ends, grants, networks)
        self.headers[new.id] = f"Bearer {new.text}".encode()

    @rule(name=st.sampled_from(["x", "y"]), grants=grants)
    def set_identity(self, name: str, grants: tuple[Grant, ...]) -> None:
        """Create an identity, or give it other grants."""
        self.stored.identities[name] = Identity(name, "aws", f"111122223333:{name}", "registrar", grants)

    @rule(data=st.data(), ttl=ttls)
    @precondition(lambda self: self.stored.identities and len(self.headers) < MAX_CREDENTIALS)
    def log_in(self, data: Any, ttl: float) -> None:
        """Begin the sessions of a registrar and of its Envoy."""
        name = data.draw(st.sampled_from(sorted(self.stored.identities)))
        for discovers in (False, True):
            new = new_token(SESSION)
            subject, ends = f"aws:111122223333:{name}/task", self.clock.time + ttl
            self.sessions[new.id] = Credential(
                new.id, new.digest, subject, "registrar", ends, identity=name, discovers=discovers
            )
            self.headers[new.id] = f"Bearer {new.text}".encode()
            # The login was at this process, or the session was used with it since.
            self.table.add_session(self.sessions[new.id])
            self.known.add(new.id)

    @rule(data=st.data())
    @precondition(lambda self: self.headers)
    def revoke(self, data: Any) -> None:
        """Revoke a token or a session."""
        credential = data.draw(st.sampled_from(sorted(self.headers)))
        if credential in self.sessions:
            self.stored.revoked.add(credential)
        else:
            token = self.stored.tokens[credential]
            self.stored.tokens[credential] = replace(token, revoked_at=token.revoked_at or self.clock.time)

    @rule(data=st.data())
    @precondition(lambda self: self.stored.identities)
    def remove_identity(self, data: Any) -> None:
        """Remove an identity, which revokes its sessions."""
        name = data.draw(st.sampled_from(sorted(self.stored.identities)))
        del self.stored.identities[name]
        self.stored.revoked |= {each.id for each in self.sessions.values() if each.identity == name}

    # --- what happens to the process

    @rule(seconds=st.sampled_from([1.0, 59.0, 60.0, RETURN_GRACE, 3600.0, GRACE, -300.0]))
    def pass_time(self, seconds: float) -> None:
        """Let time pass, or let PostgreSQL's clock be set back."""
        self.clock.time += seconds
        self.table.expire(self.clock.time)

    @rule()
    @precondition(lambda self: not self.away)
    def follow(self) -> None:
        """Read PostgreSQL, as once a second."""
        self._read()

    @rule()
    def lose_postgresql(self) -> None:
        """Fail to read PostgreSQL."""
        self.table.mark_away()
        if not self.away:
            self.away = True
            began, ended = self.outage or (self.read_at, self.read_at)
            self.outage = (began if self.outage and self.read_at <= ended + RETURN_GRACE else self.read_at, 0.0)

    @rule()
    @precondition(lambda self: self.away)
    def find_postgresql(self) -> None:
        """Read it again."""
        self.away = False
        began, _ = self.outage or (0.0, 0.0)
        self.outage = (began, self.clock.time)
        self._read()

    @rule()
    @precondition(lambda self: self.away)
    def restart(self) -> None:
        """Start anew with what is on disk, while PostgreSQL is away."""
        kept = self.table.contents(self.clock.time)
        self.table = AccessTable()
        self.table.restore(kept)
        self.known = {each.id for each in kept.credentials if each.is_session}
        # How long PostgreSQL has been away is not known to a process that starts.
        self.outage = (float("-inf"), 0.0)
        self.connections = {}

    @rule(data=st.data())
    @precondition(lambda self: not self.away and self.sessions)
    def search(self, data: Any) -> None:
        """Search a session, which may have been revoked since it was read."""
        session = self.sessions[data.draw(st.sampled_from(sorted(self.sessions)))]
        if session.id not in self.stored.revoked and self.table.add_session(session):
            self.known.add(session.id)

    # --- what has to hold

    @invariant()
    def everything_that_is_done_was_granted(self) -> None:
        """Everybody asks for everything, over an old connection and a new one: both say the same, and what was read."""
        for credential, address in product(["", *self.headers], ADDRESSES):
            connection = self.connections.setdefault((credential, address), Sender(self.table, self.clock, address))
            fresh = Sender(self.table, self.clock, address)
            header = self.headers.get(credential)
            if not connection.identify(header):
                assert not fresh.identify(header)
                continue
            assert fresh.identify(header)
            for asked in ASKED:
                self._ask(credential, connection.principal, fresh.principal, asked)

    def _ask(self, credential: str, principal: Principal, fresh: Principal, asked: Request) -> None:
        allowed = done(Policy("on"), principal, asked)
        assert allowed == done(Policy("on"), fresh, asked), "an old connection and a new one"
        assert allowed == self._granted(credential, principal.address, asked)
        fingerprint = Policy("on").fingerprint(principal, asked.verb)
        assert self.decided.setdefault((fingerprint, asked), allowed) == allowed, "a decision that was remembered"
        # Audit lets it pass in any case, but for the management of credentials, and says what `on` would do.
        noted: list[object] = []
        audit = Policy("audit", (), lambda *refusal: noted.append(refusal))
        assert done(audit, principal, asked) is (allowed or asked.verb is not Verb.ADMIN)
        assert bool(noted) is not allowed
        assert done(Policy("off"), principal, asked) is (allowed or asked.verb is not Verb.ADMIN)

    @invariant()
    def nothing_revoked_is_accepted(self) -> None:
        """What was read as revoked is good on no connection, old or new."""
        for credential in self.read.revoked:
            subject = self.table.subject_of(ADDRESSES[0], self.headers[credential], now=self.clock.time)
            assert subject.problem

    def _read(self) -> None:
        self.table.replace(self.stored.tokens.values(), self.stored.identities.values(), self.stored.revoked)
        self.table.mark_read(self.clock.time)
        self.read, self.read_at = self.stored.copy(), self.clock.time
        self.known -= self.read.revoked

    def _granted(self, credential: str, address: str, asked: Request) -> bool:
        """Tell by what was read whether a credential is alive and has a grant for this."""
        session = self.sessions.get(credential)
        found = session or self.read.tokens.get(credential)
        if found is None or found.revoked_at is not None or credential in self.read.revoked:
            return False
        if session is not None and (credential not in self.known or session.identity not in self.read.identities):
            return False
        if found.networks and not address.startswith("10.0."):
            return False
        if found.expires_at <= self.clock.time and not self._is_spared(found):
            return False
        allowed = self.read.identities[session.identity].grants if session else found.grants
        verbs = {Verb.DISCOVER} if found.discovers else set(VERBS)
        return any(asked.verb in verbs and fits(grant, address, asked) for grant in allowed)

    def _is_spared(self, session: Credential) -> bool:
        """Tell whether an Envoy's session that ended is good, because it was when the outage began."""
        if self.outage is None or not session.discovers:
            return False
        began, ended = self.outage
        in_time = self.away or self.clock.time < ended + RETURN_GRACE
        return in_time and began < session.expires_at and self.clock.time < session.expires_at + GRACE


def done(policy: Policy, principal: Principal, asked: Request) -> bool:
    """Return whether a policy lets something pass."""
    try:
        policy.allow(principal, asked.verb, asked.service, asked.endpoint)
    except (NotAllowedError, UnauthenticatedError, UnavailableError):
        return False
    return True


def fits(grant: Grant, address: str, asked: Request) -> bool:
    """Tell whether a grant covers a request, written down a second time and as plainly as can be."""
    named = any(asked.service == name or _begins(asked.service, name) for name in grant.services)
    if not asked.service:
        # Who manages credentials can give himself everything, so that takes a grant for everything.
        named = "*" in grant.services
    placed = True
    if asked.verb is Verb.REGISTER and asked.endpoint and grant.addresses:
        at = asked.endpoint.partition(":")[0]
        placed = at == address if grant.addresses == ("peer",) else at.startswith("10.0.")
    return asked.verb in grant.verbs and named and placed


def _begins(service: str, prefix: str) -> bool:
    return prefix[-1] == "*" and service.startswith(prefix[:-1])


TestHistories = Histories.TestCase
TestHistories.settings = examples(200, stateful_step_count=30)
