"""The audit: who did what, who was refused, and what would be refused if access were on.

Use cases note what they have done; the policy notes what it refuses. Polls and heartbeats that are allowed are counted
in the metrics alone. ``background.audit_writer`` stores what is noted, so that no request waits for it.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from registry.auth.decision import Refusal
from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.client_deadline import in_time_for_client
from registry.core.audit import AuditEntry, AuditFilter, AuditQueue, Decision, StoredEntry, cleaned
from registry.core.clock import Clock
from registry.errors import NotAllowedError, NotOwnerError, RegistryError, UnauthenticatedError, UnavailableError
from registry.event_log import REQUEST_ID
from registry.metrics import ACCESS_REFUSALS, AUDIT_NOTED
from registry.store import audit as store
from registry.store.database import Database, read_clock

log = structlog.get_logger()

_NOTED_BY_POLICY = (NotAllowedError, NotOwnerError, UnauthenticatedError)
"""The errors of refusals, which the policy has noted before it raised them."""


class Audit:
    """Notes what principals did and what they were refused; it decides nothing, waits for nothing and never fails.

    Args:
        queue: where entries wait to be stored.
        clock: PostgreSQL's time.
    """

    def __init__(self, queue: AuditQueue, clock: Clock) -> None:
        self._queue = queue
        self._clock = clock

    def note(  # noqa: PLR0913  # the columns of an entry
        self,
        principal: Principal,
        action: str,
        *,
        verb: Verb | None = None,
        service: str = "",
        endpoint: str = "",
        decision: Decision = "allowed",
        reason: str = "",
        cause: str = "",
    ) -> bool:
        """Note something that a principal did, or that failed; return whether it is new, and not one that is counted.

        No text may be a secret. A text that is no name of this registry is made printable and cut.

        Args:
            principal: who; of a login, the principal that has signed in, or the bare address of one that could not.
            action: what was done or tried, like an event of the log: ``token_created``, ``login``.
            verb: what was asked for; None for a login, which needs no grant.
            service: the service; empty when no single one is concerned.
            endpoint: the endpoint, as ``address:port``; empty when no single one is concerned.
            decision: what came of it; the same one that is not ``allowed`` is one entry a minute, with a count.
            reason: why it failed, or what was changed.
            cause: what makes it another one than a failure of the same action by the same principal.
        """
        return self._add(principal, action, verb, service, endpoint, decision, reason, cause=cause)

    @contextmanager
    def noting(
        self, principal: Principal, action: str, verb: Verb, service: str = "", endpoint: str = "", reason: str = ""
    ) -> Iterator[None]:
        """Note an action as allowed when the block is done, and as failed when it raises.

        A refusal of the policy in the block is not noted again.
        """
        try:
            yield
        except RegistryError as error:
            self.note_failure(principal, action, error, verb, service, endpoint)
            raise
        self._add(principal, action, verb, service, endpoint, "allowed", reason)

    def note_failure(
        self, principal: Principal, action: str, error: RegistryError, verb: Verb, service: str = "", endpoint: str = ""
    ) -> None:
        """Note that something was not done for an error; what the policy refused is noted already."""
        if not isinstance(error, _NOTED_BY_POLICY):
            cause = type(error).__name__
            self._add(principal, action, verb, service, endpoint, "failed", str(error), cause=cause)

    def note_refusal(self, principal: Principal, refusal: Refusal, enforced: bool) -> None:  # as Observer
        """Note a refusal: the policy's observer.

        Args:
            principal: the sender of the request.
            refusal: what was refused, and why.
            enforced: whether it was refused, or would only be if access were on.
        """
        asked = refusal.request
        decision: Decision = "refused" if enforced else "would_refuse"
        ACCESS_REFUSALS.labels(asked.verb.value, decision).inc()
        new = self._add(
            principal, "", asked.verb, asked.service, asked.endpoint, decision, refusal.reason, cause=refusal.cause
        )
        if new:
            log.warning(
                "access_refused" if enforced else "access_would_refuse",
                principal=principal.name,
                verb=asked.verb.value,
                service=asked.service,
                endpoint=asked.endpoint,
                reason=refusal.reason,
            )

    def _add(  # noqa: PLR0913  # the columns of an entry
        self,
        principal: Principal,
        action: str,
        verb: Verb | None,
        service: str,
        endpoint: str,
        decision: Decision,
        reason: str,
        *,
        cause: str = "",
    ) -> bool:
        AUDIT_NOTED.labels(decision).inc()
        entry = AuditEntry(
            self._clock.now(),
            _name_of(principal),
            principal.subject.credential,
            principal.address,
            "" if verb is None else verb.value,
            service,
            endpoint,
            action,
            decision,
            reason,
            REQUEST_ID.get() or "",
        )
        return self._queue.add(entry, time.monotonic(), cause)


async def note_command(database: Database, principal: str, action: str, verb: Verb, reason: str) -> None:
    """Store an entry of a command that runs beside the registry.

    If that fails, what the command has done stands all the same.
    """
    try:
        async with database.transaction() as connection:
            at = await read_clock(connection)
            entry = AuditEntry(at, principal, "", "local", verb.value, "", "", action, "allowed", reason, "")
            await store.add_entries(connection, [cleaned(entry)])
    except UnavailableError as error:
        log.warning("audit_lost", action=action, reason=error.cause)


class AuditTrail:
    """Lists the entries of the audit.

    Args:
        policy: decides who may read it.
        database: where it is.
        reads: held while it is read, as in ``History``.
    """

    def __init__(self, policy: Policy, database: Database, reads: asyncio.Semaphore) -> None:
        self._policy = policy
        self._database = database
        self._reads = reads

    async def entries(self, principal: Principal, wanted: AuditFilter) -> list[StoredEntry]:
        """Return entries, the newest first; what was noted in the last second may not be among them.

        Raises:
            NotAllowedError: the principal may not manage credentials.
            UnavailableError: PostgreSQL is away.
        """
        self._policy.allow(principal, Verb.ADMIN)
        async with in_time_for_client(), self._reads:
            return await store.find_entries(self._database, wanted)


def _name_of(principal: Principal) -> str:
    """Return a principal's name without its address, in which the part that is not proven is behind ``as``."""
    proven = principal.subject.name or "anonymous"
    return f"{proven} as {principal.actor}" if principal.actor else proven
