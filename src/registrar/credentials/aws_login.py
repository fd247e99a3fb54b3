"""The AWS login: a task that logs in, renews the session, and logs in again when a registry refuses it."""

import asyncio
import enum
import math
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Never

from msgspec import Struct

from registrar import jitter
from registrar.credentials.aws_identity import check_identity, identity_headers
from registrar.credentials.aws_keys import find_keys
from registrar.credentials.session import Session, SessionToken, Step, begin, renew
from registrar.credentials.sigv4 import AwsKeys
from registrar.errors import AwsIdentityUnavailable, RegistryRefused, RegistryUnavailable
from registrar.event_log import EventLogger
from registrar.registry_client.client import RegistryClient

_NONCE_BYTES = 16
_RENEWAL_SHARE = 0.5
"""Share of a session's life after which it is renewed."""
_SHARE_SPREAD = 0.1
_BACKOFF_BASE = 1.0
"""Seconds of the first ceiling of the pause between two failed logins."""
_MAX_BACKOFF = 60.0
"""Seconds of the pause between two failed logins at most: a fleet must not ask AWS's STS more often in an outage."""
_MAX_CLOCK_DIFFERENCE = 30.0
"""Seconds that this machine's clock may differ from the registry's before a refused login is signed by the latter."""
_SETTLED_AGE = 60.0
"""Seconds after which a session that is refused was revoked, and not issued in vain."""
_KEYS_TIMEOUT = 15.0
"""Seconds for the keys, with all attempts at their source."""

log = EventLogger(__name__)


class FailureKind(enum.StrEnum):
    """The reason why there is no login; only a refusal has to be mended by somebody."""

    IMPOSSIBLE = "impossible"
    UNAVAILABLE = "unavailable"
    REFUSED = "refused"


_EVENTS = {
    FailureKind.IMPOSSIBLE: "login_impossible",
    FailureKind.UNAVAILABLE: "login_unavailable",
    FailureKind.REFUSED: "login_refused",
}


class LoginFailure(Struct, frozen=True):
    """The newest failure of a login or renewal.

    Attributes:
        kind: who has to do something.
        reason: the words of the registry, or of the source of the keys.
        status: the HTTP status of a refusal.
    """

    kind: FailureKind
    reason: str
    status: int | None = None


class AwsLogin:
    """The credential of an AWS login; ``run`` keeps it valid until it is cancelled.

    No failure ends anything: the old session is sent until its end, and beyond it, since the registry then says why it
    refuses; without any session requests carry no credential, which a registry without access control accepts.

    Args:
        region: the AWS region whose STS vouches for the role; empty if it is not known.
        audience: the registry that the proof is for.
        instance_id: the instance that logs in.
        environ: names the source of the AWS keys.
        find: returns the keys of this moment.

    Attributes:
        session: the newest session; None before the first. Written by ``run``.
        failure: the newest failure; None after a success.
        attempted: set when the first login has ended, in either way.
        renewed: called after each new session.
        counts: finished attempts, by result.
    """

    def __init__(
        self,
        region: str,
        audience: str,
        instance_id: str,
        environ: Mapping[str, str],
        find: Callable[[Mapping[str, str]], Awaitable[AwsKeys]] = find_keys,
    ) -> None:
        self._region = region
        self._audience = audience
        self._instance_id = instance_id
        self._environ = environ
        self._find = find
        self._loop = asyncio.get_running_loop()
        self._backoff = jitter.Backoff(_BACKOFF_BASE, _MAX_BACKOFF)
        self.session: Session | None = None
        self.failure: LoginFailure | None = None
        self.attempted = asyncio.Event()
        self.renewed: Callable[[], None] = lambda: None
        self.counts: dict[str, int] = {"accepted": 0, "renewed": 0, **dict.fromkeys(map(str, FailureKind), 0)}
        # Loop time before which nothing is sent; written after each failure.
        self._not_before = -math.inf
        # Loop time at which the session is renewed.
        self._renew_at = -math.inf
        # Whether a registry refused the session's token with 401; a login follows then, and no renewal.
        self._rejected = False
        # Whether the session may be renewed, as far as this process knows; False after a refused renewal.
        self._renewable = True
        # Set when the session is rejected, so that the wait for its renewal ends early.
        self._wake = asyncio.Event()
        # Seconds by which the registry's clock is ahead of this machine's; 0 while no login was refused for it.
        self._clock_offset = 0.0

    @property
    def bearer(self) -> str:
        """The token of the session; empty before the first login."""
        return self.session.registrar.token if self.session else ""

    @property
    def envoy_token(self) -> SessionToken | None:
        """The token of the Envoy beside this process, if there is one."""
        return self.session.envoy if self.session else None

    def accepted(self, bearer: str) -> None:
        """Record that the session works, also after one registry of several refused it."""
        if self.session is None or bearer != self.bearer:
            return
        if self._rejected:
            # No login is needed any more, and so none fails.
            self._rejected, self.failure = False, None
        if self._settled(self.session):
            self._backoff.reset()

    def refused(self, bearer: str) -> bool:
        """Record that a registry refused a token, and return whether another one is there or expected.

        The first refusal of a session leads to a login. The refusal of one that was just issued is a failure of its
        login, after which the next one waits: a registry that refuses every session must not cause a login each time.
        """
        if bearer != self.bearer:
            return True
        if self.session is not None and not self._rejected:
            self._rejected = True
            if not self._settled(self.session):
                self._not_before = self._loop.time() + self._backoff.failed(math.inf)
            self._wake.set()
        return self.failure is None or self.failure.kind is FailureKind.UNAVAILABLE

    async def run(self, client: RegistryClient) -> Never:
        """Log in and keep the session valid until cancelled."""
        while True:
            await self._until_due()
            try:
                await self._attempt(client)
            except Exception:  # a defect of the login must not stop the heartbeats, nor the app of `exec`
                log.exception("login_failed_unexpectedly")
                self._not_before = self._loop.time() + self._backoff.failed(math.inf)
            self.attempted.set()

    async def _until_due(self) -> None:
        while (delay := self._due() - self._loop.time()) > 0:
            self._wake.clear()
            try:
                async with asyncio.timeout(delay):
                    await self._wake.wait()
            except TimeoutError:
                return

    def _due(self) -> float:
        return self._not_before if self.session is None or self._rejected else max(self._not_before, self._renew_at)

    async def _attempt(self, client: RegistryClient) -> None:
        step = Step.LOGIN
        if self.session is not None and self._renewable and not self._rejected:
            step = self.session.next_step(self._loop.time())
        requests = {
            Step.LOGIN: (self._log_in,),
            Step.LOGIN_OR_RENEW: (self._log_in, self._renew),
            Step.RENEW: (self._renew, self._log_in),
        }[step]
        registry = client.registry
        for request in requests:
            try:
                await request(client)
            except AwsIdentityUnavailable as error:
                self._fail(LoginFailure(FailureKind.IMPOSSIBLE, f"{error}; {error.fix}"), registry)
            except RegistryUnavailable as error:
                self._fail(LoginFailure(FailureKind.UNAVAILABLE, str(error)), registry, error.retry_after)
                if request == self._renew:
                    # A login would ask the same registry, and AWS's STS for nothing.
                    return
            except RegistryRefused as error:
                if request == self._renew:
                    self._renewable = False
                    log.warning("session_not_renewed", registry=registry, reason=str(error), next="a login")
                    continue
                self._fail(LoginFailure(FailureKind.REFUSED, str(error), error.problem.status), registry)
                self._follow_clock(error.registry_time if error.problem.status == 401 else None)
            else:
                return

    async def _log_in(self, client: RegistryClient) -> None:
        check_identity(self._region, self._instance_id)
        try:
            async with asyncio.timeout(_KEYS_TIMEOUT):
                keys = await self._find(self._environ)
        except TimeoutError as error:
            raise AwsIdentityUnavailable(
                f"no keys within {_KEYS_TIMEOUT:g}s", "see whether their source is well"
            ) from error
        now = self._loop.time()
        headers = identity_headers(
            keys,
            self._region,
            self._audience,
            self._instance_id,
            secrets.token_hex(_NONCE_BYTES),
            time.time() + self._clock_offset,
        )
        registry = client.registry
        answer, registry_now = await client.login(headers)
        session = begin(answer, time.time() if registry_now is None else registry_now, now)
        self.counts["accepted"] += 1
        log.info(
            "logged_in", principal=session.principal, registry=registry, lifetime=round(session.registrar.ends_at - now)
        )
        self._take(session)

    async def _renew(self, client: RegistryClient) -> None:
        if self.session is None:
            return
        now = self._loop.time()
        answer, registry_now = await client.renew(self.bearer)
        session = renew(self.session, answer, time.time() if registry_now is None else registry_now, now)
        self.counts["renewed"] += 1
        self._backoff.reset()
        self._take(session)

    def _take(self, session: Session) -> None:
        if self.failure is not None:
            log.info("login_back", after=self.failure.kind)
        self.session, self.failure = session, None
        self._rejected, self._renewable = False, True
        self._not_before = -math.inf
        self._renew_at = session.renew_at(jitter.at_most(_RENEWAL_SHARE, _SHARE_SPREAD))
        self.renewed()

    def _settled(self, session: Session) -> bool:
        return self._loop.time() - session.issued_at >= _SETTLED_AGE

    def _fail(self, failure: LoginFailure, registry: str, retry_after: float | None = None) -> None:
        self.counts[failure.kind] += 1
        self._not_before = self._loop.time() + self._backoff.failed(math.inf, retry_after)
        before, self.failure = self.failure, failure
        if before is not None and (before.kind, before.status) == (failure.kind, failure.status):
            return
        left = self.session.registrar.ends_at - self._loop.time() if self.session else None
        log.warning(_EVENTS[failure.kind], registry=registry, reason=failure.reason, meanwhile=_meanwhile(left))

    def _follow_clock(self, registry_time: float | None) -> None:
        """Sign the next proof by the registry's clock, if this machine's may be why a login was refused."""
        offset = 0.0 if registry_time is None else registry_time - time.time()
        self._clock_offset = offset if abs(offset) > _MAX_CLOCK_DIFFERENCE else 0.0


def _meanwhile(left: float | None) -> str:
    if left is None:
        return "requests carry no credential"
    if left > 0:
        return f"the session goes on for {left:.0f}s"
    return "the session has ended"
