"""Sign-ins of people by an OpenID Connect provider."""

from functools import partial
from typing import TYPE_CHECKING

from msgspec import Struct

from registry.auth.oidc import BadIdTokenError, check_state, new_attempt, read_attempt
from registry.core.clock import Clock
from registry.errors import NotFoundError
from registry.usecases.sign_in import BrowserSession, ProvenPerson, SignIns

if TYPE_CHECKING:
    from registry.auth.oidc_provider import OidcProvider

_MAX_ERROR = 64
"""Characters of an error code of the provider that is shown."""


class Begun(Struct, frozen=True):
    """A sign-in that has begun: where the browser goes, and what it keeps until it comes back."""

    url: str
    cookie: str

    def __repr__(self) -> str:
        """Show neither."""
        return "Begun()"


class Answer(Struct, frozen=True):
    """The answer of the provider, which the browser brings.

    Attributes:
        state: of the sign-in that it belongs to.
        code: is exchanged for a token; empty: there is none.
        error: why not; empty: there is a code.
        issuer: which provider answers (RFC 9207); empty: it does not say.
    """

    state: str
    code: str
    error: str
    issuer: str


class OidcSignIns:
    """Begins and finishes sign-ins at a provider.

    Args:
        provider: the one that is set; None: there is none.
        sign_ins: begins the sessions.
        clock: PostgreSQL's time.
    """

    def __init__(self, provider: "OidcProvider | None", sign_ins: SignIns, clock: Clock) -> None:
        self._provider = provider
        self._sign_ins = sign_ins
        self._clock = clock

    @property
    def issuer(self) -> str:
        """The provider, for people to read; empty: there is none."""
        return "" if self._provider is None else self._provider.settings.issuer

    @property
    def secure(self) -> bool:
        """Whether people come back over TLS."""
        return self._provider is not None and self._provider.settings.redirect.startswith("https://")

    async def begin(self, address: str, following: str) -> Begun:
        """Begin to sign a browser in.

        Args:
            address: the address of the browser.
            following: the page to go on to, which is one of ours.

        Raises:
            NotFoundError: no provider is set.
            LimitError: too many sign-ins come from this peer.
            UnavailableError: the provider is away.
        """
        provider = self._set()
        self._sign_ins.check_limit("oidc", address)
        attempt = new_attempt(following, self._clock.now())
        return Begun(await provider.url_for(attempt), attempt.write())

    async def finish(self, address: str, cookie: str, answer: Answer) -> tuple[BrowserSession, str]:
        """Begin the session of a person who comes back from the provider, and return the page to go on to.

        Raises:
            NotFoundError: no provider is set.
            UnauthenticatedError: the answer does not belong to this browser, or proves nobody.
            NotAllowedError: no identity means the person.
            LimitError: too many sign-ins come from this peer.
            UnavailableError: the provider or PostgreSQL is away.
        """
        now = self._clock.now()
        prove = partial(_prove, self._set(), cookie, answer, now)
        session = await self._sign_ins.by_provider(address, prove)
        return session, read_attempt(cookie, now).following

    def _set(self) -> "OidcProvider":
        if self._provider is None:
            raise NotFoundError("no sign-in provider is set here (REGISTRY_OIDC_ISSUER); paste a token")
        return self._provider


async def _prove(provider: "OidcProvider", cookie: str, answer: Answer, now: float) -> ProvenPerson:
    """Return who has signed in, if the answer belongs to what this browser began."""
    attempt = read_attempt(cookie, now)
    check_state(attempt, answer.state)
    if answer.issuer not in ("", provider.settings.issuer):
        raise BadIdTokenError("another provider than ours has answered (iss); begin again")
    if answer.error or not answer.code:
        readable = answer.error.replace("_", "").isalnum() and len(answer.error) <= _MAX_ERROR
        raise BadIdTokenError(f"the sign-in provider signed nobody in ({answer.error if readable else 'no code'})")
    return ProvenPerson(await provider.email_of(answer.code, attempt, now), attempt.digest)
