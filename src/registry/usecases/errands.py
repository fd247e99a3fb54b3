"""Errands: operators ask, registrars take and answer, and what was asked is in the history with who and why."""

import re
import secrets
import time
from collections.abc import Sequence
from functools import partial

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from registry.auth.policy import Policy
from registry.auth.principal import Principal
from registry.auth.verbs import Verb
from registry.background.errand_delivery import ErrandDelivery, Hold
from registry.cache.snapshot_cache import SnapshotCache
from registry.cooperative import cooperatively
from registry.core.endpoint import Endpoint, Key, endpoint_key
from registry.core.errands import StoredErrand, check_all, choose, is_reading, outcome_in_words
from registry.errors import (
    InvalidError,
    NotFoundError,
    RegistryError,
    TooLargeError,
    UnauthenticatedError,
    UnavailableError,
    UnknownEndpointError,
    UnknownServiceError,
)
from registry.metrics import ERRANDS_ANSWERED, ERRANDS_ASKED
from registry.store import errands as store
from registry.store.database import Database
from registry.usecases.audit import Audit
from registry.usecases.registration import Registrations
from wire.address import format_endpoint
from wire.errand import MAX_RESULT_BYTES, Arguments, Errand, ErrandResult, NextErrand, Requests, verb_of

_decode = msgspec.json.Decoder(ErrandResult).decode
_ID = re.compile(r"[0-9a-f]{16}")
"""The id of an errand, as `_new` makes it."""
_MAX_WAIT = 1.0
"""Seconds after which an asker that waits is looked at: its credential may have ended."""
_MAX_REASON = 1000
"""Characters of an event's reason."""


class Question(Struct, frozen=True):
    """The errands that one question made.

    Attributes:
        errands: one for each registrar that is asked.
        registrars: the registrars that could have been asked.
    """

    errands: list[StoredErrand]
    registrars: int


class Errands:
    """Takes errands of operators, and gives registrars theirs.

    Args:
        policy: decides who may ask, and whose registrar may take.
        registrations: knows who owns an endpoint.
        database: where errands are kept.
        cache: what this process knows of the endpoints.
        delivery: hands errands out, and knows who waits.
        audit: notes what was asked.
    """

    def __init__(  # the parts that both sides need
        self,
        policy: Policy,
        registrations: Registrations,
        database: Database,
        cache: SnapshotCache,
        delivery: ErrandDelivery,
        audit: Audit,
    ) -> None:
        self._policy = policy
        self._registrations = registrations
        self._database = database
        self._cache = cache
        self._delivery = delivery
        self._audit = audit

    async def ask(  # what a question names
        self,
        principal: Principal,
        arguments: Arguments,
        *,
        service: str = "",
        endpoint: str = "",
        reason: str = "",
        everything: bool = False,
        confirm: str = "",
    ) -> Question:
        """Ask the registrars of a service, or the one of an endpoint.

        Raises:
            InvalidError: it names neither, or all registrars without the word that this needs.
            LimitError: the registrars had their errands of this minute, or too many are kept.
            UnknownServiceError, UnknownEndpointError, NotFoundError: nobody is there to be asked.
            UnavailableError: PostgreSQL is away, so that nothing can be noted, and nothing is asked.
        """
        verb = Verb.INSPECT if is_reading(arguments) else Verb.DEBUG
        caller = arguments.caller if isinstance(arguments, Requests) else ""
        if caller and endpoint:
            raise InvalidError("caller asks the Envoys of the caller; leave endpoint out", "$.endpoint")
        if not service and not endpoint:
            raise InvalidError("name a service or an endpoint", "$.service")
        if not service:
            service = await self._service_of(endpoint)
        for each in dict.fromkeys((service, caller) if caller else (service,)):
            self._policy.allow(principal, verb, each, endpoint)
        asked = caller or service
        limit = check_all(asked, confirm, everything=everything)
        chosen, registrars = self._choose(asked, endpoint, limit)
        words = f"{verb_of(arguments)} of {len(chosen)} registrars"
        with self._audit.noting(principal, "errand_asked", verb, asked, endpoint, reason=words):
            errands = await store.ask(
                self._database,
                [self._new(each) for each in chosen],
                arguments,
                service if caller else "",
                actor=principal.name,
                reason=reason,
            )
        ERRANDS_ASKED.labels(verb_of(arguments)).inc(len(errands))
        for errand in errands:
            self._delivery.nudge(errand.id)
        return Question(errands, registrars)

    async def find(self, principal: Principal, errand_id: str, seconds: float) -> StoredErrand:
        """Return an errand, when it is over or after some seconds.

        Raises:
            NotFoundError: there is none of this id, or it is forgotten.
            UnauthenticatedError: the credential was revoked, expired or changed meanwhile.
            UnavailableError: PostgreSQL is away, and the result did not come to this process.
        """
        # Before it is looked up, for any service: without a grant nobody learns which errands there are.
        refusal = self._policy.refusal(principal, Verb.INSPECT)
        self._policy.allow(principal, Verb.INSPECT if refusal is None else Verb.DEBUG)
        deadline = time.monotonic() + seconds
        while True:
            errand = await self._look(errand_id)
            verb = Verb.INSPECT if is_reading(errand.arguments) else Verb.DEBUG
            for service in dict.fromkeys(each for each in (errand.service, errand.callee) if each):
                self._policy.allow(principal, verb, service)
            left = deadline - time.monotonic()
            if errand.over or left <= 0 or self._delivery.released:
                return errand
            # One that is not collected in time, or not answered, is over without anything that could wake.
            patience = errand.collect_until - errand.now if errand.state == "asked" else errand.seconds_left
            await self._delivery.wait(errand_id, min(left, max(patience, 0.0) + 0.05, _MAX_WAIT))
            if principal.subject.ended and self._policy.enforces(verb):
                raise UnauthenticatedError(
                    f"the credential of {principal.name} was revoked, expired or changed while it waited; ask again"
                )

    async def hold(self, principal: Principal, instance_id: str, names: Sequence[str]) -> Hold | StoredErrand | None:
        """Hold a registrar's request for its next errand; if too many are held, return one that waits, or None.

        An errand that it was given before and has not answered is lost.

        Args:
            principal: who asks.
            instance_id: the registrar's instance.
            names: its endpoints, each as ``service/ip:port``.

        Raises:
            InvalidError: a name is none of an endpoint.
            NotAllowedError, NotOwnerError: it may not speak for one of them.
            NotFoundError: none of them is registered by this instance.
        """
        keys = [self._key(name) for name in names]
        for key in keys:
            self._policy.allow(principal, Verb.REGISTER, key[0], format_endpoint(*key[1:]), instance_id)
        self._registrations.check_owners(principal, keys)
        held = frozenset(key for key in keys if self._is_of(key, instance_id))
        if not held:
            raise NotFoundError(f"{names[0]} is not registered by the instance {instance_id}")
        await self._delivery.lose_unanswered(held)
        may_take = partial(self._may_take, principal, instance_id)
        hold = self._delivery.hold(held, may_take, lambda: principal.subject.ended)
        return await self._delivery.take(held, may_take) if hold is None else hold

    def let_go(self, hold: Hold) -> None:
        """Forget a held request that was answered, or whose registrar has disconnected."""
        self._delivery.let_go(hold)

    async def answer(self, principal: Principal, errand_id: str, instance_id: str, name: str, content: bytes) -> bool:
        """Keep the result of an errand; return False if it had one already.

        Args:
            principal: who answers.
            errand_id: the errand.
            instance_id: the registrar's instance.
            name: the endpoint that the errand names, as ``service/ip:port``.
            content: the JSON of the result.

        Raises:
            InvalidError: it is no result of this errand's verb.
            NotAllowedError, NotOwnerError: it may not speak for this endpoint.
            NotFoundError: there is no such errand of this registrar, or it is forgotten.
            TooLargeError: it is too large; the asker is answered so.
            UnavailableError: it is kept in this process alone; send it again.
        """
        key = self._key(name)
        self._policy.allow(principal, Verb.REGISTER, key[0], format_endpoint(*key[1:]), instance_id)
        self._registrations.check_owners(principal, [key])
        errand = await self._look(errand_id)
        if errand.key != key or errand.instance_id != instance_id:
            raise NotFoundError(f"no errand {errand_id} of {name} and the instance {instance_id}")
        if len(content) > MAX_RESULT_BYTES:
            await self._end(principal, errand, _too_large(len(content)))
            raise TooLargeError(f"the result has {len(content)} bytes; at most {MAX_RESULT_BYTES} are taken")
        try:
            result = _decode(content)
        except msgspec.DecodeError as error:
            raise InvalidError(f"no result of an errand: {error}", "$") from None
        except RecursionError:
            raise InvalidError("no result of an errand: it is nested too deeply", "$") from None
        if not result.fits(errand.arguments):
            raise InvalidError(f"no result of {verb_of(errand.arguments)}, for which this errand asks", "$")
        return await self._end(principal, errand, result)

    async def _end(self, principal: Principal, errand: StoredErrand, result: ErrandResult) -> bool:
        # Encoded again: of what a registrar sends, only what the types name is kept.
        encoded = msgspec.json.encode(result)
        self._delivery.keep(replace(errand, result=encoded))
        words = outcome_in_words(errand.arguments, result)[:_MAX_REASON]
        version = self._cache.get(errand.service).version
        stored = await store.end(self._database, errand, encoded, words, principal.name, version)
        if stored:
            ERRANDS_ANSWERED.labels(verb_of(errand.arguments), result.outcome).inc()
        self._delivery.nudge(errand.id)
        return stored

    async def _look(self, errand_id: str) -> StoredErrand:
        if _ID.fullmatch(errand_id) is None:
            # PostgreSQL refuses some texts, which would look as if it were away.
            raise NotFoundError("this is no id of an errand; POST /v1/errands returns them")
        try:
            errand = await store.find(self._database, errand_id)
        except UnavailableError:
            errand = self._delivery.kept(errand_id)
            if errand is None:
                raise
        if errand is None:
            raise NotFoundError(
                f"no errand {errand_id}; they are forgotten after 10 minutes, or when others need the place"
            )
        return errand

    def _choose(self, service: str, endpoint: str, limit: int) -> tuple[list[Endpoint], int]:
        if endpoint:
            key = endpoint_key(service, endpoint, "$.endpoint")
            named = self._cache.find(key)
            if named is None:
                self._cache.check_sure(service)
                raise UnknownEndpointError(service, endpoint)
            return [named], 1
        if not self._cache.knows(service):
            raise UnknownServiceError(service)
        chosen, registrars = choose(self._cache.get(service).endpoints.values(), limit)
        if not chosen:
            raise NotFoundError(f"{service} has no endpoint that is renewed now; there is nobody to ask")
        return chosen, registrars

    async def _service_of(self, name: str) -> str:
        """Return the service that has an endpoint of this address, where one has."""
        address_port = endpoint_key("any", name, "$.endpoint")[1:]
        snapshots = list(self._cache.services().values())
        services = [
            snapshot.service
            async for snapshot in cooperatively(snapshots)
            if (endpoint := self._cache.find((snapshot.service, *address_port))) is not None and endpoint.alive
        ]
        if not services:
            raise NotFoundError(f"no service has an endpoint {name} that is renewed now")
        if len(services) > 1:
            raise InvalidError(f"{name} is in {', '.join(sorted(services))}; name the service too", "$.service")
        return services[0]

    def _new(self, endpoint: Endpoint) -> store.NewErrand:
        return store.NewErrand(
            secrets.token_hex(8),
            endpoint.service,
            endpoint.address,
            endpoint.port,
            endpoint.registration.instance_id,
            self._cache.get(endpoint.service).version,
        )

    def _key(self, name: str) -> Key:
        service, _, endpoint = name.partition("/")
        return endpoint_key(service, endpoint, "query:endpoint")

    def _is_of(self, key: Key, instance_id: str) -> bool:
        endpoint = self._cache.find(key)
        return endpoint is not None and endpoint.registration.instance_id == instance_id

    def _may_take(self, principal: Principal, instance_id: str, errand: StoredErrand) -> bool:
        """Return whether a registrar may get an errand, now that it is handed out."""
        if errand.instance_id != instance_id or principal.subject.ended:
            return False
        try:
            self._policy.allow(principal, Verb.REGISTER, errand.service, errand.endpoint, instance_id)
            self._registrations.check_owners(principal, [errand.key])
        except RegistryError:
            return False
        return True


def handed_out(errand: StoredErrand | None, retry_after: float = 0.0) -> NextErrand:
    """Return an errand as its registrar gets it; None: there is none."""
    if errand is None:
        return NextErrand(retry_after=retry_after)
    return NextErrand(
        Errand(errand.id, errand.service, errand.endpoint, errand.arguments, errand.seconds_left, errand.callee)
    )


def _too_large(size: int) -> ErrandResult:
    return ErrandResult(
        "failed", f"the registrar's result has {size} bytes, and {MAX_RESULT_BYTES} are taken; ask for less of it"
    )
