"""Authentication: from what a request brings to its principal, for every front alike."""

import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING

from registry.auth.access_table import AccessTable
from registry.auth.oidc import BadIdTokenError
from registry.auth.principal import Principal
from registry.auth.subject import Subject, rejected, undetermined
from registry.background.access_feed import AccessFeed
from registry.core.clock import Clock
from registry.core.endpoint_networks import Network
from registry.errors import UnavailableError

if TYPE_CHECKING:
    from registry.auth.signed_headers import SignedHeaders

CertificateNames = Sequence[tuple[str, str]]
"""The names of a peer's certificate, as pairs of a source (spiffe, dns) and a name."""


class Sender:
    """The sender of the requests of one connection, which keeps its principal from one request to the next."""

    __slots__ = ("_authorization", "_certificate_names", "_clock", "_generation", "_table", "principal")

    def __init__(
        self, table: AccessTable, clock: Clock, address: str, certificate_names: CertificateNames = ()
    ) -> None:
        self._table = table
        self._clock = clock
        self._certificate_names = certificate_names
        self._authorization: bytes | None = None
        """The Authorization header of the principal."""
        self._generation = -1
        """The generation of the table when the principal was made."""
        self.principal = Principal(address)
        """The principal of the newest request that was identified."""

    def identify(self, authorization: bytes | None) -> bool:
        """Make the principal of a request; return False if its credential has to be searched in PostgreSQL first.

        Args:
            authorization: the value of the Authorization header; None: there is none.
        """
        if (
            authorization == self._authorization
            and self._generation == self._table.generation
            and not self.principal.subject.ended
        ):
            return True
        if self._table.unread_credential(authorization) is not None:
            return False
        subject = self._table.subject_of(
            self.principal.address, authorization, self._certificate_names, now=self._clock.now()
        )
        self.principal = Principal(self.principal.address, subject=subject)
        # What is not accepted now may be a moment later, when the table has been read again.
        self._generation = -1 if subject.problem else self._table.generation
        self._authorization = authorization
        return True


class Authentication:
    """Makes the principals of requests.

    Args:
        table: the credentials and identities that this process knows.
        feed: searches credentials that it does not know.
        clock: PostgreSQL's time.
        signed_headers: tells whom a load balancer means; None: none signs people in.
        proxies: networks of the load balancer, from which alone its headers are read.
    """

    def __init__(
        self,
        table: AccessTable,
        feed: AccessFeed,
        clock: Clock,
        signed_headers: "SignedHeaders | None" = None,
        proxies: Sequence[Network] = (),
    ) -> None:
        self._table = table
        self._feed = feed
        self._clock = clock
        self._signed_headers = signed_headers
        self._proxies = proxies

    @property
    def generation(self) -> int:
        """Grows when what was concluded from a request has to be looked at again."""
        return self._table.generation

    def sender(self, address: str, certificate_names: CertificateNames = ()) -> Sender:
        """Return the sender of the requests of a connection."""
        return Sender(self._table, self._clock, address, certificate_names)

    async def principal(
        self,
        address: str,
        authorization: bytes | None,
        certificate_names: CertificateNames = (),
        *,
        actor: str = "",
        cookie: bytes | None = None,
        statements: Sequence[bytes] = (),
    ) -> Principal:
        """Return the principal of a request.

        Args:
            address: the address that it came from.
            authorization: the value of its Authorization header; None: there is none.
            certificate_names: the names of the peer's certificate.
            actor: the name that the sender gives itself.
            cookie: the session of a browser; None: there is none, or it does not count for this request.
            statements: what a load balancer says of the person, by each header of its kind; looked at where the request
                has neither of the others, and comes from a proxy that is trusted.
        """
        signed_headers = self._signed_headers
        if statements and authorization is None and cookie is None and signed_headers and self._is_proxy(address):
            return Principal(address, actor, await self._person(signed_headers, statements))
        unread = self._table.unread_credential(authorization, cookie)
        if unread is not None:
            try:
                await self._feed.find_credential(unread)
            except UnavailableError as error:
                # The decision says 503 where access is on; where it is off, nothing depends on it.
                return Principal(address, actor, undetermined(str(error)))
        subject = self._table.subject_of(
            address, authorization, certificate_names, now=self._clock.now(), cookie=cookie
        )
        return Principal(address, actor, subject)

    async def _person(self, signed_headers: "SignedHeaders", statements: Sequence[bytes]) -> Subject:
        if len(statements) > 1:
            # One of them was not written by the load balancer, and nobody knows which.
            return rejected("the request has x-amzn-oidc-data more than once; the load balancer sends it once")
        try:
            person = await signed_headers.person(statements[0], self._clock.now())
        except BadIdTokenError as error:
            return rejected(str(error))
        except UnavailableError as error:
            return undetermined(str(error))
        return self._table.subject_of_person(person.email, person.expires_at)

    def _is_proxy(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._proxies)
