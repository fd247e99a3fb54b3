"""Static tokens and identities: who may be who, and what each may do."""

from collections.abc import Sequence

import structlog
from msgspec import Struct

from registry.auth.access_table import AccessTable
from registry.auth.credential import Credential, Identity, check_match
from registry.auth.grants import Grant, check_grants, check_networks
from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.subject import Kind
from registry.auth.tokens import TOKEN, new_token
from registry.auth.verbs import Verb
from registry.background.access_feed import AccessFeed
from registry.store import credentials as store
from registry.store.database import Database
from registry.usecases.audit import Audit

log = structlog.get_logger()

DEFAULT_TTL = 90 * 86_400.0
"""Seconds for which a token is good unless its maker says otherwise."""


class CreatedToken(Struct, frozen=True):
    """A token that was just made: its text, which is shown once, and what is stored."""

    text: str
    credential: Credential

    def __repr__(self) -> str:
        """Name the token, without its text."""
        return f"CreatedToken({self.credential.id})"


class Credentials:
    """Makes, rotates, lists and revokes static tokens, and sets and removes identities.

    Args:
        policy: decides who may do so.
        database: where they are stored.
        table: what this process knows of them.
        feed: reads at once what was stored.
        audit: notes each change.
    """

    def __init__(self, policy: Policy, database: Database, table: AccessTable, feed: AccessFeed, audit: Audit) -> None:
        self._audit = audit
        self._policy = policy
        self._database = database
        self._table = table
        self._feed = feed

    def tokens(self, principal: Principal) -> list[Credential]:
        """Return all static tokens, the newest first; those that ended are among them for a month."""
        self._policy.allow(principal, Verb.ADMIN)
        return sorted(self._table.tokens().values(), key=lambda token: (-token.created_at, token.id))

    async def create_token(  # the parts of a token
        self,
        principal: Principal,
        name: str,
        kind: Kind,
        grants: Sequence[Grant],
        *,
        networks: Sequence[str] = (),
        ttl: float = DEFAULT_TTL,
    ) -> CreatedToken:
        """Make a static token.

        Raises:
            NotAllowedError: the principal may not manage credentials.
            InvalidError: the name is in use, or a grant or network is not valid.
            UnavailableError: it could not be stored.
        """
        self._policy.allow(principal, Verb.ADMIN)
        with self._audit.noting(principal, "token_created", Verb.ADMIN, reason=f"token:{name}"):
            created = await create_token(
                self._database, name, kind, grants, networks=networks, ttl=ttl, created_by=principal.name
            )
        await self._note("token_created", principal, token=created.credential.id, name=name)
        return created

    async def rotate_token(
        self, principal: Principal, token_id: str, *, ttl: float | None, overlap: float
    ) -> CreatedToken:
        """Make a successor of a token with the same grants; the token itself ends after the overlap.

        Raises:
            NotFoundError: there is no such token, or it has ended.
            UnavailableError: it could not be stored.
        """
        self._policy.allow(principal, Verb.ADMIN)
        new = new_token(TOKEN)
        successor = Credential(new.id, new.digest, "", "machine", 0.0, created_by=principal.name)
        with self._audit.noting(principal, "token_rotated", Verb.ADMIN, reason=f"{token_id} by {new.id}"):
            stored = await store.rotate_token(self._database, token_id, successor, ttl=ttl, overlap=overlap)
        await self._note("token_rotated", principal, token=token_id, successor=new.id, name=stored.name)
        return CreatedToken(new.text, stored)

    async def revoke(self, principal: Principal, credential_id: str) -> None:
        """Revoke a token or a session, everywhere within seconds.

        Raises:
            NotFoundError: there is none of this id.
            UnavailableError: it could not be stored.
        """
        self._policy.allow(principal, Verb.ADMIN)
        with self._audit.noting(principal, "token_revoked", Verb.ADMIN, reason=credential_id):
            await store.revoke_credential(self._database, credential_id)
        await self._note("token_revoked", principal, token=credential_id)

    def identities(self, principal: Principal) -> list[Identity]:
        """Return all identities by their names."""
        self._policy.allow(principal, Verb.ADMIN)
        return sorted(self._table.identities().values(), key=lambda identity: identity.name)

    async def put_identity(self, principal: Principal, identity: Identity) -> Identity:
        """Create an identity, or replace it; living sessions follow it within seconds.

        Raises:
            InvalidError: what it matches cannot be proven, or another identity matches the same.
            UnavailableError: it could not be stored.
        """
        self._policy.allow(principal, Verb.ADMIN)
        with self._audit.noting(principal, "identity_set", Verb.ADMIN, reason=f"identity:{identity.name}"):
            check_match(identity.source, identity.match)
            check_grants(identity.grants)
            stored = await store.put_identity(self._database, identity)
        await self._note("identity_set", principal, name=identity.name, match=identity.match)
        return stored

    async def remove_identity(self, principal: Principal, name: str) -> None:
        """Remove an identity, and with it its sessions.

        Raises:
            NotFoundError: there is none of this name.
            UnavailableError: it could not be stored.
        """
        self._policy.allow(principal, Verb.ADMIN)
        with self._audit.noting(principal, "identity_removed", Verb.ADMIN, reason=f"identity:{name}"):
            await store.remove_identity(self._database, name)
        await self._note("identity_removed", principal, name=name)

    async def _note(self, event: str, principal: Principal, **fields: str) -> None:
        log.info(event, actor=principal.name, **fields)
        await self._feed.refresh()


async def create_token(  # the parts of a token
    database: Database,
    name: str,
    kind: Kind,
    grants: Sequence[Grant],
    *,
    networks: Sequence[str],
    ttl: float,
    created_by: str,
) -> CreatedToken:
    """Make a static token and store it.

    Raises:
        InvalidError: the name is in use, or a grant or network is not valid.
        UnavailableError: it could not be stored.
    """
    check_grants(grants)
    check_networks(networks)
    new = new_token(TOKEN)
    token = Credential(new.id, new.digest, name, kind, 0.0, tuple(grants), tuple(networks), created_by=created_by)
    return CreatedToken(new.text, await store.add_token(database, token, ttl))
