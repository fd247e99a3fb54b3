"""Subjects: the senders of requests as far as they are proven, and what they may do by their grants."""

from collections.abc import Sequence
from hashlib import blake2b
from typing import Literal, get_args

import msgspec

from registry.auth.grants import Grant, Reach, reach_of
from registry.auth.verbs import Verb

Kind = Literal["registrar", "envoy", "operator", "machine", "anonymous"]
"""The kinds of subjects. They are for people to read; only grants decide."""
CREDENTIAL_KINDS = tuple(kind for kind in get_args(Kind) if kind != "anonymous")
"""The kinds that a credential or an identity may have."""

_NOTHING = reach_of(frozenset())


class Subject:
    """The sender of a request, as far as a credential, a certificate or an address proves it.

    All requests of one credential share one subject. It is replaced when its grants change, and never changed.

    Args:
        name: as the history has it, for instance ``token:ci-deploy``; empty: nothing is proven.
        kind: for people to read.
        grants: what it may do.
        owner: the identity that owns the endpoints that it registers; empty: they have no owner.
        session_name: the name that AWS gives its session: a task id or an instance id.
        credential: the id of its credential; empty: it has none.
        expires_at: when the credential ends, in seconds since 1970 by PostgreSQL's clock; None: never.
        problem: why the credential that was sent is not accepted; empty: it is, or none was sent.
        unknown: whether nothing can be said yet, because this process has not read the credentials.
    """

    __slots__ = (
        "_grants",
        "_reach",
        "credential",
        "ended",
        "expires_at",
        "fingerprint",
        "grants",
        "kind",
        "name",
        "owner",
        "problem",
        "session_name",
        "unknown",
    )

    def __init__(  # noqa: PLR0913  # the facts of a subject
        self,
        name: str = "",
        kind: Kind = "anonymous",
        grants: Sequence[Grant] = (),
        *,
        owner: str = "",
        session_name: str = "",
        credential: str = "",
        expires_at: float | None = None,
        problem: str = "",
        unknown: bool = False,
    ) -> None:
        self.name = name
        self.kind = kind
        self.grants = tuple(grants)
        self.owner = owner
        self.session_name = session_name
        self.credential = credential
        self.expires_at = expires_at
        self.problem = problem
        self.unknown = unknown
        facts = msgspec.json.encode([name, self.grants, session_name, problem, unknown])
        self.fingerprint = blake2b(facts, digest_size=16).digest()
        """The digest of everything here that a decision depends on: subjects with the same one may do the same."""
        self.ended = False
        """Whether the credential expired, was revoked or changed; written by the table of credentials, for good.

        A connection that keeps a subject looks at this before each request.
        """
        self._reach: dict[Verb, Reach] = {
            verb: reach_of(frozenset(name for grant in self.grants if verb in grant.verbs for name in grant.services))
            for verb in {verb for grant in self.grants for verb in grant.verbs if not problem}
        }
        """The services by verb; none for a credential that is not accepted, whatever its grants are."""
        self._grants: dict[Verb, list[tuple[Reach, Grant]]] = {
            verb: [(reach_of(frozenset(grant.services)), grant) for grant in self.grants if verb in grant.verbs]
            for verb in self._reach
        }

    def __repr__(self) -> str:
        """Name the subject, without anything that is secret."""
        return f"Subject({self.name or self.kind})"

    def reach(self, verb: Verb) -> Reach:
        """Return the services for which it may do something."""
        return self._reach.get(verb, _NOTHING)

    def reaches(self, verb: Verb, service: str) -> bool:
        """Return whether it may do something with a service, as far as no endpoint is concerned.

        This is the decision about such a request, for those that are asked a thousand times a second.
        """
        reach = self._reach.get(verb)
        if reach is None:
            return False
        return reach.everything or service in reach.names or service.startswith(reach.prefixes)

    def grants_for(self, verb: Verb, service: str) -> list[Grant]:
        """Return the grants that have this verb and reach this service."""
        return [grant for reach, grant in self._grants.get(verb, ()) if reach.covers(service)]


ANONYMOUS = Subject()
"""The subject of a sender of whom nothing is proven."""


def rejected(problem: str) -> Subject:
    """Return the subject of a sender whose credential is not accepted, which may do nothing."""
    return Subject(problem=problem)


def undetermined(problem: str = "this process has not read the credentials yet") -> Subject:
    """Return the subject of a sender whose credential this process cannot judge now."""
    return Subject(problem=problem, unknown=True)
