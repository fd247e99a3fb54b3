"""The credentials and identities that this process knows, in memory, and the subjects that they make.

Static tokens and identities are all here. Of sessions, of which each registrar has two, only those that were used with
this process are. Times are seconds since 1970 by PostgreSQL's clock, as the caller reads it.
"""

import hmac
import ipaddress
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from heapq import heappop, heappush
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from registry.auth.credential import Credential, Identity
from registry.auth.grants import Grant
from registry.auth.oidc import matches_of
from registry.auth.subject import ANONYMOUS, Subject, rejected, undetermined
from registry.auth.tokens import BROWSER, SESSION, TOKEN, TokenParts, read_token
from registry.auth.verbs import Verb
from registry.errors import UnauthenticatedError

MAX_SESSIONS = 200_000
"""Sessions that are remembered; beyond it those that end first are forgotten, and read again when they are used."""
GRACE = 43_200.0
"""Seconds for which a session that only discovers is good past its end while PostgreSQL is away."""
RETURN_GRACE = 300.0
"""Seconds for which that goes on once PostgreSQL is back: registrars log in again within a minute or two."""
_KEPT_AFTER_END = 600.0
"""Seconds for which a session that ended is remembered; used later than that, it is read again."""
_PRUNE_INTERVAL = 60.0
"""Seconds between two looks for sessions that ended."""

_OF_IDENTITY = "identity:"
"""The beginning of the keys of subjects without a credential; no id of a credential has a colon."""
_BEARER = b"bearer "
_NO_BEARER = "the Authorization header is no bearer token; send `Authorization: Bearer hct_…`"
_NO_TOKEN = "the token has not the form of one of this registry (hct_… or hcs_…); was it cut or quoted?"  # noqa: S105
_NOT_HERE = "the token is not one of this registry, or was deleted; ask for a new one"
_NO_BROWSER_SESSION = "the session of this browser has ended; sign in again"


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
        self.stale = False
        """Whether the contents are those of an earlier process, and PostgreSQL was not read since. Written by
        restore() and replace()."""
        self.changes = 0
        """The number of changes of what is kept over a restart. Only grows."""
        self.generation = 0
        """Grows when tokens or identities change, so that what was concluded without a credential is looked at again.
        """
        self.unreadable: Mapping[str, str] = {}
        """The tokens and identities that the last reading left out because they cannot be read, with the reasons.
        Written by AccessFeed, and by DiskAccess for what it restores."""
        self.used: set[str] = set()
        """The ids of static tokens that were used since they were last taken to be stored."""
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
        self._ends: list[tuple[float, str]] = []
        """A heap of the ends of subjects, with their keys; a subject that is gone may still be in it."""
        self._in_grace: set[str] = set()
        """Keys of subjects that are past their end and still good. Written by expire()."""
        self._revoked: set[str] = set()
        """The ids of sessions that were revoked, so that a search which overlaps the revocation adds none of them."""
        self._pruned_at = -math.inf
        """When sessions that ended were last looked for."""
        self._away_since = math.inf
        """When PostgreSQL was last read before the outage that is, or was last; infinite: there was none. Written by
        mark_away(), restore() and mark_read()."""
        self._away_until = -math.inf
        """When that outage ended; infinite: PostgreSQL is away."""
        self._read_at = -math.inf
        """When PostgreSQL was last read. Written by mark_read()."""

    @property
    def away(self) -> bool:
        """Whether PostgreSQL could not be read lately, or does not store sessions."""
        return self._away_until == math.inf

    # --- what the feed writes

    def replace(self, tokens: Iterable[Credential], identities: Iterable[Identity], revoked: Iterable[str]) -> None:
        """Set all tokens and identities, and forget the sessions that were revoked."""
        self.stale = False
        self._revoked = set(revoked)
        for session_id in self._revoked:
            self._forget_session(session_id)
        tokens_by_id = {token.id: token for token in tokens}
        by_name = {identity.name: identity for identity in identities}
        if self.ready and tokens_by_id == self._tokens and by_name == self._identities:
            return
        for key in self._affected(tokens_by_id, by_name):
            self._subjects.pop(key).ended = True
        self._tokens, self._identities = tokens_by_id, by_name
        self._by_match = {(identity.source, identity.match): identity for identity in by_name.values()}
        self._networks = sorted(
            ((ipaddress.ip_network(each.match), each) for each in by_name.values() if each.source == "network"),
            key=lambda pair: (-pair[0].prefixlen, pair[1].name),
        )
        self.generation += 1
        self.changes += 1
        self.ready = True

    def _affected(self, tokens: Mapping[str, Credential], identities: Mapping[str, Identity]) -> list[str]:
        """Return the keys of the subjects that end with new tokens and identities.

        All others go on: a held poll whose subject has ended gets no news, and asks again half a second later.
        """
        ended_tokens = {name for name, token in self._tokens.items() if not _is_same(token, tokens.get(name))}
        changed = {
            name
            for name in self._identities.keys() | identities.keys()
            if self._identities.get(name) != identities.get(name)
        }
        return [key for key in self._subjects if self._is_affected(key, ended_tokens, changed)]

    def _is_affected(self, key: str, ended_tokens: Collection[str], changed: Collection[str]) -> bool:
        if key.startswith(_OF_IDENTITY):
            # A new identity may match a name or an address that another one has matched so far.
            return bool(changed)
        session = self._sessions.get(key)
        if session is None:
            return key in ended_tokens or key not in self._tokens
        return session.identity in changed or session.parent in ended_tokens

    def add_session(self, session: Credential) -> bool:
        """Remember a session that was read or made; return False if it was revoked meanwhile."""
        if session.id in self._revoked:
            return False
        if len(self._sessions) >= MAX_SESSIONS:
            first = sorted(self._sessions.values(), key=lambda each: each.expires_at)[: MAX_SESSIONS // 10]
            for each in first:
                self._forget_session(each.id)
        self._sessions[session.id] = session
        self.changes += 1
        return True

    def forget_session(self, session_id: str) -> None:
        """Forget a session that was revoked."""
        self._revoked.add(session_id)
        self._forget_session(session_id)

    def mark_away(self) -> None:
        """Note that PostgreSQL could not be read, or does not store sessions."""
        if self.away:
            return
        # An outage that follows another one closely is the same: registrars may not have logged in between.
        if self._read_at > self._away_until + RETURN_GRACE:
            self._away_since = self._read_at
        self._away_until = math.inf

    def mark_read(self, now: float) -> None:
        """Note that PostgreSQL was read, and stores sessions."""
        self._read_at = now
        if self.away:
            self._away_until = now

    def expire(self, now: float) -> None:
        """End the subjects of credentials that have expired; called each second."""
        due = self._in_grace
        while self._ends and self._ends[0][0] <= now:
            due.add(heappop(self._ends)[1])
        self._in_grace = set()
        for key in due:
            subject = self._subjects.get(key)
            if subject is None or subject.expires_at is None or subject.expires_at > now:
                continue
            if self._survives(subject, now):
                self._in_grace.add(key)
            else:
                subject.ended = True
                del self._subjects[key]
        if abs(now - self._pruned_at) >= _PRUNE_INTERVAL:
            self._pruned_at = now
            self._prune(now)

    def look_again(self) -> None:
        """Let every connection be identified again with its next request, so that its credential counts as used."""
        self.generation += 1

    def contents(self, now: float) -> Contents:
        """Return everything that is kept over a restart, but for sessions that have ended: digests, and no token."""
        living = [
            session
            for session in self._sessions.values()
            if session.expires_at > now or self._is_in_grace(session, now)
        ]
        return Contents([*self._tokens.values(), *living], list(self._identities.values()))

    def restore(self, contents: Contents) -> None:
        """Fill the table with what an earlier process has kept, while PostgreSQL is away."""
        self._sessions.update((each.id, each) for each in contents.credentials if each.is_session)
        self.replace([each for each in contents.credentials if not each.is_session], contents.identities, ())
        self.stale = True
        # The sessions were good when they were kept; since when PostgreSQL is away is not known.
        self._away_since, self._away_until = -math.inf, math.inf

    def _forget_session(self, session_id: str) -> None:
        if self._sessions.pop(session_id, None) is not None:
            self.changes += 1
        subject = self._subjects.pop(session_id, None)
        if subject is not None:
            subject.ended = True

    def _prune(self, now: float) -> None:
        ended = [
            session.id
            for session in self._sessions.values()
            if session.expires_at + _KEPT_AFTER_END <= now and not self._is_in_grace(session, now)
        ]
        for session_id in ended:
            self._forget_session(session_id)

    def _survives(self, subject: Subject, now: float) -> bool:
        session = self._sessions.get(subject.credential)
        return session is not None and self._is_in_grace(session, now)

    def _is_in_grace(self, session: Credential, now: float) -> bool:
        """Return whether a session is good past its end: it was when PostgreSQL was last read before an outage."""
        outage = now < self._away_until + RETURN_GRACE and self._away_since < session.expires_at
        return outage and session.discovers and now < session.expires_at + GRACE

    # --- what fronts ask

    def identities(self) -> Mapping[str, Identity]:
        """Return the identities by their name."""
        return self._identities

    def tokens(self) -> Mapping[str, Credential]:
        """Return the static tokens by their id, ended ones too."""
        return self._tokens

    def find_session(self, session_id: str) -> Credential | None:
        """Return a session that was used with this process; None if there is none of this id."""
        return self._sessions.get(session_id)

    def find_identity(self, source: str, match: str) -> Identity | None:
        """Return the identity that a source proves; None if none matches."""
        return self._by_match.get((source, match))

    def person(self, email: str) -> Identity | None:
        """Return the identity that means a person: of the very address, else of its domain."""
        identities = (self._by_match.get(("oidc", match)) for match in matches_of(email))
        return next((identity for identity in identities if identity is not None), None)

    def unread_credential(self, authorization: bytes | None, cookie: bytes | None = None) -> str | None:
        """Return the id of a credential that a request names and this process has not read; else None."""
        parts = _parts_of(authorization, cookie)
        if isinstance(parts, TokenParts) and not self.has(parts.id):
            return parts.id
        return None

    def has(self, credential_id: str) -> bool:
        """Return whether a token or a session of this id was read."""
        return credential_id in self._sessions or credential_id in self._tokens

    def subject_of(
        self,
        address: str,
        authorization: bytes | None,
        names: Sequence[tuple[str, str]] = (),
        *,
        now: float,
        cookie: bytes | None = None,
    ) -> Subject:
        """Return what is proven of a sender.

        A credential that is sent decides alone: one that is bad does not fall back to the certificate or the address.

        Args:
            address: the address of the peer.
            authorization: the value of the Authorization header; None: there is none.
            names: the names of the peer's certificate, as pairs of a source (spiffe, dns) and a name.
            now: PostgreSQL's time.
            cookie: the session of a browser; None: there is none, or it does not count for this request.
        """
        parts = _parts_of(authorization, cookie)
        if parts is not None:
            return self._subject_of_token(address, parts, now)
        if not self.ready:
            return undetermined()
        for source, name in names:
            identity = self._by_match.get((source, name))
            if identity is not None:
                return self.subject_of_identity(identity, f"{source}:{name}" if source == "dns" else name)
        return self._subject_of_network(address)

    def subject_of_identity(self, identity: Identity, name: str) -> Subject:
        """Return the subject of what an identity matched, without a session."""
        key = f"{_OF_IDENTITY}{identity.name}:{name}"
        subject = self._subjects.get(key)
        if subject is None:
            subject = Subject(name, identity.kind, identity.grants, owner=identity.owner)
            self._subjects[key] = subject
        return subject

    def subject_of_person(self, email: str, expires_at: float) -> Subject:
        """Return the subject of a person whom another party has proven until a time, without a session.

        One whom no identity means has a name and no grants.
        """
        if not self.ready:
            return undetermined()
        name = f"oidc:{email}"
        identity = self.person(email)
        if identity is None:
            return Subject(name, "operator", expires_at=expires_at)
        key = f"{_OF_IDENTITY}{identity.name}:{name}:{expires_at}"
        subject = self._subjects.get(key)
        if subject is None:
            subject = Subject(name, identity.kind, identity.grants, owner=identity.owner, expires_at=expires_at)
            self._subjects[key] = subject
            heappush(self._ends, (expires_at, key))
        return subject

    def living_token(self, text: bytes, address: str, now: float) -> Credential:
        """Return the static token that a person pasted.

        Raises:
            UnauthenticatedError: it is not accepted; the error says why, and does not repeat it.
        """
        parts = read_token(text)
        if parts is None or parts.prefix != TOKEN:
            raise UnauthenticatedError("that is no static token of this registry (hct_…); was it cut or quoted?")
        token = self._tokens.get(parts.id)
        if token is None or not hmac.compare_digest(token.digest, parts.digest):
            raise UnauthenticatedError(_NOT_HERE)
        problem = self._problem_of(token, address, now)
        if problem:
            raise UnauthenticatedError(problem)
        return token

    def _subject_of_token(self, address: str, parts: TokenParts | str, now: float) -> Subject:
        if isinstance(parts, str):
            return rejected(parts)
        if not self.ready:
            # Also where the session was found: its identity was not yet.
            return undetermined()
        credential = (self._tokens if parts.prefix == TOKEN else self._sessions).get(parts.id)
        absent = _NO_BROWSER_SESSION if parts.prefix == BROWSER else _NOT_HERE
        if credential is None:
            return rejected(absent)
        if not hmac.compare_digest(credential.digest, parts.digest):
            return rejected(absent)
        problem = self._problem_of(credential, address, now)
        if problem:
            return rejected(problem)
        if not credential.is_session:
            self.used.add(credential.id)
        elif credential.parent:
            self.used.add(credential.parent)
        subject = self._subjects.get(credential.id)
        if subject is None:
            subject = self._subjects[credential.id] = self._subject(credential)
            # The session of a token may end with the token, before its own end.
            heappush(self._ends, (subject.expires_at or credential.expires_at, credential.id))
        return subject

    def _problem_of(self, credential: Credential, address: str, now: float) -> str:
        if credential.revoked_at is not None:
            return f"{_described(credential)} was revoked; {_remedy(credential) or 'ask for a new one'}"
        if credential.expires_at <= now and not self._is_in_grace(credential, now):
            return f"{_described(credential)} has expired; {_remedy(credential) or 'ask for a new one'}"
        if credential.parent:
            token = self._tokens.get(credential.parent)
            return _NOT_HERE if token is None else self._problem_of(token, address, now)
        if credential.is_session:
            identity = self._identities.get(credential.identity)
            if identity is None or not identity.means(credential):
                return f"the identity of {_described(credential)} was removed, or means another role now"
        if credential.networks and not _is_in(address, credential.networks):
            return f"{_described(credential)} may not be used from {address}"
        return ""

    def _subject(self, credential: Credential) -> Subject:
        # A session of a token is that token, for as long as both last.
        source = self._tokens[credential.parent] if credential.parent else credential
        grants = self._identities[credential.identity].grants if credential.identity else source.grants
        return Subject(
            source.name if source.is_session else f"token:{source.name}",
            source.kind,
            _that_discover(grants) if credential.discovers else grants,
            owner=source.owner,
            session_name=credential.session_name,
            credential=credential.id,
            expires_at=min(credential.expires_at, source.expires_at),
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


def _parts_of(authorization: bytes | None, cookie: bytes | None = None) -> TokenParts | str | None:
    """Return the token of a header or of a cookie, why it is none, or None where neither was sent.

    The header counts alone where there is one: whoever writes it by hand means it.
    """
    if authorization is None:
        if cookie is None:
            return None
        parts = read_token(cookie)
        return parts if parts is not None and parts.prefix == BROWSER else _NO_BROWSER_SESSION
    if authorization[: len(_BEARER)].lower() != _BEARER:
        return _NO_BEARER
    parts = read_token(authorization[len(_BEARER) :].strip())
    return parts if parts is not None and parts.prefix in (TOKEN, SESSION) else _NO_TOKEN


def _described(credential: Credential) -> str:
    return f"the session of {credential.name}" if credential.is_session else f"the token {credential.name}"


def _remedy(credential: Credential) -> str:
    """Return what the holder of a session that ended has to do; empty for a static token."""
    if not credential.is_session:
        return ""
    return "sign in again" if credential.parent else "log in again"


def _that_discover(grants: Sequence[Grant]) -> list[Grant]:
    """Return grants of discovery alone; an identity that may discover nothing has none."""
    return [replace(grant, verbs=(Verb.DISCOVER,)) for grant in grants if Verb.DISCOVER in grant.verbs]


def _is_same(token: Credential, replaced: Credential | None) -> bool:
    """Return whether a token allows what it allowed: when it was used is no part of that."""
    return replaced is not None and replace(replaced, used_at=token.used_at) == token


def _is_in(address: str, networks: Iterable[str]) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(parsed in ipaddress.ip_network(network) for network in networks)
