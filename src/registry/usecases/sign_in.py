"""Sign-ins of people: a browser gets a session for a static token, or for a code that is good once."""

import ipaddress
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import structlog
from msgspec import Struct

from registry.auth.access_table import AccessTable
from registry.auth.credential import Credential
from registry.auth.oidc import BadIdTokenError
from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.subject import Subject
from registry.auth.tokens import BROWSER, CODE, new_token, read_token
from registry.auth.verbs import Verb
from registry.background.access_feed import AccessFeed
from registry.core.audit import Decision
from registry.core.clock import Clock
from registry.core.endpoint_networks import Network
from registry.core.peer_limit import PeerLimit
from registry.errors import (
    InvalidError,
    LimitError,
    NotAllowedError,
    RegistryError,
    UnauthenticatedError,
    UnavailableError,
)
from registry.metrics import LOGINS
from registry.store import sign_ins as store
from registry.store.credentials import revoke_credential
from registry.store.database import Database
from registry.usecases.audit import Audit

log = structlog.get_logger()

SESSION_TTL = 8 * 3600.0
"""Seconds for which the session of a browser is good: a day of work."""
SIGN_INS_PER_SECOND = 5.0
"""Sign-ins of one peer, tried or done."""
SIGN_IN_BURST = 10
"""Sign-ins of one peer at once."""
CODE_TTL = 60.0
"""Seconds within which a code has to be used."""


class BrowserSession(Struct, frozen=True):
    """The session of a browser that was just begun: its text, which only the browser keeps, and what is stored."""

    text: str
    credential: Credential

    def __repr__(self) -> str:
        """Name the session, without its text."""
        return f"BrowserSession({self.credential.id})"


class ProvenPerson(Struct, frozen=True):
    """A person whom the sign-in provider has proven.

    Attributes:
        email: the verified address.
        attempt: the digest of the sign-in, which begins one session.
    """

    email: str
    attempt: bytes


class SignInCode(Struct, frozen=True):
    """A code that begins one session, and when it ends."""

    text: str
    expires_at: float

    def __repr__(self) -> str:
        """Show the end alone."""
        return f"SignInCode({self.expires_at})"


class SignIns:
    """Begins and ends the sessions of browsers.

    Args:
        policy: decides who may make codes.
        database: where sessions and codes are stored.
        table: the static tokens and sessions that this process knows.
        feed: tells this process at once of what it stored.
        clock: PostgreSQL's time.
        audit: notes each sign-in, its refusal and its end.
        proxies: networks from which many people come, so that they have no limit of a peer.
    """

    def __init__(  # the parts of a sign-in
        self,
        policy: Policy,
        database: Database,
        table: AccessTable,
        feed: AccessFeed,
        clock: Clock,
        audit: Audit,
        proxies: Sequence[Network] = (),
    ) -> None:
        self._policy = policy
        self._database = database
        self._table = table
        self._feed = feed
        self._clock = clock
        self._audit = audit
        self._limit = PeerLimit("sign-ins", SIGN_INS_PER_SECOND, SIGN_IN_BURST, proxies)

    async def by_token(self, address: str, token: str) -> BrowserSession:
        """Begin a session with the grants of a static token, which ends with that token.

        Args:
            address: the address of the browser.
            token: the text that the person pasted.

        Raises:
            UnauthenticatedError: it is no living token of this registry.
            LimitError: too many sign-ins come from this peer.
            UnavailableError: PostgreSQL is away, or the tokens have not been read yet.
        """
        return await self._attempt("token", address, partial(self._begin, address, token))

    async def by_code(self, address: str, code: str) -> BrowserSession:
        """Begin a session by a code, which is used up.

        Raises:
            UnauthenticatedError: the code was used, has ended, or was never made; or the browser is on another machine.
            LimitError: too many sign-ins come from this peer.
            UnavailableError: PostgreSQL is away.
        """
        return await self._attempt("code", address, partial(self._begin_by_code, address, code))

    async def by_provider(self, address: str, prove: Callable[[], Awaitable[ProvenPerson]]) -> BrowserSession:
        """Begin a session of the identity that means a person, whom the sign-in provider has proven.

        Args:
            address: the address of the browser.
            prove: returns who the person is, or raises BadIdTokenError.

        Raises:
            UnauthenticatedError: the provider proves nobody, or the sign-in was used before.
            NotAllowedError: no identity means the person.
            LimitError: too many sign-ins come from this peer.
            UnavailableError: the provider or PostgreSQL is away.
        """
        return await self._attempt("oidc", address, partial(self._begin_by_provider, prove))

    def check_limit(self, source: str, address: str) -> None:
        """Count a sign-in that a peer begins elsewhere, such as at the sign-in provider.

        Raises:
            LimitError: too many sign-ins come from this peer.
        """
        try:
            self._limit.check(address, time.monotonic())
        except LimitError as error:
            self._note_failure(source, address, error)
            raise

    async def sign_out(self, principal: Principal) -> None:
        """End the session of a principal's browser; nothing happens without one.

        Raises:
            UnavailableError: it could not be revoked, and goes on.
        """
        session_id = principal.subject.credential
        session = self._table.find_session(session_id)
        if session is None:
            return
        await revoke_credential(self._database, session_id)
        self._table.forget_session(session_id)
        self._audit.note(principal, "sign_out")
        log.info("signed_out", principal=principal.name, session=session_id)
        await self._feed.refresh()

    async def create_code(self, principal: Principal) -> SignInCode:
        """Make a code that begins one session with the token of the principal, on the registry's own machine.

        Raises:
            NotAllowedError: the principal may not manage credentials.
            InvalidError: the principal has no static token whose session that could be.
            UnavailableError: it could not be stored.
        """
        self._policy.allow(principal, Verb.ADMIN)
        credential = principal.subject.credential
        session = self._table.find_session(credential)
        parent = credential if session is None else session.parent
        if parent not in self._table.tokens():
            raise InvalidError(
                f"{principal.name} uses no static token; a code begins a session of the token it is made with"
            )
        new = new_token(CODE)
        ends = await store.add_code(self._database, new.digest, parent=parent, created_by=principal.name, ttl=CODE_TTL)
        self._audit.note(principal, "sign_in_code_created", verb=Verb.ADMIN, reason=new.id)
        log.info("sign_in_code_created", actor=principal.name, code=new.id)
        return SignInCode(new.text, ends)

    async def _begin(self, address: str, token: str) -> BrowserSession:
        if not self._table.ready:
            raise UnavailableError("this process has not read the tokens yet; try again")
        text = token.strip().encode()
        unread = self._table.unread_credential(b"Bearer " + text)
        if unread is not None:
            await self._feed.find_credential(unread)
        parent = self._table.living_token(text, address, self._clock.now())
        new = new_token(BROWSER)
        name = f"token:{parent.name}"
        session = Credential(new.id, new.digest, name, parent.kind, 0.0, created_by=name, parent=parent.id)
        return BrowserSession(new.text, await store.begin_session(self._database, session, SESSION_TTL))

    async def _begin_by_provider(self, prove: Callable[[], Awaitable[ProvenPerson]]) -> BrowserSession:
        try:
            person = await prove()
        except BadIdTokenError as error:
            raise UnauthenticatedError(str(error)) from error
        if not self._table.ready:
            raise UnavailableError("this process has not read the identities yet; try again")
        identity = self._table.person(person.email)
        if identity is None:
            raise NotAllowedError(
                f"no identity means {person.email}; an administrator gives you grants by `registryctl identity set`"
            )
        new = new_token(BROWSER)
        name = f"oidc:{person.email}"
        session = Credential(new.id, new.digest, name, identity.kind, 0.0, created_by=name, identity=identity.name)
        stored = await store.begin_session(self._database, session, SESSION_TTL, used=person.attempt)
        return BrowserSession(new.text, stored)

    async def _begin_by_code(self, address: str, code: str) -> BrowserSession:
        parts = read_token(code.strip().encode())
        if not _is_loopback(address):
            raise UnauthenticatedError(
                f"codes sign in on the registry's own machine alone, and this browser asks from {address}; paste a "
                "token instead"
            )
        new = new_token(BROWSER)
        session = Credential(new.id, new.digest, "", "operator", 0.0)
        stored = None
        if parts is not None and parts.prefix == CODE:
            stored = await store.begin_session_by_code(self._database, parts.digest, session, SESSION_TTL)
        if stored is None:
            raise UnauthenticatedError(
                f"the code was used already, or is older than {CODE_TTL:g} s; make a new one, or paste a token"
            )
        if not self._table.has(stored.parent):
            # Made a moment ago, at another process.
            await self._feed.refresh()
        return BrowserSession(new.text, stored)

    async def _attempt(
        self, source: str, address: str, begin: Callable[[], Awaitable[BrowserSession]]
    ) -> BrowserSession:
        """Begin a session within the limit of the peer, and note what came of it."""
        try:
            self._limit.check(address, time.monotonic())
            session = await begin()
        except RegistryError as error:
            self._note_failure(source, address, error)
            raise
        credential = session.credential
        self._table.add_session(credential)
        LOGINS.labels(source, "accepted").inc()
        person = Principal(address, subject=Subject(credential.name, credential.kind, credential=credential.id))
        self._audit.note(person, "sign_in", reason=f"by {source}")
        log.info("sign_in_accepted", source=source, principal=credential.name, peer=address)
        return session

    def _note_failure(self, source: str, address: str, error: RegistryError) -> None:
        LOGINS.labels(source, _outcome_of(error)).inc()
        decision: Decision = "failed" if isinstance(error, UnavailableError) else "refused"
        # The same one is noted once a minute, so that no peer fills the log.
        if self._audit.note(Principal(address), "sign_in", decision=decision, reason=f"by {source}: {error}"):
            log.warning("sign_in_refused", source=source, peer=address, reason=str(error))


def _outcome_of(error: RegistryError) -> str:
    """Return the outcome of a sign-in that failed, as the metric has it."""
    if isinstance(error, LimitError):
        return "limited"
    return "unavailable" if isinstance(error, UnavailableError) else "refused"


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
