"""The credentials and identities that this process knows, in memory, and the subjects that they make.

Static tokens and identities are all here. Of sessions, of which each registrar has two, only those that were used with
this process are. Times are seconds since 1970 by PostgreSQL's clock, as the caller reads it.
"""

import hmac
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from registry.auth.credential import Credential, Identity
from registry.auth.grants import Grant
from registry.auth.subject import ANONYMOUS, Subject, rejected, undetermined
from registry.auth.tokens import SESSION, TokenParts, read_token
from registry.auth.verbs import Verb

MAX_SESSIONS = 200_000
"""Sessions that are remembered; beyond it those that end first are forgotten, and read again when they are used."""
GRACE = 43_200.0
"""Seconds for which a session that only discovers is good past its end while PostgreSQL is away."""

_BEARER = b"bearer "
_NO_BEARER = "the Authorization header is no bearer token; send `Authorization: Bearer hct_…`"
_NO_TOKEN = "the token has not the form of one of this registry (hct_… or hcs_…); was it cut or quoted?"  # noqa: S105
_NOT_HERE = "the token is not one of this registry, or was deleted; ask for a new one"


class Contents(Struct, frozen=True):
    """Everything of the table that is kept over a restart."""

    credentials: Sequence[Credential] = ()
    identities: Sequence[Identity] = ()


class AccessTable:
    """Credentials by their id, and identities by what they match.

    ``background.access_feed`` writes it, and every front asks it for the subject of a request.
    """

    def __init__(self) -> None:
        self.ready = False
        """Whether tokens and identities were read, from PostgreSQL or from the snapshot on disk."""
        self.away = False
        """Whether PostgreSQL could not be read lately, so that sessions of Envoys are good past their end."""
        self.generation = 0
        """Grows when tokens or identities change, so that what was concluded without a credential is looked at again.
        """
        self.used: set[str] = set()
        """The ids of credentials that were used since they were last taken to be stored."""
        self._tokens: dict[str, Credential] = {}
        """Static tokens, also those that expired or were revoked, by their id. Written by replace()."""
        self._sessions: dict[str, Credential] = {}
        """Sessions that were used with this process, by their id. Written by add_session() and replace()."""
        self._identities: dict[str, Identity] = {}
        """Identities by their name. Written by replace()."""
        self._by_match: dict[tuple[str, str], Identity] = {}
        """Identities by source and match. Written by replace()."""
        self._networks: list[tuple[Any, Identity]] = []
        """Identities of networks, the narrowest first. Written by replace()."""
        self._subjects: dict[str, Subject] = {}
        """The subjects that are in use, by the id of their credential or ``identity:`` and its name."""

    # --- what the feed writes

    def replace(self, tokens: Iterable[Credential], identities: Iterable[Identity], revoked: Iterable[str]) -> None:
        """Set all tokens and identities, and forget the sessions that were revoked."""
        self._tokens = {token.id: token for token in tokens}
        self._identities = {identity.name: identity for identity in identities}
        self._by_match = {(identity.source, identity.match): identity for identity in self._identities.values()}
        self._networks = sorted(
            (
                (ipaddress.ip_network(each.match), each)
                for each in self._identities.values()
                if each.source == "network"
            ),
            key=lambda pair: (-pair[0].prefixlen, pair[1].name),
        )
        for session_id in revoked:
            self._sessions.pop(session_id, None)
        for subject in self._subjects.values():
            subject.ended = True
        self._subjects.clear()
        self.generation += 1
        self.ready = True

    def add_session(self, session: Credential) -> None:
        """Remember a session that was read or made."""
        if len(self._sessions) >= MAX_SESSIONS:
            first = sorted(self._sessions.values(), key=lambda each: each.expires_at)[: MAX_SESSIONS // 10]
            for each in first:
                self._forget_session(each.id)
        self._sessions[session.id] = session

    def forget_session(self, session_id: str) -> None:
        """Forget a session that was revoked."""
        self._forget_session(session_id)

    def expire(self, now: float) -> None:
        """End the subjects of credentials that have expired; called each second."""
        for key, subject in list(self._subjects.items()):
            if subject.expires_at is not None and subject.expires_at <= now and not self._survives(subject, now):
                subject.ended = True
                del self._subjects[key]
        for session in [each for each in self._sessions.values() if each.expires_at + GRACE <= now]:
            self._forget_session(session.id)

    def contents(self) -> Contents:
        """Return everything that is kept over a restart: digests, and no token."""
        return Contents([*self._tokens.values(), *self._sessions.values()], list(self._identities.values()))

    def restore(self, contents: Contents) -> None:
        """Fill the table with what an earlier process has kept."""
        tokens = [each for each in contents.credentials if not each.is_session]
        self.replace(tokens, contents.identities, ())
        for session in contents.credentials:
            if session.is_session:
                self._sessions[session.id] = session

    def _forget_session(self, session_id: str) -> None:
        self._sessions.pop(session_id, None)
        subject = self._subjects.pop(session_id, None)
        if subject is not None:
            subject.ended = True

    def _survives(self, subject: Subject, now: float) -> bool:
        session = self._sessions.get(subject.credential)
        return session is not None and self._is_in_grace(session, now)

    def _is_in_grace(self, session: Credential, now: float) -> bool:
        return self.away and session.discovers and now < session.expires_at + GRACE

    # --- what fronts ask

    def identities(self) -> Mapping[str, Identity]:
        """Return the identities by their name."""
        return self._identities

    def tokens(self) -> Mapping[str, Credential]:
        """Return the static tokens by their id, ended ones too."""
        return self._tokens

    def find_identity(self, source: str, match: str) -> Identity | None:
        """Return the identity that a source proves; None if none matches."""
        return self._by_match.get((source, match))

    def unread_session(self, authorization: bytes | None) -> str | None:
        """Return the id of a session that a header names and this process has not read; else None."""
        parts = None if authorization is None else _parts_of(authorization)
        if isinstance(parts, TokenParts) and parts.prefix == SESSION and parts.id not in self._sessions:
            return parts.id
        return None

    def subject_of(
        self, address: str, authorization: bytes | None, names: Sequence[tuple[str, str]] = (), *, now: float
    ) -> Subject:
        """Return what is proven of a sender.

        A credential that is sent decides alone: one that is bad does not fall back to the certificate or the address.

        Args:
            address: the address of the peer.
            authorization: the value of the Authorization header; None: there is none.
            names: the names of the peer's certificate, as pairs of a source (spiffe, dns) and a name.
            now: PostgreSQL's time.
        """
        if authorization is not None:
            return self._subject_of_token(address, authorization, now)
        if not self.ready:
            return undetermined()
        for source, name in names:
            identity = self._by_match.get((source, name))
            if identity is not None:
                return self.subject_of_identity(identity, f"{source}:{name}" if source == "dns" else name)
        return self._subject_of_network(address)

    def subject_of_identity(self, identity: Identity, name: str) -> Subject:
        """Return the subject of what an identity matched, without a session."""
        key = f"identity:{identity.name}:{name}"
        subject = self._subjects.get(key)
        if subject is None:
            subject = Subject(name, identity.kind, identity.grants, owner=identity.owner)
            self._subjects[key] = subject
        return subject

    def _subject_of_token(self, address: str, authorization: bytes, now: float) -> Subject:
        parts = _parts_of(authorization)
        if isinstance(parts, str):
            return rejected(parts)
        credential = (self._sessions if parts.prefix == SESSION else self._tokens).get(parts.id)
        if credential is None:
            return rejected(_NOT_HERE) if self.ready else undetermined()
        if not hmac.compare_digest(credential.digest, parts.digest):
            return rejected(_NOT_HERE)
        problem = self._problem_of(credential, address, now)
        if problem:
            return rejected(problem)
        self.used.add(credential.id)
        subject = self._subjects.get(credential.id)
        if subject is None:
            subject = self._subjects[credential.id] = self._subject(credential)
        return subject

    def _problem_of(self, credential: Credential, address: str, now: float) -> str:
        if credential.revoked_at is not None:
            return f"{_described(credential)} was revoked; ask for a new one"
        if credential.expires_at <= now and not self._is_in_grace(credential, now):
            return f"{_described(credential)} has expired; {'log in again' if credential.is_session else 'rotate it'}"
        if credential.is_session:
            identity = self._identities.get(credential.identity)
            if identity is None or not identity.means(credential):
                return f"the identity of {_described(credential)} was removed, or means another role now"
        if credential.networks and not _is_in(address, credential.networks):
            return f"{_described(credential)} may not be used from {address}"
        return ""

    def _subject(self, credential: Credential) -> Subject:
        grants = self._identities[credential.identity].grants if credential.is_session else credential.grants
        return Subject(
            credential.name if credential.is_session else f"token:{credential.name}",
            credential.kind,
            _that_discover(grants) if credential.discovers else grants,
            owner=credential.owner,
            session_name=credential.session_name,
            credential=credential.id,
            expires_at=credential.expires_at,
        )

    def _subject_of_network(self, address: str) -> Subject:
        if not self._networks:
            return ANONYMOUS
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return ANONYMOUS
        for network, identity in self._networks:
            if parsed in network:
                return self.subject_of_identity(identity, f"network:{network}")
        return ANONYMOUS


def _parts_of(authorization: bytes) -> TokenParts | str:
    """Return the token of an Authorization header, or why it has none."""
    if authorization[: len(_BEARER)].lower() != _BEARER:
        return _NO_BEARER
    return read_token(authorization[len(_BEARER) :].strip()) or _NO_TOKEN


def _described(credential: Credential) -> str:
    return f"the session of {credential.name}" if credential.is_session else f"the token {credential.name}"


def _that_discover(grants: Sequence[Grant]) -> list[Grant]:
    """Return grants of discovery alone; an identity that may discover nothing has none."""
    return [replace(grant, verbs=(Verb.DISCOVER,)) for grant in grants if Verb.DISCOVER in grant.verbs]


def _is_in(address: str, networks: Iterable[str]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in ipaddress.ip_network(network) for network in networks)
