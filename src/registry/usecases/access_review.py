"""Review of access for operators: what would be refused, which tokens end, and what is open to others."""

import asyncio
import time
from collections.abc import Sequence
from itertools import islice

from msgspec.structs import replace

from registry.auth.access_table import AccessTable
from registry.auth.credential import Credential
from registry.auth.policy import Policy
from registry.core import access_review
from registry.core.clock import Clock
from registry.core.status import AccessState, TokenState, WouldRefuseState
from registry.errors import UnavailableError
from registry.setting_types import listens_on_loopback
from registry.settings import Settings
from registry.store.database import Database
from registry.store.would_refuse import WouldRefuse, count_would_refuse

_PERIOD = 86_400.0
"""Seconds back for which refusals that are only noted are counted."""
_COUNT_INTERVAL = 15.0
"""Seconds for which a count of them is used again, at least."""
_MAX_COUNT_SHARE = 0.02
"""Share of the time in which they are counted: that goes through a day of the audit, a second for 450,000 rows."""
_DATABASE_TIMEOUT = 2.0
"""Seconds to wait for PostgreSQL, as for the rest of the state."""
_MAX_NAMED = 20
"""Tokens, identities, and pairs of a principal and a verb, that are named."""


class AccessReview:
    """Reviews the access of the registry as a whole.

    Args:
        policy: knows which refusals are only noted.
        settings: name the listen addresses.
        database: has the audit.
        reads: held while it is asked, as in ``History``.
        table: the tokens and identities.
        clock: PostgreSQL's time.
    """

    def __init__(  # the parts that it reviews
        self,
        policy: Policy,
        settings: Settings,
        *,
        database: Database,
        reads: asyncio.Semaphore,
        table: AccessTable,
        clock: Clock,
    ) -> None:
        self._policy = policy
        self._settings = settings
        self._database = database
        self._reads = reads
        self._table = table
        self._clock = clock
        self._counted: list[WouldRefuse] | None = None
        """The refusals of the last day that were only noted, as they were last counted; None: they could not be."""
        self._count_due = 0.0
        """When they are counted again, at the earliest (monotonic)."""
        self._counting: asyncio.Task[None] | None = None
        """The count under way, or the last one."""

    def state(self, counted: Sequence[WouldRefuse] | None, *, named: bool) -> AccessState:
        """Return the state of access.

        Args:
            counted: the refusals of the last day that were only noted; None: they could not be counted.
            named: credentials and their senders are named, of which each may concern any service.
        """
        settings, tokens, now = self._settings, self._table.tokens().values(), self._clock.now()
        listeners = settings.addresses.items()
        state = AccessState(
            mode=self._policy.mode,
            noted_verbs=sorted(self._policy.noted_verbs),
            open_listeners=[listen for listen, _ in listeners if not listens_on_loopback(listen)],
            plain_listeners=[listen for listen, tls in listeners if not (tls or listens_on_loopback(listen))],
            named=named,
            would_refuse_count=None if counted is None else sum(each.count for each in counted),
            would_refuse=None if counted is None else [],
            ending=[],
            long_lived=[],
            open_to_networks=[],
            unreadable_count=len(self._table.unreadable),
        )
        if not named:
            return state
        return replace(
            state,
            would_refuse=None if counted is None else [_would_refuse(each, now) for each in counted],
            ending=[_token(token) for token in access_review.ending(tokens, now)[:_MAX_NAMED]],
            long_lived=[_token(token) for token in access_review.long_lived(tokens, now)[:_MAX_NAMED]],
            open_to_networks=[
                f"{identity.name} ({identity.match})"
                for identity in access_review.open_to_networks(self._table.identities().values())[:_MAX_NAMED]
            ],
            unreadable=[f"{row}: {reason}" for row, reason in islice(self._table.unreadable.items(), _MAX_NAMED)],
        )

    async def count(self, seconds: float) -> Sequence[WouldRefuse] | None:
        """Return the refusals of the last day that were only noted, as they were counted lately.

        Args:
            seconds: the time to wait for a new count; after that the last one is returned.

        Returns:
            None where they could not be counted.
        """
        if not self._policy.noted_verbs:
            return []
        if time.monotonic() >= self._count_due and (self._counting is None or self._counting.done()):
            self._counting = asyncio.create_task(self._count_now())
        if self._counting is not None:
            await asyncio.wait({self._counting}, timeout=seconds)
        return self._counted

    async def _count_now(self) -> None:
        begun, verbs = time.monotonic(), self._policy.noted_verbs
        try:
            async with asyncio.timeout(_DATABASE_TIMEOUT), self._reads:
                self._counted = await count_would_refuse(self._database, verbs, within=_PERIOD, limit=_MAX_NAMED)
        except (UnavailableError, TimeoutError):
            self._counted = None
        now = time.monotonic()
        self._count_due = now + max(_COUNT_INTERVAL, (now - begun) / _MAX_COUNT_SHARE)


def _would_refuse(counted: WouldRefuse, now: float) -> WouldRefuseState:
    return WouldRefuseState(
        counted.principal, counted.verb, counted.count, counted.peers, counted.peer, max(0.0, now - counted.last_at)
    )


def _token(token: Credential) -> TokenState:
    return TokenState(token.id, token.name, token.kind, token.created_at, token.expires_at, token.used_at)
