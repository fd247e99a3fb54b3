"""Logins: workloads that prove their AWS role get sessions, renew them and end them."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import structlog
from msgspec import Struct
from msgspec.structs import replace

from registry.auth.access_table import AccessTable
from registry.auth.aws_login import MAX_AGE, BadLoginError, LoginRules, SignedRequest, read_login
from registry.auth.credential import Credential, Identity
from registry.auth.principal import Principal
from registry.auth.subject import Subject
from registry.auth.tokens import SESSION, NewToken, new_token
from registry.auth.verbs import Verb
from registry.core.clock import Clock
from registry.core.endpoint_networks import Network
from registry.core.peer_limit import PeerLimit, RateLimits
from registry.errors import (
    ClocksDifferError,
    LimitError,
    NotAllowedError,
    NotFoundError,
    RegistryError,
    UnauthenticatedError,
    UnavailableError,
)
from registry.metrics import LOGINS
from registry.store import logins as store
from registry.store.database import Database
from registry.usecases.audit import Audit

if TYPE_CHECKING:
    from registry.auth.sts_answer import AwsCaller
    from registry.auth.sts_client import StsClient

log = structlog.get_logger()

SESSION_TTL = 3_600.0
"""Seconds for which a session is good; registrars renew theirs at half of it."""
MAX_RENEWAL_AGE = 43_200.0
"""Seconds after a login for which its sessions can be renewed, so that an outage of STS may last as long."""
LOGINS_PER_SECOND = 5.0
"""Logins and renewals of one peer."""
LOGIN_BURST = 20
"""Logins of one peer at once: those of the registrars of a machine that has just started."""
PRINCIPAL_RATE = 0.2
"""Logins and renewals a second of one principal, each of which leaves two rows for half a day."""
PRINCIPAL_BURST = 100
"""Logins and renewals of one principal at once: all registrars of an EC2 instance are one principal."""
MAX_STORING = 2
"""Connections to PostgreSQL that logins use at once, so that a starting fleet leaves the others to heartbeats."""
MAX_WAITING = 256
"""Logins and renewals that wait for such a connection; more are answered 503 at once."""
_STORING_TIMEOUT = 5.0
"""Seconds to wait for it."""
_AWS = "aws"


class IssuedSession(Struct, frozen=True):
    """A session that was just begun: its id, its token, which is shown once, and its end."""

    id: str
    token: str
    expires_at: float

    def __repr__(self) -> str:
        """Show the id and the end alone."""
        return f"IssuedSession({self.id}, {self.expires_at})"


class Login(Struct, frozen=True):
    """The sessions of a login or of a renewal.

    Attributes:
        principal: the name of the workload, as the history has it.
        registrar: of the registrar, with the grants of its identity.
        envoy: of the Envoy beside it, which may only discover.
    """

    principal: str
    registrar: IssuedSession
    envoy: IssuedSession


class Logins:
    """Begins, renews and ends sessions.

    Args:
        database: where sessions and used signatures are stored.
        table: the identities, and the sessions that this process knows.
        clock: PostgreSQL's time.
        rules: the settings of AWS login.
        sts: AWS STS; None where AWS login is off.
        audit: notes logins, logouts and what was refused.
        limit: on the logins of one peer; None while access is off.
    """

    def __init__(
        self,
        database: Database,
        table: AccessTable,
        clock: Clock,
        rules: LoginRules,
        sts: "StsClient | None",
        audit: Audit,
        limit: PeerLimit | None = None,
    ) -> None:
        self._database = database
        self._table = table
        self._clock = clock
        self._rules = rules
        self._sts = sts
        self._audit = audit
        self._limit = limit
        self._principal_limits = RateLimits(PRINCIPAL_RATE, PRINCIPAL_BURST)
        self._connections = asyncio.Semaphore(MAX_STORING)
        # Logins, renewals and logouts that wait for a connection.
        self._waiting = 0

    async def login_aws(self, address: str, document: bytes) -> Login:
        """Begin the sessions of a workload that proves its AWS role.

        Args:
            address: the address that the login comes from.
            document: ``{"headers": {…}}`` with the headers of a signed request.

        Raises:
            UnauthenticatedError: the login is refused, by the rules or by AWS.
            NotAllowedError: AWS names the role, and no identity here matches it.
            NotFoundError: AWS login is off.
            LimitError: too many logins come from this peer, or of this principal.
            UnavailableError: AWS STS or PostgreSQL did not decide.
        """
        try:
            self._check_limit(address)
            login = await self._login_aws(document)
        except RegistryError as error:
            self._note_failure("login", Principal(address), error)
            raise
        LOGINS.labels(_AWS, "accepted").inc()
        log.info("login_accepted", source=_AWS, principal=login.principal, peer=address)
        self._audit.note(
            Principal(address, subject=Subject(login.principal, credential=login.registrar.id)),
            "login",
            reason=f"by {_AWS}",
        )
        return login

    async def renew(self, principal: Principal) -> Login:
        """Begin new sessions for the holder of a living one; needs no STS.

        Raises:
            UnauthenticatedError: the principal has no session that can be renewed.
            LimitError: too many logins come from this peer, or of this principal.
            UnavailableError: PostgreSQL is away.
        """
        try:
            self._check_limit(principal.address)
            session_id = _session_of(principal)
            self._check_principal_limit(principal.subject.name)
            login = await self._renew(session_id)
        except RegistryError as error:
            self._note_failure("renewal", principal, error)
            raise
        LOGINS.labels(_AWS, "renewed").inc()
        return login

    async def logout(self, principal: Principal) -> None:
        """End the session that the principal used and, if it is a registrar's, all others of the same login.

        Raises:
            UnauthenticatedError: the principal has no living session.
            UnavailableError: PostgreSQL is away.
        """
        try:
            session_id = _session_of(principal)
            async with self._storing():
                ended = await store.end_sessions(self._database, session_id)
        except RegistryError as error:
            self._note_failure("logout", principal, error)
            raise
        for ended_id in ended:
            self._table.forget_session(ended_id)
        self._audit.note(principal, "logout", reason=f"sessions ended: {len(ended)}")
        log.info("logged_out", principal=principal.subject.name, peer=principal.address, sessions=len(ended))

    async def prune(self) -> None:
        """Forget the signatures that are too old to be used again."""
        # The access feed, which deletes by the same clock, logs that clocks differ.
        with suppress(ClocksDifferError):
            await store.prune_logins(self._database)

    def _check_limit(self, address: str) -> None:
        if self._limit is not None:
            self._limit.check(address, time.monotonic())

    def _check_principal_limit(self, principal: str) -> None:
        wait = self._principal_limits.take(principal, time.monotonic())
        if wait:
            raise LimitError(
                f"{principal} logs in or renews more than once in {1 / PRINCIPAL_RATE:g} s, after {PRINCIPAL_BURST} at "
                "once; keep a session for half an hour before it is renewed",
                "logins",
                retry_after=wait,
            )

    async def _login_aws(self, document: bytes) -> Login:
        if self._sts is None:
            raise NotFoundError("AWS login is off here; set REGISTRY_AWS_REGIONS and REGISTRY_AWS_AUDIENCE to allow it")
        if self._table.away or not self._table.ready:
            # Nothing could be stored. STS is not asked, and the login is not used up.
            raise UnavailableError("PostgreSQL does not answer this process; send the login again. Sessions go on", 5.0)
        try:
            request = read_login(document, self._rules, self._clock.now())
            caller = await self._sts.caller_of(request)
        except BadLoginError as error:
            raise UnauthenticatedError(str(error)) from error
        identity = self._identity_of(caller, request)
        self._check_principal_limit(_principal_of(caller))
        tokens = new_token(SESSION), new_token(SESSION)
        async with self._storing():
            sessions = await store.begin_sessions(
                self._database,
                [_of_caller(session, identity, caller) for session in _blank_sessions(tokens)],
                ttl=SESSION_TTL,
                digest=request.digest,
                good_until=request.signed_at + MAX_AGE,
            )
        return self._issue(tokens, sessions)

    async def _renew(self, session_id: str) -> Login:
        tokens = new_token(SESSION), new_token(SESSION)
        async with self._storing():
            sessions = await store.renew_sessions(
                self._database, session_id, _blank_sessions(tokens), ttl=SESSION_TTL, max_age=MAX_RENEWAL_AGE
            )
        return self._issue(tokens, sessions)

    @asynccontextmanager
    async def _storing(self) -> AsyncIterator[None]:
        """Wait for a connection that logins may use."""
        if self._waiting >= MAX_WAITING:
            raise UnavailableError(f"{self._waiting} logins wait to be stored already; send it again", 5.0)
        self._waiting += 1
        try:
            async with asyncio.timeout(_STORING_TIMEOUT):
                await self._connections.acquire()
        except TimeoutError:
            raise UnavailableError("logins before this one wait for PostgreSQL; send it again", 5.0) from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._connections.release()

    def _note_failure(self, action: str, principal: Principal, error: RegistryError) -> None:
        """Count an attempt that failed, and log and audit it once a minute; its text has no secret."""
        unavailable = isinstance(error, UnavailableError)
        if action != "logout":
            outcome = "limited" if isinstance(error, LimitError) else "unavailable" if unavailable else "refused"
            LOGINS.labels(_AWS, outcome).inc()
        reason = str(error)
        # Limits are one cause, whatever wait they name. What the others name is what an operator has to know.
        cause = type(error).__name__ if isinstance(error, LimitError) else reason
        if self._audit.note(
            principal, action, decision="failed" if unavailable else "refused", reason=reason, cause=cause
        ):
            log.warning(
                "login_unavailable" if unavailable else "login_refused",
                source=_AWS,
                action=action,
                principal=principal.subject.name,
                peer=principal.address,
                reason=reason,
                cause=error.cause if isinstance(error, UnavailableError) else "",
            )

    def _issue(self, tokens: Sequence[NewToken], sessions: Sequence[Credential]) -> Login:
        for session in sessions:
            self._table.add_session(session)
        registrar, envoy = (
            IssuedSession(session.id, token.text, session.expires_at)
            for token, session in zip(tokens, sessions, strict=True)
        )
        return Login(sessions[0].name, registrar, envoy)

    def _identity_of(self, caller: "AwsCaller", request: SignedRequest) -> Identity:
        """Return the identity that matches a caller."""
        identity = self._table.find_identity(_AWS, caller.match)
        if identity is None:
            raise NotAllowedError(
                f"no identity matches the AWS role {caller.match}; `registryctl identity set` gives it grants"
            )
        if identity.unique_id not in ("", caller.unique_id):
            raise NotAllowedError(
                f"the identity {identity.name} is for the role with the id {identity.unique_id}, and the role "
                f"{caller.match} has {caller.unique_id}: "
                "it was deleted and created again. Set the new id if it is yours"
            )
        registering = [grant for grant in identity.grants if Verb.REGISTER in grant.verbs]
        if registering and not any(grant.allows_instance(request.instance, caller.session) for grant in registering):
            raise NotAllowedError(
                f"the login is for the instance {request.instance!r}, and the session of the role is called "
                f"{caller.session}, which has to be a whole component of it"
            )
        return identity


def login_limit(proxies: Sequence[Network]) -> PeerLimit:
    """Return the limit on the logins of one peer; behind a proxy there are many."""
    return PeerLimit("logins", LOGINS_PER_SECOND, LOGIN_BURST, proxies)


def _session_of(principal: Principal) -> str:
    """Return the id of the session that a principal used."""
    subject = principal.subject
    if subject.unknown:
        raise UnavailableError(subject.problem)
    if subject.problem or not subject.session_name:
        raise UnauthenticatedError(subject.problem or "send the session of a login as a bearer token (hcs_…)")
    return subject.credential


def _principal_of(caller: "AwsCaller") -> str:
    return f"{_AWS}:{caller.match}/{caller.session}"


def _blank_sessions(tokens: Sequence[NewToken]) -> list[Credential]:
    """Return the sessions of a registrar and of its Envoy, of nobody yet."""
    registrar, envoy = tokens
    return [
        Credential(registrar.id, registrar.digest, "", "registrar", 0.0),
        Credential(envoy.id, envoy.digest, "", "envoy", 0.0, discovers=True),
    ]


def _of_caller(session: Credential, identity: Identity, caller: "AwsCaller") -> Credential:
    return replace(
        session,
        name=_principal_of(caller),
        kind=session.kind if session.discovers else identity.kind,
        # The user id of AWS, by which a renewal sees whether the identity still means this role.
        created_by=f"{caller.unique_id}:{caller.session}",
        identity=identity.name,
        session_name=caller.session,
    )
